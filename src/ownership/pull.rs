//! The pull: all copies for this replica, page by page from every source (rule 9).
//!
//! Pages come in the order of places, so a page says two things: these copies the source has, and of all else up to its
//! last place it has none. A key is resolved once the pages of all sources reach it; nobody has to be asked for the keys of
//! another's page, and what is received and not settled is a page per source. The source that is the least far always gets on.

use std::collections::{BTreeMap, VecDeque};

use super::Replica;
use super::calls::What;
use super::copies::{Copies, Frozen, Items};
use super::gain::Open;
use super::member::MemberId;
use super::message::Request;
use super::mistake::Mistake;
use super::shard::{Place, Standing};
use crate::cache::version::Now;

/// Where a source's pull stands.
#[derive(Debug)]
pub(super) struct Source<K, V> {
    /// It dropped everything up to here.
    after: Option<Place<K>>,
    page: Option<Page<K, V>>,
    /// A `Pull` or a `Done` is under way.
    pub(super) busy: bool,
}

/// A page that was received and is not confirmed yet.
#[derive(Debug)]
struct Page<K, V> {
    /// What is not resolved yet.
    items: VecDeque<(Place<K>, Frozen<V>)>,
    through: Place<K>,
    last: bool,
}

/// How far a source is known. In this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach<K> {
    Nothing,
    Through(Place<K>),
    All,
}

impl<K, V> Default for Source<K, V> {
    fn default() -> Self {
        Self { after: None, page: None, busy: false }
    }
}

impl<K: Clone + Ord, V> Source<K, V> {
    /// The hash below which it has dropped everything for me.
    pub(super) fn dropped_through(&self) -> u64 {
        self.after.as_ref().map_or(0, |place| place.hash)
    }

    fn reach(&self) -> Reach<K> {
        match (&self.page, &self.after) {
            (Some(page), _) if page.last => Reach::All,
            (Some(page), _) => Reach::Through(page.through.clone()),
            (None, Some(after)) => Reach::Through(after.clone()),
            (None, None) => Reach::Nothing,
        }
    }

    /// Where the next `most` keys of the page end, if it has more.
    fn step(&self, most: usize) -> Option<Reach<K>> {
        let page = self.page.as_ref().filter(|page| page.items.len() > most)?;
        page.items.get(most.max(1) - 1).map(|(place, _)| Reach::Through(place.clone()))
    }

    /// Has the page anything up to `reach`?
    fn has_through(&self, reach: &Reach<K>) -> bool {
        let Some((first, _)) = self.page.as_ref().and_then(|page| page.items.front()) else { return false };
        match reach {
            Reach::Nothing => false,
            Reach::Through(through) => first <= through,
            Reach::All => true,
        }
    }

    /// Takes what the page has up to `reach`.
    fn take_through(&mut self, reach: &Reach<K>, into: &mut BTreeMap<Place<K>, Frozen<V>>) {
        let Some(page) = &mut self.page else { return };
        let count = match reach {
            Reach::Nothing => 0,
            Reach::Through(through) => page.items.partition_point(|(place, _)| place <= through),
            Reach::All => page.items.len(),
        };
        for (place, copy) in page.items.drain(..count) {
            let newest = Frozen::newer(into.remove(&place), Some(copy));
            into.extend(newest.map(|newest| (place, newest)));
        }
    }
}

impl<K: Clone + Ord, V> Open<K, V> {
    /// How far all sources are known.
    fn reach(&self) -> Option<Reach<K>> {
        self.sources.values().map(Source::reach).min()
    }

    /// Is there anything that the pages of all sources reach, and that is not resolved by them yet?
    pub(super) fn has_ripe(&self) -> bool {
        self.reach().is_some_and(|reach| self.sources.values().any(|source| source.has_through(&reach)))
    }
}

impl<S: Copies> Replica<S> {
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
                Some(page) if page.items.is_empty() => {
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
        let Some(source) = open.sources.get_mut(from) else { return };
        source.busy = false;
        match items.last().map(|(place, _)| place.clone()) {
            Some(through) => source.page = Some(Page { items: items.into(), through, last }),
            None => _ = open.sources.remove(from),
        }
        open.moved = true;
        self.store_pages(Some(from));
    }

    /// Resolves what the pages of all sources reach, so much of it as is done in one go. `newest`: whose page just came.
    pub(super) fn store_pages(&mut self, newest: Option<&MemberId>) {
        let step = self.config.page_step;
        let alone = self.mistakes.make(Mistake::FirstAnswerWins) || self.mistakes.make(Mistake::PullBeforeHeld);
        let Some(open) = &mut self.open else { return };
        let mut ripe = BTreeMap::new();
        if alone {
            if let Some(source) = newest.and_then(|newest| open.sources.get_mut(newest)) {
                source.take_through(&Reach::All, &mut ripe);
            }
        } else {
            let Some(reach) = open.reach() else { return };
            let reach = open.sources.values().filter_map(|source| source.step(step)).fold(reach, Ord::min);
            open.sources.values_mut().for_each(|source| source.take_through(&reach, &mut ripe));
        }
        for (place, copy) in ripe {
            // Resolved already; or settled, and this copy is from the other side of a cut: it must not come to light.
            if self.store.standing(&place) != Standing::Authority {
                self.resolve_fetched(&place, Some(copy));
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
        open.moved = true;
        self.store_pages(Some(from));
    }
}
