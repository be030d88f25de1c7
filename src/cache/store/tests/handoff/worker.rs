//! The operations' side: as the server does it, an operation is tried at a member, forwarded once, or waits for the hand-off's word.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::super::{key, scope, tenant};
use super::history::{History, moment};
use super::members::{Command, Verdict, World};
use super::{OWN_KEYS, QUEUE};
use crate::cache::quota::Tenant;
use crate::cache::store::{Condition, Place, Store, StoreError};
use crate::cache::version::{Now, Version};
use crate::ownership::shard::Standing;
use crate::ownership::{Origin, RequestId};

pub struct Worker<'a> {
    number: usize,
    world: &'a World,
    commands: SyncSender<(usize, Command)>,
    verdicts: (SyncSender<Verdict>, Receiver<Verdict>),
    histories: &'a [History],
    /// What this thread's own keys are.
    own: BTreeMap<u64, Vec<u8>>,
    next_id: RequestId,
    random: u64,
}

/// An operation: what it came to, or why it did not run.
type Tried<T> = Result<T, Standing>;

impl<'a> Worker<'a> {
    pub fn new(
        number: usize,
        world: &'a World,
        commands: SyncSender<(usize, Command)>,
        histories: &'a [History],
    ) -> Self {
        // No two workers use the same names for requests.
        let next_id = number as u64 * 1_000_000;
        let random = number as u64 + 1;
        Self {
            number,
            world,
            commands,
            verdicts: sync_channel(QUEUE),
            histories,
            own: BTreeMap::new(),
            next_id,
            random,
        }
    }

    /// Answers how many of its own keys there are in the end.
    pub fn run(mut self) -> usize {
        while !self.world.is_last_view.load(Ordering::Relaxed) {
            if self.below(2) == 0 {
                self.own_key();
            } else {
                self.shared_key();
            }
            self.world.ended.fetch_add(1, Ordering::Relaxed);
        }
        for number in 0..OWN_KEYS {
            self.read_own(number);
        }
        self.own.len()
    }

    fn own_key(&mut self) {
        let number = self.below(OWN_KEYS);
        let name = self.own_name(number);
        let value = format!("{}-{}", self.number, moment()).into_bytes();
        match self.below(8) {
            0..3 => {
                let stored = self.store(&name, &value, Condition::Always);
                assert!(stored.is_ok(), "{stored:?}");
                self.own.insert(number, value);
            }
            3 => {
                let stored = self.store(&name, &value, Condition::IfAbsent);
                let is_there = matches!(stored, Err(StoreError::AlreadyExists));
                assert_eq!(is_there, self.own.contains_key(&number), "{name}: {stored:?}");
                self.own.entry(number).or_insert(value);
            }
            4 | 5 => {
                let deleted = self.anywhere(&name, |store, space, now| {
                    carried_out(store.delete(scope(space), key(&name), None, now))
                });
                assert_eq!(deleted, Ok(self.own.remove(&number).is_some()), "{name}");
            }
            _ => self.read_own(number),
        }
    }

    fn read_own(&mut self, number: u64) {
        let name = self.own_name(number);
        let read = self.read(&name).map(|(value, _)| value);
        assert_eq!(read.as_ref(), self.own.get(&number), "{name}");
    }

    fn shared_key(&mut self) {
        let which = usize::try_from(self.below(self.histories.len() as u64)).unwrap();
        let history = &self.histories[which];
        let (began, is_write) = (moment(), self.below(2) == 0);
        let number = match (history.is_counter, is_write) {
            (true, true) => {
                let counted = self.anywhere(&history.name, |store, space, now| {
                    carried_out(store.increment(scope(space), key(&history.name), 1, "", None, now))
                });
                u64::try_from(counted.unwrap().value).unwrap()
            }
            (false, true) => {
                let value = format!("{}-{began}", self.number).into_bytes();
                self.store(&history.name, &value, Condition::Always).unwrap().as_u64()
            }
            (true, false) => {
                let read = self.read(&history.name);
                read.map_or(0, |(value, _)| std::str::from_utf8(&value).unwrap().parse().unwrap())
            }
            (false, false) => self.read(&history.name).map_or(0, |(_, version)| version.as_u64()),
        };
        history.add(began, number, is_write);
    }

