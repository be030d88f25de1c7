//! Peers' messages to values and back: all validation of what another replica says. Nothing behind it checks again, and
//! nothing malformed gets past it; another replica may be of another release, or not be one at all.
//!
//! Not here: the fence, and whether a message is for this process ([`crate::ownership`]); forwarded operations' own messages,
//! which travel unread.

use std::sync::Arc;

use bytes::Bytes;

use super::proto::peer::v1 as pb;
use crate::ownership::member::MemberId;
use crate::ownership::message::{Refusal, Stamp};
use crate::ownership::view::{Digest, View};

mod copies;
mod exchange;
mod quota;
mod written;

pub use exchange::{answer_frame, answer_of, answer_of_kind, answer_to, request_of, request_to};
pub use written::write_copy;

/// The newest protocol between replicas that this release speaks, and the only one.
pub const PROTOCOL: u32 = 1;

/// Bytes of a pod's uid: what Kubernetes allows a name to have.
pub const MAX_UID_BYTES: usize = 253;

/// Bytes of a cluster's name.
pub const MAX_CLUSTER_BYTES: usize = 63;

/// Bytes of copies in one message, about: one more than fits is sent alone. An entry of any size fits a message of twice that.
pub const MAX_COPIES_BYTES: usize = 4 * 1024 * 1024 - 64 * 1024;

/// Bytes of one message of the hand-off: a page with one entry of the largest size beyond, and a view.
pub const MAX_EXCHANGE_BYTES: usize = 16 * 1024 * 1024;

/// Why a message of a peer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed: {0}")]
pub struct Malformed(pub &'static str);

/// Who is being spoken to does not belong here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    #[error("it belongs to the cluster `{0}`; give each cluster a peer Service of its own")]
    Cluster(String),
    #[error("it says no protocol number")]
    Protocol,
}

/// How a conversation begins.
#[must_use]
pub fn hello_to(cluster: &str) -> pb::Hello {
    pb::Hello { protocol: PROTOCOL, cluster: cluster.to_owned() }
}

/// The protocol to speak: the lower of both numbers.
///
/// # Errors
/// When the other is not of this cluster, or speaks none.
pub fn hello_of(hello: Option<&pb::Hello>, cluster: &str) -> Result<u32, Stranger> {
    let hello = hello.filter(|hello| hello.protocol > 0).ok_or(Stranger::Protocol)?;
    if hello.cluster != cluster {
        let shown = &hello.cluster[..hello.cluster.floor_char_boundary(MAX_CLUSTER_BYTES)];
        return Err(Stranger::Cluster(shown.escape_debug().collect()));
    }
    Ok(hello.protocol.min(PROTOCOL))
}

#[must_use]
pub fn stamp_to(stamp: &Stamp) -> pb::Stamp {
    pb::Stamp {
        from: Some(member_to(&stamp.from)),
        to: Some(member_to(&stamp.to)),
        digest: Bytes::copy_from_slice(&stamp.digest.as_u128().to_be_bytes()),
        view: stamp.view.as_ref().map(|view| view.to_bytes().into()).unwrap_or_default(),
        clock_us: stamp.clock_us,
    }
}

/// The view may be a part of the sender's, so nothing says that it is the one of the digest.
///
/// # Errors
/// When it is not whole.
pub fn stamp_of(stamp: Option<pb::Stamp>) -> Result<Stamp, Malformed> {
    let stamp = stamp.ok_or(Malformed("a message without a stamp"))?;
    let digest: [u8; 16] = (&*stamp.digest).try_into().map_err(|_| Malformed("a digest that has not 16 bytes"))?;
    let digest = Digest::from_u128(u128::from_be_bytes(digest));
    let view = match &*stamp.view {
        [] => None,
        bytes => Some(View::from_bytes(bytes).map_err(|_| Malformed("a view that cannot be read"))?),
    };
    Ok(Stamp {
        from: member_of(stamp.from)?,
        to: member_of(stamp.to)?,
        digest,
        view: view.map(Arc::new),
        clock_us: stamp.clock_us,
    })
}

#[must_use]
pub fn member_to(id: &MemberId) -> pb::Member {
    pb::Member { uid: id.uid.as_str().to_owned(), boot: id.boot }
}

/// # Errors
/// When it has no uid, or one that is too long.
pub fn member_of(member: Option<pb::Member>) -> Result<MemberId, Malformed> {
    let member = member.filter(|member| (1..=MAX_UID_BYTES).contains(&member.uid.len()));
    let member = member.ok_or(Malformed("a member without a uid, or with one over 253 bytes"))?;
    Ok(MemberId::new(&member.uid, member.boot))
}

#[must_use]
pub fn refusal_to(refusal: Refusal) -> pb::Refusal {
    match refusal {
        Refusal::NotMe => pb::Refusal::NotMe,
        Refusal::ClockAhead => pb::Refusal::ClockAhead,
        Refusal::Over => pb::Refusal::Over,
        Refusal::Starting => pb::Refusal::Starting,
    }
}

/// Whether who refused so is to be treated as one who refuses connections: another process than the one meant listens there,
/// and what was said will never be heard. Not so a replica of another cluster: a claim that it "refused" would count as
/// cleared (rule 5), and it would come to own keys by a ring that the others do not talk to.
#[must_use]
pub fn is_refused_connection(refusal: i32) -> bool {
    matches!(pb::Refusal::try_from(refusal), Ok(pb::Refusal::NotMe | pb::Refusal::Over))
}

#[cfg(test)]
mod tests;
