//! When a member is to be declared gone (PROTOCOL §8). With care: a live member that is declared gone loses its share.
//!
//! A member is *silent* when nothing came from it for as long as a cut of three seconds may last, counted from the first
//! ping that was not answered, and for the time of one more ping and its answer. So a cut of less than three seconds makes
//! nobody silent, and neither does a pause of this replica, whose own absence is not counted as the others' silence. No
//! detector is faster by more than that one ping and answer: until three seconds are over, a cut is as likely as an end.

use std::collections::{BTreeMap, BTreeSet};

use super::member::{MemberId, Uid};
use super::message::Unreachable;
use super::snapshot::Snapshot;
use super::view::Digest;

/// Milliseconds between two pings to a member that answers. One that does not is pinged with every tick, so that it is
/// heard as soon as it can be.
pub const PING_EVERY_MS: u64 = 200;

/// Pings that a member sends per second at most, about: with more members than that allows it pings each more seldom.
const MAX_PINGS_PER_SECOND: u64 = 500;

/// Milliseconds of pings without an answer that a cut or a pause may cause, and nobody may take for an end.
const SILENT_MS: u64 = 3000;

/// Milliseconds that are left after these for the next ping and its answer.
const ANSWER_MS: u64 = 300;

/// Milliseconds between two ticks from which on this replica itself was absent.
const ABSENT_MS: u64 = 500;

/// Milliseconds for which another member's report counts.
const REPORT_MS: u64 = 2000;

/// Milliseconds of its own absence after which a replica must not go on (rule 16): less than it takes to be declared gone.
pub const FENCE_PAUSE_MS: u64 = 2000;

/// What is known of who can be reached. One entry and one report per present member.
#[derive(Debug, Default)]
pub struct Detector {
    peers: BTreeMap<MemberId, Peer>,
    /// Of these, who cannot be reached now: every ping that comes asks for them, and there are seldom any.
    suspects: BTreeSet<MemberId>,
    /// Whom others cannot reach, whether its connection was refused, and when they said so.
    reports: BTreeMap<Uid, (u64, BTreeMap<MemberId, bool>)>,
    followed: Option<Digest>,
    now_ms: u64,
    next_ping_ms: u64,
    has_pinged: bool,
}

#[derive(Debug, Default)]
struct Peer {
    /// When the first ping left that nothing was heard after.
    unanswered_since_ms: Option<u64>,
    refused: bool,
    /// That it cannot be reached was noticed, and all were asked whether they can.
    noticed: bool,
    /// Somebody else cannot reach it: it is pinged with the next tick.
    doubted: bool,
}

impl Detector {
    /// Time passes. Returns whom to ping, and whether this replica was absent for too long and must fence itself.
    pub fn tick(&mut self, me: &MemberId, snapshot: &Snapshot, now_ms: u64) -> (Vec<MemberId>, bool) {
        let absent = now_ms.saturating_sub(self.now_ms);
        let first = self.now_ms == 0;
        self.now_ms = now_ms;
        self.follow(me, snapshot);
        if absent >= ABSENT_MS && !first {
            let away = self.peers.values_mut().filter_map(|peer| peer.unanswered_since_ms.as_mut());
            away.for_each(|since| *since += absent);
            self.next_ping_ms = now_ms;
        }
        let unreachable = self.peers.iter().filter(|(_, peer)| peer.refused || peer.is_silent(now_ms));
        self.suspects = unreachable.map(|(id, _)| id.clone()).collect();
        if self.notices() {
            self.next_ping_ms = now_ms;
        }
        (self.due_pings(me, snapshot), absent >= FENCE_PAUSE_MS && !first)
    }

    /// Is there a member that can no longer be reached? Then all are asked at once: whoever notices second, of the members
    /// that it takes, learns it from the first.
    fn notices(&mut self) -> bool {
        let mut notices = false;
        for id in &self.suspects {
            let noticed = self.peers.get_mut(id).map(|peer| std::mem::replace(&mut peer.noticed, true));
            notices |= noticed == Some(false);
        }
        notices
    }

