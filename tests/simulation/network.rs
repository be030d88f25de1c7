//! The network: delays, reorders, loses and cuts, and says when nobody listens.

use larder::cache::store::{Carried, Name};
use larder::ownership::Output;
use larder::ownership::copies::Frozen;
use larder::ownership::member::Boot;
use larder::ownership::message::{Answer, Refusal};
use larder::ownership::mistake::Mistake;

use crate::world::{Asker, Event, MS, Message, World};

/// Microseconds until a process that has pages to store goes on with them.
const GO_ON: u64 = 200;

impl World {
    pub fn send(&mut self, from: usize, to: usize, boot: Option<Boot>, mut message: Message) {
        self.figures.messages += 1;
        // On the wire a time to live is what remains of it.
        let now_ms = self.time(from).monotonic_ms;
        for_each_copy(&mut message, |copy| turn_times(copy, |at| at.saturating_sub(now_ms)));
        // Who is called at an address is whoever has it now; an answer comes on the caller's own connection.
        let to = self.pods[to].displaced_by.filter(|_| boot.is_none()).unwrap_or(to);
        let cut = self.cuts.get(&(from, to)).is_some_and(|until| *until > self.now);
        if cut || (self.lossy && !self.quiet && self.random.one_in(300)) {
            self.broke(from, to, boot, &message);
            return;
        }
        let slow = self.slow.get(&(from, to)).is_some_and(|until| *until > self.now);
        let delay = match self.random.between(0, 19) {
            _ if slow => self.random.between(50 * MS, 200 * MS),
            0 => self.random.between(0, 100 * MS),
            1 if self.random.one_in(8) => self.random.between(0, 1500 * MS),
            _ => self.random.between(100, 5 * MS),
        };
        let from_boot = self.pods[from].boot;
        self.after(delay, Event::Deliver { from, from_boot, to, boot, message: Box::new(message) });
    }

    /// A connection that swallows messages breaks sooner or later, and whoever waits for an answer hears of it.
    fn broke(&mut self, from: usize, to: usize, boot: Option<Boot>, message: &Message) {
        let (pod, boot, call) = match message {
            Message::Request { call, .. } => (from, Some(self.pods[from].boot), *call),
            Message::Answer { call, .. } => (to, boot, *call),
            _ => return,
        };
        let (delay, from_boot) = (self.random.between(50 * MS, 1500 * MS), self.pods[pod].boot);
        let message = Box::new(Message::Lost { call });
        self.after(delay, Event::Deliver { from: pod, from_boot, to: pod, boot, message });
    }

    pub fn deliver(&mut self, from: usize, from_boot: Boot, to: usize, boot: Option<Boot>, mut message: Message) {
        let now = self.time(to);
        for_each_copy(&mut message, |copy| turn_times(copy, |remaining| now.monotonic_ms + remaining));
        let reply = Some(from_boot);
        let Some(process) = self.pods[to].process_with(boot) else {
            match message {
                Message::Request { call, .. } => self.send(to, from, reply, Message::Refused { call }),
                Message::Forward { id, .. } => self.send(to, from, reply, Message::ForwardRefused { id }),
                _ => {}
            }
            return;
        };
        let replica = process.at(now);
        match message {
            Message::Request { call, stamp, request } => match replica.request(&stamp, &request, now) {
                Ok((stamp, answer)) => self.send(to, from, reply, Message::Answer { call, stamp, answer }),
                Err(Refusal::NotMe | Refusal::Over) => self.send(to, from, reply, Message::Refused { call }),
                Err(Refusal::ClockAhead | Refusal::Starting) => {}
            },
            Message::Answer { call, stamp, answer } => replica.answer(call, &stamp, answer, now),
            Message::Refused { call } => replica.refused(call, now),
            Message::Lost { call } => replica.lost(call, now),
            Message::Forward { stamp, id, op, hops } => match replica.accept(&stamp, now) {
                Ok(()) => self.run(to, op, Asker::Peer { pod: from, boot: from_boot, id, stamp }, hops),
                Err(_) => self.send(to, from, reply, Message::ForwardRefused { id }),
            },
            Message::Executed { stamp, id, executed } => {
                let _ = replica.accept(&stamp, now);
                replica.finished(id, now);
                if let Some(running) = process.running.remove(&id) {
                    self.answer(to, &running, executed);
                }
            }
            Message::Moved { stamp, id } => {
                let _ = replica.accept(&stamp, now);
                replica.turned_away(id, now);
            }
            Message::ForwardRefused { id } => replica.turned_away(id, now),
        }
        self.lent_to_the_dead(to, from, from_boot);
        self.carry_out(to);
    }

