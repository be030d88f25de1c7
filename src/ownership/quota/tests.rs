use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::mistake::Mistakes;
use super::ledger::{Counts, Ledger, Next, ROUND_PAUSE_MS};
use super::*;
use crate::cache::quota::{Budget, Tenant};

const MAX: u64 = 10;

fn id(number: usize) -> MemberId {
    MemberId::new(&format!("u{number}"), 1)
}

fn account() -> AccountId {
    AccountId::new("a").unwrap()
}

fn request(keys: u64) -> LeaseRequest {
    LeaseRequest {
        account: account(),
        keys,
        bytes: 0,
        more_keys: 0,
        more_bytes: 0,
        max_keys: Some(MAX),
        max_bytes: None,
        dry_run: false,
        before_round: None,
    }
}

fn has(used: u64, settled: bool, closed: bool) -> Counted {
    let bound_keys = i64::try_from(used).unwrap();
    Counted { used_keys: used, used_bytes: 0, bound_keys, bound_bytes: 0, settled, closed }
}

/// A ledger at its home, member 0 of two, and the number of the last round.
struct Home(Ledger, u64);

impl Home {
    fn new() -> Self {
        Self(Ledger::default(), 0)
    }

    fn ask(&mut self, request: &LeaseRequest, now_ms: u64) -> LeaseReply {
        self.0.ask(&id(1), request, 2, self.1, now_ms, Mistakes::default())
    }

    fn begin(&mut self) -> Counts {
        self.1 += 1;
        self.0.begin(self.1, [id(0), id(1)].into(), Mistakes::default())
    }

    fn counted(&mut self, number: usize, counted: Counted) -> Option<Next> {
        self.0.counted(&id(number), self.1, counted, 0, Mistakes::default())
    }

    /// A round in which both have the same.
    fn round(&mut self, counted: Counted) -> Option<Next> {
        self.begin();
        self.counted(0, counted);
        self.counted(1, counted)
    }
}

#[test]
fn nothing_is_granted_before_everybody_was_counted() {
    let mut home = Home::new();
    assert_eq!(home.ask(&request(1), 0), LeaseReply::Wait { before_round: 1 });
    assert!(home.0.wants_round());
    assert_eq!(home.begin(), Counts { number: 1, close: false });
    assert_eq!(home.counted(0, has(1, true, false)), None);
    assert_eq!(home.ask(&request(1), 0), LeaseReply::Wait { before_round: 2 });
    assert_eq!(home.counted(1, has(1, true, false)), Some(Next::Tell(vec![id(1)])));
    assert_eq!(home.ask(&request(1), 0), LeaseReply::Granted { round: 1, keys: 1, bytes: 0 });
}

#[test]
fn a_lease_is_for_all_who_wait_and_leaves_room_for_the_others() {
    let mut home = Home::new();
    let mut wide = LeaseRequest { max_keys: Some(1000), more_keys: 3, ..request(1) };
    home.ask(&wide, 0);
    home.round(has(0, true, false));
    let LeaseReply::Granted { keys, .. } = home.ask(&wide, 0) else { panic!("there is room") };
    assert_eq!(keys, 1 + 3 + 64);
    wide.max_keys = Some(100);
    let LeaseReply::Granted { keys, .. } = home.ask(&wide, 0) else { panic!("there is room") };
    assert_eq!(keys, 1 + 3 + (100 - 68 - 1) / (4 * 2));
}

#[test]
fn a_refusal_takes_a_round_that_began_after_the_ask_and_when_all_were_closed() {
    let mut home = Home::new();
    let ask = request(1);
    assert_eq!(home.ask(&ask, 0), LeaseReply::Wait { before_round: 1 });
    assert_eq!(home.round(has(5, true, false)), Some(Next::Round), "others could create while it went round");
    assert_eq!(home.round(has(5, true, true)), Some(Next::Round), "and in this one, until they were closed");
    assert_eq!(home.round(has(5, true, true)), Some(Next::Tell(vec![id(1)])));
    let again = LeaseRequest { before_round: Some(1), ..ask.clone() };
    assert_eq!(home.ask(&again, 0), LeaseReply::Full { round: 3, keys: 10, bytes: 0 });
    assert_eq!(home.ask(&ask, 0), LeaseReply::Wait { before_round: 4 }, "something may have been deleted since");
    assert_eq!(home.begin(), Counts { number: 4, close: true });
    home.counted(0, has(5, true, true));
    assert_eq!(home.counted(1, has(4, true, true)), Some(Next::Tell(vec![id(1)])), "one round is enough from here on");
    assert!(matches!(home.ask(&ask, 0), LeaseReply::Granted { keys: 1, .. }));
}

#[test]
fn nobody_is_refused_for_what_a_member_has_not_reclaimed_yet() {
    let mut home = Home::new();
    home.ask(&request(1), 0);
    assert_eq!(home.round(has(5, true, false)), Some(Next::Round));
    assert_eq!(home.round(has(5, true, true)), Some(Next::Round));
    assert_eq!(home.round(has(5, true, false)), Some(Next::Tell(Vec::new())), "they are to be counted again");
    let again = LeaseRequest { before_round: Some(1), ..request(1) };
    assert!(matches!(home.ask(&again, ROUND_PAUSE_MS), LeaseReply::Wait { .. }));
    assert_eq!(home.round(has(4, true, true)), Some(Next::Tell(vec![id(1)])));
    assert!(matches!(home.ask(&again, ROUND_PAUSE_MS), LeaseReply::Granted { keys: 1, .. }));
}

