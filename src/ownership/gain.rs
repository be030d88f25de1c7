//! Taking over what a view gives me: claim, fetch on touch, settle (rules 5, 7 and 9); the pull is in [`super::pull`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::calls::What;
use super::copies::{Copies, Found, Frozen};
use super::member::MemberId;
use super::message::{MAX_FETCH_KEYS, Request};
use super::mistake::Mistake;
use super::pull::Source;
use super::shard::Place;
use super::{Life, Output, Replica};
use crate::cache::version::Now;
use crate::ring::Stretch;

/// Fetches under way to one source. Keys that are touched meanwhile go together in the next one.
const MAX_FETCHES_UNDER_WAY: usize = 4;

/// The one open gain (PROTOCOL §2). Its arcs are `Replica::arcs`; which keys are resolved, the shards know.
#[derive(Debug)]
pub(super) struct Open<K, V> {
    /// Have not cleared me under this view.
    pub(super) waiting: BTreeSet<MemberId>,
    /// Of these, who is to be asked (again).
    pub(super) unclaimed: BTreeSet<MemberId>,
    /// Cleared me, and hold copies for me.
    pub(super) sources: BTreeMap<MemberId, Source<K, V>>,
    /// Keys that are being resolved, each once however many wait for it.
    pub(super) fetches: BTreeMap<Place<K>, Fetch<V>>,
    /// Keys that were touched, and of which nobody has to be asked any more.
    answered: BTreeSet<Place<K>>,
    /// What is to be asked of whom next; nobody without a key.
    to_ask: BTreeMap<MemberId, BTreeSet<Place<K>>>,
    /// How many fetches are under way to a source.
    under_way: BTreeMap<MemberId, usize>,
    /// `waiting` was empty, and what follows from it was done.
    pub(super) cleared: bool,
    /// A source came, went, or got on.
    pub(super) moved: bool,
    /// Everything of mine below this hash is settled under this view.
    settled_below: u64,
}

/// A key that is being resolved.
#[derive(Debug)]
pub(super) struct Fetch<V> {
    missing: BTreeSet<MemberId>,
    best: Option<Frozen<V>>,
}

impl<K: Clone + Ord, V> Open<K, V> {
    pub(super) fn new(waiting: BTreeSet<MemberId>) -> Self {
        Self {
            unclaimed: waiting.clone(),
            waiting,
            sources: BTreeMap::new(),
            fetches: BTreeMap::new(),
            answered: BTreeSet::new(),
            to_ask: BTreeMap::new(),
            under_way: BTreeMap::new(),
            cleared: false,
            moved: true,
            settled_below: 0,
        }
    }

    fn start_fetch(&mut self, place: &Place<K>) {
        if self.fetches.contains_key(place) {
            return;
        }
        for source in self.sources.keys() {
            self.to_ask.entry(source.clone()).or_default().insert(place.clone());
        }
        let fetch = Fetch { missing: self.sources.keys().cloned().collect(), best: None };
        if fetch.missing.is_empty() {
            self.answered.insert(place.clone());
        }
        self.fetches.insert(place.clone(), fetch);
    }

    /// What a source says of a key that is being resolved.
    fn answered(&mut self, from: &MemberId, place: &Place<K>, copy: Option<Frozen<V>>, enough: bool) {
        let Some(fetch) = self.fetches.get_mut(place) else { return };
        fetch.best = Frozen::newer(fetch.best.take(), copy);
        fetch.missing.remove(from);
        if fetch.missing.is_empty() || enough {
            self.answered.insert(place.clone());
        }
    }

    /// The next keys to ask a source for.
    fn next_keys(&mut self, of: &MemberId) -> Vec<Place<K>> {
        let Some(mut places) = self.to_ask.remove(of) else { return Vec::new() };
        if let Some(first) = places.iter().nth(MAX_FETCH_KEYS).cloned() {
            self.to_ask.insert(of.clone(), places.split_off(&first));
        }
        let is_missing = |place: &Place<K>| self.fetches.get(place).is_some_and(|fetch| fetch.missing.contains(of));
        places.retain(is_missing);
        places.into_iter().collect()
    }

    /// A fetch ended, and these of its keys are to be asked for again.
    pub(super) fn fetch_ended(&mut self, of: &MemberId, again: Vec<Place<K>>) {
        if let Some(under_way) = self.under_way.get_mut(of) {
            *under_way = under_way.saturating_sub(1);
        }
        if !again.is_empty() {
            self.to_ask.entry(of.clone()).or_default().extend(again);
        }
    }
}

impl<S: Copies> Replica<S> {
    /// Rule 5: all who have not cleared me, at once and again until they do.
    pub(super) fn claim(&mut self, now: Now) {
        let Some(open) = &self.open else { return };
        let unasked: Vec<MemberId> = open.unclaimed.iter().filter(|id| self.calls.may_call(id, now)).cloned().collect();
        for id in unasked {
            if let Some(open) = &mut self.open {
                open.unclaimed.remove(&id);
            }
            self.call(&id, Request::Claim, What::Claim, now);
        }
    }

    /// Rule 5: a member cleared me.
    pub(super) fn cleared(&mut self, from: &MemberId, has_copies: bool) {
        let Some(open) = &mut self.open else { return };
        open.waiting.remove(from);
        open.unclaimed.remove(from);
        if has_copies {
            open.sources.entry(from.clone()).or_default();
        } else {
            self.strangers.remove(from);
        }
    }

