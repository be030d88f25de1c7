//! What `/larder.v1.Accounts/GetByToken` and `/rpc.Accounts/GetByToken` answer: the accounts that this server itself uses,
//! so that it can be the remote Accounts service of others.
//!
//! Whoever holds a token may read its limits, and needs nothing else for it.

use super::answer::{to_tutorial, to_v1};
use super::{Accounts, Asking};
use crate::rpc::failure::Failure;
use crate::rpc::proto::{tutorial, v1};

/// Answers `larder.v1.Accounts/GetByToken`.
///
/// # Errors
/// Those of [`Accounts::grant`].
pub async fn get_by_token(accounts: &Accounts, token: &str, asking: &Asking) -> Result<v1::Account, Failure> {
    accounts.grant(token, asking).await.map(|grant| to_v1(&grant))
}

/// Answers the tutorial's `rpc.Accounts/GetByToken`.
///
/// # Errors
/// Those of [`Accounts::grant`].
pub async fn get_by_token_tutorial(
    accounts: &Accounts,
    token: &str,
    asking: &Asking,
) -> Result<tutorial::Account, Failure> {
    accounts.grant(token, asking).await.map(|grant| to_tutorial(&grant))
}
