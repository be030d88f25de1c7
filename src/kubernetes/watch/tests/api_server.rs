//! An API server that gives the answers of a list, one after the other, and then is silent.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, StreamBody};
use kube::Client;
use kube::client::Body;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tower_test::mock;

use super::*;

type ResponseBody = UnsyncBoxBody<Bytes, std::io::Error>;
type Handle = mock::Handle<Request<Body>, Response<ResponseBody>>;

pub struct ApiServer {
    calls: watch::Receiver<Vec<Call>>,
    follower: JoinHandle<()>,
    pub heard: LastHeard,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Call {
    pub at: Instant,
    pub path: String,
    pub query: String,
}

#[derive(Debug)]
pub enum Answer {
    Now(u16, Vec<Step>),
    /// The connection is refused.
    Refused,
    /// Neither an answer nor an end of the connection.
    Never,
}

/// A part of an answer's body.
#[derive(Clone, Debug)]
pub enum Step {
    Text(String),
    Pause(Duration),
    /// No more data, no end.
    Hang,
    /// The connection is lost.
    Break,
}

impl ApiServer {
    /// Starts it, and the source that follows it.
    pub fn start(answers: Vec<Answer>) -> (Self, watch::Receiver<Option<Arc<View>>>) {
        let mut answers = answers.into_iter();
        Self::answering(selection(), move |_| answers.next().unwrap_or(Answer::Never))
    }

    /// The same, with an answer for each call.
    pub fn answering(
        selection: Selection,
        mut answer: impl FnMut(&Call) -> Answer + Send + 'static,
    ) -> (Self, watch::Receiver<Option<Arc<View>>>) {
        let (service, mut handle): (_, Handle) = mock::pair();
        let (said, calls) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some((request, send)) = handle.next_request().await {
                let (path, query) =
                    (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
                let call = Call { at: Instant::now(), path, query };
                let answer = answer(&call);
                said.send_modify(|calls: &mut Vec<Call>| calls.push(call));
                match answer {
                    Answer::Now(code, steps) => send.send_response(response(code, steps)),
                    Answer::Refused => send.send_error(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)),
                    Answer::Never => unanswered.push(send),
                }
            }
        });
        let source = Slices::new(Client::new(service, "shop"), "shop", selection);
        let heard = source.last_heard();
        let (to, views) = watch::channel(None);
        let follower = tokio::spawn(source.run(to));
        (Self { calls, follower, heard }, views)
    }

    /// All calls so far, once there are that many.
    pub async fn calls(&self, count: usize) -> Vec<Call> {
        let mut calls = self.calls.clone();
        let waited = timeout(HOUR, calls.wait_for(|calls| calls.len() >= count)).await;
        waited.expect("the calls come within an hour").expect("the server runs").clone()
    }

    pub fn calls_so_far(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }

    pub async fn ended(self) {
        timeout(HOUR, self.follower).await.expect("it ends").expect("it does not panic");
    }
}

impl Call {
    pub fn get(&self, parameter: &str) -> Option<&str> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        let found = pairs.find(|(name, _)| *name == parameter)?.1;
        // The one thing here that is encoded.
        Some(match found {
            "kubernetes.io%2Fservice-name%3Dlarder" => "kubernetes.io/service-name=larder",
            other => other,
        })
    }

    pub fn is_watch(&self) -> bool {
        self.get("watch").is_some()
    }
}

impl Answer {
    pub fn text(text: &str) -> Self {
        Self::Now(200, vec![Step::Text(text.to_owned())])
    }

    pub fn json(value: &Value) -> Self {
        Self::text(&value.to_string())
    }

    pub fn status(code: u16) -> Self {
        Self::Now(code, vec![Step::Text(error(code).to_string())])
    }

    pub fn watch(steps: Vec<Step>) -> Self {
        Self::Now(200, steps)
    }
}

impl Step {
    pub fn line(value: &Value) -> Self {
        Self::Text(format!("{value}\n"))
    }
}

fn response(code: u16, steps: Vec<Step>) -> Response<ResponseBody> {
    let frames = stream::iter(steps).then(async |step| match step {
        Step::Text(text) => Some(Ok(Frame::data(Bytes::from(text)))),
        Step::Pause(time) => {
            sleep(time).await;
            None
        }
        Step::Hang => std::future::pending().await,
        Step::Break => Some(Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))),
    });
    let body = StreamBody::new(frames.filter_map(std::future::ready)).boxed_unsync();
    Response::builder().status(code).body(body).unwrap()
}
