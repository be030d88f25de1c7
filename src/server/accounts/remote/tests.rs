//! In paused time, with a service that does as it is told. The wire is in `tests/accounts_remote.rs`.

use std::collections::VecDeque;

use futures::future::{BoxFuture, join_all};
use tonic::Code;

use super::ask::{Answer, Question};
use super::*;
use crate::cache::key::AccountId;
use crate::server::accounts::{Account, Limits};

/// What the service does next; the last thing for ever.
#[derive(Clone, Debug)]
enum Does {
    Answer(Answer),
    /// The same, so long after it was asked.
    Late(Duration, Answer),
    Fail,
    Hang,
}

#[derive(Clone, Default)]
struct Service(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    does: VecDeque<Does>,
    asked: Vec<Question>,
}

impl Service {
    fn will(&self, does: impl IntoIterator<Item = Does>) {
        self.0.lock().does = does.into_iter().collect();
    }

    fn asked(&self) -> usize {
        self.0.lock().asked.len()
    }
}

impl Ask for Service {
    fn ask(&self, question: Question) -> BoxFuture<'static, Result<Answer, AskError>> {
        let mut script = self.0.lock();
        script.asked.push(question);
        let next = if script.does.len() > 1 { script.does.pop_front() } else { script.does.front().cloned() };
        Box::pin(async move {
            match next {
                Some(Does::Answer(answer)) => Ok(answer),
                Some(Does::Late(after, answer)) => {
                    tokio::time::sleep(after).await;
                    Ok(answer)
                }
                Some(Does::Hang) => std::future::pending().await,
                Some(Does::Fail) | None => {
                    Err(AskError::Status { code: Code::Unavailable, message: "connection refused".into() })
                }
            }
        })
    }
}

fn account(max_keys: u64) -> Answer {
    let limits = Limits { max_keys: Some(max_keys), ..Limits::default() };
    Answer::Known(Account { id: AccountId::new("a").unwrap(), limits }, false)
}

fn keys(grant: &Result<Grant, Failure>) -> Option<u64> {
    grant.as_ref().ok().and_then(|grant| grant.account.limits.max_keys)
}

fn remote() -> (Service, Remote) {
    let service = Service::default();
    (service.clone(), Remote::asking(Box::new(service), Policy::default(), DEFAULT_TIMEOUT, &Handle::current()))
}

