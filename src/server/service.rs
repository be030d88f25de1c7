//! The operations of the cache, on one key each: what a unary call, an item of a batch and a call in a pipeline do. Nothing
//! here waits, so an operation that has begun is over before its deadline could pass; what this replica may not carry out
//! now comes back as a [`Cannot`].
//!
//! Not here: who may (the wall), how messages travel (`codec`), what a request must look like (`rpc::convert`), and what
//! becomes of another replica's key (`forward`).

use bytes::Bytes;
use tokio::time::Instant;

use super::accounts::Limits;
use super::call::Call;
use super::codec::encode::{self, Value};
use super::forward::Cannot;
use super::method::Method;
use super::wall::Wall;
use super::wall::registry::Principal;
use crate::cache::key::Key;
use crate::cache::store::{Condition, EntryRef, Mode, Scope, Store};
use crate::cache::version::Now;
use crate::rpc::convert::{self, DeleteCall, IncrementCall, StoreCall, TouchCall, TtlPolicy, TutorialStoreCall};
use crate::rpc::failure::Failure;
use crate::rpc::proto::{tutorial, v1};

/// The store, for one caller at one moment.
#[derive(Clone, Copy)]
pub struct Operations<'a> {
    store: &'a Store,
    scope: Scope<'a>,
    now: Now,
    pub ttl: TtlPolicy,
}

impl<'a> Operations<'a> {
    /// Operations of an account on its own keys.
    #[must_use]
    pub fn of(wall: &'a Wall, principal: &'a Principal, mode: Mode, now: Instant) -> Self {
        Self::new(wall, principal.scope(mode), ttl_policy(principal.limits()), now)
    }

    /// Operations on behalf of somebody; `ttl` is what their account says.
    #[must_use]
    pub fn new(wall: &'a Wall, scope: Scope<'a>, ttl: TtlPolicy, now: Instant) -> Self {
        let ttl = ttl.at_most(wall.config.max_ttl_ms);
        Self { store: &wall.store, scope, now: wall.clock.at(now.into_std()), ttl }
    }

    /// The same, changed or not by a dry run of the item's own.
    #[must_use]
    pub fn with_mode(self, mode: Mode) -> Self {
        Self { scope: Scope { mode, ..self.scope }, ..self }
    }

    /// Reads a value where it lies, under its shard's lock.
    ///
    /// # Errors
    /// [`Failure::NotFound`].
    fn get<R>(&self, key: Key<'_>, read: impl FnOnce(&EntryRef<'_>, Now) -> R) -> Result<R, Cannot> {
        let (space, read) = (self.scope.space, |entry: &EntryRef<'_>| read(entry, self.now));
        let answer = match self.scope.mode {
            Mode::Apply => self.store.read(space, key, self.now, read),
            Mode::DryRun | Mode::DryRunThatFits => self.store.peek(space, key, self.now, read),
        };
        answer.map_err(Cannot::Elsewhere)?.ok_or(Cannot::Fail(Failure::NotFound))
    }

    /// Reads a value to encode it: a small one where it lies, a large one without its shard's lock.
    ///
    /// # Errors
    /// [`Failure::NotFound`].
    pub fn value<R>(&self, key: Key<'_>, put: impl FnOnce(&Value<'_>) -> R) -> Result<R, Cannot> {
        let mut put = Some(put);
        let used = self.get(key, |entry, now| Value::new(entry, now).use_or_share(&mut put))?;
        // It is called once, there or here.
        used.finish(&mut put).ok_or(Cannot::Fail(Failure::Internal))
    }

    /// The same without version and time to live, as the tutorial's API answers it.
    ///
    /// # Errors
    /// [`Failure::NotFound`].
    pub fn bare_value<R>(&self, key: Key<'_>, put: impl FnOnce(&Value<'_>) -> R) -> Result<R, Cannot> {
        let mut put = Some(put);
        let used = self.get(key, |entry, _| Value::bare(entry).use_or_share(&mut put))?;
        used.finish(&mut put).ok_or(Cannot::Fail(Failure::Internal))
    }

    /// # Errors
    /// When the condition fails or there is no room.
    pub fn store(&self, call: StoreCall<'_>) -> Result<v1::StoreResponse, Cannot> {
        let version = self.store.store(self.scope, call.key, call.value, call.ttl_ms, call.condition, self.now)?;
        Ok(v1::StoreResponse { version: version.as_u64() })
    }

    /// # Errors
    /// When it is another version.
    pub fn delete(&self, call: DeleteCall<'_>) -> Result<v1::DeleteResponse, Cannot> {
        let existed = self.store.delete(self.scope, call.key, call.if_version, self.now)?;
        Ok(v1::DeleteResponse { existed })
    }

    /// # Errors
    /// [`Failure::NotFound`].
    pub fn touch(&self, call: TouchCall<'_>) -> Result<v1::TouchResponse, Cannot> {
        let touched = self.store.touch(self.scope, call.key, call.ttl_ms, call.mode, self.now)?;
        Ok(v1::TouchResponse {
            remaining_ttl_ms: touched.remaining_ttl_ms.unwrap_or(0),
            version: touched.version.as_u64(),
            changed: touched.changed,
        })
    }

    /// # Errors
    /// When it is no counter, overflows, or there is no room.
    pub fn increment(&self, call: IncrementCall<'_>) -> Result<v1::IncrementResponse, Cannot> {
        let counted = self.store.increment(self.scope, call.key, call.delta, call.request_id, call.ttl_ms, self.now)?;
        Ok(v1::IncrementResponse { value: counted.value, version: counted.version.as_u64() })
    }
}

