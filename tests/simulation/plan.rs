//! What happens to the cluster in one run: drawn from the seed.

use crate::store::{self, Look as _};
use crate::world::{Asker, EndpointChange, Event, MS, Pod, Process, SECOND, Top, World};

/// Virtual time with faults and clients, and the time after it in which everything must come to rest.
const BUSY: u64 = 60 * SECOND;
const REST: u64 = 45 * SECOND;

/// After which the network is whole again and so is the cluster.
const HEALING: u64 = 5 * SECOND;

/// After a fault two pods hear from each other within this time, or nearly always.
const HEARD_AGAIN: u64 = SECOND;

/// A cut of a slow link: together with what its messages take, it is still shorter than a member may be silent.
const SLOW_CUT: u64 = 2 * SECOND;

/// Time that asks for room have at the end.
const PROBE: u64 = 5 * SECOND;

impl World {
    /// Runs to the end, or to the first violation.
    pub fn play(&mut self) {
        let members = self.random.between(1, 4);
        for _ in 0..members {
            self.add_pod();
        }
        for client in 0..self.clients.len() {
            self.after(self.now + client as u64, Event::Invoke { client });
        }
        self.after(SECOND, Event::Act);
        if self.evicting {
            self.after(SECOND, Event::Evict);
        }
        self.after(SECOND, Event::Dump);
        self.play_until(BUSY);
        self.quiet = true;
        self.cuts.clear();
        self.slow.clear();
        self.tell_all();
        self.play_until(BUSY + REST / 2);
        self.tell_all();
        self.play_until(BUSY + REST - PROBE);
        self.probe_quotas();
        self.play_until(BUSY + REST);
        if self.violation.is_none() {
            self.check_at_rest();
        }
    }

    fn play_until(&mut self, until: u64) {
        while self.violation.is_none() {
            let Some(event) = self.step(until) else { return };
            let touched = match &event {
                Event::Act => {
                    self.act();
                    continue;
                }
                Event::Crash { pod } => {
                    match pod {
                        _ if self.quiet => {}
                        Some(pod) => self.crash(*pod),
                        None => self.crash_one(),
                    }
                    continue;
                }
                Event::Deliver { to: pod, .. }
                | Event::Tick { pod, .. }
                | Event::News { pod, .. }
                | Event::Arrive { pod, .. }
                | Event::Start { pod }
                | Event::Run { pod, .. }
                | Event::GoOn { pod, .. }
                | Event::Expire { pod, .. }
                | Event::Retry { pod, .. }
                | Event::Brake { pod, .. }
                | Event::Terminate { pod } => Some(*pod),
                _ => None,
            };
            self.handle(event);
            self.check(touched);
        }
    }

    /// Pods that run, serve and were not told to end.
    fn steady(&self) -> Vec<usize> {
        let steady = |pod: &usize| {
            let it = &self.pods[*pod];
            it.endpoint.serves && !it.terminating && it.process.as_ref().is_some_and(|it| it.replica.is_ready())
        };
        (0..self.pods.len()).filter(steady).collect()
    }

    fn act(&mut self) {
        if self.quiet {
            return;
        }
        let delay = self.random.between(100 * MS, 4 * SECOND);
        self.after(delay, Event::Act);
        let steady = self.steady();
        let alive = self.pods.iter().filter(|pod| !pod.ended && !pod.terminating).count();
        if self.torn && self.random.one_in(8) {
            self.tear();
            return;
        }
        match self.random.between(0, if self.rough { 20 } else { 14 }) {
            0..=2 if alive < 7 => _ = self.add_pod(),
            3..=4 if steady.len() >= 2 => self.terminate(1),
            5 if steady.len() >= 4 => self.terminate(3),
            6 => self.pause_one(50 * MS, 1900 * MS),
            7 | 8 => self.cut_some(),
            9 | 10 => self.slow_down(),
            11 | 12 if steady.len() >= 2 => self.flap(),
            13 | 14 => self.brake(),
            15 | 16 => self.crash_one(),
            17 if steady.len() >= 3 => self.chain(),
            20 if steady.len() >= 3 => self.displace(),
            18 => self.pause_one(2 * SECOND, 20 * SECOND),
            _ => {}
        }
    }

    /// The network is torn in two, one way or both, for longer than it takes to be declared gone. What each side does
    /// meanwhile is not promised to agree, so what the keys hold is not followed from here on.
    fn tear(&mut self) {
        let until = self.now + self.random.between(3 * SECOND, 15 * SECOND);
        self.note(|| format!("the network is torn until {} ms", until / MS));
        let (sides, both) = (self.random.next(), self.random.one_in(2));
        let side = |pod: usize| sides >> (pod % 64) & 1;
        for from in 0..self.pods.len() {
            for to in 0..self.pods.len() {
                if side(from) < side(to) || (both && side(from) > side(to)) {
                    self.cuts.insert((from, to), until);
                }
            }
        }
        self.torn_until = Some(until + HEALING).max(self.torn_until);
        self.after(until + HEALING - self.now, Event::Healed);
        for monitor in &mut self.monitors {
            monitor.given_up = true;
        }
    }

