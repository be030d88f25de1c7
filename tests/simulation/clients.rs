//! What clients ask, what becomes of it at a replica, and what they are told.

use std::sync::Arc;

use larder::cache::store::Carried;
use larder::cache::version::Version;
use larder::ownership::copies::Frozen;
use larder::ownership::member::Boot;
use larder::ownership::{Origin, RequestId};

use crate::monitor::{Cell, Kind, OpId, Outcome, number};
use crate::store::{self, Blocked, Content, Executed, Look as _, content};
use crate::world::{Asker, Event, MS, Message, OP_DEADLINE, Op, Pod, Running, SECOND, Top, World};

/// A time to live travels as what remains of it, so each message that takes an entry along lengthens it by its own time.
const LATE: u64 = 3 * SECOND;

impl World {
    pub fn run(&mut self, pod: usize, op: Op, asker: Asker, hops: u32) {
        self.next_request += 1;
        let id = self.next_request;
        let wait = op.deadline.saturating_sub(self.now);
        let boot = self.pods[pod].boot;
        self.after(wait, Event::Expire { pod, boot, id });
        if hops > 1 {
            self.fail(format!("operation {} was forwarded {hops} times", op.id));
        }
        if let Some(process) = &mut self.pods[pod].process {
            process.running.insert(id, Running { op, asker, hops });
        }
        self.try_run(pod, id);
    }

    /// As the real server: the shard is asked first; the machine only when it cannot run at once.
    pub fn try_run(&mut self, pod: usize, id: RequestId) {
        let now = self.time(pod);
        let Some(process) = &mut self.pods[pod].process else { return };
        let Some(running) = process.running.get(&id) else { return };
        if running.op.deadline <= self.now || process.replica.is_over() {
            return;
        }
        let (op, store) = (running.op.clone(), Arc::clone(&process.store));
        let origin = if matches!(running.asker, Asker::Client) { Origin::Client } else { Origin::Peer };
        let payer = self.quotas.accounts.payer(&store, op.number);
        let (before, removed) = (process.replica.store().entry_of(&op.place), process.removed);
        let executed = match store::execute(&store, &payer, &op, now) {
            Ok(executed) => executed,
            Err(Blocked::Elsewhere) => return process.at(now).submit(id, op.place, origin, now),
            Err(Blocked::NeedsLease(need)) => {
                if !self.needs_lease(pod, id, &op, need) {
                    return;
                }
                (Outcome::Refused, Version::NONE)
            }
        };
        let Some(process) = &mut self.pods[pod].process else { return };
        let Some(running) = process.running.remove(&id) else { return };
        process.at(now).finished(id, now);
        let stats = process.store.stats();
        if stats.evicted + stats.expired != removed {
            // Making room for it may have taken the key's own value first.
            self.monitors[op.number].may_vanish();
        }
        self.was_executed(pod, &op, executed);
        self.bury(pod, &op, before, executed.0);
        self.answer(pod, &running, executed);
    }

    fn was_executed(&mut self, pod: usize, op: &Op, (outcome, version): Executed) {
        self.note(|| {
            format!("pod {pod}: operation {} {:?} on key {}: {outcome:?}, {version:?}", op.id, op.kind, op.number)
        });
        self.may_have_been_evicted(op.number);
        match (op.kind, outcome) {
            (Kind::Read, Outcome::Value(Some(value))) => {
                self.was_read(op, version);
                self.was_dug_out(op, value);
            }
            (Kind::Delete | Kind::DeleteIf(_), Outcome::Done) => {
                let process = self.pods[pod].process.as_ref();
                let left = process.and_then(|process| process.replica.store().entry_of(&op.place));
                let top = &mut self.tops[op.number];
                *top = Top { version: left.map_or(top.version, |left| left.version.max(top.version)), live: false };
                self.there_since[op.number] = None;
            }
            (_, Outcome::Done | Outcome::Count(_)) => self.was_written(op, outcome, version),
            // Of one that is asked again, another attempt may still be under way.
            (_, Outcome::Refused) if !op.may_repeat => self.monitors[op.number].refused(op.id),
            _ => {}
        }
    }

