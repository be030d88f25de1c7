//! Taking over what a view gives me: claim, fetch on touch, pull in pages, settle (rules 5, 7 and 9).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::calls::What;
use super::copies::{Copies, Found, Frozen, Items};
use super::member::MemberId;
use super::message::{MAX_FETCH_KEYS, Request};
use super::mistake::Mistake;
use super::shard::{Place, Standing};
use super::{Life, Output, Replica};
use crate::cache::version::Now;
use crate::ring::Stretch;

/// The one open gain (PROTOCOL §2). Its arcs are `Replica::arcs`; which keys are resolved, the shards know.
#[derive(Debug)]
pub(super) struct Open<K, V> {
    /// Have not cleared me under this view.
    pub(super) waiting: BTreeSet<MemberId>,
    /// Of these, who has a claim under way.
    pub(super) claimed: BTreeSet<MemberId>,
    /// Cleared me, and hold copies for me.
    pub(super) sources: BTreeMap<MemberId, Source<K>>,
    /// Keys that are being resolved, each once however many wait for it.
    pub(super) fetches: BTreeMap<Place<K>, Fetch<V>>,
    /// What is to be asked of whom next.
    pub(super) to_ask: BTreeMap<MemberId, BTreeSet<Place<K>>>,
    /// `waiting` was empty, and what follows from it was done.
    cleared: bool,
    /// Everything of mine below this hash is settled under this view.
    settled_below: u64,
}

/// Where a source's pull stands.
#[derive(Debug)]
pub(super) struct Source<K> {
    /// It dropped everything up to here.
    after: Option<Place<K>>,
    page: Option<PageInHand<K>>,
    /// A `Pull` or a `Done` is under way.
    pub(super) busy: bool,
}

/// A page that was received and is not confirmed yet.
#[derive(Debug)]
struct PageInHand<K> {
    unresolved: BTreeSet<Place<K>>,
    through: Place<K>,
    last: bool,
}

/// A key that is being resolved.
#[derive(Debug)]
pub(super) struct Fetch<V> {
    pub(super) missing: BTreeSet<MemberId>,
    best: Option<Frozen<V>>,
}

impl<K: Clone + Ord, V> Open<K, V> {
    pub(super) fn new(waiting: BTreeSet<MemberId>) -> Self {
        Self {
            waiting,
            claimed: BTreeSet::new(),
            sources: BTreeMap::new(),
            fetches: BTreeMap::new(),
            to_ask: BTreeMap::new(),
            cleared: false,
            settled_below: 0,
        }
    }

    fn start_fetch(&mut self, place: &Place<K>) -> &mut Fetch<V> {
        if !self.fetches.contains_key(place) {
            for source in self.sources.keys() {
                self.to_ask.entry(source.clone()).or_default().insert(place.clone());
            }
        }
        let sources = &self.sources;
        let missing = || Fetch { missing: sources.keys().cloned().collect(), best: None };
        self.fetches.entry(place.clone()).or_insert_with(missing)
    }

    /// What a source says of a key that is being resolved.
    fn answered(&mut self, from: &MemberId, place: &Place<K>, copy: Option<Frozen<V>>, enough: bool) {
        if let Some(fetch) = self.fetches.get_mut(place) {
            fetch.best = Frozen::newer(fetch.best.take(), copy);
            fetch.missing.remove(from);
            if enough {
                fetch.missing.clear();
            }
        }
        if let Some(places) = self.to_ask.get_mut(from) {
            places.remove(place);
        }
    }
}

impl<S: Copies> Replica<S> {
    /// Rule 5: all who have not cleared me, at once and again until they do.
    pub(super) fn claim(&mut self, now: Now) {
        let Some(open) = &self.open else { return };
        let open_claims = open.waiting.difference(&open.claimed);
        let unasked: Vec<MemberId> = open_claims.filter(|id| self.calls.may_call(id, now)).cloned().collect();
        for id in unasked {
            if let Some(open) = &mut self.open {
                open.claimed.insert(id.clone());
            }
            self.call(&id, Request::Claim, What::Claim, now);
        }
    }

    /// Rule 5: a member cleared me.
    pub(super) fn cleared(&mut self, from: &MemberId, has_copies: bool) {
        let Some(open) = &mut self.open else { return };
        open.waiting.remove(from);
        if has_copies {
            open.sources.entry(from.clone()).or_insert(Source { after: None, page: None, busy: false });
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
            let own_is_truth = self.mistakes.make(Mistake::OwnCopyIsTruth) && self.store.has_entry(place);
            let fetch = open.start_fetch(place);
            if own_is_truth {
                fetch.missing.clear();
            }
        }
    }

    /// Rule 7: asks, and resolves what all sources have answered.
    pub(super) fn fetch(&mut self, now: Now) {
        let Some(open) = self.open.as_mut().filter(|open| open.cleared) else { return };
        let answered = open.fetches.iter().filter(|(_, fetch)| fetch.missing.is_empty());
        for place in answered.map(|(place, _)| place.clone()).collect::<Vec<_>>() {
            self.resolve_fetched(&place);
        }
        let Some(open) = &mut self.open else { return };
        let mut asks = Vec::new();
        for (id, places) in &mut open.to_ask {
            places.retain(|place| open.fetches.get(place).is_some_and(|fetch| fetch.missing.contains(id)));
            while !places.is_empty() && self.calls.may_call(id, now) {
                let rest = places.iter().nth(MAX_FETCH_KEYS).cloned();
                let rest = rest.map(|first| places.split_off(&first)).unwrap_or_default();
                asks.push((id.clone(), std::mem::replace(places, rest)));
            }
        }
        for (id, places) in asks {
            let places: Vec<Place<S::Key>> = places.into_iter().collect();
            self.call(&id, Request::Fetch(places.clone()), What::Fetch(places), now);
        }
    }

