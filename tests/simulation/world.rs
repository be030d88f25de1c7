//! The whole: pods, the source, the network and clients in virtual time. One event at a time, in an order that
//! only the seed decides.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use larder::cache::store::{Carried, Name, Store, StoreCopies};
use larder::cache::version::{Now, Version};
use larder::ownership::member::{Boot, Endpoint, Uid};
use larder::ownership::message::{Answer, CallId, Request, Stamp};
use larder::ownership::mistake::Mistakes;
use larder::ownership::view::View;
use larder::ownership::{Replica, RequestId};

use crate::dump::Dump;
use crate::invariants::Seen;
use crate::monitor::{self, Cell, Monitor, OpId};
use crate::quotas::{Accounts, Quotas};
use crate::random::Random;
use crate::store::{AMPLE_BYTES, Executed, Place, place};

pub const MS: u64 = 1000;
pub const SECOND: u64 = 1000 * MS;
/// Where the wall clock starts, in microseconds.
const EPOCH_US: u64 = 1_700_000_000 * SECOND;
pub const OP_DEADLINE: u64 = SECOND;
pub const TICK: u64 = 100 * MS;

/// What a run may contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing that may make a member gone.
    Calm,
    /// Crashes and long pauses besides.
    Rough,
    /// Cuts of up to 15 s besides: live members are declared gone.
    Torn,
}

/// What is wrong, in words.
pub type Violation = String;

#[derive(Clone, Debug)]
pub struct Op {
    pub id: OpId,
    pub client: usize,
    pub kind: monitor::Kind,
    /// Of its key.
    pub number: usize,
    pub place: Place,
    pub deadline: u64,
    pub ttl_ms: Option<u64>,
    /// The version that the client saw, for a condition.
    pub seen: Version,
    /// It has a request id: when its end is unknown, the client asks again.
    pub may_repeat: bool,
}

#[derive(Clone, Debug)]
pub enum Message {
    Request {
        call: CallId,
        stamp: Stamp,
        request: Request<Name>,
    },
    Answer {
        call: CallId,
        stamp: Stamp,
        answer: Answer<Name, Carried>,
    },
    Refused {
        call: CallId,
    },
    /// To whoever waits for an answer, not to a peer: the connection broke.
    Lost {
        call: CallId,
    },
    Forward {
        stamp: Stamp,
        id: RequestId,
        op: Op,
        hops: u32,
    },
    Executed {
        stamp: Stamp,
        id: RequestId,
        executed: Executed,
    },
    Moved {
        stamp: Stamp,
        id: RequestId,
    },
    ForwardRefused {
        id: RequestId,
    },
}

#[derive(Clone, Debug)]
pub enum Event {
    Tick {
        pod: usize,
        boot: Boot,
    },
    /// A part of the pages that came is stored.
    GoOn {
        pod: usize,
        boot: Boot,
    },
    /// `boot`: of the process that an answer is for; none for requests.
    Deliver {
        from: usize,
        from_boot: Boot,
        to: usize,
        boot: Option<Boot>,
        message: Box<Message>,
    },
    News {
        pod: usize,
        view: Arc<View>,
    },
    Start {
        pod: usize,
    },
    Terminate {
        pod: usize,
    },
    Resume {
        pod: usize,
    },
    Endpoint {
        pod: usize,
        change: EndpointChange,
    },
    Invoke {
        client: usize,
    },
    Arrive {
        pod: usize,
        op: Op,
    },
    Deadline {
        op: OpId,
        client: usize,
        number: usize,
    },
    Expire {
        pod: usize,
        boot: Boot,
        id: RequestId,
    },
    Retry {
        pod: usize,
        boot: Boot,
        id: RequestId,
    },
    Brake {
        pod: usize,
        on: bool,
    },
    Evict,
    /// The dump goes on.
    Dump,
    /// Some time after the network is whole again, if it was not torn since.
    Healed,
    /// The old process at an address that is another pod's now ends at last.
    Displace {
        pod: usize,
    },
    /// A worker comes to an operation that was told to run.
    Run {
        pod: usize,
        boot: Boot,
        id: RequestId,
    },
    /// The time of a value is over.
    Due {
        number: usize,
        version: Version,
    },
    Crash {
        pod: Option<usize>,
    },
    Act,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointChange {
    Add,
    Serve,
    Terminate,
    /// Not ready for a while.
    Unready,
    Remove,
}

/// Who asked for an operation that waits at a process.
#[derive(Clone, Debug)]
pub enum Asker {
    Client,
    Peer { pod: usize, boot: Boot, id: RequestId, stamp: Stamp },
}

#[derive(Debug)]
pub struct Running {
    pub op: Op,
    pub asker: Asker,
    pub hops: u32,
}

pub struct Process {
    pub replica: Replica<StoreCopies>,
    pub store: Arc<Store>,
    pub running: BTreeMap<RequestId, Running>,
    /// What was seen of each key after the last event here.
    pub seen: Vec<Seen>,
    /// Entries that the store evicted, or whose time was over, until then.
    pub removed: u64,
    /// For invariant I4: the view, and the copies held under it.
    pub copies: (u128, BTreeSet<usize>),
    /// It is about to store a part of the pages that came.
    pub goes_on: bool,
}

pub struct Pod {
    pub uid: Uid,
    pub process: Option<Process>,
    pub boot: Boot,
    pub paused_until: u64,
    pub held: Vec<Event>,
    pub endpoint: Endpoint,
    pub terminating: bool,
    pub serving_told: bool,
    pub ended: bool,
    pub skew_us: u64,
    /// Whose address it is now.
    pub displaced_by: Option<usize>,
    /// What its monotonic clock counts from.
    pub uptime_ms: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Client {
    pub busy: Option<OpId>,
    /// What it saw last of each key.
    pub seen: BTreeMap<usize, (Cell, Version)>,
}

/// What the last write of a key left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Top {
    pub version: Version,
    pub live: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub events: u64,
    pub operations: u64,
    pub unknown: u64,
    pub forwards: u64,
    pub fenced: u64,
    pub exits: u64,
    pub crashes: u64,
    pub messages: u64,
    pub dumps: u64,
    /// Keys whose pasts became too many to follow.
    pub unchecked: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.operations += other.operations;
        self.unknown += other.unknown;
        self.forwards += other.forwards;
        self.fenced += other.fenced;
        self.exits += other.exits;
        self.crashes += other.crashes;
        self.messages += other.messages;
        self.dumps += other.dumps;
        self.unchecked += other.unchecked;
    }
}

