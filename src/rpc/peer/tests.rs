use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::cache::key::AccountId;
use crate::cache::limits::{MAX_TTL_MS, REMEMBER_REQUEST_ID_MS};
use crate::cache::quota::Budget;
use crate::cache::route::route_hash;
use crate::cache::store::{Carried, Lent, LentValue, Name, Pieces, Place, RememberedRequest};
use crate::cache::version::{Now, Version};
use crate::ownership::copies::{Frozen, WrittenPage};
use crate::ownership::message::{Answer, CountAsk, Counted, LeaseReply, LeaseRequest, Request, Unreachable};

const NOW: Now = Now { monotonic_ms: 1_000_000, wall_us: 1 << 51 };
/// The receiver's clock shows something else at the same moment.
const THERE: Now = Now { monotonic_ms: 77, wall_us: 1 << 51 };

fn account() -> impl Strategy<Value = AccountId> {
    "[a-z0-9-]{1,63}".prop_map(|text| AccountId::new(&text).unwrap())
}

fn place() -> impl Strategy<Value = Place> {
    (account(), "\\PC{1,40}").prop_map(|(space, key)| {
        let hash = route_hash(&space, crate::cache::key::Key::new(&key).unwrap());
        Place { hash, key: Name { space, key: key.into() } }
    })
}

fn member() -> impl Strategy<Value = MemberId> {
    ("[a-z0-9-]{1,60}", any::<u64>()).prop_map(|(uid, boot)| MemberId::new(&uid, boot))
}

/// Of any time up to [`NOW`].
fn version() -> impl Strategy<Value = Version> {
    (1..NOW.wall_us << 12).prop_map(Version::from_u64)
}

/// Times are relative to [`NOW`], so that one can say what they are at the receiver.
fn carried() -> impl Strategy<Value = Carried> {
    let remembered =
        ("[ -~]{1,64}", any::<i64>(), version(), 0..REMEMBER_REQUEST_ID_MS).prop_map(|(id, value, version, left)| {
            RememberedRequest { id: id.into(), value, version, until_ms: NOW.monotonic_ms + left }
        });
    let expires = prop::option::of((0..MAX_TTL_MS).prop_map(|left| NOW.monotonic_ms + left));
    let value = prop::collection::vec(any::<u8>(), 0..50);
    let budget = any::<(Option<u64>, Option<u64>, u64)>().prop_map(|(max_keys, max_bytes, guaranteed_bytes)| Budget {
        max_keys,
        max_bytes,
        guaranteed_bytes,
    });
    let payer = (prop::option::of(account()), prop::option::of(budget));
    (value, expires, payer, prop::collection::vec(remembered, 0..4)).prop_map(
        |(value, expires_ms, (payer, budget), requests)| {
            let value = value.into();
            Carried { value, expires_ms, payer, budget, requests }
        },
    )
}

fn frozen() -> impl Strategy<Value = Frozen<Carried>> {
    (version(), prop::option::of(carried())).prop_map(|(version, value)| Frozen { version, value })
}

fn request() -> impl Strategy<Value = Request<Name>> {
    let lease =
        (account(), any::<[u64; 4]>(), any::<[Option<u64>; 3]>(), any::<bool>()).prop_map(
            |(account, [keys, bytes, more_keys, more_bytes], [max_keys, max_bytes, before_round], dry_run)| {
                LeaseRequest { account, keys, bytes, more_keys, more_bytes, max_keys, max_bytes, dry_run, before_round }
            },
        );
    let count = (account(), any::<u64>(), any::<bool>());
    prop_oneof![
        Just(Request::Claim),
        prop::collection::vec(place(), 1..5).prop_map(Request::Fetch),
        (prop::option::of(place()), 0..MAX_COPIES_BYTES)
            .prop_map(|(after, max_bytes)| Request::Pull { after, max_bytes }),
        place().prop_map(|through| Request::Done { through }),
        Just(Request::Ping),
        lease.prop_map(Request::Lease),
        count.prop_map(|(account, round, close)| Request::Count(CountAsk { account, round, close })),
        account().prop_map(Request::AskAgain),
    ]
}

