//! The Accounts service that a replica is for others: whose token is this, and what may it do. Both APIs ask it.

use bytes::Bytes;

use super::accounts::api;
use super::call::Call;
use super::codec::encode;
use crate::rpc::convert;
use crate::rpc::failure::Failure;
use crate::rpc::proto::{tutorial, v1};

/// `larder.v1.Accounts/GetByToken`.
///
/// # Errors
/// When the token is unknown, or the accounts cannot be asked.
pub async fn answer(call: &Call, message: Bytes) -> Result<Bytes, Failure> {
    let request: v1::GetByTokenRequest = convert::decode(message)?;
    let account = api::get_by_token(&call.connection().wall.accounts, &request.token, &call.asking()).await?;
    Ok(encode::frame(&v1::GetByTokenResponse { account: Some(account) }))
}

/// `rpc.Accounts/GetByToken`.
///
/// # Errors
/// As [`answer`].
pub async fn tutorial(call: &Call, message: Bytes) -> Result<Bytes, Failure> {
    let request: tutorial::GetByTokenReq = convert::decode(message)?;
    let accounts = &call.connection().wall.accounts;
    let account = api::get_by_token_tutorial(accounts, &request.token, &call.asking()).await?;
    Ok(encode::frame(&tutorial::GetByTokenResp { account: Some(account) }))
}
