use super::*;
use crate::rpc::proto::v1::{self, MemberStats, ReplicaStats};

fn member(uid: &str, calls: u64) -> MemberStats {
    let (address, uid) = (format!("10.0.0.{}:7070", uid.len()), uid.to_owned());
    MemberStats {
        member: Some(v1::Member { address, uid, in_ring: true, state: v1::MemberState::Serving.into() }),
        share: 0.5,
        keys: 3,
        bytes: 30,
        replica: Some(ReplicaStats { calls, hits: 3, misses: 1, ..ReplicaStats::default() }),
    }
}

fn stats(members: Vec<MemberStats>) -> StatsResponse {
    StatsResponse { account_id: "one".to_owned(), keys: 6, bytes: 60, members, ..StatsResponse::default() }
}

#[test]
fn a_rate_is_what_came_since_the_last_look() {
    let (mut before, start) = (Before::default(), Instant::now());
    let first = Glance::of(stats(vec![member("a", 100), member("bb", 1000)]), &mut before, start);
    assert_eq!(first.requests_per_second, None);
    let later = start + Duration::from_secs(2);
    // One has started again meanwhile, and one is new.
    let second = Glance::of(stats(vec![member("a", 300), member("bb", 7), member("ccc", 9)]), &mut before, later);
    assert_eq!(second.requests_per_second, Some(100.0));
    let rates: Vec<_> = second.members.iter().map(|member| member.requests_per_second).collect();
    assert_eq!(rates, [Some(100.0), None, None]);
    assert!(second.text().contains("100 of all accounts"), "{}", second.text());
    assert!(second.text().contains("75.0 % of 12"), "{}", second.text());
}

#[test]
fn one_that_does_not_answer_is_shown_as_unknown() {
    let silent = MemberStats { replica: None, ..member("bb", 0) };
    let answer =
        StatsResponse { missing_replicas: vec!["10.0.0.2:7070".to_owned()], ..stats(vec![member("a", 1), silent]) };
    let glance = Glance::of(answer, &mut Before::default(), Instant::now());
    let text = glance.text();
    assert!(text.contains("without 10.0.0.2:7070, which did not answer"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("10.0.0.2:7070") && line.contains('?')), "{text}");
    let json = serde_json::to_value(&glance).unwrap();
    assert_eq!((&json["members"][0]["calls"], &json["members"][1]["calls"]), (&1.into(), &serde_json::Value::Null));
}

#[test]
fn an_older_server_is_shown_alone() {
    let replica = Some(ReplicaStats { entries: 7, ..ReplicaStats::default() });
    let glance = Glance::of(StatsResponse { replica, ..stats(Vec::new()) }, &mut Before::default(), Instant::now());
    assert_eq!(glance.members.len(), 1);
    assert_eq!(glance.members[0].figures.as_ref().unwrap().entries, 7);
}
