//! The admin port's page of the members: what a person wants to know at three in the morning, and `larder dev ring` shows.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Handoff;
use super::figures::{Stage, Status};
use crate::ownership::member::{Endpoint, MemberId};
use crate::ownership::snapshot::Snapshot;

/// The page.
#[derive(Debug, Default, Serialize)]
pub struct Members {
    pub me: Process,
    /// Every member present has cleared this replica once.
    pub ready: bool,
    pub leaving: bool,
    pub view: View,
    pub members: Vec<Member>,
    pub arcs: Arcs,
    /// Members that have not cleared this replica under the view in force.
    pub waiting: usize,
    /// Members that hold copies for it.
    pub sources: usize,
    /// No hand-off is under way here.
    pub settled: bool,
}

#[derive(Debug, Default, Serialize)]
pub struct Process {
    pub uid: String,
    pub boot: u64,
}

#[derive(Debug, Default, Serialize)]
pub struct View {
    pub digest: String,
    /// Since it changed.
    pub age_ms: u64,
    /// Of the newest list, and of the newest slice.
    pub source_version: (u64, u64),
    /// Since the source said anything.
    pub source_age_ms: u64,
    /// Something that the source says is not believed yet.
    pub held_back: bool,
}

#[derive(Debug, Default, Serialize)]
pub struct Arcs {
    pub gaining: usize,
    pub held: usize,
}

#[derive(Debug, Serialize)]
pub struct Member {
    pub uid: String,
    pub boot: u64,
    pub address: String,
    pub peer: String,
    /// By the source's word.
    pub serves: bool,
    pub state: State,
    /// Of all hashes, the part that it owns: 0 to 1.
    pub share: f64,
    pub me: bool,
}

/// What a member is by the view in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It owns keys.
    Ring,
    /// Present, and not on the ring: it starts, or the source says that it does not serve.
    Out,
    Leaving,
    Left,
    Gone,
}

impl Handoff {
    /// How the cluster looks from here.
    #[must_use]
    pub fn members(&self) -> Members {
        let shared = &self.0;
        let me = self.me();
        let process = Process { uid: me.uid.to_string(), boot: me.boot };
        let Some(status) = shared.status.load_full().filter(|status| status.me == *me) else {
            return Members { me: process, ..Members::default() };
        };
        let Status { snapshot, stage, gaining, held, waiting, sources, .. } = &*status;
        Members {
            me: process,
            ready: *stage != Stage::Starting,
            leaving: *stage == Stage::Leaving,
            view: View {
                digest: format!("{:?}", snapshot.digest()),
                age_ms: millis(self.view_age()),
                source_version: snapshot.view().source_version(),
                source_age_ms: millis(status.source_age),
                held_back: status.held_back,
            },
            members: members(snapshot, &me),
            arcs: Arcs { gaining: *gaining, held: *held },
            waiting: *waiting,
            sources: *sources,
            settled: status.settled,
        }
    }
}

/// The page as JSON; a replica that is alone has no members.
#[must_use]
pub fn text(handoff: Option<&Handoff>) -> String {
    let Some(handoff) = handoff else { return "{\"alone\":true}\n".to_owned() };
    // Only maps with keys that are no text fail, and there are none.
    serde_json::to_string(&handoff.members()).unwrap_or_default() + "\n"
}

/// The part of all hashes that a member owns: 0 to 1.
#[must_use]
pub fn share(snapshot: &Snapshot, id: &MemberId) -> f64 {
    let widths: u128 = snapshot.stretches_of(id).into_iter().map(|stretch| stretch.width()).sum();
    widths as f64 / 2.0_f64.powi(64)
}

fn members(snapshot: &Snapshot, me: &MemberId) -> Vec<Member> {
    let endpoints: BTreeMap<_, &Endpoint> = snapshot.view().endpoints();
    let member = |(_, endpoint): (_, &Endpoint)| {
        let id = MemberId { uid: endpoint.uid.clone(), boot: snapshot.view().boot(&endpoint.uid) };
        let share = share(snapshot, &id);
        Member {
            uid: id.uid.to_string(),
            boot: id.boot,
            address: endpoint.address.to_string(),
            peer: endpoint.peer.to_string(),
            serves: endpoint.serves,
            state: state(snapshot, &id, share),
            share,
            me: id == *me,
        }
    };
    endpoints.into_iter().map(member).collect()
}

fn state(snapshot: &Snapshot, id: &MemberId, share: f64) -> State {
    let view = snapshot.view();
    if view.has_left(id) {
        State::Left
    } else if view.is_gone(id) {
        State::Gone
    } else if view.is_leaving(id) {
        State::Leaving
    } else if share > 0.0 {
        State::Ring
    } else {
        State::Out
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
