//! What all clones of a client share: its places, and which of them a call goes to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::config::{Config, Routing};
use super::dial::Secure;
use super::error::{Error, ErrorKind};
use super::place::Place;
use super::retry::Budget;
use super::stream::Ended;
use super::token::TokenSource;
use super::topology::{MemberState, Topology};
use super::watch::watch;
use crate::cache::key::Key;
use crate::cache::route::route_hash;
use crate::rpc::channels::Target;
use crate::rpc::failure::Failure;

/// What every connection needs.
#[derive(Debug)]
pub(super) struct Wires {
    pub(super) tls: Option<Secure>,
    pub(super) connections: usize,
    pub(super) in_flight: usize,
    pub(super) token: TokenSource,
    pub(super) hints: Hints,
}

/// Who has another view than the client.
#[derive(Debug, Default)]
pub(super) struct Hints {
    is_used: bool,
    known: AtomicU64,
    from: Mutex<Option<(u64, Weak<Place>)>>,
    heard: Notify,
}

/// What all clones of a client share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) wires: Arc<Wires>,
    pub(super) seeds: Vec<Arc<Place>>,
    routes: RwLock<Arc<Routes>>,
    pub(super) budget: Budget,
    pub(super) known: watch::Sender<Known>,
    /// Whether there is a task that watches the members.
    pub(super) is_watched: AtomicBool,
    /// Its end ends the task.
    pub(super) alive: watch::Sender<()>,
}

/// What the client has been told of the members.
#[derive(Clone, Debug)]
pub(super) enum Known {
    Nothing,
    /// The last one that was asked did not say.
    Failed(Ended, Target),
    Topology(Arc<Topology>),
}

/// Whom calls go to. Replaced whole.
#[derive(Debug, Default)]
pub(super) struct Routes {
    pub(super) topology: Option<Arc<Topology>>,
    /// As the ring numbers them.
    pub(super) owners: Vec<Arc<Place>>,
    /// Whoever may be called, by address.
    members: HashMap<String, Arc<Place>>,
}

impl Hints {
    /// A replica says which view it has.
    pub(super) fn heard(&self, digest: u64, from: &Arc<Place>) {
        if !self.is_used || digest == 0 || self.known.load(Ordering::Relaxed) == digest {
            return;
        }
        *self.from.lock() = Some((digest, Arc::downgrade(from)));
        self.heard.notify_one();
    }

    /// Waits until somebody said something else than what is known.
    pub(super) async fn another(&self) {
        self.heard.notified().await;
    }

    /// Who said so last, if it is still another than what is known.
    pub(super) fn take(&self) -> Option<Arc<Place>> {
        let (digest, from) = self.from.lock().take()?;
        from.upgrade().filter(|_| digest != self.known.load(Ordering::Relaxed))
    }
}

impl Shared {
    pub(super) fn new(config: Config) -> Result<Arc<Self>, Error> {
        let first = config.seeds.first().ok_or(ErrorKind::NoSeeds)?;
        let wires = Arc::new(Wires {
            tls: Secure::new(first, &config.tls)?,
            connections: config.connections.max(1),
            in_flight: config.in_flight.clamp(1, Config::MAX_IN_FLIGHT),
            token: TokenSource::new(config.token.as_ref(), config.token_file.as_deref())?,
            hints: Hints { is_used: config.routing == Routing::Owners, ..Hints::default() },
        });
        let seeds = config.seeds.iter().map(|target| Place::new(target.clone(), &wires, true)).collect();
        Ok(Arc::new(Self {
            wires,
            seeds,
            routes: RwLock::default(),
            budget: Budget::new(config.retries),
            known: watch::Sender::new(Known::Nothing),
            is_watched: AtomicBool::new(false),
            alive: watch::Sender::new(()),
            config,
        }))
    }

    /// Before every call.
    pub(super) fn begin(self: &Arc<Self>, now: Instant) {
        self.budget.count();
        self.wires.token.look(now);
        self.ensure_watched();
    }

    /// Has somebody watch the members.
    pub(super) fn ensure_watched(self: &Arc<Self>) {
        if self.config.routing == Routing::Owners
            && !self.is_watched.load(Ordering::Relaxed)
            && !self.is_watched.swap(true, Ordering::AcqRel)
        {
            tokio::spawn(watch(self));
        }
    }

