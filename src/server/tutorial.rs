//! The tutorial's API, `rpc.Cache`. All callers share one key space; a token says only whose quota a new key
//! counts against. So calls without a token meet the server's rate only, and with one the account's too.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use super::answer::Answered;
use super::call::Call;
use super::drain::Watch;
use super::dump::Dump;
use super::forward::{self, Forward};
use super::wall::registry::Principal;
use crate::rpc::convert;
use crate::rpc::failure::Failure;
use crate::rpc::proto::tutorial;
use crate::rpc::token::Token;

/// # Errors
/// When the token is unknown or may only read, or the store fails.
pub async fn store(call: &mut Call, mut message: Bytes) -> Result<Answered, Failure> {
    let mut request: tutorial::StoreReq = convert::decode(message.clone())?;
    let connection = call.connection().clone();
    if !request.account_token.is_empty() {
        let principal = principal(call, &request.account_token).await?;
        if principal.grant.read_only {
            return Err(Failure::TokenReadOnly);
        }
        connection.enter(call, principal)?;
        // It is not for other replicas.
        request.account_token.clear();
        message = request.encode_to_vec().into();
    }
    forward::anywhere(&connection.wall, &of_tutorial(call, message)).await
}

/// # Errors
/// [`Failure::NotFound`].
pub async fn get(call: &Call, message: Bytes) -> Result<Answered, Failure> {
    forward::anywhere(&call.connection().wall, &of_tutorial(call, message)).await
}

/// # Errors
/// When the request cannot be decoded.
pub fn dump(call: &Call, message: Bytes, drain: Watch) -> Result<Dump, Failure> {
    let tutorial::DumpReq {} = convert::decode(message)?;
    Ok(Dump::of_tutorial(call, drain))
}

/// An operation on the shared key space.
fn of_tutorial(call: &Call, message: Bytes) -> Forward {
    let payer = call.principal.as_ref().map(|principal| (principal.state.tenant.id().clone(), *principal.limits()));
    Forward {
        method: call.method,
        message,
        space: call.connection().wall.tutorial.id().clone(),
        payer,
        deadline: call.deadline,
        dry_run: call.dry_run,
        trace: call.traced.clone(),
    }
}

/// Whom a token in a message stands for.
async fn principal(call: &Call, text: &str) -> Result<Arc<Principal>, Failure> {
    let connection = call.connection();
    if let Some(principal) = connection.principal(text) {
        return principal;
    }
    let token = Token::new(text).map_err(|_| Failure::TokenUnknown)?;
    connection.ask_principal(&call.asking(), &token).await
}
