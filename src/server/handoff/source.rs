//! The source of members, as the thread listens to it: what it says is looked at twice before it is merged (`HoldBack`), and
//! after a fence it is asked anew, because a process starts with a list that is as new as any (rule 14).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::hold_back::HoldBack;
use crate::cluster::{Discover, LastHeard};
use crate::ownership::member::Uid;
use crate::ownership::snapshot::Snapshot;
use crate::ownership::view::View;

type News = watch::Receiver<Option<Arc<View>>>;

/// Starts the source anew.
type Begin = Box<dyn Fn() -> (News, JoinHandle<()>) + Send>;

/// Pause before a source that could not be made, or ended, is made again.
const PAUSE: Duration = Duration::from_secs(1);

/// A running source. Dropping it ends it.
pub struct Source {
    begin: Begin,
    news: News,
    task: JoinHandle<()>,
    last_heard: Arc<ArcSwapOption<LastHeard>>,
    hold_back: HoldBack,
    started: Instant,
}

impl Source {
    /// Runs what `make` makes on a runtime; again when it ends or cannot be made.
    pub fn new<D, E, F>(make: impl Fn() -> F + Clone + Send + 'static, runtime: Handle) -> Self
    where
        D: Discover,
        E: fmt::Display + Send + 'static,
        F: Future<Output = Result<D, E>> + Send + 'static,
    {
        let last_heard: Arc<ArcSwapOption<LastHeard>> = Arc::default();
        let heard = Arc::clone(&last_heard);
        let begin = move || {
            let (to, news) = watch::channel(None);
            (news, runtime.spawn(follow(make.clone(), to, Arc::clone(&heard))))
        };
        let (news, task) = begin();
        let (begin, started) = (Box::new(begin), Instant::now());
        Self { begin, news, task, last_heard, hold_back: HoldBack::default(), started }
    }

    /// Asks again from the beginning.
    pub(super) fn restart(&mut self) {
        self.task.abort();
        (self.news, self.task) = (self.begin)();
        self.hold_back = HoldBack::default();
    }

    /// Waits until it says something. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        if self.news.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The first consistent list, and all since.
    pub(super) fn first(&mut self) -> Option<Arc<View>> {
        self.news.borrow_and_update().clone()
    }

    /// What may be merged now.
    pub(super) fn release(
        &mut self,
        known: &Snapshot,
        answers: &dyn Fn(&Uid) -> bool,
        now_ms: u64,
    ) -> Option<Arc<View>> {
        let news = self.news.borrow_and_update().clone()?;
        self.hold_back.release(&news, known, answers, now_ms)
    }

    /// How long it has said nothing.
    pub(super) fn age(&self) -> Duration {
        self.last_heard.load().as_ref().map_or_else(|| self.started.elapsed(), |heard| heard.age())
    }

    /// Whether something is held back.
    pub(super) fn holds_back(&self) -> bool {
        self.hold_back.held_since_ms().is_some()
    }
}

/// Makes a source and follows it, for ever: a source may end, the need of it does not.
async fn follow<D: Discover, E: fmt::Display, F: Future<Output = Result<D, E>>>(
    make: impl Fn() -> F,
    to: watch::Sender<Option<Arc<View>>>,
    last_heard: Arc<ArcSwapOption<LastHeard>>,
) {
    // Sources end with their channel, and this one is to live on.
    loop {
        match make().await {
            Ok(source) => {
                last_heard.store(Some(Arc::new(source.last_heard())));
                source.run(to.clone()).await;
                tracing::error!("the source of members ended; the view stays as it is, and it is asked again");
            }
            Err(error) => tracing::error!(%error, "the source of members cannot be asked; trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}
