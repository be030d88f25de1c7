//! Accounts with small limits, and what must hold of them: never exceeded, never refused while there was room at every instant
//! of the call, and every ask ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder::cache::key::AccountId;
use larder::cache::quota::{Amount, Budget, Tenant};
use larder::cache::store::Store;
use larder::ownership::member::Boot;
use larder::ownership::{LeaseAsk, LeaseId, LeaseVerdict, RequestId};

use crate::monitor::OpId;
use crate::random::Random;
use crate::world::{Event, MS, Op, Process, World};

/// What everybody asks for at rest.
const PROBE: Amount = Amount { keys: 1, bytes: 1 };

/// The accounts of a run. Keys are charged to them in turn.
#[derive(Clone, Debug)]
pub struct Accounts(Arc<Vec<Account>>);

#[derive(Debug)]
struct Account {
    id: AccountId,
    max_keys: Option<u64>,
    max_bytes: Option<u64>,
}

/// What a run knows of its accounts.
#[derive(Debug)]
pub struct Quotas {
    pub accounts: Accounts,
    /// What exists now.
    live: Vec<Amount>,
    /// Operations on their way: the most that existed since they were called.
    most: BTreeMap<OpId, (usize, Amount)>,
    /// Who waits for a lease.
    waiting: BTreeMap<(usize, Boot, LeaseId), (RequestId, Amount)>,
    /// Refused so much once; refused for good if it still needs as much.
    refused: BTreeMap<(usize, Boot, RequestId), Amount>,
    /// Asks of the check at rest, and their verdicts.
    probes: BTreeMap<(usize, LeaseId), (usize, Option<LeaseVerdict>)>,
}

impl Accounts {
    /// Two accounts for `keys` keys. Of chance of its own, so that limits move nothing else.
    pub fn draw(seed: u64, keys: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5175_6F74_6173);
        let account = |name: &str| {
            let most = keys.div_ceil(2);
            let max_keys = (!random.one_in(4)).then(|| random.between(1, most));
            let max_bytes = random.one_in(3).then(|| random.between(10, 700 * most));
            Account { id: AccountId::new(name).expect("it is an id"), max_keys, max_bytes }
        };
        Self(Arc::new(["even", "odd"].map(account).into()))
    }

    /// Which of them pays for a key.
    fn of(key: usize) -> usize {
        key % 2
    }

    /// Tells a new store of them.
    pub fn tell(&self, store: &Store) {
        for Account { id, max_keys, max_bytes } in self.0.iter() {
            let budget = Budget { max_keys: *max_keys, max_bytes: *max_bytes, guaranteed_bytes: 0 };
            store.tenant(id).set_budget(budget);
        }
    }

    /// The payer of a key, as a store knows it.
    pub fn payer(&self, store: &Store, key: usize) -> Tenant {
        store.tenant(&self.0[Self::of(key)].id)
    }

    fn ask(&self, number: usize, need: Amount) -> LeaseAsk {
        let Account { id, max_keys, max_bytes } = &self.0[number];
        LeaseAsk {
            account: id.clone(),
            keys: need.keys,
            bytes: need.bytes,
            max_keys: *max_keys,
            max_bytes: *max_bytes,
            dry_run: false,
        }
    }

    fn has_room(&self, number: usize, used: Amount, need: Amount) -> bool {
        let fits = |max: Option<u64>, used: u64, need: u64| need == 0 || max.is_none_or(|max| used + need <= max);
        let account = &self.0[number];
        fits(account.max_keys, used.keys, need.keys) && fits(account.max_bytes, used.bytes, need.bytes)
    }
}

impl Quotas {
    pub fn new(accounts: Accounts) -> Self {
        let live = vec![Amount::default(); accounts.0.len()];
        Self {
            accounts,
            live,
            most: BTreeMap::new(),
            waiting: BTreeMap::new(),
            refused: BTreeMap::new(),
            probes: BTreeMap::new(),
        }
    }

    /// A client calls.
    pub fn invoked(&mut self, op: &Op) {
        let number = Accounts::of(op.number);
        self.most.insert(op.id, (number, self.live[number]));
    }

