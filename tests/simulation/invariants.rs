//! What must hold after every event (PROTOCOL §5), and when everything has come to rest.

use std::collections::BTreeSet;

use larder::cache::version::{Now, Version};
use larder::ownership::member::MemberId;
use larder::ownership::shard::Standing;

use crate::store::{Look as _, cell, number_of};
use crate::world::{Pod, Process, World};

/// What a replica has of a key, and is to it.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent answers of a shard's view")]
pub struct Seen {
    /// The version, and whether there is a value.
    pub entry: Option<(Version, bool)>,
    /// Of key and value.
    pub bytes: u64,
    /// Resolved or not.
    pub is_authority: bool,
    /// Resolved.
    pub may_run: bool,
    pub is_mine: bool,
    pub is_settled: bool,
}

impl World {
    pub fn processes(&self) -> impl Iterator<Item = (usize, &Process)> {
        self.pods.iter().enumerate().filter_map(|(pod, it)| Some((pod, it.process.as_ref()?)))
    }

    /// After every event.
    pub fn check(&mut self, touched: Option<usize>) {
        let Some(pod) = touched else { return };
        self.look(pod);
        self.check_quotas();
        let mut wrong = None;
        for number in 0..self.keys.len() {
            wrong = wrong.or_else(|| self.one_authority(number)).or_else(|| self.last_write_is_held(number));
        }
        wrong = wrong.or_else(|| self.settled_arcs_are_clean(pod));
        wrong = wrong.or_else(|| self.nobody_is_taken_for_lost(pod)).or_else(|| self.copies_only_shrink(pod));
        if let Some(what) = wrong {
            self.fail(what);
        }
    }

    /// Looks at what a replica has now, and finds what its store removed by itself.
    pub fn look(&mut self, pod: usize) {
        let now = self.time(pod);
        let Some(process) = &mut self.pods[pod].process else { return };
        process.replica.store_mut().set_now(now);
        let store = process.replica.store();
        let mut is = vec![Seen::default(); self.keys.len()];
        store.for_each(|place, copy| {
            if let Some(seen) = number_of(&place.key.key).and_then(|number| is.get_mut(number)) {
                seen.entry = Some((copy.version, copy.value.is_some()));
                let value = copy.value.as_ref().map_or(0, |carried| carried.value.len());
                seen.bytes = (place.key.key.len() + value) as u64;
            }
        });
        for (seen, place) in is.iter_mut().zip(&self.keys) {
            store.view_of(place, |view, mark| {
                let standing = view.standing(mark);
                seen.may_run = standing == Standing::Authority;
                seen.is_authority = seen.may_run || standing == Standing::Unresolved;
                seen.is_mine = view.is_mine(mark);
                seen.is_settled = view.is_settled(mark);
            });
        }
        let stats = process.store.stats();
        let removed = stats.evicted + stats.expired;
        let any_removed = std::mem::replace(&mut process.removed, removed) != removed;
        let was = std::mem::replace(&mut process.seen, is.clone());
        let is_doomed = self.pods[pod].process.as_ref().is_none_or(|process| self.is_doomed(pod, process));
        if any_removed {
            for (number, (was, is)) in was.iter().zip(&is).enumerate() {
                // What somebody removes whose keys others may have taken is no more than a copy.
                self.notice_removal(pod, number, was, &Seen { may_run: is.may_run && !is_doomed, ..*is });
            }
        }
    }

    fn notice_removal(&mut self, pod: usize, number: usize, was: &Seen, is: &Seen) {
        let top = self.tops[number];
        let had_value = was.entry.filter(|(_, live)| *live).map(|(version, _)| version);
        let has_value = is.entry.filter(|(_, live)| *live).map(|(version, _)| version);
        if is.may_run && top.live && has_value != Some(top.version) {
            self.vanished(pod, number, is.entry.map(|(version, _)| version));
        }
        if let Some(version) = had_value.filter(|version| has_value != Some(*version)) {
            self.evicted.insert((number, version));
        }
    }

    /// Others may have taken its keys.
    pub fn is_doomed(&self, pod: usize, process: &Process) -> bool {
        let me = process.replica.me();
        self.rough
            && (self.is_paused(pod)
                || self.pods[pod].displaced_by.is_some()
                || self.processes().any(|(_, other)| other.replica.snapshot().view().is_gone(me)))
    }

    /// I1. In a rough run: among those whom nobody has declared gone.
    fn one_authority(&self, number: usize) -> Option<String> {
        if self.torn_until.is_some_and(|until| until > self.now) {
            return None;
        }
        let is_authority = |process: &Process| !process.replica.is_over() && process.seen[number].is_authority;
        let all: Vec<usize> =
            self.processes().filter(|(_, process)| is_authority(process)).map(|(pod, _)| pod).collect();
        if all.len() < 2 {
            return None;
        }
        let all: Vec<usize> = self
            .processes()
            .filter(|(pod, it)| all.contains(pod) && !self.is_doomed(*pod, it))
            .map(|(pod, _)| pod)
            .collect();
        (all.len() > 1).then(|| format!("I1: key {number} has the authorities {all:?}"))
    }