    pub(super) fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.read())
    }

    /// Where a key lies on the ring; while the account is not known, a number that is the same for one key.
    pub(super) fn hash(&self, key: &str) -> Result<u64, Failure> {
        let key = Key::new(key)?;
        let routes = self.routes.read();
        Ok(match &routes.topology {
            Some(topology) => route_hash(topology.account_id(), key),
            None => xxh3_64(key.as_bytes()),
        })
    }

    /// The place for a key: its owner if that is up, else whoever is, since all forward. `avoid`: only if there is no other.
    pub(super) fn pick(&self, hash: u64, avoid: Option<&Arc<Place>>) -> Arc<Place> {
        let routes = self.routes.read();
        let is_good = |place: &&Arc<Place>| place.is_up() && !avoid.is_some_and(|avoid| Arc::ptr_eq(avoid, place));
        let owner = routes.owner(hash);
        if let Some(owner) = owner {
            if is_good(&owner) {
                return Arc::clone(owner);
            }
            owner.probe();
        }
        let others = around(&routes.owners, hash).chain(around(&self.seeds, hash));
        if let Some(other) = others.clone().find(is_good) {
            return Arc::clone(other);
        }
        // Whoever is not up and may be tried again is tried.
        self.seeds.iter().for_each(|seed| seed.probe());
        let any = others.clone().find(|place| place.is_up());
        Arc::clone(any.or(owner).unwrap_or(&self.seeds[number(hash, self.seeds.len())]))
    }

    /// A place for a call on no key: any, by chance.
    pub(super) fn any(&self, avoid: Option<&Arc<Place>>) -> Arc<Place> {
        self.pick(rand::random(), avoid)
    }

    /// The place of a member, or a new one.
    pub(super) fn at(&self, address: &str) -> Result<Arc<Place>, ErrorKind> {
        if let Some(place) = self.routes.read().members.get(address).or_else(|| self.seed_at(address)) {
            return Ok(Arc::clone(place));
        }
        let target = self.seeds[0].target.at(address);
        let target = target.map_err(|error| ErrorKind::Unreachable {
            target: self.seeds[0].target.clone(),
            problem: error.to_string(),
        })?;
        Ok(Place::new(target, &self.wires, false))
    }

    fn seed_at(&self, address: &str) -> Option<&Arc<Place>> {
        let is_it = |seed: &&Arc<Place>| seed.target.at(address).is_ok_and(|target| target == seed.target);
        self.seeds.iter().find(is_it)
    }

    /// A replica told of the members.
    pub(super) fn learn(&self, topology: Topology) {
        let before = self.routes();
        if before.topology.as_ref().is_some_and(|known| known.digest() == topology.digest()) {
            return;
        }
        let mut members = HashMap::with_capacity(topology.members().len());
        let mut lost = Vec::new();
        for member in topology.members() {
            let known = before.members.get(&member.address).or_else(|| self.seed_at(&member.address));
            if matches!(member.state, MemberState::Left | MemberState::Lost) {
                lost.extend(known.filter(|_| member.state == MemberState::Lost).cloned());
                continue;
            }
            let place = known.cloned().or_else(|| {
                let target = self.seeds[0].target.at(&member.address).ok()?;
                Some(Place::new(target, &self.wires, false))
            });
            members.extend(place.map(|place| (member.address.clone(), place)));
        }
        // An address may be listed twice, by a process that was lost and by the next one there.
        lost.retain(|place| !members.values().any(|kept| Arc::ptr_eq(kept, place)));
        let owners: Option<Vec<_>> = topology.ring().iter().map(|address| members.get(&**address).cloned()).collect();
        let digest = topology.digest();
        let topology = Arc::new(topology);
        let routes = Routes { topology: Some(Arc::clone(&topology)), owners: owners.unwrap_or_default(), members };
        let routes = Arc::new(routes);
        *self.routes.write() = Arc::clone(&routes);
        self.wires.hints.known.store(digest, Ordering::Relaxed);
        self.known.send_replace(Known::Topology(topology));
        for place in &lost {
            place.close();
        }
        for (address, place) in &before.members {
            let is_seed = self.seeds.iter().any(|seed| Arc::ptr_eq(seed, place));
            if !routes.members.contains_key(address) && !is_seed {
                place.retire();
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let routes = self.routes();
        routes.members.values().chain(&self.seeds).for_each(|place| place.retire());
    }
}

impl Routes {
    fn owner(&self, hash: u64) -> Option<&Arc<Place>> {
        let index = self.topology.as_ref()?.owner_index(hash)?;
        self.owners.get(index)
    }
}

/// All places, beginning with another one for each hash.
fn around(places: &[Arc<Place>], hash: u64) -> impl Iterator<Item = &Arc<Place>> + Clone {
    let (after, before) = places.split_at(number(hash, places.len().max(1)).min(places.len()));
    before.iter().chain(after)
}

fn number(hash: u64, of: usize) -> usize {
    usize::try_from(hash % of as u64).unwrap_or(0)
}
