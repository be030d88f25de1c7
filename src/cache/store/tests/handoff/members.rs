//! The hand-off's side: three members' state machines on one thread, which alone knows their messages, and lets them overtake each
//! other.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};

use super::super::store_of;
use crate::cache::store::{Carried, Name, Place, Store, StoreCopies};
use crate::cache::version::Now;
use crate::ownership::member::{Endpoint, MemberId, Uid};
use crate::ownership::message::{Answer, CallId, Request, Stamp};
use crate::ownership::mistake::Mistakes;
use crate::ownership::view::View;
use crate::ownership::{Config, Origin, Output, Replica, RequestId};

const MEMBERS: usize = 3;

/// Messages that may overtake each other.
const IN_ANY_ORDER: u64 = 6;

/// Operations between two views are fewer than this.
const OPERATIONS_PER_VIEW: u64 = 200;

/// What all threads share.
pub struct World {
    pub ids: Vec<MemberId>,
    pub stores: Vec<Arc<Store>>,
    now_ms: AtomicU64,
    /// Operations that have ended.
    pub ended: AtomicU64,
    /// There are no more views.
    pub is_last_view: AtomicBool,
}

/// What a worker says of an operation at a member.
pub enum Command {
    Submit { id: RequestId, place: Place, origin: Origin, verdicts: SyncSender<Verdict> },
    TurnedAway(RequestId),
    Again { id: RequestId, place: Place, origin: Origin },
    Finished(RequestId),
}

/// As the server's.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    Run,
    Forward(usize),
    Moved,
}

/// To or from a member.
enum Message {
    Request { to: usize, id: CallId, stamp: Stamp, request: Request<Name> },
    Answer { to: usize, id: CallId, stamp: Stamp, answer: Answer<Name, Carried> },
}

pub struct Members<'a> {
    world: &'a World,
    commands: Receiver<(usize, Command)>,
    replicas: Vec<Replica<StoreCopies>>,
    verdicts: HashMap<(usize, RequestId), SyncSender<Verdict>>,
    messages: Vec<Message>,
    /// What the source says, and who has not heard it.
    source: View,
    unheard: Vec<usize>,
    views: u64,
    next_view_at: u64,
    random: u64,
    pub moved: usize,
    pub waited: u64,
}

impl World {
    pub fn new() -> Self {
        let ids: Vec<_> = (0..MEMBERS).map(|number| MemberId::new(&format!("pod-{number}"), 1)).collect();
        let join = |id: &MemberId| {
            let store = Arc::new(store_of(1 << 30, 4));
            store.join(id, Mistakes::default());
            store
        };
        let stores = ids.iter().map(join).collect();
        Self {
            ids,
            stores,
            now_ms: AtomicU64::new(1000),
            ended: AtomicU64::new(0),
            is_last_view: AtomicBool::new(false),
        }
    }

    pub fn now(&self) -> Now {
        super::super::at(self.now_ms.load(Ordering::Relaxed))
    }
}

impl<'a> Members<'a> {
    pub fn new(world: &'a World, commands: Receiver<(usize, Command)>) -> Self {
        let source = list(1, 0b111);
        let start = |number: usize| {
            let me = world.ids[number].clone();
            let config =
                Config { page_bytes: 2000, page_step: usize::MAX, linger_ms: 0, mistakes: Mistakes::default() };
            let store = &world.stores[number];
            Replica::start(me, config, store.copies(), Arc::clone(store.clock()), &source, world.now())
        };
        Self {
            world,
            commands,
            replicas: (0..MEMBERS).map(start).collect(),
            verdicts: HashMap::new(),
            messages: Vec::new(),
            source,
            unheard: Vec::new(),
            next_view_at: 100,
            random: 7,
            views: 1,
            moved: 0,
            waited: 0,
        }
    }