    /// I2: the newest copy anywhere is the last write. In calm runs nobody may be lost.
    fn last_write_is_held(&self, number: usize) -> Option<String> {
        if self.rough {
            return None;
        }
        let newest = self.processes().filter_map(|(_, process)| process.seen[number].entry).max();
        let top = self.tops[number];
        // Evicted as a copy: whether the eviction counts is settled when the key is resolved the next time.
        let evicted = self.evicted.contains(&(number, top.version));
        match newest {
            None if evicted || !top.live => None,
            Some((version, live))
                if (top.live && version == top.version && (live || evicted))
                    || (!live && (!top.live || (evicted && version > top.version))) =>
            {
                None
            }
            other => Some(format!("I2: key {number}: the last write was {top:?}, the newest copy is {other:?}")),
        }
    }

    /// A calm run has nothing that may make a member gone: who leaves, says so to all, and copies sent to it stay good.
    fn nobody_is_taken_for_lost(&self, pod: usize) -> Option<String> {
        let view = self.pods[pod].process.as_ref().filter(|_| !self.rough)?.replica.snapshot().view();
        let ids = self.pods.iter().map(|it| MemberId { uid: it.uid.clone(), boot: it.boot });
        let gone = ids.filter(|id| id.boot > 0).find(|id| view.is_gone(id));
        gone.map(|id| format!("pod {pod} takes {id} for lost in a calm run"))
    }

    /// I4: under one view, the copies that a replica holds for others only become fewer.
    fn copies_only_shrink(&mut self, pod: usize) -> Option<String> {
        let process = self.pods[pod].process.as_mut()?;
        let digest = process.replica.snapshot().digest().as_u128();
        let foreign = process.seen.iter().enumerate().filter(|(_, seen)| seen.entry.is_some() && !seen.is_mine);
        let copies: BTreeSet<usize> = foreign.map(|(number, _)| number).collect();
        let new = if process.copies.0 == digest { copies.difference(&process.copies.1).next().copied() } else { None };
        process.copies = (digest, copies);
        new.map(|number| format!("I4: pod {pod} has a new copy of key {number}, which is not its own"))
    }

    /// I5.
    fn settled_arcs_are_clean(&mut self, pod: usize) -> Option<String> {
        let process = self.pods[pod].process.as_mut()?;
        // At this time nothing is over yet: what has no value is a tombstone.
        process.replica.store_mut().set_now(Now { monotonic_ms: 0, wall_us: 0 });
        let store = process.replica.store();
        if store.marks_in_settled_arcs() > 0 {
            return Some(format!("I5: pod {pod} has marks in a settled arc"));
        }
        if process.store.stats().tombstones == 0 {
            return None;
        }
        let is_tombstone = |(number, seen): (usize, &Seen)| {
            seen.is_settled && store.entry_of(&self.keys[number]).is_some_and(|entry| entry.value.is_none())
        };
        let number = process.seen.iter().enumerate().position(is_tombstone)?;
        Some(format!("I5: pod {pod} has a tombstone of key {number} in a settled arc"))
    }

    /// When nothing but time passes any more.
    pub fn check_at_rest(&mut self) {
        let mut wrong = Vec::new();
        for (pod, it) in self.pods.iter().enumerate() {
            wrong.extend(unrest(pod, it));
        }
        for number in 0..self.keys.len() {
            self.may_have_been_evicted(number);
            let place = self.keys[number].clone();
            let owners = self.processes().filter(|(_, process)| process.replica.store().is_settled(&place));
            let value = |process: &Process| process.replica.store().entry_of(&place)?.value;
            let owners: Vec<(usize, Option<i64>)> =
                owners.map(|(pod, process)| (pod, value(process).and_then(|it| cell(&it.value)))).collect();
            match owners[..] {
                [(_, value)] if self.monitors[number].may_be(value) => {}
                [(pod, value)] => wrong.push(format!("key {number} ends as {value:?} at pod {pod}: a write is lost")),
                _ => wrong.push(format!("key {number} has the owners {owners:?}")),
            }
        }
        wrong.extend(self.quotas_at_rest());
        if let Some(what) = wrong.into_iter().next() {
            self.fail(format!("at rest: {what}"));
        }
    }
}

fn unrest(pod: usize, it: &Pod) -> Option<String> {
    let Some(process) = &it.process else {
        return (!it.ended).then(|| format!("pod {pod} has no process"));
    };
    if it.terminating {
        return Some(format!("pod {pod} never ended: waits for {:?}", process.replica.awaited()));
    }
    if !process.replica.is_settled() {
        return Some(format!("pod {pod} is not settled: waits for {:?}", process.replica.awaited()));
    }
    if process.replica.requests() > 0 || !process.running.is_empty() {
        return Some(format!("pod {pod}: {} operations never ended", process.running.len()));
    }
    let copy = process.seen.iter().position(|seen| seen.entry.is_some() && !seen.is_mine);
    copy.map(|number| format!("pod {pod} keeps a copy of key {number}"))
}