    /// Rule 5: when everybody has cleared, all that is GAINING is HELD.
    pub(super) fn hold(&mut self) {
        let rash = self.mistakes.make(Mistake::ServeBeforeCleared);
        let Some(open) = &mut self.open else { return };
        if open.cleared || !(open.waiting.is_empty() || rash) {
            return;
        }
        open.cleared = true;
        self.life = Life::Cleared;
        self.arcs = Arc::new(self.arcs.held());
        self.store.advance(&self.arcs);
        self.review(&[]);
    }

    /// Rule 7: somebody wants this key.
    pub(super) fn touch(&mut self, place: &Place<S::Key>) {
        // Under a new view that not everybody has cleared yet it waits; `hold` looks at it again.
        if let Some(open) = self.open.as_mut().filter(|open| open.cleared) {
            open.start_fetch(place);
            if self.mistakes.make(Mistake::OwnCopyIsTruth) && self.store.has_entry(place) {
                open.answered.insert(place.clone());
            }
        }
    }

    /// Rule 7: asks, and resolves what all sources have answered.
    pub(super) fn fetch(&mut self, now: Now) {
        let Some(open) = self.open.as_mut().filter(|open| open.cleared) else { return };
        for place in std::mem::take(&mut open.answered) {
            self.resolve_fetched(&place, None);
        }
        let Some(open) = &mut self.open else { return };
        let mut asks = Vec::new();
        for id in open.to_ask.keys().cloned().collect::<Vec<_>>() {
            let mut under_way = open.under_way.get(&id).copied().unwrap_or_default();
            while under_way < MAX_FETCHES_UNDER_WAY && open.to_ask.contains_key(&id) && self.calls.may_call(&id, now) {
                let places = open.next_keys(&id);
                if !places.is_empty() {
                    under_way += 1;
                    asks.push((id.clone(), places));
                }
            }
            open.under_way.insert(id, under_way);
        }
        for (id, places) in asks {
            self.call(&id, Request::Fetch(places.clone()), What::Fetch(places), now);
        }
    }

    /// Rule 7: what a source says of the keys that it was asked for. A message has room for so much, so it may say nothing of
    /// some: these are asked for again.
    pub(super) fn fetched(&mut self, from: &MemberId, asked: Vec<Place<S::Key>>, copies: Found<S::Key, S::Value>) {
        let first_wins = self.mistakes.make(Mistake::FirstAnswerWins);
        let Some(open) = &mut self.open else { return };
        let mut unsaid: BTreeSet<Place<S::Key>> = asked.into_iter().collect();
        for (place, copy) in copies {
            unsaid.remove(&place);
            open.answered(from, &place, copy, first_wins);
        }
        open.fetch_ended(from, unsaid.into_iter().collect());
    }

    /// Rule 9, as far as it has come: of a hash that every source has dropped its copies through, nothing of the hand-off is
    /// left here. Copies are sent in the order of their places, and what holds when all are dropped holds key by key: a key
    /// of which no source has a copy, and none can come to have one under this view, is settled. So marks and tombstones
    /// are bounded by how far apart the sources' pulls are, and a dump can follow the pull.
    pub(super) fn settle(&mut self) {
        let Some(open) = self.open.as_mut().filter(|open| open.cleared && open.moved && open.waiting.is_empty()) else {
            return;
        };
        open.moved = false;
        let last = match open.sources.values().map(Source::dropped_through).min() {
            // Of the last hash itself there may be more keys.
            Some(hash) if hash > open.settled_below => hash - 1,
            Some(_) => return,
            None => u64::MAX,
        };
        let settled = Stretch { first: open.settled_below, last };
        open.settled_below = last.saturating_add(1);
        let is_last = open.sources.is_empty();
        // What a source was still being asked for here was in its pages, or it has none.
        let fetched = open.fetches.keys().take_while(|place| place.hash <= last).cloned();
        for place in fetched.collect::<Vec<_>>() {
            self.resolve_fetched(&place, None);
        }
        self.arcs = Arc::new(self.arcs.without(settled));
        self.store.settle_below(&self.arcs, settled);
        if is_last {
            self.open = None;
            self.strangers.clear();
        }
    }

    /// Rule 7: the newest of what the sources said and of one's own is the entry; then those who wait run. `page`: what the
    /// sources' pages have of it.
    pub(super) fn resolve_fetched(&mut self, place: &Place<S::Key>, page: Option<Frozen<S::Value>>) {
        let Some(open) = &mut self.open else { return };
        open.answered.remove(place);
        let fetch = open.fetches.remove(place);
        if fetch.is_none() && page.is_none() {
            return;
        }
        let best = Frozen::newer(fetch.and_then(|fetch| fetch.best), page);
        if let Some(best) = &best {
            self.clock.observe(best.version);
        }
        let is_miss = best.is_none();
        self.store.resolve(place, best);
        self.wake(place);
        if is_miss {
            self.forget_miss(place);
        }
    }

    /// Rule 7: a miss is not remembered, unless somebody is about to run on it.
    pub(super) fn forget_miss(&mut self, place: &Place<S::Key>) {
        if !self.requests.runs(place) {
            self.store.forget_miss(place);
        }
    }

    /// What a view change says to all: from here on nothing that was asked before counts (rule 3).
    ///
    /// Who gains nothing asks only those who came, or came back. When two sides of a cut come together, one of them may hold
    /// copies of keys that the other never took for lost; until somebody asks for them, they stay, and a leaver with them.
    pub(super) fn reopen(&mut self, others: BTreeSet<MemberId>) {
        let needs_all = self.life == Life::Fresh || !self.arcs.is_empty() || self.exit.is_leaving();
        let waiting = if needs_all { others } else { self.strangers.clone() };
        self.open = (needs_all || !waiting.is_empty()).then(|| Open::new(waiting));
        self.outputs.push(Output::Changed(Arc::clone(&self.snapshot)));
    }
}