fn answer() -> impl Strategy<Value = Answer<Name, Carried>> {
    let leased = prop_oneof![
        any::<[u64; 3]>().prop_map(|[round, keys, bytes]| LeaseReply::Granted { round, keys, bytes }),
        Just(LeaseReply::Fits),
        any::<[u64; 3]>().prop_map(|[round, keys, bytes]| LeaseReply::Full { round, keys, bytes }),
        any::<u64>().prop_map(|before_round| LeaseReply::Wait { before_round }),
    ];
    let counted =
        (any::<[u64; 2]>(), any::<[i64; 2]>(), any::<[bool; 2]>()).prop_map(|(used, bound, [settled, closed])| {
            let ([used_keys, used_bytes], [bound_keys, bound_bytes]) = (used, bound);
            Counted { used_keys, used_bytes, bound_keys, bound_bytes, settled, closed }
        });
    let unreachable = (member(), any::<bool>()).prop_map(|(id, refused)| Unreachable { id, refused });
    prop_oneof![
        any::<bool>().prop_map(|has_copies| Answer::Cleared { has_copies }),
        prop::collection::vec((place(), prop::option::of(frozen())), 0..5).prop_map(|mut found| {
            // What there is comes first.
            found.sort_by_key(|(_, copy)| copy.is_none());
            Answer::Copies(found)
        }),
        (prop::collection::btree_map(place(), frozen(), 0..5), any::<bool>()).prop_map(|(items, last)| Answer::Page {
            last: last || items.is_empty(),
            items: items.into_iter().collect()
        }),
        Just(Answer::DoneOk),
        Just(Answer::Stale),
        prop::collection::vec(unreachable, 0..4).prop_map(|unreachable| Answer::Pong { unreachable }),
        leased.prop_map(Answer::Leased),
        counted.prop_map(Answer::Counted),
        Just(Answer::Noted),
    ]
}

/// What a value is at a receiver whose clock shows [`THERE`].
fn moved(carried: &mut Carried) {
    let there = |at: u64| at - NOW.monotonic_ms + THERE.monotonic_ms;
    carried.expires_ms = carried.expires_ms.map(there);
    for request in &mut carried.requests {
        request.until_ms = there(request.until_ms);
    }
}

fn at_the_receiver(mut answer: Answer<Name, Carried>) -> Answer<Name, Carried> {
    match &mut answer {
        Answer::Copies(found) => {
            found.iter_mut().filter_map(|(_, copy)| copy.as_mut()?.value.as_mut()).for_each(moved);
        }
        Answer::Page { items, .. } => items.iter_mut().filter_map(|(_, copy)| copy.value.as_mut()).for_each(moved),
        _ => {}
    }
    answer
}