    fn due_pings(&mut self, me: &MemberId, snapshot: &Snapshot) -> Vec<MemberId> {
        let now_ms = self.now_ms;
        if now_ms < self.next_ping_ms {
            let is_due = |peer: &Peer| {
                peer.doubted || peer.unanswered_since_ms.is_some_and(|since| since + PING_EVERY_MS <= now_ms)
            };
            let due = self.peers.iter_mut().filter(|(_, peer)| is_due(peer));
            let ping = |(id, peer): (&MemberId, &mut Peer)| {
                peer.doubted = false;
                peer.unanswered_since_ms.get_or_insert(now_ms);
                id.clone()
            };
            return due.map(ping).collect();
        }
        let members = self.peers.len() as u64;
        let every_ms = PING_EVERY_MS.max(members * 1000 / MAX_PINGS_PER_SECOND);
        // Members that started together do not all ping in one moment.
        let share = me.uid.as_str().bytes().fold(me.boot, |sum, byte| sum * 31 % 1000 + u64::from(byte)) % 100;
        let was_first = !std::mem::replace(&mut self.has_pinged, true);
        self.next_ping_ms = now_ms + if was_first { every_ms * (share + 1) / 100 } else { every_ms };
        for peer in self.peers.values_mut() {
            peer.unanswered_since_ms.get_or_insert(now_ms);
        }
        let lost = snapshot.lost_endpoints().filter(|id| id.uid != me.uid);
        self.peers.keys().cloned().chain(lost).collect()
    }

    /// Something came from this member.
    pub fn heard(&mut self, id: &MemberId) {
        if let Some(peer) = self.peers.get_mut(id) {
            *peer = Peer::default();
            self.suspects.remove(id);
        }
    }

    /// Its address refused a connection, or is another process's.
    pub fn refused(&mut self, id: &MemberId) {
        if let Some(peer) = self.peers.get_mut(id) {
            peer.refused = true;
            self.suspects.insert(id.clone());
        }
    }

    /// Another member said whom it cannot reach.
    pub fn reported(&mut self, by: &MemberId, unreachable: &[Unreachable]) {
        if unreachable.is_empty() {
            self.reports.remove(&by.uid);
        } else if self.peers.contains_key(by) {
            for report in unreachable {
                if let Some(peer) = self.peers.get_mut(&report.id) {
                    peer.doubted |= peer.unanswered_since_ms.is_none();
                }
            }
            let unreachable = unreachable.iter().map(|report| (report.id.clone(), report.refused)).collect();
            self.reports.insert(by.uid.clone(), (self.now_ms, unreachable));
        }
    }

    /// Did this member answer lately, or was not asked for long?
    #[must_use]
    pub fn answers(&self, id: &MemberId) -> bool {
        self.peers.get(id).is_some_and(|peer| !peer.refused && !peer.is_silent(self.now_ms))
    }

    /// Whom this replica cannot reach.
    #[must_use]
    pub fn unreachable(&self, snapshot: &Snapshot) -> Vec<Unreachable> {
        let present = self.suspects().filter(|(id, _)| snapshot.is_present(id));
        present.map(|(id, peer)| Unreachable { id: id.clone(), refused: peer.refused }).collect()
    }

    fn suspects(&self) -> impl Iterator<Item = (&MemberId, &Peer)> {
        self.suspects.iter().filter_map(|id| self.peers.get_key_value(id))
    }

    /// Who is to be declared gone: refused as seen by two members (by one, if only two are present); silent towards more
    /// than half of the present members; or silent towards this one, when the source says that it does not serve.
    /// Only those that this replica itself cannot reach.
    #[must_use]
    pub fn gone(&self, snapshot: &Snapshot) -> Vec<MemberId> {
        if self.suspects.is_empty() {
            return Vec::new();
        }
        // How many cannot reach each: by refusal, and in whatever way. Every report is looked at once.
        let mut votes: BTreeMap<&MemberId, (usize, usize)> =
            self.suspects().map(|(id, peer)| (id, (usize::from(peer.refused), 1))).collect();
        let fresh = self.reports.values().filter(|(at, _)| at + REPORT_MS >= self.now_ms);
        for (id, is_refused) in fresh.flat_map(|(_, report)| report) {
            if let Some((refused, unreachable)) = votes.get_mut(id) {
                *refused += usize::from(*is_refused);
                *unreachable += 1;
            }
        }
        let members = snapshot.present().count();
        let gone = self.suspects().filter(|(id, peer)| self.is_gone(id, peer, votes[id], members, snapshot));
        gone.map(|(id, _)| id.clone()).collect()
    }

