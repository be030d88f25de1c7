//! What the fuzz targets do with their input: decode what a stranger may send, and check what must hold whatever it is.
//! `tests/fuzz_corpus.rs` does the same with the corpora on stable Rust.

use larder::cache::cursor::Cursor;
use larder::cache::version::Now;
use larder::cluster::members::Members;
use larder::ownership::view::View;
use larder::rpc::convert::{Kind, count_items, decode, decode_and_check};
use larder::rpc::peer::{answer_of, answer_to, request_of, request_to, stamp_of, stamp_to};
use larder::rpc::proto::peer::v1 as peer;
use larder::rpc::proto::v1;
use larder::rpc::status;
use larder::server::accounts::file::{self, File};
use xxhash_rust::xxh64::xxh64;

/// Bytes of metadata that a stock client accepts (gRPC's soft limit).
const MAX_TRAILER_BYTES: usize = 8 * 1024;

/// A dump's cursor, as it comes back from a client: one encoding for each cursor, and nothing else passes.
pub fn cursor(data: &[u8]) {
    if let Ok(cursor) = Cursor::from_bytes(data) {
        assert_eq!(cursor.to_bytes(), data, "a cursor has one encoding");
    }
    // The checksum keeps mistakes out, and would keep the fuzzer out: give it the right one.
    #[expect(clippy::cast_possible_truncation, reason = "the encoding takes the low half")]
    let checksum = xxh64(data, 0) as u32;
    let framed = [data, &checksum.to_be_bytes()].concat();
    if let Ok(cursor) = Cursor::from_bytes(&framed) {
        assert_eq!(cursor.to_bytes(), framed, "a cursor has one encoding");
        assert_eq!(Cursor::from_bytes(&cursor.to_bytes()), Ok(cursor), "a cursor survives the wire");
    }
}

/// The accounts file: what is accepted can be written and read again, and is then the same.
pub fn accounts_file(data: &[u8]) {
    if let Err(problem) = file::parse(data) {
        assert!(!problem.to_string().is_empty(), "a refusal says why");
    }
    if let Ok(read) = File::parse(data) {
        let written = serde_json::to_vec(&read).expect("a file that was read can be written");
        assert_eq!(File::parse(&written).as_ref(), Ok(&read), "writing and reading changes nothing");
        assert_eq!(read.book().is_ok(), file::parse(data).is_ok());
    }
}

/// The members' file: what is accepted is a view that can be sent, and can be written and read again.
pub fn members_file(data: &[u8]) {
    match Members::parse(data) {
        Err(problem) => assert!(!problem.to_string().is_empty(), "a refusal says why"),
        Ok(members) => {
            let view = members.view().expect("what is accepted is a view");
            assert_eq!(View::from_bytes(&view.to_bytes()).as_ref(), Ok(&view), "other replicas understand it");
            let written = serde_json::to_vec(&members).expect("a file that was read can be written");
            assert_eq!(Members::parse(&written).expect("and read"), members, "writing and reading changes nothing");
        }
    }
}

/// A request's message, as it comes out of the frame; the first byte says which. What is refused is refused by a failure
/// that can be said in bounded metadata and understood at the other end.
pub fn request(data: &[u8]) {
    let Some((&kind, message)) = data.split_first() else { return };
    let kind = Kind::ALL[usize::from(kind) % Kind::ALL.len()];
    if let Some(items) = items_of(kind, message) {
        assert_eq!(count_items(message), items, "what is counted before decoding is what is decoded");
    }
    if let Err(failure) = decode_and_check(kind, message) {
        let told = status::to_error(&failure);
        let heard = status::failure_of_error(&told);
        assert_eq!(heard.code(), failure.code(), "{failure:?}");
        assert_eq!(status::to_error(&heard).reason, told.reason, "{failure:?}");
        let bytes: usize =
            status::to_trailers(&failure).iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        assert!(bytes < MAX_TRAILER_BYTES, "{bytes} bytes of trailers: {failure:?}");
    }
}

/// A message of another replica, as it comes out of the frame; the first byte says which. What is accepted says the same when
/// it is said again.
pub fn peer_message(data: &[u8]) {
    const NOW: Now = Now { monotonic_ms: 1_000, wall_us: 0 };
    let Some((&kind, message)) = data.split_first() else { return };
    let stamp = match kind % 4 {
        0 => decode::<peer::ExchangeRequest>(message).ok().and_then(|message| {
            if let Ok(request) = request_of(message.request) {
                let again = request_of(Some(request_to(&request))).expect("what was accepted is accepted again");
                assert_eq!(format!("{again:?}"), format!("{request:?}"));
            }
            message.stamp
        }),
        1 => decode::<peer::ExchangeResponse>(message).ok().and_then(|message| {
            if let Ok(answer) = answer_of(message.answer, NOW) {
                let again = answer_of(Some(answer_to(answer.clone(), NOW)), NOW);
                let again = again.expect("what was accepted is accepted again");
                assert_eq!(format!("{again:?}"), format!("{answer:?}"));
            }
            message.stamp
        }),
        2 => decode::<peer::ForwardRequest>(message).ok().and_then(|message| message.stamp),
        _ => decode::<peer::ForwardResponse>(message).ok().and_then(|message| message.stamp),
    };
    if let Ok(stamp) = stamp_of(stamp) {
        let again = stamp_of(Some(stamp_to(&stamp))).expect("what was accepted is accepted again");
        assert_eq!(format!("{again:?}"), format!("{stamp:?}"));
    }
}

/// How many items a message has when it is decoded; `None` where there are none to count, or it cannot be decoded.
fn items_of(kind: Kind, message: &[u8]) -> Option<usize> {
    match kind {
        Kind::BatchGet => decode::<v1::BatchGetRequest>(message).ok().map(|batch| batch.items.len()),
        Kind::BatchStore => decode::<v1::BatchStoreRequest>(message).ok().map(|batch| batch.items.len()),
        Kind::BatchDelete => decode::<v1::BatchDeleteRequest>(message).ok().map(|batch| batch.items.len()),
        Kind::Pipeline => decode::<v1::PipelineRequest>(message).ok().map(|message| message.calls.len()),
        _ => None,
    }
}