proptest! {
    #[test]
    fn a_request_says_the_same_at_its_receiver(request in request()) {
        let wire = pb::ExchangeRequest { request: Some(request_to(&request)), ..Default::default() }.encode_to_vec();
        let heard = request_of(pb::ExchangeRequest::decode(&*wire).unwrap().request).unwrap();
        prop_assert_eq!(format!("{heard:?}"), format!("{request:?}"));
    }

    #[test]
    fn an_answer_says_the_same_at_its_receiver_whatever_its_clock(answer in answer()) {
        let wire = pb::ExchangeResponse { answer: Some(answer_to(answer.clone(), NOW)), ..Default::default() }.encode_to_vec();
        let heard = answer_of(pb::ExchangeResponse::decode(&*wire).unwrap().answer, THERE).unwrap();
        prop_assert_eq!(format!("{heard:?}"), format!("{:?}", at_the_receiver(answer)));
    }

    #[test]
    fn an_answer_counts_only_for_a_request_of_its_kind(request in request(), answer in answer()) {
        let kind = |it: &dyn std::fmt::Debug| format!("{it:?}").split(|c: char| !c.is_alphanumeric()).next().unwrap().to_owned();
        let expected = match &*kind(&request) {
            "Claim" => "Cleared",
            "Fetch" => "Copies",
            "Pull" => "Page",
            "Done" => "DoneOk",
            "Ping" => "Pong",
            "Lease" => "Leased",
            "Count" => "Counted",
            _ => "Noted",
        };
        let is_to = kind(&answer) == expected || (kind(&answer) == "Stale" && expected != "Pong");
        let heard = answer_of_kind(&request, Some(answer_to(answer, NOW)), NOW);
        prop_assert_eq!(heard.is_ok(), is_to);
    }

    #[test]
    fn what_the_store_writes_of_a_copy_is_its_message(
        place in place(), copy in frozen(), large in any::<bool>(), last: bool,
    ) {
        let mut copy = copy;
        if let (true, Some(carried)) = (large, &mut copy.value) {
            carried.value = vec![7; 20_000].into();
        }
        let mut pieces = Pieces::default();
        let value = copy.value.as_ref().map(LentValue::of_carried);
        let key = place.key.key.as_bytes();
        write_copy(&Lent { space: &place.key.space, key, version: copy.version, value }, NOW, &mut pieces);
        let written = WrittenPage { pieces: pieces.finish(), entries: 1, bytes: 0, last };
        let (hello, stamp) = (hello_to("a"), pb::Stamp::default());
        let frame = answer_frame(hello.clone(), stamp.clone(), Answer::Written(written), NOW).concat();
        let answer = Some(answer_to(Answer::Page { items: vec![(place, copy)], last }, NOW));
        let expected = pb::ExchangeResponse { hello: Some(hello), stamp: Some(stamp), answer };
        prop_assert_eq!(frame.len() - 5, u32::from_be_bytes(frame[1..5].try_into().unwrap()) as usize);
        prop_assert_eq!(pb::ExchangeResponse::decode(&frame[5..]).unwrap(), expected);
    }

    #[test]
    fn a_stamp_says_the_same_at_its_receiver(from in member(), to in member(), digest: u128, clock_us: u64, told: bool) {
        let view = View::default().with_leaving(&from);
        let stamp = Stamp { from, to, digest: Digest::from_u128(digest), view: told.then(|| Arc::new(view)), clock_us };
        let wire = stamp_to(&stamp).encode_to_vec();
        let heard = stamp_of(Some(pb::Stamp::decode(&*wire).unwrap())).unwrap();
        prop_assert_eq!(format!("{heard:?}"), format!("{stamp:?}"));
    }
}

#[test]
fn copies_are_cut_at_what_a_message_takes_but_one_always_goes() {
    let space = AccountId::new("a").unwrap();
    let place = |key: usize| {
        let text = format!("{key:04}");
        Place { hash: key as u64, key: Name { space: space.clone(), key: text.into() } }
    };
    let copy = |bytes: usize| {
        let carried =
            Carried { value: vec![7; bytes].into(), expires_ms: None, payer: None, budget: None, requests: Vec::new() };
        Frozen { version: Version::from_u64(1), value: Some(carried) }
    };
    let sent = |items: Vec<(Place, Frozen<Carried>)>| match answer_to(Answer::Page { items, last: true }, NOW) {
        pb::exchange_response::Answer::Page(page) => (page.items.len(), page.last, page.encoded_len()),
        other => panic!("{other:?}"),
    };
    let (count, last, bytes) = sent((0..6000).map(|key| (place(key), copy(1024))).collect());
    assert!(
        !last && count < 6000 && (MAX_COPIES_BYTES / 10 * 9..=MAX_COPIES_BYTES).contains(&bytes),
        "{count} {bytes}"
    );
    let largest = crate::cache::limits::MAX_ENTRY_BYTES - 4;
    let (count, last, bytes) = sent(vec![(place(1), copy(largest)), (place(2), copy(1))]);
    assert!(count == 1 && !last && bytes < MAX_EXCHANGE_BYTES, "{count} {bytes}");
    let found = (0..6000).map(|key| (place(key), Some(copy(1024)))).collect();
    let pb::exchange_response::Answer::Copies(copies) = answer_to(Answer::Copies(found), NOW) else { panic!() };
    assert!(copies.found.len() < 6000 && copies.none.is_empty());
}