/// Carries out a unary call of `larder.v1.Cache` at a moment just read; answers its frame.
///
/// # Errors
/// When it may not run here, or fails.
pub fn unary(wall: &Wall, call: &Call, message: Bytes, now: Instant) -> Result<Bytes, Cannot> {
    run(Operations::of(wall, call.principal()?, call.mode(), now), call.method, message)
}

/// Carries out an operation on one key; answers its frame.
///
/// # Errors
/// When it may not run here, or fails.
pub fn run(operations: Operations<'_>, method: Method, message: Bytes) -> Result<Bytes, Cannot> {
    match method {
        Method::Get => {
            let request: v1::GetRequest = convert::decode(message)?;
            operations.value(convert::get_call(&request)?, |value| value.to_frame())
        }
        Method::Store => {
            let request: v1::StoreRequest = convert::decode(message)?;
            Ok(encode::frame(&operations.store(convert::store_call(&request, operations.ttl)?)?))
        }
        Method::Delete => {
            let request: v1::DeleteRequest = convert::decode(message)?;
            Ok(encode::frame(&operations.delete(convert::delete_call(&request)?)?))
        }
        Method::Touch => {
            let request: v1::TouchRequest = convert::decode(message)?;
            Ok(encode::frame(&operations.touch(convert::touch_call(&request, operations.ttl)?)?))
        }
        Method::Increment => {
            let request: v1::IncrementRequest = convert::decode(message)?;
            Ok(encode::frame(&operations.increment(convert::increment_call(&request, operations.ttl)?)?))
        }
        Method::TutorialGet => {
            let request: tutorial::GetReq = convert::decode(message)?;
            operations.bare_value(convert::tutorial_get_call(&request)?, |value| value.to_frame())
        }
        Method::TutorialStore => {
            let request: tutorial::StoreReq = convert::decode(message)?;
            let TutorialStoreCall { key, value } = convert::tutorial_store_call(&request)?;
            operations.store(StoreCall { key, value, ttl_ms: None, condition: Condition::Always })?;
            Ok(encode::frame(&tutorial::StoreResp {}))
        }
        other => Err(Cannot::Fail(Failure::UnknownMethod(other.traits().name.to_owned()))),
    }
}

/// What an account's limits say about times to live.
#[must_use]
pub fn ttl_policy(limits: &Limits) -> TtlPolicy {
    TtlPolicy { default_ms: limits.default_ttl_ms, max_ms: limits.max_ttl_ms }
}
