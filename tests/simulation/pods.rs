//! Pods, their processes, and the source that tells of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use larder::ownership::member::{Boot, Endpoint, MemberId, Uid};
use larder::ownership::mistake::{Mistake, Mistakes};
use larder::ownership::view::View;
use larder::ownership::{Config, Replica};

use crate::invariants::Seen;
use crate::store::{self, Look as _};
use crate::world::{Asker, EndpointChange, Event, MS, Pod, Process, SECOND, TICK, World};

impl World {
    pub fn add_pod(&mut self) -> usize {
        self.add_pod_at(None)
    }

    /// A new pod, at the address of another if it is given that.
    pub fn add_pod_at(&mut self, other: Option<usize>) -> usize {
        let pod = self.pods.len();
        let uid = Uid::new(&format!("pod-{pod}"));
        let address = |port| format!("10.0.0.{}:{port}", other.unwrap_or(pod)).into();
        let endpoint = Endpoint { uid: uid.clone(), address: address(7070), peer: address(7071), serves: false };
        let (skew_us, uptime_ms) = (self.random.between(0, SECOND), self.random.between(1, 1000 * SECOND));
        self.pods.push(Pod {
            uid,
            process: None,
            boot: 0,
            paused_until: 0,
            held: Vec::new(),
            endpoint,
            terminating: false,
            serving_told: false,
            ended: false,
            skew_us,
            displaced_by: None,
            uptime_ms,
        });
        self.endpoint_changes(pod, EndpointChange::Add);
        let delay = self.random.between(0, 800) * MS;
        self.after(delay, Event::Start { pod });
        pod
    }

    pub fn pod_of(&self, uid: &Uid) -> Option<usize> {
        self.pods.iter().position(|pod| pod.uid == *uid)
    }

    pub fn slice(&self, number: usize) -> (Arc<str>, u64, Vec<Endpoint>) {
        let (version, pods) = &self.slices[number];
        (format!("s{number}").into(), *version, pods.iter().map(|pod| self.pods[*pod].endpoint.clone()).collect())
    }

    pub fn list(&self) -> View {
        View::of_list(self.version, (0..2).filter(|number| self.slices[*number].0 > 0).map(|number| self.slice(number)))
    }

    /// The source changes, and tells everybody some time, or never.
    pub fn endpoint_changes(&mut self, pod: usize, change: EndpointChange) {
        let number = pod % 2;
        self.version += 1;
        match change {
            EndpointChange::Add => self.slices[number].1.push(pod),
            EndpointChange::Serve | EndpointChange::Unready if self.pods[pod].terminating => return,
            EndpointChange::Serve => self.pods[pod].endpoint.serves = true,
            EndpointChange::Terminate | EndpointChange::Unready => self.pods[pod].endpoint.serves = false,
            EndpointChange::Remove => self.slices[number].1.retain(|other| *other != pod),
        }
        self.slices[number].0 = self.version;
        self.note(|| format!("source: {change:?} pod {pod}, version {}", self.version));
        self.lists.push(self.list());
        let (name, version, endpoints) = self.slice(number);
        let view = Arc::new(View::of_slice(&name, version, endpoints));
        for other in 0..self.pods.len() {
            let delay = match self.random.between(0, 9) {
                0 => continue,
                1 => self.random.between(0, 10 * SECOND),
                _ => self.random.between(0, 300 * MS),
            };
            self.after(delay, Event::News { pod: other, view: Arc::clone(&view) });
        }
    }

    pub fn tell_all(&mut self) {
        let view = Arc::new(self.list());
        for pod in 0..self.pods.len() {
            self.after(0, Event::News { pod, view: Arc::clone(&view) });
        }
    }

    pub fn start(&mut self, pod: usize) {
        if self.pods[pod].ended || self.pods[pod].process.is_some() {
            return;
        }
        // As in the server: of two processes, the one that started later has the greater boot.
        self.pods[pod].boot = self.now / MS + 1;
        let me = MemberId { uid: self.pods[pod].uid.clone(), boot: self.pods[pod].boot };
        let config = Config {
            page_bytes: self.page_bytes,
            page_step: self.page_step(),
            linger_ms: self.linger_ms,
            mistakes: self.mistakes,
        };
        let mut list = self.list();
        if self.mistakes.make(Mistake::StaleFirstList) && self.lists.len() > 3 {
            list = self.random.pick(&self.lists).unwrap_or(list);
        }
        let store = store::new(&me, self.capacity_bytes, self.mistakes);
        self.quotas.accounts.tell(&store);
        let (mut copies, clock) = (store.copies(), Arc::clone(store.clock()));
        copies.set_now(self.time(pod));
        self.note(|| format!("pod {pod} starts as {me}"));
        let replica = Replica::start(me, config, copies, clock, &list, self.time(pod));
        let process = Process {
            replica,
            store,
            running: BTreeMap::new(),
            seen: vec![Seen::default(); self.keys.len()],
            removed: 0,
            copies: Default::default(),
            goes_on: false,
        };
        self.pods[pod].process = Some(process);
        let boot = self.pods[pod].boot;
        self.after(self.now % TICK, Event::Tick { pod, boot });
        self.carry_out(pod);
    }