    /// The cluster is to be whole again: from here on the keys are followed, from what there is of them.
    pub fn healed(&mut self) {
        if self.torn_until.is_some_and(|until| until > self.now) {
            return;
        }
        for number in 0..self.keys.len() {
            let place = &self.keys[number];
            let value = |pod: &Pod| pod.process.as_ref()?.replica.store().entry_of(place)?.value;
            let there = self.pods.iter().filter_map(|pod| value(pod).map(|carried| store::cell(&carried.value)));
            let cells = there.chain([None]).collect();
            // What the authority has, once it is resolved, is the last write, whatever else was written on the other side; and
            // its time is over when that one's is.
            // One that stands still, or whose keys others may have taken, is none, whatever it believes.
            let copy =
                |(pod, it): (usize, &Process)| Some((self.pods[pod].uptime_ms, it.replica.store().entry_of(place)?));
            let processes = || self.processes();
            let is_authority = |pod: usize, it: &Process| it.seen[number].may_run && !self.is_doomed(pod, it);
            let newest = match processes().find(|(pod, process)| is_authority(*pod, process)) {
                Some(authority) => copy(authority),
                None => processes().filter_map(copy).max_by_key(|(_, copy)| copy.rank()),
            };
            let version = newest.as_ref().map_or(self.tops[number].version, |(_, copy)| copy.version);
            let value = newest.and_then(|(uptime_ms, copy)| Some((uptime_ms, copy.value?)));
            self.tops[number] = Top { version, live: value.is_some() };
            self.expiries[number] =
                value.and_then(|(uptime_ms, value)| Some(value.expires_ms?.saturating_sub(uptime_ms) * MS));
            let open = self.open_ops.iter().filter(|(_, (key, _))| *key == number).map(|(id, (_, kind))| (*id, *kind));
            self.monitors[number].resume(cells, open.collect(), self.next_op);
        }
    }

    /// A pod's address is given to a new one, while the old process still runs and its endpoint is still listed: from here on
    /// nobody reaches it, though it reaches others. Ten seconds later it ends.
    fn displace(&mut self) {
        let Some(old) = self.random.pick(&self.steady()).filter(|pod| !self.is_paused(*pod)) else { return };
        self.lose_memory(old);
        let new = self.add_pod_at(Some(old));
        self.note(|| format!("pod {new} gets the address of pod {old}"));
        self.pods[old].displaced_by = Some(new);
        self.pods[old].terminating = true;
        if let Some(process) = &mut self.pods[old].process {
            for (_, running) in std::mem::take(&mut process.running) {
                if matches!(running.asker, Asker::Client) {
                    self.ended_unknown(&running.op);
                }
            }
        }
        let told = self.random.between(0, 9 * SECOND);
        self.after(told, Event::Endpoint { pod: old, change: EndpointChange::Remove });
        self.after(10 * SECOND, Event::Displace { pod: old });
    }

    pub fn end_displaced(&mut self, pod: usize) {
        if self.pods[pod].process.is_some() {
            self.lose_memory(pod);
            self.end_process(pod);
            self.start_again(pod, 0);
        }
    }

    /// A pod's readiness comes and goes, so its keys go to and fro.
    fn flap(&mut self) {
        let Some(pod) = self.random.pick(&self.steady()) else { return };
        let mut delay = 0;
        for _ in 0..self.random.between(1, 3) {
            self.after(delay, Event::Endpoint { pod, change: EndpointChange::Unready });
            delay += self.random.between(20 * MS, 1500 * MS);
            self.after(delay, Event::Endpoint { pod, change: EndpointChange::Serve });
            delay += self.random.between(20 * MS, 1500 * MS);
        }
        if self.rough && self.random.one_in(2) {
            let when = self.random.between(0, delay);
            self.after(when, Event::Crash { pod: None });
        }
    }

    /// Keys go from one pod to the next and on to a third, which crashes while it takes them over, and back to the second.
    /// Every other time the third pulls, and gets what the second has before what the first still has.
    fn chain(&mut self) {
        let steady = self.steady();
        let mut turn = self.random.between(0, 100 * MS);
        let mut left = steady.clone();
        let mut next = |world: &mut Self| {
            let at = world.random.index(left.len());
            left.swap_remove(at)
        };
        let (first, second, third) = (next(self), next(self), next(self));
        let pulls = turn.is_multiple_of(2);
        for pod in steady.into_iter().filter(|pod| !pulls || *pod != third) {
            self.after(0, Event::Brake { pod, on: true });
            self.after(3 * SECOND, Event::Brake { pod, on: false });
        }
        if pulls && !self.was_cut(|from, to| [(first, third), (third, first)].contains(&(from, to))) {
            self.slow.extend([(first, third), (third, first)].map(|link| (link, self.now + 3 * SECOND)));
        }
        self.after(turn, Event::Endpoint { pod: first, change: EndpointChange::Unready });
        turn += self.random.between(300 * MS, 900 * MS);
        self.after(turn, Event::Endpoint { pod: second, change: EndpointChange::Unready });
        turn += self.random.between(20 * MS, if pulls { 900 * MS } else { 400 * MS });
        self.after(turn, Event::Crash { pod: Some(third) });
        for pod in [second, first] {
            turn += self.random.between(0, 400 * MS);
            self.after(turn, Event::Endpoint { pod, change: EndpointChange::Serve });
        }
    }

