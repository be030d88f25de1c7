//! gRPC messages out of the pieces in which they come. A message over the limit is refused by its prefix, before it is
//! buffered.

use bytes::{Buf as _, Bytes, BytesMut};

use super::failure::Failure;
use super::wire::PREFIX_BYTES;

/// What came and is no whole message yet.
#[derive(Debug)]
pub struct Frames {
    /// If it is one piece.
    piece: Bytes,
    /// If it had to be put together.
    joined: BytesMut,
    limit: usize,
}

impl Frames {
    /// Of messages of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { piece: Bytes::new(), joined: BytesMut::new(), limit }
    }

    /// Bytes that came and were not taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.piece.len() + self.joined.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what came.
    pub fn clear(&mut self) {
        self.piece.clear();
        self.joined.clear();
    }

    pub fn push(&mut self, data: Bytes) {
        if self.is_empty() {
            self.piece = data;
        } else {
            self.joined.extend_from_slice(&std::mem::take(&mut self.piece));
            self.joined.extend_from_slice(&data);
        }
    }

    /// A message, if all of it is here.
    ///
    /// # Errors
    /// When it is none, or over the limit.
    pub fn take(&mut self) -> Result<Option<Bytes>, Failure> {
        let is_joined = !self.joined.is_empty();
        let came: &[u8] = if is_joined { &self.joined } else { &self.piece };
        let Some((prefix, rest)) = came.split_at_checked(PREFIX_BYTES) else { return Ok(None) };
        match prefix[0] {
            0 => {}
            1 => return Err(malformed("a message is flagged as compressed without `grpc-encoding`")),
            _ => return Err(malformed("a message has a flag other than 0 and 1")),
        }
        let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if length > self.limit {
            return Err(Failure::MessageTooLarge { limit: self.limit });
        }
        if rest.len() < length {
            return Ok(None);
        }
        let mut message = if is_joined {
            self.joined.split_to(PREFIX_BYTES + length).freeze()
        } else {
            self.piece.split_to(PREFIX_BYTES + length)
        };
        message.advance(PREFIX_BYTES);
        Ok(Some(message))
    }
}

fn malformed(problem: &str) -> Failure {
    Failure::Malformed(problem.to_owned())
}
