//! F12 to F14: what an API server may do, and what must not come of it.

use super::*;

/// The longest that a dead watch is trusted.
fn longest_watch() -> Duration {
    Duration::from_secs((*WATCH_SECONDS.end()).into()) + END_MARGIN
}

/// After a list with the pods 1 and 2, and these answers, comes a list with the pods 1 to 3. Returns the calls to it.
async fn recovers(what: &str, answers: Vec<Answer>) -> Vec<api_server::Call> {
    let mut all = vec![list(10, &[slice(5, &[1, 2])])];
    let count = 1 + answers.len();
    all.extend(answers);
    all.push(list(20, &[slice(15, &[1, 2, 3])]));
    let (server, mut views) = ApiServer::start(all);
    wait_for(&mut views, &["1", "2"]).await;
    let calls = server.calls(count).await;
    assert_eq!(uids_of(views.borrow().as_ref().unwrap()), ["1", "2"], "{what}: the old view stays");
    wait_for(&mut views, &["1", "2", "3"]).await;
    let last = server.calls_so_far()[count].clone();
    assert!(!last.is_watch(), "{what}: lists again");
    assert!(last.at - calls[count - 1].at <= longest_watch() + MAX_WAIT, "{what}");
    server.calls_so_far()
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_cannot_go_on_is_followed_by_a_list_and_the_old_view_stays_meanwhile() {
    for code in [400, 401, 403, 404, 410, 504] {
        let in_the_stream = event("ERROR", &error(code));
        recovers("an error in the stream", vec![Answer::watch(vec![in_the_stream, Step::Hang])]).await;
        recovers("an error in its place", vec![Answer::status(code)]).await;
    }
    let mut disordered = slice(11, &[9]);
    disordered["metadata"]["resourceVersion"] = "eleven".into();
    recovers("no order", vec![Answer::watch(vec![event("MODIFIED", &disordered), Step::Hang])]).await;
    let no_slice = Step::Text("{\"type\": \"MODIFIED\", \"object\": {\"kind\": 7}}\n".into());
    let cut = Step::Text("{\"type\": \"MODIFIED\", \"obj\n".into());
    recovers("a line that ends too early", vec![Answer::watch(vec![cut, bookmark(12), Step::Hang])]).await;
    recovers("no slice", vec![Answer::watch(vec![no_slice, Step::Hang])]).await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_is_asked_for_again_and_the_old_view_stays_meanwhile() {
    let gone = || Answer::status(410);
    let half = Answer::text(r#"{"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": {"reso"#);
    let mut disordered = slice(5, &[1]);
    disordered["metadata"]["resourceVersion"] = "five".into();
    for (what, answer) in [
        ("403", Answer::status(403)),
        ("410", Answer::status(410)),
        ("429", Answer::status(429)),
        ("500", Answer::status(500)),
        ("504", Answer::status(504)),
        ("half a JSON", half),
        ("cut", Answer::Now(200, vec![Step::Text("{\"kind\"".into()), Step::Break])),
        ("half of it, and no end", Answer::Now(200, vec![Step::Text("{\"kind\"".into()), Step::Hang])),
        ("an older list", list(9, &[])),
        ("a list without version", Answer::json(&json!({"metadata": {}, "items": []}))),
        ("a slice without order", list(11, &[disordered])),
        ("refused", Answer::Refused),
        ("silent", Answer::Never),
    ] {
        recovers(what, vec![gone(), answer]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_was_cut_goes_on_where_it_was() {
    for (what, cut) in [
        ("429", Answer::status(429)),
        ("500", Answer::status(500)),
        ("503", Answer::watch(vec![event("ERROR", &error(503)), Step::Hang])),
        ("refused", Answer::Refused),
        ("silent", Answer::Never),
        ("cut", Answer::watch(vec![bookmark(12), Step::Break])),
        ("half a line", Answer::watch(vec![bookmark(12), Step::Text("{\"type\": \"MODIFIED\", \"obj".into())])),
        ("ended at once", Answer::watch(vec![])),
        ("dead", Answer::watch(vec![Step::Hang])),
    ] {
        let next = Answer::watch(vec![event("MODIFIED", &slice(15, &[1, 2, 3])), Step::Hang]);
        let (server, mut views) = ApiServer::start(vec![list(10, &[slice(5, &[1, 2])]), cut, next]);
        wait_for(&mut views, &["1", "2", "3"]).await;
        let calls = server.calls(3).await;
        assert!(["10", "12"].contains(&calls[2].get("resourceVersion").unwrap()), "{what}");
        assert!(calls[2].at - calls[1].at <= longest_watch(), "{what}: noticed in time");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_again_and_again_is_not_begun_again_and_again() {
    let mut first = Some(list(10, &[]));
    let (server, _views) = ApiServer::answering(selection(), move |_| first.take().unwrap_or(Answer::watch(vec![])));
    sleep(HOUR).await;
    let calls = server.calls_so_far().len();
    assert!((120..300).contains(&calls), "{calls} calls in an hour, each at most 30 s after the one before");
}

#[tokio::test(start_paused = true)]
async fn f12_while_the_api_server_is_away_the_view_stays_its_age_grows_and_news_comes_within_a_minute_of_its_return() {
    for away in [|| Answer::Never, || Answer::Refused, || Answer::status(503), || Answer::watch(vec![Step::Hang])] {
        let began = Instant::now();
        let returns = began + HOUR / 2;
        let mut first = Some(list(10, &[slice(5, &[1, 2])]));
        let (server, mut views) = ApiServer::answering(selection(), move |call| {
            match first.take() {
                Some(list) => list,
                // Its memory of the events of half an hour is gone.
                None if Instant::now() >= returns && call.is_watch() => Answer::status(410),
                None if Instant::now() >= returns => list(20, &[slice(15, &[1, 2, 3])]),
                None => away(),
            }
        });
        wait_for(&mut views, &["1", "2"]).await;
        tokio::time::sleep_until(returns - Duration::from_millis(1)).await;
        assert_eq!(uids_of(views.borrow().as_ref().unwrap()), ["1", "2"]);
        assert!(server.heard.age() + Duration::from_secs(1) >= HOUR / 2, "{:?}", server.heard.age());
        let calls = server.calls_so_far();
        let most = MAX_WAIT + CALL_TIMEOUT.max(longest_watch());
        assert!(calls.windows(2).all(|pair| pair[1].at - pair[0].at <= most), "it is tried all the while");
        assert!(calls.len() < 150, "{} calls in half an hour", calls.len());
        wait_for(&mut views, &["1", "2", "3"]).await;
        assert!(Instant::now() - returns <= Duration::from_secs(60), "{:?}", Instant::now() - returns);
        assert!(server.heard.age() < Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn f13_who_starts_while_the_api_server_is_away_knows_nobody_and_its_list_within_ten_seconds_of_the_return() {
    for away in [|| Answer::Refused, || Answer::status(503), || Answer::status(403)] {
        let returns = Instant::now() + HOUR / 2;
        let (server, mut views) = ApiServer::answering(selection(), move |call| match Instant::now() >= returns {
            true if call.is_watch() => Answer::watch(vec![Step::Hang]),
            true => list(20, &[slice(15, &[1])]),
            false => away(),
        });
        tokio::time::sleep_until(returns - Duration::from_millis(1)).await;
        assert_eq!(*views.borrow(), None);
        let calls = server.calls_so_far();
        assert!(calls.windows(2).all(|pair| pair[1].at - pair[0].at <= Duration::from_secs(10)), "tried all the while");
        wait_for(&mut views, &["1"]).await;
        assert!(Instant::now() - returns <= Duration::from_secs(10));
    }
}

#[tokio::test(start_paused = true)]
async fn f14_an_empty_list_does_not_take_the_ring_from_members_that_answer() {
    use crate::cluster::hold_back::HoldBack;
    use crate::ownership::snapshot::Snapshot;

    let (_server, mut views) = ApiServer::start(vec![
        list(10, &[slice(5, &[1, 2, 3])]),
        Answer::status(410),
        list(20, &[]),
        Answer::watch(vec![
            Step::Pause(Duration::from_secs(30)),
            event("ADDED", &slice(25, &[1, 2, 3, 4])),
            Step::Hang,
        ]),
    ]);
    wait_for(&mut views, &["1", "2", "3"]).await;
    let known = Snapshot::new(views.borrow_and_update().as_ref().unwrap().as_ref().clone());
    let mut hold = HoldBack::default();
    wait_for(&mut views, &[]).await;
    let empty = views.borrow_and_update().clone().unwrap();
    assert_eq!(hold.release(&empty, &known, &|_| true, 0), None);
    assert_eq!(hold.release(&empty, &known, &|_| true, 29_000), None);
    wait_for(&mut views, &["1", "2", "3", "4"]).await;
    let full = views.borrow().clone().unwrap();
    assert!(hold.release(&full, &known, &|_| true, 30_000).is_some());
}