    /// One receiver, or all, do not pull for a while, so that keys are fetched one by one and copies stay.
    fn brake(&mut self) {
        let steady = self.steady();
        let Some(one) = self.random.pick(&steady) else { return };
        let all = self.random.one_in(2);
        let time = self.random.between(SECOND, 8 * SECOND);
        for pod in steady.into_iter().filter(|pod| all || *pod == one) {
            self.after(0, Event::Brake { pod, on: true });
            self.after(time, Event::Brake { pod, on: false });
        }
    }

    fn terminate(&mut self, count: usize) {
        for _ in 0..count {
            let Some(pod) = self.random.pick(&self.steady()) else { return };
            self.pods[pod].terminating = true;
            let (signal, told) = (self.random.between(0, 24 * MS), self.random.between(0, SECOND));
            self.after(signal, Event::Terminate { pod });
            self.after(told, Event::Endpoint { pod, change: EndpointChange::Terminate });
        }
    }

    fn pause_one(&mut self, least: u64, most: u64) {
        let time = self.random.between(least, most);
        let up: Vec<usize> =
            (0..self.pods.len()).filter(|pod| self.pods[*pod].process.is_some() && !self.is_paused(*pod)).collect();
        if let Some(pod) = self.random.pick(&up) {
            let is_short = time < 2 * SECOND;
            if is_short && self.was_cut(|from, to| from == pod || to == pod) {
                return;
            }
            self.note(|| format!("pod {pod} is paused for {} ms", time / MS));
            if !is_short {
                // It will fence itself; meanwhile the others go on without it.
                self.lose_memory(pod);
            }
            self.pause(pod, time);
        }
    }

    /// Between two pods, one way or both, for less time than it takes to be declared gone. Silences add up: a short pause right
    /// before or after a cut would make one that is longer than both, and so would a slow link.
    fn cut_some(&mut self) {
        let mut until = self.now + self.random.between(100 * MS, 2900 * MS);
        let (from, to) = (self.any_pod(), self.any_pod());
        let was_paused = |pod: usize| self.pods[pod].paused_until + HEARD_AGAIN > self.now;
        if was_paused(from) || was_paused(to) {
            return;
        }
        if [(from, to), (to, from)].iter().any(|link| self.slow.get(link).is_some_and(|until| *until > self.now)) {
            until = until.min(self.now + SLOW_CUT);
        }
        if from != to && !self.cuts.values().any(|until| *until + 6 * SECOND > self.now) {
            self.note(|| format!("cut from pod {from} to pod {to} until {} ms", until / MS));
            self.cuts.insert((from, to), until);
            if self.random.one_in(2) {
                self.cuts.insert((to, from), until);
            }
        }
    }

    fn slow_down(&mut self) {
        let until = self.now + self.random.between(SECOND, 5 * SECOND);
        let link = (self.any_pod(), self.any_pod());
        if !self.was_cut(|from, to| (from, to) == link || (to, from) == link) {
            self.slow.insert(link, until);
        }
    }

    /// Is such a link cut, or was it until a moment ago? When the network is torn nobody counts how long who is silent.
    fn was_cut(&self, is_such: impl Fn(usize, usize) -> bool) -> bool {
        let was_cut = |until: u64| until + HEARD_AGAIN > self.now;
        !self.torn && self.cuts.iter().any(|(&(from, to), &until)| is_such(from, to) && was_cut(until))
    }

    fn any_pod(&mut self) -> usize {
        self.random.index(self.pods.len())
    }

    fn crash_one(&mut self) {
        let up = |pod: &usize| self.pods[*pod].process.is_some() && !self.is_paused(*pod);
        let up: Vec<usize> = (0..self.pods.len()).filter(up).collect();
        if let Some(pod) = self.random.pick(&up) {
            self.crash(pod);
        }
    }

    /// A process is killed; the next one in the same pod starts some time later.
    fn crash(&mut self, pod: usize) {
        if self.pods[pod].process.is_none() || self.is_paused(pod) {
            return;
        }
        self.note(|| format!("pod {pod} crashes"));
        self.figures.crashes += 1;
        self.lose_memory(pod);
        self.end_process(pod);
        let delay = self.random.between(100 * MS, 8 * SECOND);
        self.start_again(pod, delay);
    }
}
