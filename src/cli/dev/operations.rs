//! What the commands do to the replicas of a running `larder dev`. Each waits until it is done, as long as its caller gives
//! it, and answers what it did in a sentence.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use super::fleet::{Ended, Fleet, Member};
use super::ports::{Ports, Taken};
use super::supervisor::Supervisor;

/// Replicas at once: each has a ring of connections to the others, and this is one machine.
pub const MAX_REPLICAS: u16 = 32;

/// Numbers that are looked through for free ports.
const MAX_NUMBERS: u16 = 200;

/// At the end, how long replicas have to end in good order.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error("{0}")]
    Taken(#[from] Taken),
    #[error("there are no free ports left for another replica, from {base_port} on")]
    NoPorts { base_port: u16 },
    #[error("replica {number} ended with {} before it served: {}", .ended.how, .ended.said)]
    Stillborn { number: u16, ended: Ended },
    #[error("there is no replica {number}, but {there}")]
    NoSuch { number: u16, there: String },
    #[error("not done within {}: {what}", humantime::format_duration(*.limit))]
    Late { limit: Duration, what: String },
}

impl Supervisor {
    /// The replicas that `larder dev` begins with, on the ports that people expect.
    pub async fn begin(self: &Arc<Self>, replicas: u16) -> Result<(), Trouble> {
        let mut places = Vec::new();
        for number in 0..replicas {
            let ports = self.ports(number)?;
            ports.free()?;
            places.push((number, ports));
        }
        self.until_serving(&self.join(&places)).await
    }

    pub async fn scale(self: &Arc<Self>, replicas: u16, limit: Duration) -> Result<String, Trouble> {
        let _one = self.commands.lock().await;
        let uids: Vec<_> = self.fleet().staying().map(|member| Arc::clone(&member.uid)).collect();
        let before = uids.len();
        let wanted = usize::from(replicas);
        if wanted < before {
            let leaving = &uids[wanted..];
            self.terminate(leaving);
            self.within(limit, self.until_gone(leaving)).await?;
        } else {
            let joining = self.grow(wanted - before)?;
            self.within(limit, self.until_serving(&joining)).await??;
        }
        Ok(format!("scaled from {before} to {replicas}: {}", names(&self.fleet())))
    }

    /// As a Deployment with `maxSurge: 1, maxUnavailable: 0`: the next begins when a new one serves, not when the old one
    /// has ended.
    pub async fn restart(self: &Arc<Self>, limit: Duration) -> Result<String, Trouble> {
        let _one = self.commands.lock().await;
        let old: Vec<_> = self.fleet().staying().map(|member| Arc::clone(&member.uid)).collect();
        let all = async {
            for uid in &old {
                let joining = self.grow(1)?;
                self.until_serving(&joining).await?;
                self.terminate(std::slice::from_ref(uid));
            }
            self.until_gone(&old).await;
            Ok::<_, Trouble>(())
        };
        self.within(limit, all).await??;
        Ok(format!("replaced {}: {}", old.len(), names(&self.fleet())))
    }

    /// SIGKILL; then it is started again in place.
    pub async fn kill_one(self: &Arc<Self>, number: u16, limit: Duration) -> Result<String, Trouble> {
        let _one = self.commands.lock().await;
        let fleet = self.fleet();
        let Some(member) = fleet.staying().find(|member| member.number == number) else {
            return Err(Trouble::NoSuch { number, there: names(&fleet) });
        };
        let (uid, starts) = (Arc::clone(&member.uid), member.starts);
        self.kill(&uid);
        let again = |fleet: &Fleet| {
            let again = |member: &Member| member.starts > starts && (member.serving || member.stillborn.is_some());
            fleet.member(&uid).is_none_or(again)
        };
        self.within(limit, self.until(again)).await?;
        self.stillborn(std::slice::from_ref(&uid))?;
        Ok(format!("replica {number} was killed, and serves again as process {}", pid(&self.fleet(), &uid)))
    }

