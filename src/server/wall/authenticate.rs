//! Who calls. A connection remembers the last token that came over it, so that a call costs a comparison and not a hash; the
//! comparison takes the same time wherever two tokens differ.

use std::sync::Arc;

use http::HeaderMap;
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;

use super::registry::Principal;
use super::{Admission, Connection};
use crate::rpc::failure::Failure;
use crate::rpc::metadata;
use crate::rpc::token::Token;
use crate::server::accounts::{Asking, Grant};
use crate::server::call::Call;
use crate::server::method::Method;

/// The last token of a connection and whom it stands for.
pub(super) struct Remembered {
    token: Token,
    principal: Arc<Principal>,
    generation: u64,
}

impl Connection {
    /// Finds the caller from the metadata, and lets it in.
    pub(super) fn authenticate(&self, call: &mut Call, headers: &HeaderMap) -> Result<Admission, Failure> {
        match metadata::bearer(headers)? {
            Some(text) => self.admit_token(call, text),
            // Store alone may carry its token in the message, for callers that cannot send metadata.
            None if call.method == Method::Store => Ok(Admission::InMessage),
            None => Err(Failure::TokenMissing),
        }
    }

    /// Lets the holder of a token in, if who it is can be said without waiting.
    pub(in crate::server) fn admit_token(&self, call: &mut Call, text: &str) -> Result<Admission, Failure> {
        match self.principal(text) {
            Some(principal) => {
                self.enter(call, principal?)?;
                Ok(Admission::In)
            }
            None => Token::new(text).map(Admission::Ask).map_err(|_| Failure::TokenUnknown),
        }
    }

    /// Whom a token stands for, if that is known without waiting.
    pub(in crate::server) fn principal(&self, text: &str) -> Option<Result<Arc<Principal>, Failure>> {
        // Read before the answer that is kept with it: an answer may be newer than its number, never older.
        let generation = self.wall.accounts.generation();
        if let Some(known) = &*self.remembered.lock()
            && known.generation == generation
            && known.principal.grant.valid_until.is_none_or(|until| Instant::now() < until)
            && bool::from(known.token.expose().as_bytes().ct_eq(text.as_bytes()))
        {
            return Some(Ok(known.principal.clone()));
        }
        self.wall.apply_accounts();
        let grant = self.wall.accounts.cached(text)?;
        Some(grant.map(|grant| self.remember(text, grant, generation)))
    }

    /// Asks the accounts, within the call's deadline, and lets the caller in.
    ///
    /// # Errors
    /// As [`crate::server::accounts::Accounts::grant`], and what the wall says.
    pub(in crate::server) async fn ask(&self, call: &mut Call, token: &Token) -> Result<(), Failure> {
        let principal = self.ask_principal(&call.asking(), token).await?;
        self.enter(call, principal)
    }

    /// Asks the accounts whom a token stands for.
    ///
    /// # Errors
    /// As [`crate::server::accounts::Accounts::grant`].
    pub(in crate::server) async fn ask_principal(
        &self,
        asking: &Asking,
        token: &Token,
    ) -> Result<Arc<Principal>, Failure> {
        let generation = self.wall.accounts.generation();
        let grant = self.wall.accounts.grant(token.expose(), asking).await?;
        Ok(self.remember(token.expose(), grant, generation))
    }

    fn remember(&self, text: &str, grant: Grant, generation: u64) -> Arc<Principal> {
        let principal = Principal::new(&self.wall.accounted, grant);
        if let Ok(token) = Token::new(text) {
            *self.remembered.lock() = Some(Remembered { token, principal: principal.clone(), generation });
        }
        principal
    }
}