fn within(time: Duration) -> Asking {
    Asking { deadline: Some(Instant::now() + time), ..Asking::default() }
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

/// Lets tasks in the background do what they can without time passing.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_used_for_its_ttl_without_asking_again() {
    let (service, remote) = remote();
    service.will([Does::Answer(account(1)), Does::Answer(account(2))]);
    assert!(remote.cached("t").is_none());
    assert_eq!(keys(&remote.grant("t", &Asking::default()).await), Some(1));
    pass(47).await;
    assert_eq!(keys(&remote.cached("t").unwrap()), Some(1));
    settle().await;
    assert_eq!(service.asked(), 1);
    pass(13).await;
    assert!(remote.cached("t").is_none());
    assert_eq!(keys(&remote.grant("t", &Asking::default()).await), Some(2));
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_use_is_renewed_before_it_is_old_and_nobody_waits() {
    let (service, remote) = remote();
    service.will([Does::Answer(account(1)), Does::Late(Duration::from_secs(1), account(2))]);
    remote.grant("t", &Asking::default()).await.unwrap();
    pass(50).await;
    for _ in 0..3 {
        assert_eq!(keys(&remote.cached("t").unwrap()), Some(1));
    }
    settle().await;
    pass(2).await;
    settle().await;
    assert_eq!((keys(&remote.cached("t").unwrap()), service.asked(), remote.generation()), (Some(2), 2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_with_one_token_cause_one_question() {
    let (service, remote) = remote();
    service.will([Does::Late(Duration::from_secs(1), account(1))]);
    let asking = within(Duration::from_secs(3));
    let grants = join_all((0..100).map(|_| remote.grant("t", &asking))).await;
    assert!(grants.iter().all(|grant| keys(grant) == Some(1)));
    assert_eq!(service.asked(), 1);
    assert_eq!(service.0.lock().asked[0].timeout, Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn the_caller_who_caused_a_question_may_go_away() {
    let (service, remote) = remote();
    service.will([Does::Late(Duration::from_secs(1), account(1))]);
    let caller = || {
        let remote = remote.clone();
        tokio::spawn(async move { remote.grant("t", &Asking::default()).await })
    };
    let (first, second) = (caller(), caller());
    settle().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!((keys(&second.await.unwrap()), service.asked()), (Some(1), 1));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_one_caller_fails_no_other() {
    let (service, remote) = remote();
    service.will([Does::Hang, Does::Late(Duration::from_millis(200), account(1))]);
    let (hasty, patient) = (within(Duration::from_millis(50)), within(Duration::from_secs(2)));
    let begun = Instant::now();
    let (hasty, patient) = tokio::join!(remote.grant("t", &hasty), remote.grant("t", &patient));
    assert_eq!(hasty.unwrap_err(), Failure::DeadlineExceeded);
    assert_eq!((keys(&patient), begun.elapsed().as_millis() / 10), (Some(1), 25));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_holds_while_the_service_hangs() {
    let (service, remote) = remote();
    service.will([Does::Hang]);
    let begun = Instant::now();
    let grant = remote.grant("t", &within(Duration::from_millis(50))).await;
    assert_eq!(grant.unwrap_err(), Failure::DeadlineExceeded);
    assert!(begun.elapsed() < Duration::from_millis(60), "{:?}", begun.elapsed());
    assert_eq!(remote.grant("t", &Asking::default()).await.unwrap_err(), Failure::AccountsUnavailable);
    let late = Asking { deadline: Some(Instant::now()), ..Asking::default() };
    assert_eq!(remote.grant("u", &late).await.unwrap_err(), Failure::DeadlineExceeded);
    assert_eq!(service.asked(), 2, "a caller without time asks nothing");
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_serves_while_the_service_is_down_and_a_new_one_when_it_is_back() {
    let (service, remote) = remote();
    service.will([Does::Answer(account(1))]);
    remote.grant("t", &Asking::default()).await.unwrap();
    service.will([Does::Fail]);
    for minute in 1..=60 {
        pass(60).await;
        assert_eq!(keys(&remote.grant("t", &Asking::default()).await), Some(1), "after {minute} min");
    }
    assert!(remote.stats().stale == 60 && remote.stats().failed == 60);
    service.will([Does::Answer(account(2))]);
    pass(6).await;
    assert_eq!(keys(&remote.grant("t", &Asking::default()).await), Some(2));
}

#[tokio::test(start_paused = true)]
async fn an_answer_older_than_the_maximum_serves_no_more() {
    let (service, remote) = remote();
    service.will([Does::Answer(account(1)), Does::Fail]);
    remote.grant("t", &Asking::default()).await.unwrap();
    pass(61 * 60).await;
    assert_eq!(remote.grant("t", &Asking::default()).await.unwrap_err(), Failure::AccountsUnavailable);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_down_is_tried_ever_more_rarely() {
    let (service, remote) = remote();
    service.will([Does::Answer(account(1)), Does::Fail]);
    remote.grant("t", &Asking::default()).await.unwrap();
    pass(60).await;
    for _ in 0..60_000 {
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(keys(&remote.grant("t", &Asking::default()).await), Some(1));
    }
    assert!((15..40).contains(&service.asked()), "{} questions in a minute", service.asked());
}

#[tokio::test(start_paused = true)]
async fn with_an_old_answer_nobody_waits_long_for_a_service_that_hangs() {
    let (service, remote) = remote();
    service.will([Does::Answer(account(1)), Does::Hang]);
    remote.grant("t", &Asking::default()).await.unwrap();
    pass(60).await;
    for (time, longest_ms) in [(100, 50), (10_000, 200), (10_000, 0), (10_000, 0)] {
        let begun = Instant::now();
        let grant = remote.grant("t", &within(Duration::from_millis(time))).await;
        assert_eq!(keys(&grant), Some(1));
        assert!(begun.elapsed().as_millis() <= longest_ms + 1, "{:?}", begun.elapsed());
    }
    assert_eq!(service.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_service_no_longer_knows_stops_at_once() {
    let (service, remote) = remote();
    service.will([Does::Answer(account(1)), Does::Answer(Answer::Unknown)]);
    remote.grant("t", &Asking::default()).await.unwrap();
    pass(60).await;
    assert_eq!(remote.grant("t", &Asking::default()).await.unwrap_err(), Failure::TokenUnknown);
    assert_eq!(remote.generation(), 1);
    service.will([Does::Fail]);
    pass(6).await;
    assert_eq!(remote.grant("t", &Asking::default()).await.unwrap_err(), Failure::AccountsUnavailable);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_token_is_asked_once_per_negative_ttl() {
    let (service, remote) = remote();
    service.will([Does::Answer(Answer::Unknown)]);
    for _ in 0..100 {
        assert_eq!(remote.grant("t", &Asking::default()).await.unwrap_err(), Failure::TokenUnknown);
    }
    assert_eq!(service.asked(), 1);
    pass(5).await;
    service.will([Does::Answer(account(1))]);
    assert_eq!(keys(&remote.grant("t", &Asking::default()).await), Some(1));
}

#[tokio::test(start_paused = true)]
async fn only_so_many_questions_are_under_way_and_renewals_have_their_own_share() {
    let (service, remote) = remote();
    service.will([Does::Answer(account(1))]);
    remote.grant("right", &Asking::default()).await.unwrap();
    pass(60).await;
    service.will([Does::Hang]);
    let tokens: Vec<_> = (0..MAX_QUESTIONS).map(|wrong| wrong.to_string()).collect();
    let asking = within(Duration::from_secs(4));
    let waiting = join_all(tokens.iter().map(|token| remote.grant(token, &asking)));
    let others = async {
        settle().await;
        assert_eq!(remote.grant("one more", &asking).await.unwrap_err(), Failure::AccountsUnavailable);
        assert_eq!(remote.stats().refused, 1);
        service.will([Does::Answer(account(2))]);
        assert_eq!(keys(&remote.grant("right", &asking).await), Some(2));
    };
    let (failed, ()) = tokio::join!(waiting, others);
    assert!(failed.iter().all(|grant| grant.as_ref().err() == Some(&Failure::DeadlineExceeded)));
    pass(1).await;
    settle().await;
    assert_eq!(remote.stats().asking, 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_with_no_bytes_or_too_many_is_asked_about_never() {
    let (service, remote) = remote();
    assert_eq!(remote.grant("", &Asking::default()).await.unwrap_err(), Failure::TokenMissing);
    assert_eq!(remote.grant(&"x".repeat(513), &Asking::default()).await.unwrap_err(), Failure::TokenUnknown);
    assert_eq!(service.asked(), 0);
}

#[test]
fn callers_on_other_runtimes_are_answered_and_told_when_the_home_is_gone() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (home, worker) = (runtime(), runtime());
    let service = Service::default();
    let remote = Remote::asking(Box::new(service.clone()), Policy::default(), DEFAULT_TIMEOUT, home.handle());
    service.will([Does::Answer(account(1))]);
    assert_eq!(keys(&worker.block_on(remote.grant("t", &Asking::default()))), Some(1));
    drop(home);
    assert_eq!(worker.block_on(remote.grant("u", &Asking::default())).unwrap_err(), Failure::AccountsUnavailable);
    assert_eq!(remote.stats().asking, 0);
}

#[tokio::test(start_paused = true)]
async fn no_debug_print_shows_a_token() {
    let (service, remote) = remote();
    service.will([Does::Answer(account(1))]);
    remote.grant("larder_secret", &Asking::default()).await.unwrap();
    let question = service.0.lock().asked[0].clone();
    let prints = [format!("{remote:?}"), format!("{question:?}"), format!("{:?}", remote.cached("larder_secret"))];
    assert!(prints.iter().all(|print| !print.contains("secret")), "{prints:?}");
}