    /// Ends all of them: the whole ring at once, so nobody hands anything over.
    pub async fn end(&self, hurry: impl Future<Output = ()>) {
        self.heard.store(false, Ordering::Relaxed);
        let all: Vec<_> = self.fleet().members().iter().map(|member| Arc::clone(&member.uid)).collect();
        self.terminate(&all);
        let ended = async { timeout(END_LIMIT, self.until_gone(&all)).await.is_ok() };
        let ended = tokio::select! { ended = ended => ended, () = hurry => false };
        if !ended {
            self.kill_all();
            self.until_gone(&all).await;
        }
    }

    fn ports(&self, number: u16) -> Result<Ports, Trouble> {
        let base_port = self.settings.base_port;
        Ports::of(base_port, number).ok_or(Trouble::NoPorts { base_port })
    }

    /// So many more, on the lowest numbers that are free.
    fn grow(self: &Arc<Self>, count: usize) -> Result<Vec<Arc<str>>, Trouble> {
        let fleet = self.fleet();
        let numbers = (0..MAX_NUMBERS).filter(|number| !fleet.has_number(*number));
        let free = numbers.filter_map(|number| Some((number, self.ports(number).ok()?)));
        let places: Vec<_> = free.filter(|(_, ports)| ports.free().is_ok()).take(count).collect();
        if places.len() < count {
            return Err(Trouble::NoPorts { base_port: self.settings.base_port });
        }
        Ok(self.join(&places))
    }

    async fn until_serving(&self, uids: &[Arc<str>]) -> Result<(), Trouble> {
        let settled = |member: &Member| member.serving || member.stillborn.is_some();
        let all = |fleet: &Fleet| uids.iter().all(|uid| fleet.member(uid).is_none_or(settled));
        self.until(all).await;
        let stillborn = self.stillborn(uids);
        if stillborn.is_err() {
            // What could not be started is not wanted any more.
            let failed = |uid: &&Arc<str>| self.fleet().member(uid).is_some_and(|member| member.stillborn.is_some());
            let failed: Vec<_> = uids.iter().filter(failed).cloned().collect();
            self.terminate(&failed);
        }
        stillborn
    }

    async fn until_gone(&self, uids: &[Arc<str>]) {
        self.until(|fleet| uids.iter().all(|uid| fleet.member(uid).is_none())).await;
    }

    /// Whether one of them could not even be started.
    fn stillborn(&self, uids: &[Arc<str>]) -> Result<(), Trouble> {
        let fleet = self.fleet();
        let found = uids.iter().filter_map(|uid| fleet.member(uid)).find_map(|member| {
            let ended = member.stillborn.clone()?;
            Some(Trouble::Stillborn { number: member.number, ended })
        });
        found.map_or(Ok(()), Err)
    }

    async fn within<T>(&self, limit: Duration, done: impl Future<Output = T>) -> Result<T, Trouble> {
        match timeout(limit, done).await {
            Ok(done) => Ok(done),
            Err(_) => Err(Trouble::Late { limit, what: self.what_is_not_as_wanted() }),
        }
    }

    fn what_is_not_as_wanted(&self) -> String {
        let fleet = self.fleet();
        let off = fleet.members().iter().filter(|member| member.terminating || !member.serving);
        let told: Vec<_> = off
            .map(|member| {
                format!(
                    "replica {} is {} (its log: {})",
                    member.number,
                    member.state(),
                    self.log_of(member.number).display()
                )
            })
            .collect();
        if told.is_empty() { "the rest did not begin".to_owned() } else { told.join("; ") }
    }
}

/// The replicas as people call them.
fn names(fleet: &Fleet) -> String {
    let names: Vec<_> =
        fleet.staying().map(|member| format!("replica {} at {}", member.number, member.ports.grpc())).collect();
    if names.is_empty() { "no replica".to_owned() } else { names.join(", ") }
}

fn pid(fleet: &Fleet, uid: &str) -> String {
    fleet.member(uid).and_then(|member| member.pid).map_or_else(|| "?".to_owned(), |pid| pid.to_string())
}
