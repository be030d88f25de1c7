use bytes::Bytes;

use super::*;
use crate::client::error::ErrorKind;
use crate::client::operation::Operation;
use crate::client::values::{Condition, Touch};

/// The idempotence matrix: method × error × whether it was sent, and whether the call is made again.
#[test]
fn a_call_is_made_again_if_it_may_run_twice_or_surely_did_not_run() {
    let value = Bytes::new();
    let store = |condition| Operation::Store { key: "k", value: &value, ttl_ms: 0, condition };
    let increment = |request_id| Operation::Increment { key: "k", delta: 1, request_id, ttl_ms: 0 };
    let touch = |mode| Operation::Touch { key: "k", ttl_ms: 0, mode };
    let methods = [
        (Operation::Get { key: "k" }, true),
        (store(Condition::Always), true),
        (store(Condition::IfAbsent), false),
        (store(Condition::IfPresent), false),
        (store(Condition::IfVersion(1)), false),
        (Operation::Delete { key: "k", if_version: 0 }, true),
        (Operation::Delete { key: "k", if_version: 1 }, false),
        (touch(Touch::Overwrite), true),
        (touch(Touch::ExtendOnly), false),
        (touch(Touch::ShortenOnly), false),
        (increment("id"), true),
        (increment(""), false),
    ];
    let target = || "127.0.0.1:1".parse().unwrap();
    let unreachable = || ErrorKind::Unreachable { target: target(), problem: "refused".into() };
    let lost = |idempotent| ErrorKind::Answer(Failure::AppliedUnknown { idempotent });
    let soon = Duration::from_millis(1);
    let error = |kind, sent| Error::new(kind, sent);
    for (operation, is_idempotent) in methods {
        assert_eq!(operation.is_idempotent(), is_idempotent, "{operation:?}");
        let answered = |failure| error(ErrorKind::Answer(failure), Sent::Answered);
        // What happened; whether an idempotent call is made again; whether any other is.
        let table = [
            (error(unreachable(), Sent::No), true, true),
            (error(ErrorKind::Full { target: target(), limit: 1 }, Sent::No), true, true),
            (error(ErrorKind::Answer(Failure::Draining), Sent::No), true, true),
            (error(lost(is_idempotent), Sent::Maybe), true, false),
            (error(ErrorKind::Answer(Failure::DeadlineExceeded), Sent::Maybe), false, false),
            (answered(Failure::Starting), true, false),
            (answered(Failure::Draining), true, false),
            (answered(Failure::NoOwner), true, false),
            (answered(Failure::Overloaded { retry_after: soon }), true, false),
            (answered(Failure::AccountsUnavailable), true, false),
            (answered(Failure::MemoryGuaranteed), true, false),
            (answered(Failure::Other { code: tonic::Code::Unavailable as i32, message: "proxy".into() }), true, false),
            (answered(Failure::Cancelled), false, false),
            (answered(Failure::Internal), false, false),
            (answered(Failure::NotFound), false, false),
            (answered(Failure::AlreadyExists), false, false),
            (answered(Failure::TokenUnknown), false, false),
            (answered(Failure::NotACounter), false, false),
        ];
        for (error, if_idempotent, otherwise) in table {
            let error = error.idempotent(is_idempotent);
            let again = Retries::default().step(&error, 1, 1.0).is_some();
            assert_eq!(again, if is_idempotent { if_idempotent } else { otherwise }, "{operation:?} {error:?}");
        }
    }
}

#[test]
fn a_retry_is_never_earlier_than_the_replica_asks_and_not_for_ever() {
    let retry_after = Duration::from_millis(700);
    let error = Error::from(Failure::Overloaded { retry_after });
    let retries = Retries::default();
    for attempt in 1..retries.attempts {
        let step = retries.step(&error, attempt, rand::random()).unwrap();
        assert!(step.is_paid && step.wait >= retry_after && step.wait <= retry_after + LONGEST_WAIT, "{step:?}");
    }
    assert_eq!(retries.step(&error, retries.attempts, 0.5), None);
    assert_eq!(Retries::NONE.step(&error, 1, 0.5), None);
}

#[test]
fn the_wait_doubles_up_to_its_limit_and_any_part_of_it_may_be_waited() {
    let error = Error::new(ErrorKind::Answer(Failure::Other { code: 14, message: String::new() }), Sent::Answered);
    let wait =
        |attempt, chance| Retries { attempts: 99, ..Retries::default() }.step(&error, attempt, chance).unwrap().wait;
    assert_eq!((wait(1, 1.0), wait(2, 1.0), wait(3, 0.5)), (FIRST_WAIT, FIRST_WAIT * 2, FIRST_WAIT * 2));
    assert_eq!((wait(50, 1.0), wait(50, 0.0)), (LONGEST_WAIT, Duration::ZERO));
}

#[test]
fn what_a_connection_did_not_begin_before_it_left_costs_nothing() {
    let error = Error::new(ErrorKind::Answer(Failure::Draining), Sent::No).idempotent(false);
    let step = Retries::default().step(&error, 1, 1.0).unwrap();
    assert_eq!(step, Step { wait: Duration::ZERO, is_paid: false });
    assert_eq!(Retries::default().step(&error, MAX_UNHEARD, 1.0), None);
}

/// All replicas answer UNAVAILABLE: attempts stay at most 1.2 × calls + 10/s.
#[tokio::test(start_paused = true)]
async fn a_retry_storm_stays_within_its_budget() {
    let retries = Retries::default();
    for per_second in [1_u32, 10, 100, 5000] {
        let budget = Budget::new(retries);
        let (began, mut calls, mut attempts) = (Instant::now(), 0, 0);
        for second in 1..=20 {
            for _ in 0..per_second {
                budget.count();
                (calls, attempts) = (calls + 1, attempts + 1);
                // Each would be made again as often as it may.
                for _ in 1..retries.attempts {
                    attempts += u32::from(budget.take(Instant::now()));
                }
                tokio::time::advance(Duration::from_secs(1) / per_second).await;
            }
            let bound = 1.2 * f64::from(calls) + 10.0 * f64::from(second);
            assert!(f64::from(attempts) <= bound + 0.001, "{attempts} attempts of {calls} calls in {second} s");
        }
        // And it is used: a budget that gives nothing would pass the test above.
        let seconds = began.elapsed().as_secs_f64();
        assert!(f64::from(attempts) >= 1.15 * f64::from(calls) + 8.0 * seconds - 20.0 || per_second == 1, "{attempts}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_of_long_ago_leave_nothing_of_the_budget() {
    let budget = Budget::new(Retries { per_second: 0, ..Retries::default() });
    for _ in 0..1000 {
        budget.count();
    }
    assert!(budget.take(Instant::now()));
    tokio::time::advance(MEMORY + Duration::from_secs(1)).await;
    assert!(!budget.take(Instant::now()));
}