    /// Until all workers have ended and everything is settled.
    pub fn run(mut self) -> Self {
        let mut turns = 0_u64;
        loop {
            turns += 1;
            self.world.now_ms.fetch_add(1, Ordering::Relaxed);
            let now = self.world.now();
            self.replicas.iter_mut().for_each(|replica| replica.store_mut().set_now(now));
            if turns.is_multiple_of(20) {
                self.replicas.iter_mut().for_each(|replica| replica.tick(now));
            }
            self.change_views();
            self.deliver();
            (0..MEMBERS).for_each(|number| self.carry_out(number));
            match self.commands.try_recv() {
                Ok((number, command)) => self.take(number, command),
                Err(TryRecvError::Empty) => std::thread::yield_now(),
                Err(TryRecvError::Disconnected) => {
                    let settled = self.replicas.iter().all(Replica::is_settled);
                    if settled && self.unheard.is_empty() {
                        assert_eq!(self.replicas.iter().map(Replica::requests).sum::<usize>(), 0);
                        return self;
                    }
                }
            }
            (0..MEMBERS).for_each(|number| self.carry_out(number));
        }
    }

    fn change_views(&mut self) {
        let is_due = self.unheard.is_empty() && self.world.ended.load(Ordering::Relaxed) >= self.next_view_at;
        if is_due && self.views == super::VIEWS {
            self.world.is_last_view.store(true, Ordering::Relaxed);
        } else if is_due {
            self.next_view_at += self.below(OPERATIONS_PER_VIEW);
            self.views += 1;
            let serving = 1 + self.below(7);
            self.source = self.source.merge(&list(self.views, serving));
            self.unheard = (0..MEMBERS).collect();
        }
        if !self.unheard.is_empty() && self.below(8) == 0 {
            let next = usize::try_from(self.below(self.unheard.len() as u64)).unwrap();
            let number = self.unheard.swap_remove(next);
            let (view, now) = (self.source.clone(), self.world.now());
            self.replicas[number].news(&view, now);
        }
    }

    fn deliver(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        let first = self.below(IN_ANY_ORDER.min(self.messages.len() as u64));
        let now = self.world.now();
        match self.messages.remove(usize::try_from(first).unwrap()) {
            Message::Request { to, id, stamp, request } => {
                let (answer_stamp, answer) = self.replicas[to].request(&stamp, &request, now).unwrap();
                let to = self.number_of(&stamp.from);
                self.messages.push(Message::Answer { to, id, stamp: answer_stamp, answer });
            }
            Message::Answer { to, id, stamp, answer } => {
                if let Answer::Page { items, .. } = &answer {
                    self.moved += items.len();
                }
                self.replicas[to].answer(id, &stamp, answer, now);
            }
        }
    }

    fn take(&mut self, number: usize, command: Command) {
        let now = self.world.now();
        match command {
            Command::Submit { id, place, origin, verdicts } => {
                self.verdicts.insert((number, id), verdicts);
                self.waited += 1;
                self.replicas[number].submit(id, place, origin, now);
            }
            Command::TurnedAway(id) => self.replicas[number].turned_away(id, now),
            Command::Again { id, place, origin } => self.replicas[number].submit(id, place, origin, now),
            Command::Finished(id) => {
                self.verdicts.remove(&(number, id));
                self.replicas[number].finished(id, now);
            }
        }
    }

    fn carry_out(&mut self, number: usize) {
        for output in self.replicas[number].outputs() {
            let (id, verdict) = match output {
                Output::Call { id, stamp, request } => {
                    let to = self.number_of(&stamp.to);
                    self.messages.push(Message::Request { to, id, stamp, request });
                    continue;
                }
                Output::Changed(_) => continue,
                Output::Run(id) => (id, Verdict::Run),
                Output::Forward { id, to } => (id, Verdict::Forward(self.number_of(&to))),
                Output::Moved(id) => (id, Verdict::Moved),
                other => panic!("nobody is lost, leaves or has a quota: {other:?}"),
            };
            self.verdicts[&(number, id)].send(verdict).unwrap();
        }
    }

    fn number_of(&self, id: &MemberId) -> usize {
        self.world.ids.iter().position(|other| other.uid == id.uid).unwrap()
    }

    fn below(&mut self, limit: u64) -> u64 {
        super::worker::below(&mut self.random, limit)
    }
}

/// All pods, of which those serve that are bits of `serving`.
fn list(version: u64, serving: u64) -> View {
    let endpoint = |number: usize| Endpoint {
        uid: Uid::new(&format!("pod-{number}")),
        address: format!("10.0.0.{number}:7070").into(),
        peer: format!("10.0.0.{number}:7071").into(),
        serves: serving >> number & 1 == 1,
    };
    View::of_list(version, [("s".into(), version, (0..MEMBERS).map(endpoint).collect())])
}