    fn store(&mut self, name: &str, value: &[u8], condition: Condition) -> Result<Version, StoreError> {
        self.anywhere(name, |store, space, now| {
            carried_out(store.store(scope(space), key(name), value, None, condition, now))
        })
    }

    fn read(&mut self, name: &str) -> Option<(Vec<u8>, Version)> {
        self.anywhere(name, |store, space, now| {
            store.read(space, key(name), now, |entry| (entry.value().to_vec(), entry.version()))
        })
    }

    /// A client calls some member.
    fn anywhere<T>(&mut self, name: &str, run: impl Fn(&Store, &Tenant, Now) -> Tried<T>) -> T {
        let at = usize::try_from(self.below(self.world.ids.len() as u64)).unwrap();
        match self.attempt(at, &run) {
            Ok(done) => return done,
            Err(Standing::Other(owner)) => {
                let to = self.world.ids.iter().position(|id| id.uid == owner.uid).unwrap();
                if let Some(done) = self.forwarded(to, name, &run) {
                    return done;
                }
            }
            Err(_) => {}
        }
        let id = self.submit(at, name, Origin::Client);
        let done = loop {
            match self.verdicts.1.recv().unwrap() {
                Verdict::Run => match self.attempt(at, &run) {
                    Ok(done) => break done,
                    Err(_) => {
                        let (place, origin) = (self.place(name), Origin::Client);
                        self.say(at, Command::Again { id, place, origin });
                    }
                },
                Verdict::Forward(to) => match self.forwarded_apart(to, name, &run) {
                    Some(done) => break done,
                    None => self.say(at, Command::TurnedAway(id)),
                },
                Verdict::Moved => panic!("a client's operation is never moved"),
            }
        };
        self.say(at, Command::Finished(id));
        done
    }

    /// The owner's side. None: moved.
    fn forwarded<T>(&mut self, at: usize, name: &str, run: &impl Fn(&Store, &Tenant, Now) -> Tried<T>) -> Option<T> {
        loop {
            if let Ok(done) = self.attempt(at, run) {
                return Some(done);
            }
            let id = self.submit(at, name, Origin::Peer);
            let ended = match self.verdicts.1.recv().unwrap() {
                // While it is not finished, so that the key stays resolved.
                Verdict::Run => self.attempt(at, run).ok().map(Some),
                Verdict::Moved => Some(None),
                Verdict::Forward(_) => panic!("what was forwarded is not forwarded on"),
            };
            self.say(at, Command::Finished(id));
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    /// The same, with verdicts of its own: those of the client's side are others.
    fn forwarded_apart<T>(
        &mut self,
        at: usize,
        name: &str,
        run: &impl Fn(&Store, &Tenant, Now) -> Tried<T>,
    ) -> Option<T> {
        let outer = std::mem::replace(&mut self.verdicts, sync_channel(QUEUE));
        let done = self.forwarded(at, name, run);
        self.verdicts = outer;
        done
    }

    fn attempt<T>(&self, at: usize, run: &impl Fn(&Store, &Tenant, Now) -> Tried<T>) -> Tried<T> {
        let store = &self.world.stores[at];
        run(store, &tenant(store, "one"), self.world.now())
    }

    fn submit(&mut self, at: usize, name: &str, origin: Origin) -> RequestId {
        self.next_id += 1;
        let (id, place, verdicts) = (self.next_id, self.place(name), self.verdicts.0.clone());
        self.say(at, Command::Submit { id, place, origin, verdicts });
        id
    }

    fn say(&self, at: usize, command: Command) {
        self.commands.send((at, command)).unwrap();
    }

    fn place(&self, name: &str) -> Place {
        let store = &self.world.stores[0];
        store.place(&tenant(store, "one"), key(name))
    }

    fn own_name(&self, number: u64) -> String {
        format!("own-{}-{number}", self.number)
    }

    fn below(&mut self, limit: u64) -> u64 {
        below(&mut self.random, limit)
    }
}

/// An outcome of the store: whether it ran, and what came of it.
fn carried_out<T>(outcome: Result<T, StoreError>) -> Tried<Result<T, StoreError>> {
    match outcome {
        Err(StoreError::Elsewhere(standing)) => Err(standing),
        outcome => Ok(outcome),
    }
}

/// A number below a limit, from Knuth's linear congruential generator.
pub fn below(random: &mut u64, limit: u64) -> u64 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*random >> 33) % limit
}
