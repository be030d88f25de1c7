//! The replicas of a `larder dev`, as a value: who there is, in which state, and what the file of members says of them. Knows
//! no processes and no clock: the supervisor says what happened, as the kubelet tells an API server.

use std::sync::Arc;

use super::ports::Ports;
use crate::cluster::members;

/// Every replica that has not ended.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// In the order in which they came: the last is the youngest.
    members: Vec<Member>,
}

/// What a pod is in Kubernetes: it outlives its processes.
#[derive(Clone, Debug)]
pub struct Member {
    /// Which ports it has, and what people call it.
    pub number: u16,
    pub uid: Arc<str>,
    pub ports: Ports,
    /// Its process, while it has one.
    pub pid: Option<i32>,
    /// Processes that it has had.
    pub starts: u32,
    /// Whether its present process has said that it serves, and not stopped saying so.
    pub serving: bool,
    pub terminating: bool,
    /// Its process is ended on purpose, to be started again.
    pub killed: bool,
    /// How its last process ended, if that was before it ever served.
    pub stillborn: Option<Ended>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// "status 64" or "signal 9".
    pub how: String,
    /// Whether the command line or the configuration was wrong.
    pub usage: bool,
    /// The last that it said.
    pub said: String,
}

impl Fleet {
    /// In the order in which they came.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Those that are to stay, the oldest first.
    pub fn staying(&self) -> impl DoubleEndedIterator<Item = &Member> {
        self.members.iter().filter(|member| !member.terminating)
    }

    pub fn member(&self, uid: &str) -> Option<&Member> {
        self.members.iter().find(|member| &*member.uid == uid)
    }

    pub fn has_number(&self, number: u16) -> bool {
        self.members.iter().any(|member| member.number == number)
    }

    /// What the file of members says.
    pub fn endpoints(&self) -> Vec<members::Member> {
        let endpoint = |member: &Member| members::Member {
            address: member.ports.grpc().to_string(),
            peer: member.ports.peer().to_string(),
            uid: member.uid.to_string(),
            ready: Some(member.serving && !member.terminating),
            serving: Some(member.serving),
            terminating: Some(member.terminating),
        };
        self.members.iter().map(endpoint).collect()
    }

    /// One more; it has no process yet.
    pub fn join(&mut self, number: u16, ports: Ports, uid: Arc<str>) {
        self.members.push(Member {
            number,
            uid,
            ports,
            pid: None,
            starts: 0,
            serving: false,
            terminating: false,
            killed: false,
            stillborn: None,
        });
    }

    pub fn started(&mut self, uid: &str, pid: Option<i32>) {
        self.with(uid, |member| {
            (member.pid, member.starts) = (pid, member.starts + 1);
            (member.serving, member.killed, member.stillborn) = (false, false, None);
        });
    }

    pub fn says(&mut self, uid: &str, serving: bool) {
        self.with(uid, |member| member.serving = serving && member.pid.is_some());
    }

    /// Its process has ended. One that was to leave is no member any more.
    pub fn ended(&mut self, uid: &str, stillborn: Option<Ended>) {
        self.with(uid, |member| (member.pid, member.serving, member.stillborn) = (None, false, stillborn));
        self.members.retain(|member| !(&*member.uid == uid && member.terminating));
    }

    /// They are to leave, all at once. Answers their processes.
    pub fn terminate(&mut self, uids: &[Arc<str>]) -> Vec<i32> {
        let mut pids = Vec::new();
        for member in self.members.iter_mut().filter(|member| uids.contains(&member.uid)) {
            member.terminating = true;
            pids.extend(member.pid);
        }
        pids
    }

    /// Its process is about to be killed, and that is meant. Answers the process.
    pub fn killed(&mut self, uid: &str) -> Option<i32> {
        self.with(uid, |member| member.killed = true);
        self.member(uid)?.pid
    }

    fn with(&mut self, uid: &str, change: impl FnOnce(&mut Member)) {
        // One that has gone meanwhile needs no news.
        if let Some(member) = self.members.iter_mut().find(|member| &*member.uid == uid) {
            change(member);
        }
    }
}

impl Member {
    /// In a word, for people.
    pub fn state(&self) -> &'static str {
        match (self.terminating, self.serving, self.pid) {
            (true, _, _) => "leaving",
            (false, true, _) => "serving",
            (false, false, Some(_)) if self.stillborn.is_none() => "not serving",
            (false, false, _) => "down",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> Fleet {
        let mut fleet = Fleet::default();
        for (number, uid) in [(0, "a"), (1, "b")] {
            fleet.join(number, Ports::of(7070, number).unwrap(), uid.into());
        }
        fleet
    }

    fn said(fleet: &Fleet) -> Vec<(bool, bool, bool)> {
        let said = |its: &members::Member| (its.ready.unwrap(), its.serving.unwrap(), its.terminating.unwrap());
        fleet.endpoints().iter().map(said).collect()
    }

    #[test]
    fn a_replica_is_listed_from_before_its_process_until_after_it() {
        let mut fleet = fleet();
        assert_eq!(said(&fleet), [(false, false, false); 2]);
        fleet.started("a", Some(1));
        fleet.says("a", true);
        assert_eq!(said(&fleet)[0], (true, true, false));
        assert_eq!(fleet.terminate(&["a".into()]), [1]);
        assert_eq!(said(&fleet)[0], (false, true, true));
        fleet.says("a", false);
        assert_eq!(said(&fleet)[0], (false, false, true));
        fleet.ended("a", None);
        assert_eq!(fleet.endpoints().len(), 1);
    }

    #[test]
    fn one_that_dies_stays_listed_and_serves_no_more() {
        let mut fleet = fleet();
        fleet.started("b", Some(1));
        fleet.says("b", true);
        assert_eq!(fleet.killed("b"), Some(1));
        fleet.ended("b", None);
        assert_eq!(said(&fleet)[1], (false, false, false));
        assert_eq!(fleet.member("b").unwrap().state(), "down");
        fleet.says("b", true);
        assert!(!fleet.member("b").unwrap().serving, "an answer of the process before");
    }
}