    /// Of the larger pages, a part at a time. Not where a mistake is made, so that the seeds that catch it stay what they are.
    pub fn page_step(&self) -> usize {
        if self.page_bytes >= 500 && self.mistakes == Mistakes::default() { 2 } else { usize::MAX }
    }

    /// SIGTERM.
    pub fn signal(&mut self, pod: usize) {
        let now = self.time(pod);
        self.note(|| format!("pod {pod} gets SIGTERM"));
        match &mut self.pods[pod].process {
            Some(process) => {
                process.at(now).leave(now);
                self.carry_out(pod);
            }
            None => self.start_again(pod, 0),
        }
    }

    /// The next process in the pod, unless it is to end: the kubelet starts nothing in a terminating pod.
    pub fn start_again(&mut self, pod: usize, delay: u64) {
        if self.pods[pod].terminating {
            self.pods[pod].ended = true;
            self.after(delay, Event::Endpoint { pod, change: EndpointChange::Remove });
        } else {
            self.after(delay, Event::Start { pod });
        }
    }

    /// The process ends, for whatever reason; its clients learn nothing.
    pub fn end_process(&mut self, pod: usize) {
        let Some(process) = self.pods[pod].process.take() else { return };
        for running in process.running.into_values() {
            if matches!(running.asker, Asker::Client) {
                self.ended_unknown(&running.op);
            }
        }
    }

    pub fn is_paused(&self, pod: usize) -> bool {
        self.pods[pod].paused_until > self.now
    }

    pub fn pause(&mut self, pod: usize, time: u64) {
        self.pods[pod].paused_until = self.now + time;
        self.after(time, Event::Resume { pod });
    }

    pub fn tick(&mut self, pod: usize, boot: Boot) {
        let now = self.time(pod);
        let Some(process) = self.pods[pod].process_with(Some(boot)) else { return };
        process.store.expire_due(now, usize::MAX);
        process.at(now).tick(now);
        let ready = process.replica.is_ready();
        self.after(TICK, Event::Tick { pod, boot });
        if ready && !self.pods[pod].serving_told && !self.pods[pod].terminating {
            self.pods[pod].serving_told = true;
            let delay = self.random.between(0, SECOND);
            self.after(delay, Event::Endpoint { pod, change: EndpointChange::Serve });
        }
        self.carry_out(pod);
    }

    pub fn exit(&mut self, pod: usize, dropped: usize) {
        self.figures.exits += 1;
        self.note(|| format!("pod {pod} exits, {dropped} entries dropped"));
        if dropped > 0 && !self.rough {
            self.fail(format!("pod {pod} left with {dropped} entries"));
        }
        if dropped > 0 {
            // All that were left are leaving: nobody will ever pull.
            self.lose_memory(pod);
        }
        self.end_process(pod);
        self.pods[pod].ended = true;
        let delay = self.random.between(0, 2 * SECOND);
        self.after(delay, Event::Endpoint { pod, change: EndpointChange::Remove });
    }

    /// The contract allows the loss of what a process held or was sent, when it is lost (PROTOCOL §8).
    pub fn lose_memory(&mut self, pod: usize) {
        let Some(process) = &self.pods[pod].process else { return };
        let id = process.replica.me().clone();
        for (number, place) in self.keys.iter().enumerate() {
            let store = process.replica.store();
            let held = store.entry_of(place).is_some() || store.is_authority(place);
            let sent = |other: &Pod| other.process.as_ref().is_some_and(|it| it.replica.store().is_lent_to(place, &id));
            if held || self.pods.iter().any(sent) {
                self.monitors[number].may_vanish();
            }
        }
    }

    /// A copy that is sent to a process that ended meanwhile is lost as well (rule 15).
    pub fn lent_to_the_dead(&mut self, holder: usize, to: usize, boot: Boot) {
        let it = &self.pods[to];
        let doomed = it.process.is_none() || it.boot != boot || it.displaced_by.is_some() || self.is_paused(to);
        if !self.rough || !doomed {
            return;
        }
        let id = MemberId { uid: self.pods[to].uid.clone(), boot };
        let Some(process) = &self.pods[holder].process else { return };
        for (number, place) in self.keys.iter().enumerate() {
            if process.replica.store().is_lent_to(place, &id) {
                self.monitors[number].may_vanish();
            }
        }
    }
}