#[test]
fn while_keys_move_nobody_is_refused_and_the_bound_is_what_was_held_before() {
    let mut home = Home::new();
    home.ask(&request(1), 0);
    home.begin();
    home.counted(0, Counted { bound_keys: 9, ..has(12, false, false) });
    assert_eq!(home.counted(1, Counted { bound_keys: 1, ..has(1, true, false) }), Some(Next::Tell(Vec::new())));
    let again = LeaseRequest { before_round: Some(1), ..request(1) };
    assert_eq!(home.ask(&again, ROUND_PAUSE_MS - 1), LeaseReply::Wait { before_round: 2 });
    assert!(!home.0.wants_round(), "not so soon");
    assert_eq!(home.ask(&again, ROUND_PAUSE_MS), LeaseReply::Wait { before_round: 2 });
    assert!(home.0.wants_round());
    home.begin();
    home.counted(0, Counted { bound_keys: -3, ..has(12, false, false) });
    home.counted(1, Counted { bound_keys: 9, ..has(9, true, false) });
    assert!(matches!(home.ask(&again, ROUND_PAUSE_MS), LeaseReply::Granted { keys: 1, .. }));
}

#[test]
fn a_dry_run_takes_nothing() {
    let mut home = Home::new();
    let ask = LeaseRequest { dry_run: true, ..request(10) };
    home.ask(&ask, 0);
    home.round(has(0, true, false));
    assert_eq!(home.ask(&ask, 0), LeaseReply::Fits);
    assert_eq!(home.ask(&ask, 0), LeaseReply::Fits);
}

/// What may happen next to a home and three members between which no keys move.
#[derive(Clone, Debug)]
enum Step {
    Create(usize),
    Remove(usize),
    Ask(usize),
    /// The message at this place of the network arrives, or is lost.
    Deliver(usize),
    Lose(usize),
}

enum Message {
    Reply(usize, LeaseReply),
    Count(usize, Counts),
    Counted(usize, u64, Counted),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..3_usize).prop_map(Step::Create),
        1 => (0..3_usize).prop_map(Step::Remove),
        2 => (0..3_usize).prop_map(Step::Ask),
        8 => (0..100_usize).prop_map(Step::Deliver),
        1 => (0..100_usize).prop_map(Step::Lose),
    ]
}

struct Cluster {
    tenants: Vec<Tenant>,
    ledger: Ledger,
    rounds: u64,
    network: VecDeque<Message>,
    now_ms: u64,
    settled: bool,
}

impl Cluster {
    fn step(&mut self, step: &Step) {
        self.now_ms += 1;
        match *step {
            Step::Create(member) => _ = self.tenants[member].take(1, 0).is_ok(),
            Step::Remove(member) if self.tenants[member].usage().keys > 0 => self.tenants[member].give_back(1, 0),
            Step::Ask(member) => {
                let request = LeaseRequest { more_keys: 2, ..request(1) };
                let reply = self.ledger.ask(&id(member), &request, 3, self.rounds, self.now_ms, Mistakes::default());
                self.network.push_back(Message::Reply(member, reply));
                if self.ledger.wants_round() {
                    self.rounds += 1;
                    self.ledger.begin(self.rounds, (0..3).map(id).collect(), Mistakes::default());
                }
            }
            Step::Deliver(at) if !self.network.is_empty() => {
                let message = self.network.remove(at % self.network.len());
                if let Some(message) = message {
                    self.deliver(message);
                }
            }
            Step::Lose(at) if !self.network.is_empty() => {
                let lost = self.network.remove(at % self.network.len());
                if let Some(Message::Count(member, Counts { number, .. }) | Message::Counted(member, number, _)) = lost
                {
                    self.ledger.again(&id(member), number);
                }
            }
            Step::Remove(_) | Step::Deliver(_) | Step::Lose(_) => {}
        }
        if let Some((ids, counts)) = self.ledger.take_unasked(|_| true) {
            let numbers = (0..3).filter(|number| ids.contains(&id(*number)));
            self.network.extend(numbers.map(|number| Message::Count(number, counts)));
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Reply(member, LeaseReply::Granted { round, keys, bytes }) => {
                let _ = self.tenants[member].grant(Amount { keys, bytes }, round);
            }
            Message::Reply(..) => {}
            Message::Count(member, Counts { number, close }) => {
                let how = Counting { round: number, close, now_ms: self.now_ms };
                let Holding { used, bound_keys, bound_bytes, closed } = self.tenants[member].count(how).unwrap();
                let settled = self.settled;
                let (used_keys, used_bytes) = (used.keys, used.bytes);
                let counted = Counted { used_keys, used_bytes, bound_keys, bound_bytes, settled, closed };
                self.network.push_back(Message::Counted(member, number, counted));
            }
            Message::Counted(member, number, counted) => {
                let next = self.ledger.counted(&id(member), number, counted, self.now_ms, Mistakes::default());
                if next == Some(Next::Round) {
                    self.rounds += 1;
                    self.ledger.begin(self.rounds, (0..3).map(id).collect(), Mistakes::default());
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn leases_and_usage_together_never_exceed_the_limit(steps in prop::collection::vec(step(), 1..400), settled: bool) {
        let tenant = |slot| {
            let tenant = Tenant::new(account(), slot, true);
            tenant.set_budget(Budget { max_keys: Some(MAX), ..Budget::default() });
            tenant
        };
        let mut cluster = Cluster {
            tenants: (0..3).map(tenant).collect(),
            ledger: Ledger::default(),
            rounds: 0,
            network: VecDeque::new(),
            now_ms: 0,
            settled,
        };
        for step in &steps {
            cluster.step(step);
            let sum: u64 = cluster.tenants.iter().map(|tenant| tenant.usage().keys + tenant.free().keys).sum();
            prop_assert!(sum <= MAX, "{sum} of {MAX} after {step:?}");
        }
    }
}
