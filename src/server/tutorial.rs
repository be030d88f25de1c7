//! The tutorial's API, `rpc.Cache`. All callers share one key space; a token says only whose quota a new key
//! counts against. So calls without a token meet the server's rate only, and with one the account's too.

use std::sync::Arc;

use bytes::Bytes;

use super::call::Call;
use super::codec::encode::{self, Value};
use super::drain::Watch;
use super::dump::Dump;
use super::wall::Wall;
use super::wall::registry::Principal;
use crate::cache::store::{Condition, EntryRef, Mode, Scope, StoreError};
use crate::rpc::convert;
use crate::rpc::failure::Failure;
use crate::rpc::proto::tutorial;
use crate::rpc::token::Token;

/// # Errors
/// When the token is unknown or may only read, or the store fails.
pub async fn store(call: &mut Call, message: Bytes) -> Result<Bytes, Failure> {
    let request: tutorial::StoreReq = convert::decode(message)?;
    let connection = call.connection().clone();
    if !request.account_token.is_empty() {
        let principal = principal(call, &request.account_token).await?;
        if principal.grant.read_only {
            return Err(Failure::TokenReadOnly);
        }
        connection.enter(call, principal)?;
    }
    let asked = convert::tutorial_store_call(&request)?;
    let wall = &connection.wall;
    let charge = call.principal.as_ref().map(|principal: &Arc<Principal>| &principal.state.tenant);
    let scope = Scope { space: &wall.tutorial, charge, mode: call.mode() };
    wall.store.store(scope, asked.key, asked.value, None, Condition::Always, wall.clock.now())?;
    Ok(encode::frame(&tutorial::StoreResp {}))
}

/// # Errors
/// [`Failure::NotFound`].
pub fn get(call: &Call, message: Bytes) -> Result<Bytes, Failure> {
    let request: tutorial::GetReq = convert::decode(message)?;
    let key = convert::tutorial_get_call(&request)?;
    let wall = &call.connection().wall;
    let (now, mut put) = (wall.clock.now(), Some(|value: &Value<'_>| value.to_frame()));
    let take = |entry: &EntryRef<'_>| Value::bare(entry).use_or_share(&mut put);
    let read = match call.mode() {
        Mode::Apply => wall.store.read(&wall.tutorial, key, now, take),
        Mode::DryRun | Mode::DryRunThatFits => wall.store.peek(&wall.tutorial, key, now, take),
    };
    read.map_err(StoreError::Elsewhere)?.ok_or(Failure::NotFound)?.finish(&mut put).ok_or(Failure::Internal)
}

/// # Errors
/// When the request cannot be decoded.
pub fn dump(wall: &Wall, message: Bytes, drain: Watch) -> Result<Dump, Failure> {
    let tutorial::DumpReq {} = convert::decode(message)?;
    Ok(Dump::of_tutorial(wall, drain))
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
