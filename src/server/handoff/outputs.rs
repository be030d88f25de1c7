//! What the state machine wants done, in the order in which it wants it, before it is told anything else.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::driver::Driver;
use super::inbox::{Command, Outcome};
use super::ticket::Verdict;
use crate::cache::store::Name;
use crate::ownership::member::{MemberId, Uid};
use crate::ownership::message::{CallId, Request, Stamp};
use crate::ownership::mistake::Mistakes;
use crate::ownership::snapshot::Snapshot;
use crate::ownership::view::View;
use crate::ownership::{Fence, Output};
use crate::server::peer::CallError;

/// A member that does not have this view, and what it lacks of it.
type Behind<'a> = (&'a Uid, &'a Arc<View>);

impl Driver {
    /// Does everything that is to be done.
    pub(super) fn carry_out(&mut self) {
        while let Some(outputs) = self.replica.as_mut().map(|replica| replica.outputs()).filter(|all| !all.is_empty()) {
            for output in outputs {
                self.carry_out_one(output);
            }
        }
        let Some(replica) = &self.replica else { return };
        if replica.is_ready() && self.ready.take().is_some() {
            tracing::info!("every member present has cleared this replica: it is ready");
        }
        let (gaining, open) = (replica.awaited().0 > 0 && !replica.arcs().is_empty(), !replica.is_settled());
        self.progress.look(&self.shared.figures, gaining, open, self.shared.now_us());
        // Workers stamp their forwards themselves.
        let published = self.shared.topology.load();
        let same = |(one, other): (Behind<'_>, Behind<'_>)| one.0 == other.0 && Arc::ptr_eq(one.1, other.1);
        let (before, now) = (&published.behind, replica.behind());
        if before.len() != now.len() || !before.iter().zip(now).all(same) {
            self.publish(Arc::clone(replica.snapshot()));
        }
    }

    fn carry_out_one(&mut self, output: Output<Name>) {
        match output {
            Output::Call { id, stamp, request } => self.call(id, stamp, request),
            Output::Run(id) => self.tickets.tell(id, Verdict::Run),
            Output::Forward { id, to } => self.tickets.tell(id, Verdict::Forward(to)),
            Output::Moved(id) => self.tickets.tell(id, Verdict::Moved),
            Output::Unknown(id) => self.tickets.tell(id, Verdict::Unknown),
            Output::Lease { id, verdict } => self.tickets.tell_lease(id, verdict),
            Output::Changed(snapshot) => self.changed(snapshot),
            Output::Fenced(why) => self.fence(why),
            Output::Exit { dropped } => self.ended(dropped),
        }
    }

    fn changed(&mut self, snapshot: Arc<Snapshot>) {
        let before = Arc::clone(&self.shared.topology.load().snapshot);
        self.shared.figures.view_changed(self.shared.now_us());
        self.publish(Arc::clone(&snapshot));
        self.peers.keep_only(&snapshot);
        for id in snapshot.lost_since(&before) {
            if id.boot == 0 {
                tracing::info!(member = %id.uid, "a member that is listed does not answer, and nobody has ever heard from it");
                continue;
            }
            self.shared.figures.lost.fetch_add(1, Relaxed);
            tracing::warn!(member = %id, "a member is lost, and with it what only it held");
        }
        self.look_at_my_place(&before, &snapshot);
        let (ring, present) = (snapshot.ring().members().len(), snapshot.present().count());
        tracing::info!(digest = ?snapshot.digest(), ring, present, "the view changed");
    }

    /// A replica that is listed at another address than its own gets keys that clients then ask others for.
    fn look_at_my_place(&self, before: &Snapshot, now: &Snapshot) {
        let own = &self.config.address;
        let listed = listed_at(now, &self.me.uid);
        if listed != listed_at(before, &self.me.uid)
            && let Some(listed) = listed.filter(|listed| *listed != own)
        {
            tracing::error!(%listed, %own, "the source of members lists this replica at another address; see --advertise");
        }
    }

    /// Rule 16: everything goes, and a new process starts in the place of this one; unless it was told to end, and others know that
    /// they need not wait for it: it holds nothing, and where the whole cluster was removed no list comes any more.
    fn fence(&mut self, why: Fence) {
        self.shared.alive.fence(self.shared.now_us());
        self.shared.figures.fences.fetch_add(1, Relaxed);
        tracing::error!(me = %self.me, %why, "starts again with nothing: its share of the keys is lost");
        self.replica = None;
        self.tickets.fence();
        let boot = self.me.boot;
        self.me = super::thread::identity(&self.config.uid, Some(boot));
        self.store.join(&self.me, Mistakes::default());
        self.source.restart();
        let nobody = Arc::new(Snapshot::new(View::default()));
        self.peers.keep_only(&nobody);
        self.publish(nobody);
        // What ran while the store was being emptied does not count either.
        self.shared.alive.fence(self.shared.now_us());
        if self.leaving && why == Fence::Dropped {
            self.ended(0);
        }
    }

    /// Sends a request.
    fn call(&mut self, id: CallId, stamp: Stamp, request: Request<Name>) {
        self.shared.figures.calling(&request);
        let (shared, peers, boot) = (Arc::clone(&self.shared), self.peers.clone(), self.me.boot);
        let address = self.address_of(&stamp.to);
        tokio::spawn(async move {
            let called = match &address {
                Some(address) => peers.call(address, stamp, request).await,
                None => Err(CallError::Lost),
            };
            let outcome = match called {
                Ok(answered) => Outcome::Answer(Box::new(answered)),
                Err(CallError::Refused) => Outcome::Refused,
                Err(CallError::Lost) => Outcome::Lost,
            };
            shared.inbox.tell(Command::Answered { boot, id, outcome }).await;
        });
    }

    /// Where a member listens for peers, be it present or lost.
    fn address_of(&self, id: &MemberId) -> Option<Arc<str>> {
        let snapshot = self.replica.as_ref()?.snapshot();
        if let Some(member) = snapshot.present_as(&id.uid) {
            return Some(Arc::clone(&member.endpoint.peer));
        }
        let uid: &Uid = &id.uid;
        snapshot.view().endpoints().get(uid).map(|endpoint| Arc::clone(&endpoint.peer))
    }
}

/// Where the source lists a member that is present.
fn listed_at<'a>(snapshot: &'a Snapshot, uid: &Uid) -> Option<&'a Arc<str>> {
    snapshot.present_as(uid).map(|member| &member.endpoint.address)
}