    fn is_gone(
        &self,
        id: &MemberId,
        peer: &Peer,
        (refused, unreachable): (usize, usize),
        members: usize,
        snapshot: &Snapshot,
    ) -> bool {
        let silent = peer.is_silent(self.now_ms);
        let serves = snapshot.present_as(&id.uid).is_some_and(|member| member.endpoint.serves);
        if !silent && id.boot == 0 && !serves {
            // Nothing has ever listened there: it starts, and holds nothing.
            return false;
        }
        refused >= 2 || (refused == 1 && members <= 2) || (silent && (unreachable * 2 > members || !serves))
    }

    /// One entry per present member but me: a process that was not known before starts with a clean sheet.
    fn follow(&mut self, me: &MemberId, snapshot: &Snapshot) {
        if self.followed.replace(snapshot.digest()) == Some(snapshot.digest()) {
            return;
        }
        let mut before = std::mem::take(&mut self.peers);
        let present = snapshot.present().map(|member| &member.id).filter(|id| *id != me);
        self.peers = present.map(|id| (id.clone(), before.remove(id).unwrap_or_default())).collect();
        self.reports.retain(|uid, _| snapshot.present_as(uid).is_some());
    }
}

impl Peer {
    fn is_silent(&self, now_ms: u64) -> bool {
        self.unanswered_since_ms.is_some_and(|since| since + SILENT_MS + ANSWER_MS <= now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ownership::member::Endpoint;
    use crate::ownership::view::View;

    fn id(number: usize) -> MemberId {
        MemberId::new(&format!("u{number}"), 1)
    }

    fn snapshot(members: usize, serves: bool) -> Snapshot {
        let endpoint = |number| Endpoint {
            uid: id(number).uid,
            address: format!("a{number}").into(),
            peer: format!("p{number}").into(),
            serves,
        };
        let view = View::of_slice("s", 1, (0..members).map(endpoint).collect());
        Snapshot::new((0..members).fold(view, |view, number| view.with_boot(&id(number))))
    }

    /// Ticks every 100 ms from `from` to `to`.
    fn run(detector: &mut Detector, snapshot: &Snapshot, from: u64, to: u64) {
        for now in (from..to).step_by(100) {
            let (_, fence) = detector.tick(&id(0), snapshot, now);
            assert!(!fence);
        }
    }

    #[test]
    fn silence_counts_when_more_than_half_report_it() {
        let snapshot = snapshot(3, true);
        let mut detector = Detector::default();
        run(&mut detector, &snapshot, 1000, 4200);
        detector.heard(&id(2));
        assert_eq!(detector.unreachable(&snapshot), []);
        run(&mut detector, &snapshot, 4200, 4500);
        assert_eq!(detector.gone(&snapshot), [], "one of three");
        detector.reported(&id(2), &[Unreachable { id: id(1), refused: false }]);
        assert_eq!(detector.gone(&snapshot), [id(1)]);
        run(&mut detector, &snapshot, 4500, 7000);
        detector.heard(&id(2));
        assert_eq!(detector.gone(&snapshot), [], "a report ages");
    }

    #[test]
    fn a_refused_connection_counts_when_two_saw_it_or_two_are_present() {
        for (members, alone) in [(2, true), (3, false)] {
            let snapshot = snapshot(members, true);
            let mut detector = Detector::default();
            run(&mut detector, &snapshot, 1000, 1200);
            detector.refused(&id(1));
            assert_eq!(!detector.gone(&snapshot).is_empty(), alone);
            detector.reported(&id(2), &[Unreachable { id: id(1), refused: true }]);
            assert_eq!(detector.gone(&snapshot), [id(1)]);
            detector.heard(&id(1));
            assert_eq!(detector.gone(&snapshot), [], "it can be reached again");
        }
    }

    #[test]
    fn one_silent_of_two_is_gone_only_if_the_source_says_that_it_does_not_serve() {
        for serves in [true, false] {
            let snapshot = snapshot(2, serves);
            let mut detector = Detector::default();
            run(&mut detector, &snapshot, 1000, 6000);
            assert_eq!(detector.gone(&snapshot).is_empty(), serves);
        }
    }

    #[test]
    fn ones_own_absence_is_no_silence_of_others_and_from_two_seconds_on_a_fence() {
        let snapshot = snapshot(3, false);
        let mut detector = Detector::default();
        run(&mut detector, &snapshot, 1000, 4000);
        assert!(!detector.tick(&id(0), &snapshot, 5800).1);
        assert_eq!(detector.unreachable(&snapshot), []);
        assert!(detector.tick(&id(0), &snapshot, 7800).1);
    }
}
