//! What the client knows of the replicas.

use std::collections::BTreeMap;
use std::fmt;

use crate::cache::key::{AccountId, AccountIdError, Key};
use crate::cache::route::route_hash;
use crate::ring::Ring;
use crate::rpc::proto::v1;

/// The replicas, and who owns which key of this account. Immutable; replaced whole.
#[derive(Clone)]
pub struct Topology {
    account: AccountId,
    digest: u64,
    members: Vec<Member>,
    ring: Ring,
    /// The members of the ring, as `ring.members()` has their addresses: indices into `members`.
    owners: Vec<usize>,
}

/// A replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// "ip:port" or "[ip]:port" of the port that clients use; its name on the ring.
    pub address: String,
    /// Of the pod or process.
    pub uid: String,
    /// Whether it owns keys.
    pub in_ring: bool,
    pub state: MemberState,
}

/// What a replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    Serving,
    /// It is there and does not serve: it starts, or its probes fail.
    NotServing,
    /// It hands its keys on and will end; it still answers.
    Leaving,
    /// It has ended in good order.
    Left,
    /// It was lost: others could not reach it.
    Lost,
    /// A newer Larder says something that this client does not know.
    Unknown,
}

impl Topology {
    /// What a replica says.
    ///
    /// # Errors
    /// When the account is none.
    pub(super) fn of(said: v1::WatchResponse) -> Result<Self, AccountIdError> {
        let account = AccountId::new(&said.account_id)?;
        let members: Vec<Member> = said.members.into_iter().map(Member::from).collect();
        let in_ring: BTreeMap<&str, usize> = (members.iter().enumerate())
            .filter(|(_, member)| member.in_ring)
            .map(|(index, member)| (member.address.as_str(), index))
            .collect();
        let ring = Ring::new(in_ring.keys());
        let owners = in_ring.into_values().collect();
        Ok(Self { account, digest: said.digest, members, ring, owners })
    }

    pub(super) fn account_id(&self) -> &AccountId {
        &self.account
    }

    /// The addresses of the members that own keys, as the ring numbers them.
    pub(super) fn ring(&self) -> &[Box<str>] {
        self.ring.members()
    }

    /// The number of a hash's owner.
    pub(super) fn owner_index(&self, hash: u64) -> Option<usize> {
        self.ring.owner_index(hash)
    }

    /// The account whose token the client shows.
    #[must_use]
    pub fn account(&self) -> &str {
        self.account.as_str()
    }

    /// Names it: two topologies are equal if and only if their digests are. 0: the replica is alone.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Whoever is listed; nobody if the replica that was asked is alone.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member that owns a key; `None` if nobody does, the replica is alone, or the text is no key.
    #[must_use]
    pub fn owner(&self, key: &str) -> Option<&Member> {
        let key = Key::new(key).ok()?;
        let index = self.ring.owner_index(route_hash(&self.account, key))?;
        Some(&self.members[self.owners[index]])
    }

    /// The part of all keys that a member owns: 0 to 1.
    #[must_use]
    pub fn share(&self, member: &Member) -> f64 {
        let address = |index: &usize| self.members[*index].address == member.address;
        let Some(index) = self.owners.iter().position(address) else { return 0.0 };
        let widths: u128 = self.ring.stretches_of(index).into_iter().map(|stretch| stretch.width()).sum();
        widths as f64 / 2.0_f64.powi(64)
    }
}

impl MemberState {
    /// A word for people and scripts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::NotServing => "not serving",
            Self::Leaving => "leaving",
            Self::Left => "left",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }
}

impl From<v1::MemberState> for MemberState {
    fn from(said: v1::MemberState) -> Self {
        match said {
            v1::MemberState::Serving => Self::Serving,
            v1::MemberState::NotServing => Self::NotServing,
            v1::MemberState::Leaving => Self::Leaving,
            v1::MemberState::Left => Self::Left,
            v1::MemberState::Lost => Self::Lost,
            v1::MemberState::Unspecified => Self::Unknown,
        }
    }
}

impl From<v1::Member> for Member {
    fn from(said: v1::Member) -> Self {
        let state = said.state().into();
        Self { address: said.address, uid: said.uid, in_ring: said.in_ring, state }
    }
}

impl fmt::Debug for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topology")
            .field("account", &self.account)
            .field("digest", &format_args!("{:016x}", self.digest))
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}
