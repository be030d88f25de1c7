//! A gRPC message that is written field by field, by hand: small fields are copied once, into the buffer that goes to the
//! socket; large ones are shared and not copied at all.

use std::collections::VecDeque;

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::server::codec::PREFIX_BYTES;
use crate::server::codec::encode::{put_bytes, put_nested};

/// Bytes from which a field is shared and not copied: a piece more costs less than the copy.
pub(super) const SHARED_FROM_BYTES: usize = 16 * 1024;

/// A message being written.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// Where the message begins, once a piece follows it. The prefix is filled in at the end.
    head: Option<BytesMut>,
    rest: VecDeque<Bytes>,
    /// What is being written.
    open: BytesMut,
    /// Bytes in `head` and `rest`.
    closed: usize,
}

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes so far, prefix included.
    pub(super) fn len(&self) -> usize {
        self.closed + self.open.len()
    }

    /// Where to write.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        if self.is_empty() {
            self.open.put_bytes(0, PREFIX_BYTES);
        }
        &mut self.open
    }

    /// Appends a bytes field, also if it is empty.
    pub(super) fn put_shared(&mut self, tag: u32, bytes: &Bytes) {
        if bytes.len() < SHARED_FROM_BYTES {
            if bytes.is_empty() {
                put_nested(tag, 0, self.buffer());
            }
            put_bytes(tag, bytes, self.buffer());
            return;
        }
        put_nested(tag, bytes.len(), self.buffer());
        let open = self.open.split();
        self.closed += open.len() + bytes.len();
        match self.head {
            None => self.head = Some(open),
            Some(_) => self.rest.push_back(open.freeze()),
        }
        self.rest.push_back(bytes.clone());
    }

    /// The message, ready to be sent, piece by piece; the buffer is kept for the next.
    pub(super) fn finish(&mut self) -> VecDeque<Bytes> {
        let length = self.len() - PREFIX_BYTES.min(self.len());
        let open = self.open.split();
        let mut pieces = std::mem::take(&mut self.rest);
        self.closed = 0;
        let mut first = match self.head.take() {
            None => open,
            Some(head) => {
                if !open.is_empty() {
                    pieces.push_back(open.freeze());
                }
                head
            }
        };
        if let Some(prefix) = first.get_mut(1..PREFIX_BYTES) {
            // Messages are bounded far below 4 GiB.
            prefix.copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        }
        pieces.push_front(first.freeze());
        pieces
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::rpc::proto::peer::v1::ForwardedAnswer;
    use crate::rpc::proto::peer::v1::forwarded_answer::Outcome;
    use crate::server::codec::encode::put_number;

    #[test]
    fn a_message_is_the_same_whether_its_fields_are_copied_or_shared() {
        for lengths in [&[0][..], &[3], &[SHARED_FROM_BYTES], &[5, SHARED_FROM_BYTES, 7, SHARED_FROM_BYTES * 2]] {
            for tail in [false, true] {
                let mut outgoing = Outgoing::default();
                for &length in lengths {
                    outgoing.put_shared(2, &Bytes::from(vec![b'x'; length]));
                }
                if tail {
                    put_number(1, 9, outgoing.buffer());
                }
                let all: usize = outgoing.len();
                let pieces = outgoing.finish();
                let wire: Vec<u8> = pieces.iter().flatten().copied().collect();
                assert_eq!((wire.len(), outgoing.len()), (all, 0));
                assert_eq!(wire[..PREFIX_BYTES], [&[0][..], &u32::try_from(all - 5).unwrap().to_be_bytes()].concat());
                let heard = ForwardedAnswer::decode(&wire[PREFIX_BYTES..]).unwrap();
                let last = Bytes::from(vec![b'x'; *lengths.last().unwrap()]);
                assert_eq!((heard.id, heard.outcome), (u32::from(tail) * 9, Some(Outcome::Message(last))));
            }
        }
    }

    #[test]
    fn a_small_message_is_one_piece() {
        let mut outgoing = Outgoing::default();
        outgoing.put_shared(2, &Bytes::from("abc"));
        assert_eq!(outgoing.finish().len(), 1);
    }
}
