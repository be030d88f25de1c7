//! The operations of the cache, on one key each: what a unary call, an item of a batch and a call in a pipeline do. Nothing
//! here waits, so an operation that has begun is over before its deadline could pass.
//!
//! Not here: who may (the wall), how messages travel (`codec`), and what a request must look like (`rpc::convert`).

use bytes::Bytes;
use prost::Message;

use super::accounts::Limits;
use super::call::Call;
use super::codec::encode::{self, Value};
use super::method::Method;
use super::stats;
use super::wall::Wall;
use super::wall::registry::Principal;
use crate::cache::key::Key;
use crate::cache::store::{EntryRef, Mode, Scope, Store};
use crate::cache::version::Now;
use crate::rpc::convert::{self, DeleteCall, IncrementCall, StoreCall, TouchCall, TtlPolicy};
use crate::rpc::failure::Failure;
use crate::rpc::proto::v1;

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
    pub fn of(wall: &'a Wall, principal: &'a Principal, mode: Mode) -> Self {
        Self {
            store: &wall.store,
            scope: principal.scope(mode),
            now: wall.clock.now(),
            ttl: ttl_policy(principal.limits()).at_most(wall.config.max_ttl_ms),
        }
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
    pub fn get<R>(&self, key: Key<'_>, read: impl FnOnce(&EntryRef<'_>, Now) -> R) -> Result<R, Failure> {
        self.store.read(self.scope.space, key, self.now, |entry| read(entry, self.now)).ok_or(Failure::NotFound)
    }

    /// # Errors
    /// When the condition fails or there is no room.
    pub fn store(&self, call: StoreCall<'_>) -> Result<v1::StoreResponse, Failure> {
        let version = self.store.store(self.scope, call.key, call.value, call.ttl_ms, call.condition, self.now)?;
        Ok(v1::StoreResponse { version: version.as_u64() })
    }

    /// # Errors
    /// When it is another version.
    pub fn delete(&self, call: DeleteCall<'_>) -> Result<v1::DeleteResponse, Failure> {
        let existed = self.store.delete(self.scope, call.key, call.if_version, self.now)?;
        Ok(v1::DeleteResponse { existed })
    }

    /// # Errors
    /// [`Failure::NotFound`].
    pub fn touch(&self, call: TouchCall<'_>) -> Result<v1::TouchResponse, Failure> {
        let touched = self.store.touch(self.scope, call.key, call.ttl_ms, call.mode, self.now)?;
        Ok(v1::TouchResponse {
            remaining_ttl_ms: touched.remaining_ttl_ms.unwrap_or(0),
            version: touched.version.as_u64(),
            changed: touched.changed,
        })
    }

    /// # Errors
    /// When it is no counter, overflows, or there is no room.
    pub fn increment(&self, call: IncrementCall<'_>) -> Result<v1::IncrementResponse, Failure> {
        let counted = self.store.increment(self.scope, call.key, call.delta, call.request_id, call.ttl_ms, self.now)?;
        Ok(v1::IncrementResponse { value: counted.value, version: counted.version.as_u64() })
    }
}

/// Carries out a unary call of `larder.v1.Cache`; answers its frame.
///
/// # Errors
/// Whatever the call may fail with.
pub fn unary(wall: &Wall, call: &Call, message: Bytes) -> Result<Bytes, Failure> {
    let operations = Operations::of(wall, call.principal()?, call.mode());
    match call.method {
        Method::Get => {
            let request: v1::GetRequest = decode(message)?;
            operations.get(convert::get_call(&request)?, |entry, now| Value::new(entry, now).to_frame())
        }
        Method::Store => store(operations, &decode(message)?),
        Method::Delete => {
            let request: v1::DeleteRequest = decode(message)?;
            Ok(encode::frame(&operations.delete(convert::delete_call(&request)?)?))
        }
        Method::Touch => {
            let request: v1::TouchRequest = decode(message)?;
            Ok(encode::frame(&operations.touch(convert::touch_call(&request, operations.ttl)?)?))
        }
        Method::Increment => {
            let request: v1::IncrementRequest = decode(message)?;
            Ok(encode::frame(&operations.increment(convert::increment_call(&request, operations.ttl)?)?))
        }
        Method::Stats => {
            let v1::StatsRequest {} = decode(message)?;
            Ok(encode::frame(&stats::answer(wall, call.principal()?)))
        }
        other => Err(Failure::UnknownMethod(other.traits().name.to_owned())),
    }
}

/// A unary store whose message was decoded before, because the token was in it.
///
/// # Errors
/// Whatever a store may fail with.
pub fn unary_store(wall: &Wall, call: &Call, request: &v1::StoreRequest) -> Result<Bytes, Failure> {
    store(Operations::of(wall, call.principal()?, call.mode()), request)
}

/// Decodes a message.
///
/// # Errors
/// [`Failure::Malformed`].
pub fn decode<M: Message + Default>(message: Bytes) -> Result<M, Failure> {
    M::decode(message).map_err(|error| Failure::Malformed(error.to_string()))
}

/// What an account's limits say about times to live.
#[must_use]
pub fn ttl_policy(limits: &Limits) -> TtlPolicy {
    TtlPolicy { default_ms: limits.default_ttl_ms, max_ms: limits.max_ttl_ms }
}

fn store(operations: Operations<'_>, request: &v1::StoreRequest) -> Result<Bytes, Failure> {
    Ok(encode::frame(&operations.store(convert::store_call(request, operations.ttl)?)?))
}