impl Kind {
    /// How a command asks for it.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Calm => "",
            Self::Rough => "--rough",
            Self::Torn => "--torn",
        }
    }
}

#[expect(clippy::struct_excessive_bools, reason = "independent switches of a run")]
pub struct World {
    pub now: u64,
    pub random: Random,
    pub queue: BinaryHeap<Reverse<(u64, u64)>>,
    pub events: BTreeMap<(u64, u64), Event>,
    pub sequence: u64,
    pub pods: Vec<Pod>,
    /// The source: slices by name, the version, and every list there ever was.
    pub slices: [(u64, Vec<usize>); 2],
    pub version: u64,
    pub lists: Vec<View>,
    pub clients: Vec<Client>,
    pub keys: Vec<Place>,
    pub monitors: Vec<Monitor>,
    pub tops: Vec<Top>,
    /// What was evicted, or is over: key and version.
    pub evicted: BTreeSet<(usize, Version)>,
    pub quotas: Quotas,
    /// Operations that may still be executed.
    pub open_ops: BTreeMap<OpId, (usize, monitor::Kind)>,
    pub dump: Dump,
    /// Since when each key has had a value.
    pub there_since: Vec<Option<u64>>,
    /// In torn runs: values that were overwritten or deleted, of which key, and by which process.
    pub buried: BTreeMap<i64, (usize, usize, Boot)>,
    /// When the last write's time is over.
    pub expiries: Vec<Option<u64>>,
    pub executed: BTreeMap<OpId, Version>,
    pub next_op: OpId,
    pub next_request: RequestId,
    /// Cut until then: (from, to).
    pub cuts: BTreeMap<(usize, usize), u64>,
    /// Delays of a slow link, until then.
    pub slow: BTreeMap<(usize, usize), u64>,
    pub lossy: bool,
    pub rough: bool,
    pub torn: bool,
    /// While the network is torn apart, and some time after, two sides may both be right.
    pub torn_until: Option<u64>,
    pub mistakes: Mistakes,
    pub quiet: bool,
    pub figures: Figures,
    pub trace: bool,
    pub violation: Option<Violation>,
    pub page_bytes: usize,
    pub capacity_bytes: u64,
    /// Memory is short, or becomes so.
    pub evicting: bool,
    /// Some values are written with a time to live.
    pub expiring: bool,
    pub linger_ms: u64,
}

impl Pod {
    /// The process, if it is the one with this boot, or none was asked for.
    pub fn process_with(&mut self, boot: Option<Boot>) -> Option<&mut Process> {
        let same = boot.is_none_or(|boot| boot == self.boot);
        self.process.as_mut().filter(|_| same)
    }
}

impl Process {
    /// The state machine, whose store knows the time.
    pub fn at(&mut self, now: Now) -> &mut Replica<StoreCopies> {
        self.replica.store_mut().set_now(now);
        &mut self.replica
    }
}

