//! Many members and one change of the view: how long until all is settled, and what it takes in messages and bytes.
//!
//! No faults and no clients: what is asked is how the protocol grows with the number of members. Bytes are those of the
//! stamps, with the views or parts of views that they bring, and of the entries.

use std::collections::{BTreeMap, VecDeque};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use larder::cache::key::Key;
use larder::cache::store::{Carried, Condition, Mode, Name, Scope, Store, StoreCopies};
use larder::cache::version::Now;
use larder::ownership::member::{Endpoint, MemberId, Uid};
use larder::ownership::message::{Answer, CallId, Request, Stamp};
use larder::ownership::mistake::Mistakes;
use larder::ownership::view::View;
use larder::ownership::{Config, Output, Replica};
use parking_lot::Mutex;

use crate::random::Random;
use crate::store::{self, AMPLE_BYTES};

const MS: u64 = 1000;
const SECOND: u64 = 1000 * MS;

/// Where the wall clock starts, in microseconds.
const EPOCH_US: u64 = 1_700_000_000 * SECOND;

/// Endpoints of a slice at most, as Kubernetes makes them.
const SLICE: usize = 100;

/// Keys that each member has at the start, about.
const KEYS_PER_MEMBER: usize = 20;

/// Of a message beside its view and its entries: names, digest, clock, framing.
const STAMP_BYTES: u64 = 150;

/// News of the source comes this late at most.
const NEWS: u64 = SECOND;

/// Simulated time in which a change must be settled.
pub const LIMIT: u64 = 5 * SECOND;

/// Messages per member that a change may take for each other member, requests and answers: a claim, and a page of the little that each has.
const MESSAGES_PER_OTHER: f64 = 4.0;

/// Bytes of these.
const BYTES_PER_OTHER: f64 = 1000.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A member begins to serve.
    Join,
    /// A member gets SIGTERM.
    Leave,
    /// A member's process ends without a word.
    Crash,
}

/// What a change took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub settled_ms: u64,
    /// Of the hand-off, requests and answers, per member; the pings are not counted, which go on all the while.
    pub messages: f64,
    pub bytes: f64,
    /// The longest that one input took, in microseconds of this machine.
    pub busiest_us: u128,
}

enum Event {
    Tick(usize),
    News(usize),
    Request { to: usize, from: usize, call: CallId, stamp: Stamp, request: Request<Name> },
    Answer { to: usize, call: CallId, stamp: Stamp, answer: Answer<Name, Carried> },
    Refused { to: usize, call: CallId },
}

struct Member {
    replica: Replica<StoreCopies>,
    store: Arc<Store>,
    runs: bool,
}

struct Cluster {
    now: u64,
    random: Random,
    /// By the microsecond in which they are due; of one, the first that was made comes first.
    events: BTreeMap<u64, VecDeque<Event>>,
    members: Vec<Member>,
    numbers: BTreeMap<Uid, usize>,
    news: Arc<View>,
    counting: bool,
    messages: u64,
    bytes: u64,
    busiest_us: u128,
}

/// A cluster of `members`, at rest with its keys, sees one change.
pub fn cost(members: usize, change: Change) -> Cost {
    let mut cluster = Cluster::at_rest(members, change);
    let began = cluster.now;
    cluster.counting = true;
    match change {
        Change::Join => cluster.tell(&slices(members, members), 2),
        Change::Leave => {
            let now = cluster.time();
            cluster.input(0, |replica| replica.leave(now));
        }
        Change::Crash => cluster.members[0].runs = false,
    }
    let unsettled = |cluster: &Cluster| {
        let owns = |member: &Member| member.replica.snapshot().ring().members().len();
        let expected = members - usize::from(!matches!(change, Change::Join));
        let is_unsettled = |member: &Member| owns(member) != expected || !member.replica.is_settled();
        // The leaver stays for a while, for those who still send to it.
        let first = usize::from(matches!(change, Change::Leave));
        cluster.members[first..].iter().any(|member| member.runs && is_unsettled(member))
    };
    while unsettled(&cluster) && cluster.now < began + 60 * SECOND {
        cluster.run_until(cluster.now + 10 * MS);
    }
    let per_member = |count: u64| count as f64 / members as f64;
    Cost {
        settled_ms: (cluster.now - began) / MS,
        messages: per_member(cluster.messages),
        bytes: per_member(cluster.bytes),
        busiest_us: cluster.busiest_us,
    }
}

