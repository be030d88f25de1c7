//! F11: the recordings, at their own pace and a hundred times faster, through an API server that fails now and then.

use std::cell::{Cell, RefCell};

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::*;
use crate::kubernetes::recording::{self, Event, Recording};

/// Seeds per recording and pace.
const SEEDS: u64 = 10;

/// What a row of failures may take after the last event: of ten in a row, with waits of half a minute and watches of one.
const ENOUGH: Duration = Duration::from_secs(900);

/// Plays a recording from the moment it was made.
struct Player {
    recording: Recording,
    began: Instant,
    faster: u32,
    random: RefCell<SmallRng>,
    /// Out of a hundred calls, how many go wrong.
    wrong: u32,
    was_listed: Cell<bool>,
}

impl Player {
    fn due(&self, event: &Event) -> Instant {
        self.began + event.at / self.faster
    }

    fn answer(&self, call: &api_server::Call) -> Answer {
        let goes_wrong = self.random.borrow_mut().random_range(0..100) < self.wrong;
        match (call.is_watch(), goes_wrong) {
            (false, false) => self.list(),
            (true, false) => Answer::watch(self.events(call.get("resourceVersion").unwrap().parse().unwrap())),
            (false, true) => self.one_of(vec![
                Answer::Never,
                Answer::Refused,
                Answer::status(403),
                Answer::status(410),
                Answer::status(504),
                Answer::text("{\"kind\": \"EndpointSliceL"),
                Answer::Now(200, vec![Step::Text("{".into()), Step::Break]),
                // Nobody could tell from a first list that it is wrong.
                if self.was_listed.get() { list(1, &[]) } else { Answer::Never },
            ]),
            (true, true) => self.cut(self.events(call.get("resourceVersion").unwrap().parse().unwrap())),
        }
    }

    /// What is true now.
    fn list(&self) -> Answer {
        let mut truth = self.recording.beginning();
        let due = self.recording.events.iter().filter(|event| self.due(event) <= Instant::now());
        due.for_each(|event| truth.hear(event));
        self.was_listed.set(true);
        list(truth.version(), &truth.objects())
    }

    /// What comes after a version, each at its time, some of it twice; and the end of the watch.
    fn events(&self, after: u64) -> Vec<Step> {
        let (mut steps, mut now) = (Vec::new(), Instant::now());
        for came in self.recording.events.iter().filter(|event| recording::version(&event.object) > after) {
            let due = self.due(came).max(now);
            steps.push(Step::Pause(due - now));
            now = due;
            let times = if self.random.borrow_mut().random_range(0..4) == 0 { 2 } else { 1 };
            steps.extend(vec![event(&came.kind, &came.object); times]);
        }
        steps.push(Step::Pause(Duration::from_secs(30)));
        steps
    }

    /// A watch that does not come to its end.
    fn cut(&self, mut steps: Vec<Step>) -> Answer {
        let at = self.random.borrow_mut().random_range(0..steps.len());
        steps.truncate(at);
        let end = |step: Step| [steps.clone(), vec![step]].concat();
        self.one_of(vec![
            Answer::Never,
            Answer::Refused,
            Answer::status(410),
            Answer::watch(end(event("ERROR", &error(410)))),
            Answer::watch(end(event("ERROR", &error(504)))),
            Answer::watch(end(Step::Hang)),
            Answer::watch(end(Step::Break)),
            Answer::watch(end(Step::Text("{\"type\": \"DELETED\", \"object\": {\"meta".into()))),
        ])
    }

    fn one_of(&self, mut answers: Vec<Answer>) -> Answer {
        let which = self.random.borrow_mut().random_range(0..answers.len());
        answers.swap_remove(which)
    }
}

/// Returns how many values came.
async fn play(name: &'static str, family: Family, faster: u32, seed: u64, wrong: u32) -> usize {
    let recording = Recording::read(name);
    let mut end = recording.beginning();
    recording.events.iter().for_each(|event| end.hear(event));
    // Every ring that there ever was: none else may come.
    let mut rings = vec![recording.beginning().ring(family)];
    let mut truth = recording.beginning();
    for event in &recording.events {
        truth.hear(event);
        rings.push(truth.ring(family));
    }
    let random = RefCell::new(SmallRng::seed_from_u64(seed));
    let player = Player { recording, began: Instant::now(), faster, random, wrong, was_listed: Cell::default() };
    let last = player.recording.events.last().map(|event| player.due(event)).unwrap();
    let (_server, mut views) = ApiServer::answering(recording::selection(family), move |call| player.answer(call));
    let (mut values, mut at) = (0, 0);
    while let Ok(changed) = tokio::time::timeout_at(last + ENOUGH, views.changed()).await {
        changed.expect("it is followed");
        values += 1;
        let view = views.borrow_and_update().clone().unwrap();
        let serving = view.endpoints().into_values().filter(|endpoint| endpoint.serves);
        let mut ring: Vec<String> = serving.map(|endpoint| endpoint.address.to_string()).collect();
        ring.sort_unstable();
        let found = rings[at..].iter().position(|was| *was == ring);
        at += found.unwrap_or_else(|| panic!("{name}, seed {seed}: a ring that never was, or was before: {ring:?}"));
    }
    let view = views.borrow().clone().unwrap();
    assert_eq!(uids_of(&view), end.uids(family).into_iter().collect::<Vec<_>>(), "{name}, seed {seed}");
    values
}

#[tokio::test(start_paused = true)]
async fn each_recording_comes_to_its_end_at_its_own_pace_and_at_a_hundred_times_that() {
    for name in recording::NAMES {
        let mut each = Vec::new();
        for faster in [1, 100] {
            each.push(play(name, Family::Ipv4, faster, 0, 0).await);
        }
        assert!(each[0] > 5, "{name}: {each:?} values came");
    }
    assert!(play("dual_stack_3", Family::Ipv6, 1, 0, 0).await > 5);
}

#[tokio::test(start_paused = true)]
async fn each_recording_comes_to_its_end_though_half_of_all_calls_go_wrong() {
    for name in recording::NAMES {
        for seed in 0..SEEDS {
            for faster in [1, 100] {
                play(name, Family::Ipv4, faster, seed, 50).await;
            }
        }
    }
}