    fn was_written(&mut self, op: &Op, outcome: Outcome, version: Version) {
        if let Some(first) = self.executed.insert(op.id, version) {
            // Asked again by its request id, and answered as the first time.
            if !op.may_repeat || first != version {
                self.fail(format!("operation {} was executed twice", op.id));
            }
            return;
        }
        let created = outcome == Outcome::Count(number(op.id));
        if !matches!(outcome, Outcome::Count(_)) || created {
            self.expiries[op.number] = op.ttl_ms.map(|ttl| (self.now / MS + ttl) * MS);
        }
        if let Some(at) = self.expiries[op.number] {
            // A millisecond is the unit of a time to live.
            self.after((at - MS).saturating_sub(self.now), Event::Due { number: op.number, version });
        }
        let top = &mut self.tops[op.number];
        let grows = version > top.version;
        if !top.live || self.evicted.contains(&(op.number, top.version)) {
            self.there_since[op.number] = Some(self.now);
        }
        *top = Top { version, live: true };
        if !grows && !self.rough {
            self.fail(format!("key {}: a later write has a lower version", op.number));
        }
    }

    /// In a torn run: what an operation overwrote or deleted.
    fn bury(&mut self, pod: usize, op: &Op, before: Option<Frozen<Carried>>, outcome: Outcome) {
        let changed = !matches!(op.kind, Kind::Read) && matches!(outcome, Outcome::Done | Outcome::Count(_));
        let before = before.and_then(|before| before.value).and_then(|carried| store::cell(&carried.value));
        if let Some(value) = before.filter(|value| self.torn && changed && Outcome::Count(*value) != outcome) {
            self.buried.insert(value, (op.number, pod, self.pods[pod].boot));
        }
    }

    /// A value that was overwritten or deleted, by a process that was not lost, does not return after the network healed.
    fn was_dug_out(&mut self, op: &Op, value: i64) {
        let is_whole = self.torn_until.is_none_or(|until| until <= self.now);
        if is_whole && self.buried.get(&value).is_some_and(|(number, ..)| *number == op.number) {
            self.fail(format!(
                "key {}: operation {} reads {value}, which was overwritten or deleted",
                op.number, op.id
            ));
        }
    }

    /// Nothing is read long after its time.
    fn was_read(&mut self, op: &Op, version: Version) {
        let is_over = self.expiries[op.number].is_some_and(|at| at + LATE < self.now);
        if is_over && version == self.tops[op.number].version && self.torn_until.is_none() {
            self.fail(format!("key {}: a value is read {} ms after its time", op.number, LATE / MS));
        }
    }

    /// The eviction of a copy takes effect when the key is resolved by it, or never.
    pub fn may_have_been_evicted(&mut self, number: usize) {
        let top = self.tops[number];
        if top.live && self.evicted.contains(&(number, top.version)) {
            self.monitors[number].may_vanish();
        }
    }

    pub fn answer(&mut self, pod: usize, running: &Running, executed: Executed) {
        match &running.asker {
            Asker::Client => self.answered(&running.op, executed),
            Asker::Peer { pod: asker, boot, id, stamp } => {
                let Some(process) = &mut self.pods[pod].process else { return };
                let stamp = process.replica.answer_stamp(stamp);
                self.send(pod, *asker, Some(*boot), Message::Executed { stamp, id: *id, executed });
            }
        }
    }

    fn answered(&mut self, op: &Op, (outcome, version): Executed) {
        let client = &mut self.clients[op.client];
        if client.busy != Some(op.id) {
            return;
        }
        client.busy = None;
        let seen: Option<(Cell, Version)> = match (op.kind, outcome) {
            (Kind::Delete | Kind::DeleteIf(_), Outcome::Done) => Some((None, version)),
            (_, Outcome::Value(cell)) => Some((cell, version)),
            (_, Outcome::Count(sum)) => Some((Some(sum), version)),
            (_, Outcome::Done) => Some((Some(number(op.id)), version)),
            (_, Outcome::Mismatch | Outcome::Refused) => None,
        };
        match seen {
            Some(seen) => _ = client.seen.insert(op.number, seen),
            None => _ = client.seen.remove(&op.number),
        }
        self.note(|| format!("client {}: operation {} answered {outcome:?}", op.client, op.id));
        if outcome != Outcome::Refused && !self.monitors[op.number].respond(op.id, outcome) {
            self.fail(format!(
                "key {}: operation {} {:?} -> {outcome:?} is not linearizable",
                op.number, op.id, op.kind
            ));
        }
        self.think(op.client);
    }

    /// The client gets "unknown whether applied". With a request id it asks again.
    pub fn ended_unknown(&mut self, op: &Op) {
        if self.clients[op.client].busy != Some(op.id) {
            return;
        }
        self.note(|| format!("client {}: operation {} ended as unknown", op.client, op.id));
        self.figures.unknown += 1;
        if op.may_repeat && op.deadline > self.now {
            self.arrive_somewhere(op.clone());
        } else {
            self.clients[op.client].busy = None;
            self.think(op.client);
        }
    }

