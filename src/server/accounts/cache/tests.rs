use super::*;
use crate::cache::key::AccountId;
use crate::server::accounts::Limits;

const POLICY: Policy = Policy {
    ttl: Duration::from_mins(1),
    negative_ttl: Duration::from_secs(5),
    max_stale: Duration::from_mins(10),
    max_tokens: 100,
};

fn known(max_keys: u64) -> Verdict {
    let limits = Limits { max_keys: Some(max_keys), ..Limits::default() };
    Verdict::Known { account: Arc::new(Account { id: AccountId::new("a").unwrap(), limits }), read_only: false }
}

fn token(number: usize) -> Digest {
    Digest::of(&number.to_string())
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn say(found: &Found) -> &'static str {
    match found {
        Found::Fresh { ahead: false, .. } => "fresh",
        Found::Fresh { ahead: true, .. } => "ahead",
        Found::Unknown => "unknown",
        Found::Stale { may_ask: true, .. } => "stale, ask",
        Found::Stale { may_ask: false, .. } => "stale",
        Found::Failing => "failing",
        Found::Nothing => "nothing",
    }
}

#[test]
fn an_account_is_fresh_then_old_then_forgotten() {
    let mut cache = AnswerCache::new(POLICY);
    let start = Instant::now();
    cache.learn(token(1), &known(1), start);
    for (after, found) in [
        (0.0, "fresh"),
        (47.9, "fresh"),
        (48.0, "ahead"),
        (59.9, "ahead"),
        (60.0, "stale, ask"),
        (659.9, "stale, ask"),
        (660.0, "nothing"),
    ] {
        assert_eq!(say(&cache.look(&token(1), start + seconds(after))), found, "after {after} s");
    }
}

#[test]
fn a_grant_is_kept_no_longer_than_the_answer_that_it_came_from() {
    let mut cache = AnswerCache::new(POLICY);
    let start = Instant::now();
    cache.learn(token(1), &known(1), start);
    for (after, until) in [(0.0, 48.0), (48.0, 60.0), (60.0, 61.0)] {
        let (Found::Fresh { grant, .. } | Found::Stale { grant, .. }) = cache.look(&token(1), start + seconds(after))
        else {
            panic!("nothing is known after {after} s");
        };
        assert_eq!(grant.valid_until, Some(start + seconds(until)));
    }
}

#[test]
fn a_token_is_unknown_for_the_negative_ttl_only() {
    let mut cache = AnswerCache::new(POLICY);
    let start = Instant::now();
    cache.learn(token(1), &Verdict::Unknown, start);
    assert_eq!(say(&cache.look(&token(1), start + seconds(4.9))), "unknown");
    assert_eq!(say(&cache.look(&token(1), start + seconds(5.0))), "nothing");
}

#[test]
fn the_wait_after_a_failure_doubles_up_to_5_s_with_an_old_answer_and_to_half_a_second_without() {
    for (learned, states, longest) in [(true, ["stale", "stale, ask"], 5.0), (false, ["failing", "nothing"], 0.5)] {
        let mut cache = AnswerCache::new(POLICY);
        let mut now = Instant::now();
        if learned {
            cache.learn(token(1), &known(1), now - POLICY.ttl);
        }
        for failure in 0..10 {
            let wait = (0.1 * 2_f64.powi(failure)).min(longest);
            cache.fail(token(1), now, 1.0);
            assert_eq!(say(&cache.look(&token(1), now + seconds(wait - 0.001))), states[0], "{failure}");
            now += seconds(wait + 0.001);
            assert_eq!(say(&cache.look(&token(1), now)), states[1], "{failure}");
        }
        cache.fail(token(1), now, 0.0);
        assert_eq!(say(&cache.look(&token(1), now + seconds(longest / 2.0))), states[1], "jitter takes off up to half");
    }
}

#[test]
fn an_answer_that_contradicts_the_one_before_is_told() {
    let mut cache = AnswerCache::new(POLICY);
    let now = Instant::now();
    for (verdict, contradicts) in [
        (known(1), false),
        (known(1), false),
        (known(2), true),
        (Verdict::Unknown, true),
        (Verdict::Unknown, false),
        (known(1), false),
    ] {
        assert_eq!(cache.learn(token(1), &verdict, now), contradicts, "{verdict:?}");
    }
}

#[test]
fn no_number_of_wrong_tokens_pushes_out_a_right_one_or_grows_the_memory() {
    let mut cache = AnswerCache::new(POLICY);
    let now = Instant::now();
    cache.learn(token(0), &known(1), now);
    for wrong in 1..10_000 {
        if wrong % 2 == 0 {
            cache.learn(token(wrong), &Verdict::Unknown, now);
        } else {
            cache.fail(token(wrong), now, 0.5);
        }
        assert!(cache.len() <= POLICY.max_tokens + 1);
    }
    assert_eq!(say(&cache.look(&token(0), now)), "fresh");
}

#[test]
fn of_too_many_right_tokens_those_in_use_stay() {
    let mut cache = AnswerCache::new(POLICY);
    let now = Instant::now();
    for other in 1..10_000 {
        cache.learn(token(other), &known(1), now);
        if other == 1 || other % 40 == 0 {
            assert_eq!(say(&cache.look(&token(1), now)), "fresh", "after {other}");
        }
    }
    assert!(cache.len() <= POLICY.max_tokens);
    assert_eq!(say(&cache.look(&token(2), now)), "nothing");
}
