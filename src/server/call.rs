//! A call from its headers to its end: what the wall found out about it, and its record. However a call ends, also by being
//! dropped because its caller went away, it is counted and logged exactly once.

use std::sync::Arc;

use tokio::time::Instant;
use tonic::Code;

use super::accounts::Asking;
use super::method::Method;
use super::metrics::Refusal;
use super::trace::{Span, Traced, names};
use super::wall::Connection;
use super::wall::registry::Principal;
use crate::cache::store::{Mode, Scope};
use crate::rpc::failure::Failure;

/// A call in progress.
#[derive(Debug)]
pub struct Call {
    connection: Arc<Connection>,
    pub method: Method,
    pub started: Instant,
    /// When it must have ended.
    pub deadline: Option<Instant>,
    pub dry_run: bool,
    /// Who calls; `None` until the wall knows, and for methods without an account.
    pub principal: Option<Arc<Principal>>,
    /// Its place in a trace, and its span if it is recorded.
    pub traced: Traced,
    /// Bytes of request messages read so far.
    pub bytes_in: u64,
    /// Bytes of answers made so far.
    pub bytes_out: u64,
    open: bool,
}

impl Call {
    /// A call begins, now.
    #[must_use]
    pub fn begin(connection: Arc<Connection>, method: Method) -> Self {
        connection.worker.begin(method);
        Self {
            connection,
            method,
            started: Instant::now(),
            deadline: None,
            dry_run: false,
            principal: None,
            traced: Traced::No,
            bytes_in: 0,
            bytes_out: 0,
            open: true,
        }
    }

    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// On whose behalf accounts are asked.
    #[must_use]
    pub fn asking(&self) -> Asking {
        Asking { deadline: self.deadline, trace: self.traced.clone(), dry_run: self.dry_run }
    }

    #[must_use]
    pub fn mode(&self) -> Mode {
        mode(self.dry_run)
    }

    /// Whom the call belongs to.
    ///
    /// # Errors
    /// [`Failure::TokenMissing`] when the wall let it in without a token.
    pub fn principal(&self) -> Result<&Arc<Principal>, Failure> {
        self.principal.as_ref().ok_or(Failure::TokenMissing)
    }

    /// Whether it is too late for an answer.
    ///
    /// # Errors
    /// [`Failure::DeadlineExceeded`].
    pub fn in_time(&self) -> Result<(), Failure> {
        if self.deadline.is_some() { self.in_time_at(Instant::now()) } else { Ok(()) }
    }

    /// The same at a moment just read.
    ///
    /// # Errors
    /// [`Failure::DeadlineExceeded`].
    pub fn in_time_at(&self, now: Instant) -> Result<(), Failure> {
        if self.deadline.is_some_and(|deadline| now >= deadline) { Err(Failure::DeadlineExceeded) } else { Ok(()) }
    }

    /// It failed before its operation had any effect.
    pub fn refuse(self, failure: &Failure) {
        if let Some(refusal) = Refusal::of(failure) {
            self.connection.worker.refuse(refusal);
        }
        self.finish(failure.code());
    }

    /// It has ended.
    pub fn finish(mut self, code: Code) {
        self.record(code);
    }

    /// Says so in the log.
    #[cold]
    pub fn panicked(&self) {
        let (trace_id, span_id) = (self.traced.trace_id(), self.traced.span_id());
        tracing::error!(method = self.method.traits().name, trace_id, span_id, "a handler panicked");
    }

    fn record(&mut self, code: Code) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let took = self.started.elapsed();
        self.connection.worker.end(self.method, code, took, self.bytes_in, self.bytes_out);
        if let Some(principal) = &self.principal {
            principal.state.count(1, self.bytes_in, self.bytes_out);
        }
        if tracing::enabled!(target: "larder::access", tracing::Level::INFO) {
            self.log(code, took);
        }
        if let Traced::Recorded(span) = &self.traced {
            self.end_span(span, code);
        }
    }

    #[cold]
    fn end_span(&self, span: &Span, code: Code) {
        self.describe(span, self.method);
        self.connection.wall.end_span(span, self.method, code);
    }

    /// What every span of this call tells, and of the items in it.
    pub fn describe(&self, span: &Span, method: Method) {
        span.note(names::SYSTEM, "grpc");
        span.note(names::METHOD, method.traits().name);
        span.note(names::HOP, 0);
        span.note(names::PEER_ADDRESS, self.connection.peer.ip().to_string());
        span.note(names::PEER_PORT, i64::from(self.connection.peer.port()));
        if let Some(principal) = &self.principal {
            span.note(names::ACCOUNT, principal.state.tenant.id().to_string());
        }
        if self.dry_run {
            span.note(names::DRY_RUN, true);
        }
    }

    #[cold]
    fn log(&self, code: Code, took: std::time::Duration) {
        tracing::info!(
            target: "larder::access",
            method = self.method.traits().name,
            code = ?code,
            duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            account = self.principal.as_ref().map(|principal| principal.state.tenant.id().as_str()),
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            peer = %self.connection.peer,
            trace_id = self.traced.trace_id(),
            span_id = self.traced.span_id(),
            dry_run = self.dry_run.then_some(true),
            "call"
        );
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Its caller went away, or its connection.
        self.record(Code::Cancelled);
    }
}

impl Principal {
    /// The account's own key space, charged to itself.
    #[must_use]
    pub fn scope(&self, mode: Mode) -> Scope<'_> {
        Scope { space: &self.state.tenant, charge: Some(&self.state.tenant), mode }
    }
}

/// The store's word for a dry run.
#[must_use]
pub fn mode(dry_run: bool) -> Mode {
    if dry_run { Mode::DryRun } else { Mode::Apply }
}