    pub fn carry_out(&mut self, pod: usize) {
        loop {
            let Some(process) = &mut self.pods[pod].process else { return };
            let outputs = process.replica.outputs();
            if outputs.is_empty() {
                break;
            }
            for output in outputs {
                self.carry_out_one(pod, output);
            }
        }
        if self.page_step() == usize::MAX {
            return;
        }
        let boot = self.pods[pod].boot;
        let process = self.pods[pod].process.as_mut().filter(|process| process.replica.has_more());
        if process.is_some_and(|process| !std::mem::replace(&mut process.goes_on, true)) {
            self.after(GO_ON, Event::GoOn { pod, boot });
        }
    }

    pub fn carry_out_one(&mut self, pod: usize, output: Output<Name>) {
        let Some(process) = &mut self.pods[pod].process else { return };
        match output {
            Output::Call { id, stamp, request } => {
                let Some(to) = self.pod_of(&stamp.to.uid) else { return };
                self.send(pod, to, None, Message::Request { call: id, stamp, request });
            }
            Output::Run(id) => {
                // A worker's task is woken: it runs some time later.
                let boot = self.pods[pod].boot;
                let delay =
                    if self.random.one_in(20) { self.random.between(0, 80 * MS) } else { self.random.between(0, 200) };
                self.after(delay, Event::Run { pod, boot, id });
            }
            Output::Forward { id, to } => {
                let Some(running) = process.running.get(&id) else { return };
                let (op, hops, stamp) = (running.op.clone(), running.hops + 1, process.replica.stamp(&to));
                self.figures.forwards += 1;
                let Some(to) = self.pod_of(&to.uid) else { return };
                if self.mistakes.make(Mistake::RetryAfterTimeout) {
                    let boot = self.pods[pod].boot;
                    self.after(150 * MS, Event::Retry { pod, boot, id });
                }
                self.send(pod, to, None, Message::Forward { stamp, id, op, hops });
            }
            Output::Moved(id) => {
                let Some(running) = process.running.remove(&id) else { return };
                if let Asker::Peer { pod: asker, boot, id, stamp } = running.asker {
                    let stamp = process.replica.answer_stamp(&stamp);
                    self.send(pod, asker, Some(boot), Message::Moved { stamp, id });
                }
            }
            Output::Unknown(id) => {
                if let Some(running) = process.running.remove(&id) {
                    self.ended_unknown(&running.op);
                }
            }
            Output::Lease { id, verdict } => self.leased(pod, id, verdict),
            Output::Changed(snapshot) => {
                self.note(|| format!("pod {pod}: view {:?}, {}", snapshot.digest(), snapshot.view().marks()));
            }
            Output::Fenced(why) => {
                self.figures.fenced += 1;
                self.note(|| format!("pod {pod} fences itself: {why}"));
                if !self.rough {
                    self.fail(format!("pod {pod} fenced itself in a calm run: {why}"));
                }
                self.lose_memory(pod);
                let boot = self.pods[pod].boot;
                self.buried.retain(|_, by| (by.1, by.2) != (pod, boot));
                self.end_process(pod);
                let delay = self.random.between(50, 1000) * MS;
                self.start_again(pod, delay);
            }
            Output::Exit { dropped } => self.exit(pod, dropped),
        }
    }
}

fn for_each_copy(message: &mut Message, mut f: impl FnMut(&mut Frozen<Carried>)) {
    match message {
        Message::Answer { answer: Answer::Copies(found), .. } => {
            found.iter_mut().filter_map(|(_, copy)| copy.as_mut()).for_each(f);
        }
        Message::Answer { answer: Answer::Page { items, .. }, .. } => items.iter_mut().for_each(|(_, copy)| f(copy)),
        _ => {}
    }
}

fn turn_times(copy: &mut Frozen<Carried>, turn: impl Fn(u64) -> u64) {
    if let Some(carried) = &mut copy.value {
        carried.expires_ms = carried.expires_ms.map(&turn);
        carried.requests.iter_mut().for_each(|request| request.until_ms = turn(request.until_ms));
    }
}
