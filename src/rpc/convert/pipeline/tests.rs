use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

/// What a call of a pipeline says, whoever read it.
#[derive(Debug, PartialEq)]
struct Said {
    id: u64,
    context: Option<v1::CallContext>,
    kind: Option<PipelineKind>,
    key: String,
    unary: Option<Asked>,
    operation: Result<String, Failure>,
}

fn said(call: PipelineCall<'_>) -> Said {
    let unary = call.unary();
    let unary = call.kind().map(|kind| match kind {
        PipelineKind::Get => Asked::Get(v1::GetRequest::decode(unary).unwrap()),
        PipelineKind::Store => Asked::Store(v1::StoreRequest::decode(unary).unwrap()),
        PipelineKind::Delete => Asked::Delete(v1::DeleteRequest::decode(unary).unwrap()),
        PipelineKind::Touch => Asked::Touch(v1::TouchRequest::decode(unary).unwrap()),
        PipelineKind::Increment => Asked::Increment(v1::IncrementRequest::decode(unary).unwrap()),
    });
    Said {
        id: call.id(),
        context: call.context().cloned(),
        kind: call.kind(),
        key: call.key().to_owned(),
        unary,
        operation: call
            .operation(TtlPolicy { default_ms: Some(7), max_ms: 1000 })
            .map(|operation| format!("{operation:?}")),
    }
}

fn read(message: &Bytes) -> Result<Vec<Said>, Failure> {
    let mut calls = PipelineCalls::default();
    calls.read(message.clone())?;
    let mut all = Vec::new();
    while let Some(call) = calls.first() {
        all.push(said(call));
        calls.advance();
    }
    assert!(calls.is_empty() && calls.held_bytes() == 0, "nothing is kept of a message that is done");
    Ok(all)
}

/// The same by prost alone.
fn decoded(message: &Bytes) -> Result<Vec<Said>, Failure> {
    let request: v1::PipelineRequest = decode(message.clone())?;
    let calls = PipelineCalls {
        message: message.clone(),
        places: request.calls.into_iter().map(Place::from).collect(),
        next: 0,
    };
    calls.check_ids()?;
    Ok(calls.places.iter().map(|place| said(PipelineCall { message, place })).collect())
}

fn in_place(message: &Bytes) -> bool {
    PipelineCalls::default().read_in_place(message).is_ok()
}

fn asked() -> impl Strategy<Value = Asked> {
    let key = "[a-zé]{0,5}";
    prop_oneof![
        key.prop_map(|key| Asked::Get(v1::GetRequest { key })),
        (key, vec(any::<u8>(), 0..200), 0..1100_u64, -1..5_i32, 0..3_u64, "t{0,1}").prop_map(
            |(key, val, ttl_ms, condition, expected_version, account_token)| {
                let val = val.into();
                Asked::Store(v1::StoreRequest { key, val, account_token, ttl_ms, condition, expected_version })
            }
        ),
        (key, 0..3_u64).prop_map(|(key, if_version)| Asked::Delete(v1::DeleteRequest { key, if_version })),
        (key, 0..1100_u64, -1..4_i32).prop_map(|(key, ttl_ms, mode)| Asked::Touch(v1::TouchRequest {
            key,
            ttl_ms,
            mode
        })),
        (key, any::<i64>(), "[a-z]{0,3}").prop_map(|(key, delta, request_id)| {
            Asked::Increment(v1::IncrementRequest { key, delta, request_id, ttl_ms: 0 })
        }),
    ]
}

fn call() -> impl Strategy<Value = v1::PipelineCall> {
    let context = (0..9_u64, any::<bool>(), "[0-9a-f-]{0,4}").prop_map(|(timeout_ms, dry_run, traceparent)| {
        v1::CallContext { timeout_ms, dry_run, traceparent, tracestate: String::new() }
    });
    (0..400_u64, proptest::option::of(context), proptest::option::weighted(0.95, asked()))
        .prop_map(|(id, context, operation)| v1::PipelineCall { id, context, operation })
}

proptest! {
    #[test]
    fn what_is_read_in_place_is_what_prost_decodes(calls in vec(call(), 0..6)) {
        let message = Bytes::from(v1::PipelineRequest { calls }.encode_to_vec());
        prop_assert_eq!(read(&message), decoded(&message));
    }

    #[test]
    fn broken_messages_are_refused_or_mean_what_prost_decodes(
        calls in vec(call(), 1..4),
        harm in vec((any::<Index>(), any::<u8>()), 1..4),
        cut in any::<Index>(),
        cuts in any::<bool>(),
    ) {
        let mut message = v1::PipelineRequest { calls }.encode_to_vec();
        for (at, byte) in harm {
            let at = at.index(message.len());
            message[at] = byte;
        }
        if cuts {
            message.truncate(cut.index(message.len()));
        }
        let message = Bytes::from(message);
        prop_assert_eq!(read(&message), decoded(&message));
    }
}

#[test]
fn gets_and_stores_as_clients_send_them_are_read_in_place_and_the_unusual_is_not() {
    let context = Some(v1::CallContext { timeout_ms: 50, ..Default::default() });
    let one = |operation| v1::PipelineCall { id: 1, context: context.clone(), operation: Some(operation) };
    let message = |call: v1::PipelineCall| Bytes::from(v1::PipelineRequest { calls: vec![call] }.encode_to_vec());
    let get = message(one(Asked::Get(v1::GetRequest { key: "k".into() })));
    let store = v1::StoreRequest { key: "k".into(), val: "v".into(), ttl_ms: 9, ..Default::default() };
    let with_token = v1::StoreRequest { account_token: "t".into(), ..store.clone() };
    assert!(in_place(&get) && in_place(&message(one(Asked::Store(store)))));
    assert!(!in_place(&message(one(Asked::Store(with_token)))));
    // Two operations in one call: they are merged.
    let twice = Bytes::from_static(b"\x0a\x0c\x08\x01\x1a\x03\x0a\x01a\x1a\x03\x0a\x01b");
    assert!(!in_place(&twice));
    assert_eq!(read(&twice).unwrap()[0].key, "b");
}

#[test]
fn a_value_that_goes_elsewhere_is_not_copied() {
    let store = v1::StoreRequest { key: "k".into(), val: vec![7; 9].into(), ..Default::default() };
    let call = v1::PipelineCall { id: 1, context: None, operation: Some(Asked::Store(store)) };
    let message = Bytes::from(v1::PipelineRequest { calls: vec![call] }.encode_to_vec());
    let mut calls = PipelineCalls::default();
    calls.read(message.clone()).unwrap();
    let unary = calls.first().unwrap().unary();
    assert!(message.as_ptr_range().contains(&unary.as_ptr()));
}