#[test]
fn what_is_malformed_is_refused() {
    use pb::exchange_request::{Done, Fetch, Request as Ask};
    use pb::exchange_response::{Answer as Reply, Page};
    let name = |space: &str, key: &str| pb::Name { space: space.to_owned(), key: key.to_owned() };
    assert!(request_of(None).is_err());
    for names in [vec![], vec![name("a", "k"); 1025], vec![name("A", "k")], vec![name("a", "")]] {
        assert!(request_of(Some(Ask::Fetch(Fetch { names }))).is_err());
    }
    assert!(request_of(Some(Ask::Done(Done { through: None }))).is_err());
    let copy = |key: &str, version| pb::Copy { name: Some(name("a", key)), version, entry: None };
    let page = |items| answer_of(Some(Reply::Page(Page { items, last: true })), NOW);
    assert!(page(vec![copy("k", 1)]).is_ok());
    let empty = |last| answer_of(Some(Reply::Page(Page { items: Vec::new(), last })), NOW);
    assert!(empty(true).is_ok() && empty(false).is_err(), "nothing, and more after it");
    assert!(page(vec![copy("k", 0)]).is_err(), "no version");
    assert!(page(vec![copy("k", 1), copy("k", 1)]).is_err(), "not in order");
    let value = vec![0; crate::cache::limits::MAX_ENTRY_BYTES].into();
    let entry = Some(pb::Entry { value, ..Default::default() });
    assert!(page(vec![pb::Copy { entry, ..copy("k", 1) }]).is_err(), "too large");
    let hour_us = crate::ownership::MAX_CLOCK_AHEAD_US;
    for (ahead_us, is_taken) in [(hour_us, true), (hour_us + 1, false)] {
        let copy = copy("k", (NOW.wall_us + ahead_us) << 12 | 1);
        assert_eq!(page(vec![copy]).is_ok(), is_taken, "rule 19: a clock {ahead_us} us ahead");
    }
    for stamp in [
        pb::Stamp::default(),
        pb::Stamp { digest: vec![0; 16].into(), ..Default::default() },
        pb::Stamp { view: vec![9].into(), digest: vec![0; 16].into(), ..Default::default() },
    ] {
        assert!(stamp_of(Some(stamp)).is_err());
    }
}

#[test]
fn the_lower_protocol_counts_and_other_clusters_are_strangers() {
    let hello = |protocol, cluster: &str| pb::Hello { protocol, cluster: cluster.to_owned() };
    assert_eq!(hello_of(Some(&hello(7, "larder")), "larder"), Ok(PROTOCOL));
    assert_eq!(hello_of(Some(&hello_to("larder")), "larder"), Ok(PROTOCOL));
    assert_eq!(hello_of(Some(&hello(1, "other")), "larder"), Err(Stranger::Cluster("other".to_owned())));
    assert_eq!(hello_of(Some(&hello(0, "larder")), "larder"), Err(Stranger::Protocol));
    assert_eq!(hello_of(None, "larder"), Err(Stranger::Protocol));
}

#[test]
fn reflection_does_not_show_what_replicas_say() {
    let shown = |name: &[u8]| crate::rpc::proto::DESCRIPTORS.windows(name.len()).any(|bytes| bytes == name);
    assert!(shown(b"larder.v1") && !shown(b"larder.peer"));
}
