//! What clients ask, what becomes of it at a replica, and what they are told.

use std::sync::Arc;

use larder::cache::version::Version;
use larder::ownership::member::Boot;
use larder::ownership::shard::Standing;
use larder::ownership::{Origin, RequestId};

use crate::monitor::{Kind, OpId, Outcome};
use crate::world::{Asker, Event, MS, Message, OP_DEADLINE, Op, Pod, Running, Top, World};

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
        let (op, clock) = (running.op.clone(), Arc::clone(&process.clock));
        if let Ok((outcome, version)) = process.replica.store_mut().execute(&op.place, op.id, op.kind, &clock, now) {
            let Some(running) = process.running.remove(&id) else { return };
            process.replica.finished(id, now);
            self.was_executed(&op, outcome, version);
            self.answer(pod, &running, outcome);
        } else {
            let origin = if matches!(running.asker, Asker::Client) { Origin::Client } else { Origin::Peer };
            process.replica.submit(id, op.place, origin, now);
        }
    }

    pub fn was_executed(&mut self, op: &Op, outcome: Outcome, version: Option<Version>) {
        self.note(|| format!("operation {} {:?} on key {}: {outcome:?}, {version:?}", op.id, op.kind, op.place.key));
        self.may_have_been_evicted(op.place.key);
        let Some(version) = version else { return };
        if !self.executed.insert(op.id) {
            self.fail(format!("operation {} was executed twice", op.id));
        }
        let top = &mut self.tops[op.place.key as usize];
        let grows = version > top.version;
        *top = Top { version, live: !matches!(op.kind, Kind::Delete) };
        if !grows && !self.rough {
            self.fail(format!("key {}: a later write has a lower version", op.place.key));
        }
    }

    /// The eviction of a copy takes effect when the key is resolved by it, or never.
    pub fn may_have_been_evicted(&mut self, key: u32) {
        let top = self.tops[key as usize];
        if top.live && self.evicted.contains(&(key, top.version)) {
            self.monitors[key as usize].may_vanish();
        }
    }

    pub fn answer(&mut self, pod: usize, running: &Running, outcome: Outcome) {
        match &running.asker {
            Asker::Client => self.answered(&running.op, outcome),
            Asker::Peer { pod: asker, boot, id, stamp } => {
                let Some(process) = &mut self.pods[pod].process else { return };
                let stamp = process.replica.answer_stamp(stamp);
                self.send(pod, *asker, Some(*boot), Message::Executed { stamp, id: *id, outcome });
            }
        }
    }

    pub fn answered(&mut self, op: &Op, outcome: Outcome) {
        let client = &mut self.clients[op.client];
        if client.busy != Some(op.id) {
            return;
        }
        client.busy = None;
        let seen = match outcome {
            Outcome::Value(cell) => cell.map(|cell| cell.0),
            Outcome::Done if op.kind == Kind::Delete => None,
            Outcome::Done | Outcome::Count(_) => Some(op.id),
            Outcome::Mismatch => None,
        };
        client.seen.insert(op.place.key, seen);
        self.note(|| format!("client {}: operation {} answered {outcome:?}", op.client, op.id));
        if !self.monitors[op.place.key as usize].respond(op.id, outcome) {
            self.fail(format!(
                "key {}: operation {} {:?} -> {outcome:?} is not linearizable",
                op.place.key, op.id, op.kind
            ));
        }
        self.think(op.client);
    }

    /// The client gets "unknown whether applied".
    pub fn ended_unknown(&mut self, op: &Op) {
        if self.clients[op.client].busy == Some(op.id) {
            self.clients[op.client].busy = None;
            self.figures.unknown += 1;
            self.note(|| format!("client {}: operation {} ended as unknown", op.client, op.id));
            self.think(op.client);
        }
    }

    /// From here on nobody executes the operation.
    pub fn deadline(&mut self, op: OpId, client: usize, key: u32) {
        self.monitors[key as usize].close(op);
        if self.clients[client].busy == Some(op) {
            self.clients[client].busy = None;
            self.figures.unknown += 1;
            self.note(|| format!("client {client}: operation {op} passed its deadline"));
            self.think(client);
        }
    }

    pub fn think(&mut self, client: usize) {
        let delay = self.random.between(MS, 120 * MS);
        self.after(delay, Event::Invoke { client });
    }

    pub fn invoke(&mut self, client: usize) {
        if self.quiet || self.clients[client].busy.is_some() {
            return;
        }
        let key = self.random.index(self.keys.len());
        let seen = self.clients[client].seen.get(&self.keys[key].key).copied().flatten();
        let kind = match self.random.between(0, 9) {
            0..=3 => Kind::Read,
            4..=5 => Kind::Write,
            6 => Kind::WriteIf(seen),
            7..=8 => Kind::Increment,
            _ => Kind::Delete,
        };
        let id = self.next_op;
        self.next_op += 1;
        self.figures.operations += 1;
        let op = Op { id, client, kind, place: self.keys[key].clone(), deadline: self.now + OP_DEADLINE };
        self.clients[client].busy = Some(id);
        self.monitors[key].invoke(id, kind);
        self.after(OP_DEADLINE, Event::Deadline { op: id, client, key: op.place.key });
        self.arrive_somewhere(op);
    }

    pub fn arrive_somewhere(&mut self, op: Op) {
        let ready = |pod: &Pod| pod.process.as_ref().is_some_and(|process| process.replica.is_ready());
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
            process.replica.finished(id, now);
            self.carry_out(pod);
        }
    }

    pub fn evict(&mut self) {
        let up: Vec<usize> = (0..self.pods.len()).filter(|pod| self.pods[*pod].process.is_some()).collect();
        let (Some(pod), Some(place)) = (self.random.pick(&up), self.random.pick(&self.keys)) else { return };
        let (now, number) = (self.time(pod), place.key as usize);
        let paused = self.is_paused(pod);
        let Some(process) = &mut self.pods[pod].process else { return };
        let authority = process.replica.store().view(&place).standing(&place) == Standing::Authority;
        let before = process.replica.store().entry(&place).map(|entry| entry.version);
        if paused || !process.replica.store_mut().evict(&place, &process.clock, now) {
            return;
        }
        let after = process.replica.store().entry(&place).map(|entry| entry.version);
        self.note(|| format!("pod {pod} evicts key {number} (authority: {authority})"));
        if authority {
            self.tops[number] =
                Top { version: after.unwrap_or(process_version(&self.tops[number], before)), live: false };
            let id = self.next_op;
            self.next_op += 1;
            self.monitors[number].invoke(id, Kind::Delete);
            self.monitors[number].respond(id, Outcome::Done);
        } else if let Some(version) = before {
            self.evicted.insert((place.key, version));
        }
    }
}

/// A removal that left nothing has a version that nobody sees.
fn process_version(top: &Top, before: Option<Version>) -> Version {
    before.unwrap_or(top.version).max(top.version)
}
