//! One question to an Accounts service: which protocol it speaks, what goes along, and what its answers mean.
//!
//! UNAUTHENTICATED and NOT_FOUND mean that the token belongs to no account. Everything else but OK means that the service
//! could not be asked; PERMISSION_DENIED too, which is what a mesh says when it does not let Larder through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use zeroize::Zeroizing;

use super::super::Account;
use super::super::answer::{self, AnswerError};
use super::super::hash::Digest;
use super::RemoteService;
use crate::rpc::metadata::DRY_RUN;
use crate::rpc::proto::{tutorial, v1};
use crate::server::trace::{Kind, Traced, names};

/// What is asked, and on whose behalf.
#[derive(Clone)]
pub(super) struct Question {
    pub(super) token: Zeroizing<String>,
    pub(super) digest: Digest,
    pub(super) timeout: Duration,
    pub(super) trace: Traced,
    pub(super) dry_run: bool,
}

/// What the service says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The account, and whether the token may only read.
    Known(Account, bool),
    Unknown,
}

/// One call to the service.
struct Asked(Traced);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AskError {
    #[error("it did not answer within the caller's deadline")]
    Deadline,
    #[error("it answered {code:?}: {message}")]
    Status { code: Code, message: String },
    #[error("its answer makes no sense: {0}")]
    Answer(#[from] AnswerError),
    #[error("it serves neither larder.v1.Accounts nor rpc.Accounts; does --accounts-url lead to an Accounts service?")]
    NoSuchService,
}

/// Who can be asked.
pub(super) trait Ask: Send + Sync {
    fn ask(&self, question: Question) -> BoxFuture<'static, Result<Answer, AskError>>;
}

/// A gRPC server.
#[derive(Clone, Debug)]
pub(super) struct GrpcAsk {
    channel: Channel,
    /// The protocol to speak; `UNDECIDED` until the server has answered in one. Then it stays: in the other one the same
    /// token might be an account of another name, whose keys are not there.
    protocol: Arc<AtomicU8>,
}

const UNDECIDED: u8 = 0;
const LARDER: u8 = 1;
const TUTORIAL: u8 = 2;

/// Bytes of an answer: an account has a few hundred.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Characters of a status message that are kept for the log.
const MAX_MESSAGE: usize = 200;

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question").field("digest", &self.digest).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl GrpcAsk {
    pub(super) fn new(channel: Channel, service: RemoteService) -> Self {
        let protocol = match service {
            RemoteService::Auto => UNDECIDED,
            RemoteService::Larder => LARDER,
            RemoteService::Tutorial => TUTORIAL,
        };
        Self { channel, protocol: Arc::new(AtomicU8::new(protocol)) }
    }

    async fn ask_any(self, mut question: Question) -> Result<Answer, AskError> {
        match self.protocol.load(Ordering::Relaxed) {
            LARDER => self.ask_larder(&question).await?.ok_or_else(unimplemented),
            TUTORIAL => self.ask_tutorial(&question).await?.ok_or_else(unimplemented),
            _ => {
                let give_up = Instant::now() + question.timeout;
                if let Some(answer) = self.ask_larder(&question).await? {
                    self.protocol.store(LARDER, Ordering::Relaxed);
                    return Ok(answer);
                }
                question.timeout = give_up.saturating_duration_since(Instant::now());
                let answer = self.ask_tutorial(&question).await?.ok_or(AskError::NoSuchService)?;
                self.protocol.store(TUTORIAL, Ordering::Relaxed);
                Ok(answer)
            }
        }
    }

    /// `None`: the server does not serve that.
    async fn ask_larder(&self, question: &Question) -> Result<Option<Answer>, AskError> {
        let mut client =
            v1::accounts_client::AccountsClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let (request, asked) =
            question.request(names::ASK, v1::GetByTokenRequest { token: question.token.to_string() });
        match asked.over(client.get_by_token(request).await) {
            Ok(answer) => known(answer::of_v1(answer.into_inner().account, &question.digest)),
            Err(status) => question.unknown(&status),
        }
    }

    /// `None`: the server does not serve that.
    async fn ask_tutorial(&self, question: &Question) -> Result<Option<Answer>, AskError> {
        let mut client = tutorial::accounts_client::AccountsClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_ANSWER_BYTES);
        let (request, asked) =
            question.request(names::ASK_TUTORIAL, tutorial::GetByTokenReq { token: question.token.to_string() });
        match asked.over(client.get_by_token(request).await) {
            Ok(answer) => known(answer::of_tutorial(answer.into_inner().account, &question.digest)),
            Err(status) => question.unknown(&status),
        }
    }
}

impl Ask for GrpcAsk {
    fn ask(&self, question: Question) -> BoxFuture<'static, Result<Answer, AskError>> {
        Box::pin(self.clone().ask_any(question))
    }
}

impl Asked {
    fn over<T>(self, said: Result<T, Status>) -> Result<T, Status> {
        if let Some(span) = self.0.span() {
            span.end(said.as_ref().err().map_or(Code::Ok, Status::code));
        }
        said
    }
}

impl Question {
    /// The request, and the span of its way if it is recorded.
    fn request<T>(&self, method: &'static str, message: T) -> (Request<T>, Asked) {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        let asked = Asked(self.trace.child(Kind::Client, method));
        if let Some(span) = asked.0.span() {
            span.note(names::SYSTEM, "grpc");
            span.note(names::METHOD, method);
        }
        if let Some(trace) = asked.0.context() {
            trace.write(request.metadata_mut().as_mut());
        }
        if self.dry_run {
            request.metadata_mut().insert(DRY_RUN, tonic::metadata::MetadataValue::from_static("1"));
        }
        (request, asked)
    }

    /// `None`: the server does not serve that. A message that repeats the token is kept without it.
    fn unknown(&self, status: &Status) -> Result<Option<Answer>, AskError> {
        match status.code() {
            Code::Unauthenticated | Code::NotFound => Ok(Some(Answer::Unknown)),
            Code::Unimplemented => Ok(None),
            code => {
                let message =
                    status.message().replace(self.token.as_str(), "(token)").chars().take(MAX_MESSAGE).collect();
                Err(AskError::Status { code, message })
            }
        }
    }
}

fn known(answer: Result<(Account, bool), AnswerError>) -> Result<Option<Answer>, AskError> {
    let (account, read_only) = answer?;
    Ok(Some(Answer::Known(account, read_only)))
}

fn unimplemented() -> AskError {
    let message = "the service that it served before, or that --accounts-service names, is not there".into();
    AskError::Status { code: Code::Unimplemented, message }
}