impl World {
    pub fn new(seed: u64, kind: Kind, mistakes: Mistakes, trace: bool) -> Self {
        let mut random = Random::new(seed);
        let evicting = random.one_in(2);
        let most = 4 + random.index(11);
        let (page_bytes, linger_ms) = (random.pick(&[1, 60, 500, 4000]), if random.one_in(2) { 5000 } else { 500 });
        Self {
            now: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            pods: Vec::new(),
            slices: Default::default(),
            version: 1,
            lists: vec![View::default()],
            clients: (2..=random.between(2, 4) + 1).map(|_| Client::default()).collect(),
            keys: (0..most).map(place).collect(),
            monitors: (0..most).map(|_| Monitor::new()).collect(),
            tops: vec![Top::default(); most],
            evicted: BTreeSet::new(),
            quotas: Quotas::new(Accounts::draw(seed, most as u64)),
            executed: BTreeMap::new(),
            expiries: vec![None; most],
            there_since: vec![None; most],
            open_ops: BTreeMap::new(),
            dump: Dump::default(),
            buried: BTreeMap::new(),
            next_op: 1,
            next_request: 1,
            cuts: BTreeMap::new(),
            slow: BTreeMap::new(),
            lossy: random.one_in(2),
            rough: kind != Kind::Calm,
            torn: kind == Kind::Torn,
            torn_until: None,
            mistakes,
            quiet: false,
            figures: Figures::default(),
            trace,
            violation: None,
            page_bytes: page_bytes.unwrap_or(1),
            evicting,
            capacity_bytes: if evicting && random.one_in(2) { random.between(3000, 9000) } else { AMPLE_BYTES },
            expiring: random.one_in(2),
            linger_ms,
            random,
        }
    }

    pub fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    pub fn note(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>7}.{:03} ms  {}", self.now / MS, self.now % MS, what());
        }
    }

    pub fn after(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        let at = (self.now + delay, self.sequence);
        self.queue.push(Reverse(at));
        self.events.insert(at, event);
    }

    /// The next event, if it is not later than `until`. Returns the pod concerned.
    pub fn step(&mut self, until: u64) -> Option<Event> {
        let Reverse(at) = *self.queue.peek()?;
        if at.0 > until {
            self.now = until;
            return None;
        }
        self.queue.pop();
        self.now = at.0;
        self.figures.events += 1;
        self.events.remove(&at)
    }

    pub fn time(&self, pod: usize) -> Now {
        Now {
            monotonic_ms: self.now / MS + self.pods[pod].uptime_ms,
            wall_us: EPOCH_US + self.now + self.pods[pod].skew_us,
        }
    }

    #[expect(clippy::too_many_lines, reason = "one arm per kind of event")]
    pub fn handle(&mut self, event: Event) {
        if let Event::Tick { pod, .. }
        | Event::Deliver { to: pod, .. }
        | Event::News { pod, .. }
        | Event::Arrive { pod, .. }
        | Event::Expire { pod, .. }
        | Event::Retry { pod, .. }
        | Event::Run { pod, .. }
        | Event::GoOn { pod, .. }
        | Event::Brake { pod, .. }
        | Event::Terminate { pod } = &event
            && self.is_paused(*pod)
        {
            let pod = *pod;
            self.pods[pod].held.push(event);
            return;
        }
        match event {
            Event::Tick { pod, boot } => self.tick(pod, boot),
            Event::Deliver { from, from_boot, to, boot, message } => self.deliver(from, from_boot, to, boot, *message),
            Event::News { pod, view } => {
                let now = self.time(pod);
                if let Some(process) = &mut self.pods[pod].process {
                    process.at(now).news(&view, now);
                    self.carry_out(pod);
                }
            }
            Event::Start { pod } => self.start(pod),
            Event::Terminate { pod } => self.signal(pod),
            Event::Resume { pod } => {
                let mut held = std::mem::take(&mut self.pods[pod].held);
                // A process that runs again first sees that time has passed (rule 16).
                held.sort_by_key(|event| !matches!(event, Event::Tick { .. }));
                for event in held {
                    self.after(0, event);
                }
            }
            Event::Endpoint { pod, change } => self.endpoint_changes(pod, change),
            Event::Invoke { client } => self.invoke(client),
            Event::Arrive { pod, op } => self.arrive(pod, op),
            Event::Deadline { op, client, number } => self.deadline(op, client, number),
            Event::Expire { pod, boot, id } => self.expire(pod, boot, id),
            Event::Run { pod, boot, id } => {
                if self.pods[pod].process_with(Some(boot)).is_some() {
                    self.try_run(pod, id);
                    self.carry_out(pod);
                }
            }
            Event::GoOn { pod, boot } => {
                let now = self.time(pod);
                if let Some(process) = self.pods[pod].process_with(Some(boot)) {
                    process.goes_on = false;
                    process.at(now).go_on(now);
                    self.carry_out(pod);
                }
            }
            Event::Due { number, version } => _ = self.evicted.insert((number, version)),
            Event::Retry { pod, boot, id } => {
                let now = self.time(pod);
                if let Some(process) = self.pods[pod].process_with(Some(boot)) {
                    process.at(now).turned_away(id, now);
                    self.carry_out(pod);
                }
            }
            Event::Brake { pod, on } => {
                let now = self.time(pod);
                if let Some(process) = &mut self.pods[pod].process {
                    process.at(now).allow_pulls(!on, now);
                    self.carry_out(pod);
                }
            }
            Event::Dump => self.dump_on(),
            Event::Healed => self.healed(),
            Event::Displace { pod } => self.end_displaced(pod),
            Event::Evict => {
                self.squeeze();
                if !self.quiet {
                    let delay = self.random.between(20 * MS, 500 * MS);
                    self.after(delay, Event::Evict);
                }
            }
            Event::Act | Event::Crash { .. } => unreachable!("the plan handles it"),
        }
    }
}
