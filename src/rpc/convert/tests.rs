use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;

use super::*;

const TTL: TtlPolicy = TtlPolicy { default_ms: Some(500), max_ms: 1000 };

fn store() -> v1::StoreRequest {
    v1::StoreRequest { key: "k".to_owned(), val: Bytes::from_static(b"v"), ..Default::default() }
}

fn calls(calls: Vec<v1::PipelineCall>) -> Result<PipelineCalls, Failure> {
    let mut read = PipelineCalls::default();
    read.read(v1::PipelineRequest { calls }.encode_to_vec().into())?;
    Ok(read)
}

fn blamed(failure: Failure) -> String {
    match failure {
        Failure::Field { field, .. } => field.into_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_ttl_of_0_is_the_accounts_default_and_no_ttl_is_over_its_maximum() {
    assert_eq!(TTL.resolve(0), Ok(Some(500)));
    assert_eq!(TtlPolicy::NONE.resolve(0), Ok(None));
    assert_eq!(TTL.resolve(1000), Ok(Some(1000)));
    assert_eq!(TTL.resolve(1001), Err(Failure::TtlTooLong { asked_ms: 1001, max_ms: 1000 }));
    assert!(TtlPolicy::NONE.resolve(u64::MAX).is_err());
    let long = v1::StoreRequest { ttl_ms: 1001, ..store() };
    assert!(matches!(store_call(&long, TTL), Err(Failure::TtlTooLong { .. })));
}

#[test]
fn key_and_value_have_at_most_4_mib_less_64_kib_together() {
    let mut request = v1::StoreRequest { val: Bytes::from(vec![0; MAX_ENTRY_BYTES - 1]), ..store() };
    assert!(store_call(&request, TTL).is_ok());
    request.key.push('k');
    assert_eq!(store_call(&request, TTL).unwrap_err(), Failure::EntryTooLarge(MAX_ENTRY_BYTES + 1));
}

#[test]
fn an_expected_version_goes_with_if_version_and_only_with_it() {
    let asked = |condition: i32, expected_version| v1::StoreRequest { condition, expected_version, ..store() };
    let condition = |condition, version| store_call(&asked(condition, version), TTL).map(|call| call.condition);
    assert_eq!(condition(0, 0), Ok(Condition::Always));
    assert_eq!(condition(1, 0), Ok(Condition::IfAbsent));
    assert_eq!(condition(2, 0), Ok(Condition::IfPresent));
    assert_eq!(condition(3, 7), Ok(Condition::IfVersion(Version::from_u64(7))));
    for (number, version) in [(3, 0), (0, 7), (1, 7), (2, 7)] {
        assert_eq!(condition(number, version).map_err(blamed), Err("expected_version".to_owned()), "{number}");
    }
    for number in [4, -1] {
        assert_eq!(condition(number, 0).map_err(blamed), Err("condition".to_owned()), "{number}");
    }
}

#[test]
fn a_mode_that_is_not_known_is_refused() {
    let touch = v1::TouchRequest { key: "k".to_owned(), ttl_ms: 1, mode: 3 };
    assert_eq!(touch_call(&touch, TTL).map(drop).map_err(blamed), Err("mode".to_owned()));
}

#[test]
fn a_request_id_has_at_most_64_bytes() {
    let asked =
        |bytes| v1::IncrementRequest { key: "n".to_owned(), request_id: "x".repeat(bytes), ..Default::default() };
    assert!(increment_call(&asked(64), TTL).is_ok());
    assert_eq!(increment_call(&asked(65), TTL).unwrap_err(), Failure::RequestIdTooLong(65));
}

#[test]
fn a_slip_does_not_remove_everything() {
    let asked = |prefix: &str| delete_prefix_call(&v1::DeletePrefixRequest { prefix: prefix.to_owned() }).map(drop);
    assert_eq!(asked("a/"), Ok(()));
    assert!(asked("").is_err());
    assert!(asked(&"x".repeat(4097)).is_err());
}

#[test]
fn a_cursor_that_is_not_larders_is_refused() {
    let asked = v1::DumpRequest { prefix: String::new(), cursor: Bytes::from_static(b"nonsense") };
    assert_eq!(dump_call(&asked).unwrap_err(), Failure::Cursor);
}

#[test]
fn a_batch_has_1_to_10000_items_and_a_pipeline_message_up_to_1024() {
    assert!(batch_size(1).is_ok() && batch_size(10_000).is_ok());
    assert_eq!((batch_size(0), batch_size(10_001)), (Err(Failure::BatchSize(0)), Err(Failure::BatchSize(10_001))));
    let of = |count: u64| calls((1..=count).map(|id| v1::PipelineCall { id, ..Default::default() }).collect());
    assert_eq!(of(1024).map(|calls| calls.len()).unwrap(), 1024);
    assert_eq!(of(1025).unwrap_err(), Failure::PipelineSize(1025));
}

#[test]
fn an_inner_call_needs_an_operation_and_has_no_token() {
    let call = |operation| v1::PipelineCall { id: 1, operation, ..Default::default() };
    let operation = |call: v1::PipelineCall| {
        let calls = calls(vec![call]).map_err(blamed)?;
        calls.first().unwrap().operation(TTL).map(drop).map_err(blamed)
    };
    assert_eq!(operation(call(None)), Err("operation".to_owned()));
    let with_token = v1::StoreRequest { account_token: "t".to_owned(), ..store() };
    let with_token = call(Some(v1::pipeline_call::Operation::Store(with_token)));
    assert_eq!(operation(with_token), Err("account_token".to_owned()));
    assert_eq!(operation(v1::PipelineCall::default()), Err("id".to_owned()));
}

#[test]
fn items_are_counted_as_the_decoder_would() {
    let item = v1::BatchGetItem { get: Some(v1::GetRequest { key: "k".into() }), context: None };
    for items in [0, 1, 7] {
        let request = v1::BatchGetRequest { items: vec![item.clone(); items] };
        assert_eq!(count_items(&request.encode_to_vec()), items);
    }
    // Empty items, a field of another number, and what is no message.
    assert_eq!(count_items(b"\x0a\0\x0a\0\x10\x05\x0a\0"), 3);
    assert_eq!(count_items(b"\xff\xff"), 0);
}

#[test]
fn malformed_bytes_are_said_to_be_so() {
    for kind in Kind::ALL {
        assert!(matches!(decode_and_check(kind, &[0xff; 12]), Err(Failure::Malformed(_))), "{kind:?}");
    }
}

#[test]
fn only_what_may_be_done_twice_is_idempotent() {
    let request = v1::StoreRequest { condition: 1, ..store() };
    assert!(!store_call(&request, TTL).unwrap().is_idempotent());
    assert!(store_call(&store(), TTL).unwrap().is_idempotent());
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..Kind::ALL.len()) {
        let _ = decode_and_check(Kind::ALL[kind], &bytes);
    }
}
