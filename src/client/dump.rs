//! A stream of entries. Memory is bounded by HTTP/2 flow control: what is not read is not sent.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use tonic::Streaming;

use super::error::Error;
use super::values::duration;
use crate::rpc::channels::Target;
use crate::rpc::failure::Failure;
use crate::rpc::proto::v1;

/// How long the next item may take. A server that walks past many entries of others is silent for a while.
const MAX_SILENCE: Duration = Duration::from_secs(30);

/// The entries of a dump, one by one.
#[derive(Debug)]
pub struct Dump {
    stream: Streaming<v1::DumpItem>,
    target: Target,
}

/// One entry of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedEntry {
    pub key: String,
    pub value: Bytes,
    pub version: u64,
    /// `None`: it does not expire.
    pub remaining_ttl: Option<Duration>,
    /// Where to go on if the dump breaks off; opaque.
    pub cursor: Bytes,
}

impl Dump {
    pub(super) fn new(stream: Streaming<v1::DumpItem>, target: Target) -> Self {
        Self { stream, target }
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// See [`Error`]; after a temporary one go on with a new dump from the last entry's cursor.
    pub async fn next(&mut self) -> Result<Option<DumpedEntry>, Error> {
        match tokio::time::timeout(MAX_SILENCE, self.stream.message()).await {
            Ok(Ok(item)) => Ok(item.map(DumpedEntry::from)),
            Ok(Err(status)) => Err(Error::of(&status, &self.target, true)),
            Err(_) => Err(Failure::DeadlineExceeded.into()),
        }
    }
}

impl Stream for Dump {
    type Item = Result<DumpedEntry, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let item = ready!(Pin::new(&mut self.stream).poll_next(cx));
        Poll::Ready(
            item.map(|item| item.map(DumpedEntry::from).map_err(|status| Error::of(&status, &self.target, true))),
        )
    }
}

impl From<v1::DumpItem> for DumpedEntry {
    fn from(item: v1::DumpItem) -> Self {
        Self {
            key: item.key,
            value: item.val,
            version: item.version,
            remaining_ttl: duration(item.remaining_ttl_ms),
            cursor: item.cursor,
        }
    }
}