/// Prints what changes cost with more and more members; fails when one takes too long, or when what a member sends and gets grows
/// faster than the number of the others.
pub fn table(sizes: &[usize], jobs: usize) -> ExitCode {
    let changes = [Change::Join, Change::Leave, Change::Crash];
    // The largest first, as they take the longest.
    let cells = || sizes.iter().rev().flat_map(|size| changes.map(|change| (*size, change)));
    let (next, costs) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some((size, change)) = cells().nth(next.fetch_add(1, Ordering::Relaxed)) {
                    let cost = cost(size, change);
                    costs.lock().insert((change, size), cost);
                }
            });
        }
    });
    let costs = costs.into_inner();
    println!("| change | members | settled after, ms | messages | bytes | busiest input, us |");
    for ((change, members), Cost { settled_ms, messages, bytes, busiest_us }) in &costs {
        println!("| {change:?} | {members} | {settled_ms} | {messages:.1} | {bytes:.0} | {busiest_us} |");
    }
    let wrong: Vec<String> =
        costs.iter().filter_map(|((change, members), cost)| cost.excess(*change, *members)).collect();
    for what in &wrong {
        println!("{what}");
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn uid(number: usize) -> Uid {
    Uid::new(&format!("0b5b8a6e-5a0c-4a6e-9f6b-{number:012}"))
}

/// The slices of a cluster of which the first `serving` serve.
fn slices(members: usize, serving: usize) -> Vec<Vec<Endpoint>> {
    let endpoint = |number: usize| Endpoint {
        uid: uid(number),
        address: format!("10.{}.{}.{}:7070", number / 65_536, number / 256 % 256, number % 256).into(),
        peer: format!("10.{}.{}.{}:7071", number / 65_536, number / 256 % 256, number % 256).into(),
        serves: number < serving,
    };
    let numbers: Vec<usize> = (0..members).collect();
    numbers.chunks(SLICE).map(|slice| slice.iter().map(|number| endpoint(*number)).collect()).collect()
}

impl Cost {
    /// What is more than it may be.
    fn excess(&self, change: Change, members: usize) -> Option<String> {
        let Self { settled_ms, messages, bytes, .. } = *self;
        let others = (members - 1) as f64;
        let (most, most_bytes) = (MESSAGES_PER_OTHER * others, BYTES_PER_OTHER * others);
        (settled_ms > LIMIT / MS || messages > most || bytes > most_bytes).then(|| {
            let is = format!("{settled_ms} ms, {messages:.1} messages and {bytes:.0} bytes per member");
            format!("{change:?} of {members}: {is}; at most {} ms, {most} and {most_bytes} are right", LIMIT / MS)
        })
    }
}

impl Cluster {
    fn at_rest(members: usize, change: Change) -> Self {
        let serving = if matches!(change, Change::Join) { members - 1 } else { members };
        let list = slices(members, serving).into_iter().enumerate();
        let list = View::of_list(1, list.map(|(number, slice)| (format!("slice-{number}").into(), 1, slice)));
        // All have heard of all, so that what is counted is the change alone.
        let id = |number: usize| MemberId { uid: uid(number), boot: 1 };
        let boots = (0..members).fold(list.clone(), |view, number| view.merge(&View::of_boot(&id(number))));
        let all = list.merge(&boots);
        let mut cluster = Self {
            now: 0,
            random: Random::new(members as u64),
            events: BTreeMap::new(),
            members: Vec::new(),
            numbers: (0..members).map(|number| (uid(number), number)).collect(),
            news: Arc::new(View::default()),
            counting: false,
            messages: 0,
            bytes: 0,
            busiest_us: 0,
        };
        for number in 0..members {
            let me = id(number);
            let store = store::new(&me, AMPLE_BYTES, Mistakes::default());
            let config =
                Config { page_bytes: 64 * 1024, page_step: usize::MAX, linger_ms: 5000, mistakes: Mistakes::default() };
            let clock = Arc::clone(store.clock());
            let replica = Replica::start(me, config, store.copies(), clock, &all, cluster.time());
            cluster.members.push(Member { replica, store, runs: true });
        }
        for number in 0..members {
            cluster.carry_out(number);
            let phase = cluster.random.between(0, 100 * MS);
            cluster.after(phase, Event::Tick(number));
        }
        cluster.run_until(2 * SECOND);
        cluster.fill(serving);
        cluster
    }

    fn fill(&mut self, serving: usize) {
        let now = self.time();
        for number in 0..serving * KEYS_PER_MEMBER {
            let place = store::place(number);
            let owner = self.members[0].replica.snapshot().owner(place.hash).expect("there are members").clone();
            let store = &self.members[self.numbers[&owner.uid]].store;
            let space = store.tenant(&place.key.space);
            let scope = Scope { space: &space, charge: None, mode: Mode::Apply };
            let key = Key::new(&place.key.key).expect("it is a short text");
            store.store(scope, key, &[b'x'; 100], None, Condition::Always, now).expect("the owner may store");
        }
    }

    fn time(&self) -> Now {
        Now { monotonic_ms: self.now / MS + 1, wall_us: EPOCH_US + self.now }
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.events.entry(self.now + delay).or_default().push_back(event);
    }

    /// The source says something new of the last slice.
    fn tell(&mut self, slices: &[Vec<Endpoint>], version: u64) {
        let (number, last) = (slices.len() - 1, slices.last().expect("there are members").clone());
        self.news = Arc::new(View::of_slice(&format!("slice-{number}"), version, last));
        for member in 0..self.members.len() {
            let delay = self.random.between(0, NEWS);
            self.after(delay, Event::News(member));
        }
    }

    fn run_until(&mut self, until: u64) {
        while let Some(mut due) = self.events.first_entry().filter(|due| *due.key() <= until) {
            self.now = *due.key();
            match due.get_mut().pop_front() {
                Some(event) => self.handle(event),
                None => _ = due.remove(),
            }
        }
        self.now = until;
    }

    fn handle(&mut self, event: Event) {
        let now = self.time();
        match event {
            Event::Tick(member) => {
                self.input(member, |replica| replica.tick(now));
                self.after(100 * MS, Event::Tick(member));
            }
            Event::News(member) => {
                let news = Arc::clone(&self.news);
                self.input(member, |replica| replica.news(&news, now));
            }
            Event::Request { to, from, call, stamp, request } => {
                let mut answer = None;
                if self.members[to].runs {
                    self.input(to, |replica| answer = replica.request(&stamp, &request, now).ok());
                }
                let delay = self.delay();
                let Some((stamp, answer)) = answer else {
                    return self.after(delay, Event::Refused { to: from, call });
                };
                let entries = match &answer {
                    Answer::Page { items, .. } => items.len() * 150,
                    Answer::Copies(found) => found.len() * 150,
                    _ => 0,
                };
                self.count(&stamp, entries as u64, matches!(request, Request::Ping));
                self.after(delay, Event::Answer { to: from, call, stamp, answer });
            }
            Event::Answer { to, call, stamp, answer } => {
                self.input(to, |replica| replica.answer(call, &stamp, answer, now));
            }
            Event::Refused { to, call } => self.input(to, |replica| replica.refused(call, now)),
        }
    }

    fn input(&mut self, member: usize, f: impl FnOnce(&mut Replica<StoreCopies>)) {
        let now = self.time();
        let it = &mut self.members[member];
        if !it.runs {
            return;
        }
        it.replica.store_mut().set_now(now);
        let began = std::time::Instant::now();
        f(&mut it.replica);
        if self.counting {
            self.busiest_us = self.busiest_us.max(began.elapsed().as_micros());
        }
        self.carry_out(member);
    }

    fn carry_out(&mut self, member: usize) {
        for output in self.members[member].replica.outputs() {
            match output {
                Output::Call { id: call, stamp, request } => {
                    self.count(&stamp, 0, matches!(request, Request::Ping));
                    let (to, delay) = (self.numbers[&stamp.to.uid], self.delay());
                    self.after(delay, Event::Request { to, from: member, call, stamp, request });
                }
                Output::Exit { .. } => self.members[member].runs = false,
                Output::Fenced(why) => panic!("member {member} fenced itself: {why}"),
                _ => {}
            }
        }
    }

    fn delay(&mut self) -> u64 {
        self.random.between(100, 2 * MS)
    }

    fn count(&mut self, stamp: &Stamp, more: u64, is_ping: bool) {
        if !self.counting {
            return;
        }
        let view = stamp.view.as_ref().map_or(0, |view| view.to_bytes().len() as u64);
        // A ping that brings news is a part of the change.
        if !is_ping || view > 0 {
            self.messages += 1;
            self.bytes += STAMP_BYTES + view + more;
        }
    }
}