    /// Its deadline passed.
    pub fn ended(&mut self, op: OpId) {
        self.most.remove(&op);
    }
}

impl World {
    /// An operation needs more than is leased here: true if it was refused before, and so it is for good.
    pub fn needs_lease(&mut self, pod: usize, id: RequestId, op: &Op, need: Amount) -> bool {
        let boot = self.pods[pod].boot;
        let number = Accounts::of(op.number);
        let refused = self.quotas.refused.remove(&(pod, boot, id));
        if refused.is_some_and(|refused| need.keys >= refused.keys && need.bytes >= refused.bytes) {
            self.note(|| format!("operation {} is refused: {need:?} over quota", op.id));
            let most = self.quotas.most.get(&op.id).map(|(_, most)| *most);
            if let Some(most) = most.filter(|most| !self.rough && self.quotas.accounts.has_room(number, *most, need)) {
                let account = &self.quotas.accounts.0[number];
                self.fail(format!("operation {} was refused {need:?} of {account:?}: there were {most:?}", op.id));
            }
            return true;
        }
        self.next_request += 1;
        let lease = self.next_request;
        self.quotas.waiting.insert((pod, boot, lease), (id, need));
        let (ask, now) = (self.quotas.accounts.ask(number, need), self.time(pod));
        self.note(|| format!("pod {pod}: operation {} asks for {need:?} of account {number}", op.id));
        if let Some(process) = &mut self.pods[pod].process {
            process.at(now).lease(lease, ask, now);
        }
        false
    }

    /// A replica has a verdict. A worker's task is woken: it tries again some time later.
    pub fn leased(&mut self, pod: usize, lease: LeaseId, verdict: LeaseVerdict) {
        let boot = self.pods[pod].boot;
        if let Some((_, probe)) = self.quotas.probes.get_mut(&(pod, lease)) {
            *probe = Some(verdict);
            return;
        }
        let Some((id, need)) = self.quotas.waiting.remove(&(pod, boot, lease)) else { return };
        if verdict != LeaseVerdict::Granted {
            // The key may have come into being meanwhile: then it needs less, or nothing.
            self.quotas.refused.insert((pod, boot, id), need);
        }
        let delay = if self.random.one_in(20) { self.random.between(0, 80 * MS) } else { self.random.between(0, 200) };
        self.after(delay, Event::Run { pod, boot, id });
    }

    /// The caller waits no longer.
    pub fn lease_over(&mut self, pod: usize, boot: Boot, id: RequestId) {
        self.quotas.refused.remove(&(pod, boot, id));
        let lease = self.quotas.waiting.iter().find(|(at, it)| (at.0, at.1) == (pod, boot) && it.0 == id);
        let Some((&at, _)) = lease else { return };
        self.quotas.waiting.remove(&at);
        if let Some(process) = self.pods[pod].process_with(Some(boot)) {
            process.replica.lease_over(at.2);
        }
    }

    /// After every event, and every operation: what exists, and whether it may.
    pub fn check_quotas(&mut self) {
        if self.torn {
            return;
        }
        let live = self.live();
        if live == self.quotas.live {
            return;
        }
        for (number, (account, used)) in self.quotas.accounts.0.iter().zip(&live).enumerate() {
            let over = |max: Option<u64>, used: u64| max.is_some_and(|max| used > max);
            let grew = |part: fn(&Amount) -> u64| part(used) > part(&self.quotas.live[number]);
            if over(account.max_keys, used.keys) && grew(|it| it.keys)
                || over(account.max_bytes, used.bytes) && grew(|it| it.bytes)
            {
                let what = format!("quota: {account:?} is exceeded: there are {used:?}");
                self.violation.get_or_insert(what);
            }
        }
        for (number, most) in self.quotas.most.values_mut() {
            let live = live[*number];
            *most = Amount { keys: most.keys.max(live.keys), bytes: most.bytes.max(live.bytes) };
        }
        self.quotas.live = live;
    }