    /// Rule 7: what a source says of some keys.
    pub(super) fn copies(&mut self, from: &MemberId, copies: Found<S::Key, S::Value>) {
        let first_wins = self.mistakes.make(Mistake::FirstAnswerWins);
        for (place, copy) in copies {
            if let Some(open) = &mut self.open {
                open.answered(from, &place, copy, first_wins);
            }
        }
    }

    /// Rule 9: the next page, or the word that one is stored.
    pub(super) fn pull(&mut self, now: Now) {
        let early = self.mistakes.make(Mistake::PullBeforeHeld);
        if !self.may_pull {
            return;
        }
        let Some(open) = self.open.as_mut().filter(|open| open.cleared || early) else { return };
        let mut calls = Vec::new();
        for (id, source) in &mut open.sources {
            if source.busy || !self.calls.may_call(id, now) {
                continue;
            }
            match &source.page {
                None => {
                    let request = Request::Pull { after: source.after.clone(), max_bytes: self.config.page_bytes };
                    calls.push((id.clone(), request, What::Pull));
                }
                Some(page) if page.unresolved.is_empty() => {
                    let request = Request::Done { through: page.through.clone() };
                    calls.push((id.clone(), request, What::Done));
                }
                Some(_) => continue,
            }
            source.busy = true;
        }
        for (id, request, what) in calls {
            self.call(&id, request, what, now);
        }
    }

    /// Rule 9: a page came.
    pub(super) fn page(&mut self, from: &MemberId, items: Items<S::Key, S::Value>, last: bool) {
        let Some(open) = &mut self.open else { return };
        let alone = open.sources.len() == 1
            || self.mistakes.make(Mistake::FirstAnswerWins)
            || self.mistakes.make(Mistake::PullBeforeHeld);
        let Some(source) = open.sources.get_mut(from) else { return };
        source.busy = false;
        let Some((through, _)) = items.last().cloned() else {
            open.sources.remove(from);
            return;
        };
        let mut unresolved = BTreeSet::new();
        for (place, copy) in items {
            // Resolved already; or settled, and this copy is from the other side of a cut: it must not come to light.
            if self.store.standing(&place) == Standing::Authority {
                continue;
            }
            // The page is this source's answer for its keys; the others are asked.
            open.start_fetch(&place);
            open.answered(from, &place, Some(copy), alone);
            unresolved.insert(place);
        }
        if let Some(source) = open.sources.get_mut(from) {
            source.page = Some(PageInHand { unresolved: unresolved.clone(), through, last });
        }
        if alone {
            for place in &unresolved {
                self.resolve_fetched(place);
            }
        }
    }

    /// Rule 9: a source dropped a page.
    pub(super) fn done(&mut self, from: &MemberId) {
        let Some(open) = &mut self.open else { return };
        let Some(source) = open.sources.get_mut(from) else { return };
        source.busy = false;
        let Some(page) = source.page.take() else { return };
        source.after = Some(page.through);
        if page.last {
            open.sources.remove(from);
        }
    }

    /// Rule 9, as far as it has come: of a hash that every source has dropped its copies through, nothing of the hand-off is
    /// left here. Copies are sent in the order of their places, and what holds when all are dropped holds key by key: a key
    /// of whom no source has a copy, and none can come to have one under this view, is settled. So marks and tombstones
    /// are bounded by how far apart the sources' pulls are, and a dump can follow the pull.
    pub(super) fn settle(&mut self) {
        let Some(open) = self.open.as_mut().filter(|open| open.cleared && open.waiting.is_empty()) else { return };
        let dropped_through = |source: &Source<S::Key>| source.after.as_ref().map_or(0, |place| place.hash);
        let last = match open.sources.values().map(dropped_through).min() {
            // Of the last hash itself there may be more keys.
            Some(hash) if hash > open.settled_below => hash - 1,
            Some(_) => return,
            None => u64::MAX,
        };
        let settled = Stretch { first: open.settled_below, last };
        open.settled_below = last.saturating_add(1);
        let is_last = open.sources.is_empty();
        // What a source was still being asked for here was in its pages, or it has none.
        let fetched = open.fetches.keys().take_while(|place| settled.last >= place.hash).cloned();
        for place in fetched.collect::<Vec<_>>() {
            self.resolve_fetched(&place);
        }
        self.arcs = Arc::new(self.arcs.without(settled));
        self.store.settle_below(&self.arcs, settled);
        if is_last {
            self.open = None;
        }
    }

    /// Rule 7: the newest of what the sources said and of one's own is the entry; then those who wait run.
    fn resolve_fetched(&mut self, place: &Place<S::Key>) {
        let Some(open) = &mut self.open else { return };
        let Some(fetch) = open.fetches.remove(place) else { return };
        for source in open.sources.values_mut() {
            if let Some(page) = &mut source.page {
                page.unresolved.remove(place);
            }
        }
        if let Some(best) = &fetch.best {
            self.clock.observe(best.version);
        }
        self.store.resolve(place, fetch.best);
        self.wake(place);
        self.misses.push(place.clone());
    }

    /// After the outputs were carried out: a miss is not remembered (rule 7).
    pub fn carried_out(&mut self) {
        for place in std::mem::take(&mut self.misses) {
            self.store.forget_miss(&place);
        }
    }

    /// What a view change says to all: from here on nothing that was asked before counts (rule 3).
    pub(super) fn reopen(&mut self, waiting: BTreeSet<MemberId>) {
        let needed = self.life == Life::Fresh || !self.arcs.is_empty() || self.exit.is_leaving();
        self.open = needed.then(|| Open::new(waiting));
        self.outputs.push(Output::Changed(Arc::clone(&self.snapshot)));
    }
}