    /// From here on nobody executes the operation.
    pub fn deadline(&mut self, op: OpId, client: usize, number: usize) {
        self.monitors[number].close(op);
        self.open_ops.remove(&op);
        self.quotas.ended(op);
        if self.clients[client].busy == Some(op) {
            self.clients[client].busy = None;
            self.figures.unknown += 1;
            self.note(|| format!("client {client}: operation {op} passed its deadline"));
            self.think(client);
        }
    }

    fn think(&mut self, client: usize) {
        let delay = self.random.between(MS, 120 * MS);
        self.after(delay, Event::Invoke { client });
    }

    pub fn invoke(&mut self, client: usize) {
        if self.quiet || self.clients[client].busy.is_some() {
            return;
        }
        let number = self.random.index(self.keys.len());
        let (cell, seen) = self.clients[client].seen.get(&number).copied().unwrap_or_default();
        let repeats = number % 3 == 2 && !self.rough && !self.evicting;
        let kind = match self.random.between(0, 11) {
            0..=3 => Kind::Read,
            kind if repeats || ((7..=8).contains(&kind) && content(number) == Content::Number) => Kind::Increment,
            4..=5 | 7..=8 => Kind::Write,
            6 => Kind::WriteIf(cell),
            9 => Kind::WriteIfPresent,
            10 if cell.is_some() => Kind::DeleteIf(cell),
            _ => Kind::Delete,
        };
        let ttl_ms = (self.expiring && !repeats && self.random.one_in(3)).then(|| self.random.between(20, 6000));
        let id = self.next_op;
        self.next_op += 1;
        self.figures.operations += 1;
        let place = self.keys[number].clone();
        let deadline = self.now + OP_DEADLINE;
        let op = Op { id, client, kind, number, place, deadline, ttl_ms, seen, may_repeat: repeats };
        self.clients[client].busy = Some(id);
        self.quotas.invoked(&op);
        self.open_ops.insert(id, (number, kind));
        self.monitors[number].invoke(id, kind);
        self.after(OP_DEADLINE, Event::Deadline { op: id, client, number });
        self.arrive_somewhere(op);
    }

    fn arrive_somewhere(&mut self, op: Op) {
        let ready = |pod: &Pod| {
            pod.displaced_by.is_none() && pod.process.as_ref().is_some_and(|process| process.replica.is_ready())
        };
        let up: Vec<usize> = (0..self.pods.len()).filter(|pod| ready(&self.pods[*pod])).collect();
        let delay = self.random.between(100, 2 * MS);
        let pod = self.random.pick(&up).unwrap_or(0);
        self.after(delay, Event::Arrive { pod, op });
    }

    pub fn arrive(&mut self, pod: usize, op: Op) {
        if op.deadline <= self.now {
            return;
        }
        match &self.pods[pod].process {
            Some(process) if !process.replica.is_over() => self.run(pod, op, Asker::Client, 0),
            // Refused: surely not sent, so the client tries another.
            _ => self.arrive_somewhere(op),
        }
        self.carry_out(pod);
    }

    pub fn expire(&mut self, pod: usize, boot: Boot, id: RequestId) {
        let now = self.time(pod);
        if let Some(process) = self.pods[pod].process_with(Some(boot))
            && process.running.remove(&id).is_some()
        {
            process.at(now).finished(id, now);
            self.lease_over(pod, boot, id);
            self.carry_out(pod);
        }
    }

    /// Memory is short at a replica for a moment.
    pub fn squeeze(&mut self) {
        let up: Vec<usize> =
            (0..self.pods.len()).filter(|pod| self.pods[*pod].process.is_some() && !self.is_paused(*pod)).collect();
        let Some(pod) = self.random.pick(&up) else { return };
        let (now, room) = (self.time(pod), self.random.between(300, 3000));
        let capacity = self.capacity_bytes;
        let Some(process) = &self.pods[pod].process else { return };
        process.store.set_capacity(room, now);
        process.store.set_capacity(capacity, now);
        self.look(pod);
    }

    /// The authority evicted a key, or its time was over: as if somebody had deleted it.
    pub fn vanished(&mut self, pod: usize, number: usize, left: Option<Version>) {
        self.note(|| format!("pod {pod} evicts key {number}, or its time is over"));
        self.there_since[number] = None;
        let top = &mut self.tops[number];
        *top = Top { version: left.unwrap_or(top.version).max(top.version), live: false };
        let id = self.next_op;
        self.next_op += 1;
        self.monitors[number].invoke(id, Kind::Delete);
        self.monitors[number].respond(id, Outcome::Done);
    }
}