    /// What exists: of each key the newest copy, or in a rough run what an authority serves that nobody takes for lost.
    fn live(&self) -> Vec<Amount> {
        let mut live = vec![Amount::default(); self.quotas.live.len()];
        let processes = || self.pods.iter().enumerate().filter_map(|(pod, it)| Some((pod, it.process.as_ref()?)));
        let counts = |pod: usize, process: &Process, key: usize| {
            !self.rough || (process.seen[key].may_run && !self.is_doomed(pod, process))
        };
        for key in 0..self.keys.len() {
            let seen = processes().filter(|(pod, process)| counts(*pod, process, key));
            let newest = seen.max_by_key(|(_, process)| process.seen[key].entry);
            let seen = newest.map(|(_, process)| process.seen[key]).unwrap_or_default();
            if seen.entry.is_some_and(|(_, has_value)| has_value) {
                let sum = &mut live[Accounts::of(key)];
                *sum = Amount { keys: sum.keys + 1, bytes: sum.bytes + seen.bytes };
            }
        }
        live
    }

    /// Everything has come to rest: everybody asks for a little of everything.
    pub fn probe_quotas(&mut self) {
        for pod in 0..self.pods.len() {
            for number in 0..self.quotas.live.len() {
                self.next_request += 1;
                let (lease, now) = (self.next_request, self.time(pod));
                let dry_run = self.random.one_in(2);
                let ask = LeaseAsk { dry_run, ..self.quotas.accounts.ask(number, PROBE) };
                let Some(process) = &mut self.pods[pod].process else { continue };
                self.quotas.probes.insert((pod, lease), (number, None));
                process.at(now).lease(lease, ask, now);
                self.carry_out(pod);
            }
        }
    }

    /// At rest: what every replica holds is counted right, the leases are within the limits, and everybody who asked for room
    /// got it, or was told that there is none.
    pub fn quotas_at_rest(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let live = self.live();
        for (number, account) in self.quotas.accounts.0.iter().enumerate() {
            let (mut sum, mut free) = (Amount::default(), Amount::default());
            for process in self.pods.iter().filter_map(|pod| pod.process.as_ref()) {
                let tenant = process.store.tenant(&account.id);
                let (used, held) = (tenant.usage(), held(process, number));
                if (used.keys, used.bytes) != (held.keys, held.bytes) {
                    wrong.push(format!("quota: {} counts {used:?} of {held:?}", process.replica.me()));
                }
                sum = Amount { keys: sum.keys + used.keys, bytes: sum.bytes + used.bytes };
                free = Amount { keys: free.keys + tenant.free().keys, bytes: free.bytes + tenant.free().bytes };
            }
            let over = |max: Option<u64>, sum: u64| max.is_some_and(|max| sum > max);
            if over(account.max_keys, sum.keys + free.keys) || over(account.max_bytes, sum.bytes + free.bytes) {
                wrong.push(format!("quota: {account:?} is used {sum:?} and leased {free:?} besides"));
            }
            for ((pod, _), (_, verdict)) in self.quotas.probes.iter().filter(|(_, (it, _))| *it == number) {
                let fits = self.quotas.accounts.has_room(number, live[number], PROBE);
                match verdict {
                    _ if self.pods[*pod].process.is_none() => {}
                    None => wrong.push(format!("quota: pod {pod} waits for {account:?}, of which {sum:?} is used")),
                    Some(verdict) if fits == (*verdict == LeaseVerdict::Granted) => {}
                    Some(verdict) => wrong.push(format!("quota: pod {pod}: {verdict:?} of {account:?}, used {sum:?}")),
                }
            }
        }
        wrong
    }
}

/// What a replica holds of an account's keys.
fn held(process: &Process, number: usize) -> Amount {
    let seen = process.seen.iter().enumerate().filter(|(key, _)| Accounts::of(*key) == number);
    let values = seen.filter(|(_, seen)| seen.entry.is_some_and(|(_, has_value)| has_value));
    values.fold(Amount::default(), |sum, (_, seen)| Amount { keys: sum.keys + 1, bytes: sum.bytes + seen.bytes })
}
