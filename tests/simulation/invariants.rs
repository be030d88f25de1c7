//! What must hold after every event (PROTOCOL §5), and when everything has come to rest.

use std::collections::BTreeSet;

use larder::ownership::copies::Copies as _;
use larder::ownership::member::MemberId;

use crate::store::Place;
use crate::world::{Pod, Process, World};

impl World {
    fn processes(&self) -> impl Iterator<Item = (usize, &Process)> {
        self.pods.iter().enumerate().filter_map(|(pod, it)| Some((pod, it.process.as_ref()?)))
    }

    /// After every event.
    pub fn check(&mut self, touched: Option<usize>) {
        let mut wrong = None;
        for place in &self.keys {
            wrong = wrong.or_else(|| self.one_authority(place)).or_else(|| self.last_write_is_held(place));
        }
        wrong = wrong.or_else(|| self.settled_arcs_are_clean(touched));
        if let Some(pod) = touched {
            wrong = wrong.or_else(|| self.nobody_is_taken_for_lost(pod)).or_else(|| self.copies_only_shrink(pod));
        }
        if let Some(what) = wrong {
            self.fail(what);
        }
    }

    /// I1. In a rough run: among those whom nobody has declared gone.
    fn one_authority(&self, place: &Place) -> Option<String> {
        if self.torn_until.is_some_and(|until| until > self.now) {
            return None;
        }
        let doomed = |pod: usize, process: &Process| {
            self.rough
                && (self.is_paused(pod)
                    || self.processes().any(|(_, other)| other.replica.snapshot().view().is_gone(process.replica.me())))
        };
        let is_authority =
            |process: &Process| !process.replica.is_over() && process.replica.store().view(place).is_authority(place);
        let all = self.processes().filter(|(pod, process)| is_authority(process) && !doomed(*pod, process));
        let all: Vec<usize> = all.map(|(pod, _)| pod).collect();
        (all.len() > 1).then(|| format!("I1: key {} has the authorities {all:?}", place.key))
    }

    /// I2: the newest copy anywhere is the last write. In calm runs nobody may be lost.
    fn last_write_is_held(&self, place: &Place) -> Option<String> {
        if self.rough {
            return None;
        }
        let entries = self.processes().filter_map(|(_, process)| process.replica.store().entry(place));
        let newest = entries.max_by_key(|entry| entry.rank());
        let top = self.tops[place.key as usize];
        // Evicted as a copy: whether the eviction counts is settled when the key is resolved the next time.
        let evicted = self.evicted.contains(&(place.key, top.version));
        match newest {
            Some(entry) if top.live && entry.version == top.version && (entry.value.is_some() || evicted) => None,
            None if evicted => None,
            None if !top.live => None,
            Some(entry) if !top.live && entry.value.is_none() => None,
            other => Some(format!("I2: key {}: the last write was {top:?}, the newest copy is {other:?}", place.key)),
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
        let store = process.replica.store();
        let digest = process.replica.snapshot().digest().as_u128();
        let foreign = store.entries().map(|(place, _)| place).filter(|place| !store.view(place).is_mine(place));
        let copies: BTreeSet<Place> = foreign.cloned().collect();
        let new = if process.copies.0 == digest { copies.difference(&process.copies.1).next().cloned() } else { None };
        process.copies = (digest, copies);
        new.map(|place| format!("I4: pod {pod} has a new copy of key {}, which is not its own", place.key))
    }

    /// I5.
    fn settled_arcs_are_clean(&self, touched: Option<usize>) -> Option<String> {
        let pod = touched?;
        let store = self.pods[pod].process.as_ref()?.replica.store();
        if store.marks_in_settled_arcs() > 0 {
            return Some(format!("I5: pod {pod} has marks in a settled arc"));
        }
        let tombstone =
            store.entries().find(|(place, entry)| entry.value.is_none() && store.view(place).is_settled(place));
        tombstone.map(|(place, _)| format!("I5: pod {pod} has a tombstone of key {} in a settled arc", place.key))
    }

    /// When nothing but time passes any more.
    pub fn check_at_rest(&mut self) {
        let mut wrong = Vec::new();
        for (pod, it) in self.pods.iter().enumerate() {
            wrong.extend(unrest(pod, it));
        }
        for number in 0..self.keys.len() {
            let place = self.keys[number].clone();
            let owners =
                self.processes().filter(|(_, process)| process.replica.store().view(&place).is_settled(&place));
            let owners: Vec<(usize, Option<_>)> = owners
                .map(|(pod, process)| (pod, process.replica.store().entry(&place).and_then(|it| it.value)))
                .collect();
            match owners[..] {
                [(_, None)] if self.evicted.contains(&(place.key, self.tops[number].version)) => {}
                [(_, value)] if self.monitors[number].may_be(value) => {}
                [(pod, value)] => wrong.push(format!("key {number} ends as {value:?} at pod {pod}: a write is lost")),
                _ => wrong.push(format!("key {number} has the owners {owners:?}")),
            }
        }
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
    let store = process.replica.store();
    let copy = store.entries().map(|(place, _)| place).find(|place| !store.view(place).is_mine(place));
    copy.map(|place| format!("pod {pod} keeps a copy of key {}; {} entries", place.key, store.len()))
}
