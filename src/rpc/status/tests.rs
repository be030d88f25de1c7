use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use tonic_types::StatusExt as _;

use super::*;
use crate::cache::key::KeyError;
use crate::cache::version::Version;

/// The sample after a failure. A variant added to `Failure` does not compile here until it has its place in the chain, and
/// `every_variant_is_in_the_chain` fails until the chain reaches it.
fn after(failure: &Failure) -> Option<Failure> {
    use Failure as F;
    let account = || "team-7".to_owned();
    let retry_after = Duration::from_millis(7);
    Some(match failure {
        F::Key(KeyError::Empty) => F::Key(KeyError::TooLong(5000)),
        F::Key(KeyError::TooLong(_)) => F::EntryTooLarge(5_000_000),
        F::EntryTooLarge(_) => F::TtlTooLong { asked_ms: 2000, max_ms: 1000 },
        F::TtlTooLong { .. } => F::field("condition", "it is not one that this server knows"),
        F::Field { .. } => F::RequestIdTooLong(65),
        F::RequestIdTooLong(_) => F::Cursor,
        F::Cursor => F::BatchSize(10_001),
        F::BatchSize(_) => F::PipelineSize(1025),
        F::PipelineSize(_) => F::Malformed("invalid tag value: 0".to_owned()),
        F::Malformed(_) => F::MessageTooLarge { limit: 4_194_304 },
        F::MessageTooLarge { .. } => F::MetadataTooLarge { limit: 16_384 },
        F::MetadataTooLarge { .. } => F::UnknownMethod("/larder.v1.Cache/Nonsense".to_owned()),
        F::UnknownMethod(_) => F::Encoding("snappy".to_owned()),
        F::Encoding(_) => F::metadata("grpc-timeout", "give 1 to 8 digits and a unit: H, M, S, m, u or n"),
        F::Metadata { .. } => F::TokenMissing,
        F::TokenMissing => F::TokenUnknown,
        F::TokenUnknown => F::TokenReadOnly,
        F::TokenReadOnly => F::AccountsUnavailable,
        F::AccountsUnavailable => F::NotFound,
        F::NotFound => F::AlreadyExists,
        F::AlreadyExists => F::VersionMismatch { current: Version::from_u64(41) },
        F::VersionMismatch { .. } => F::NotACounter,
        F::NotACounter => F::CounterOverflow,
        F::CounterOverflow => F::QuotaKeys { account: account(), limit: 100 },
        F::QuotaKeys { .. } => F::QuotaBytes { account: account(), limit: 1_000_000 },
        F::QuotaBytes { .. } => F::MemoryGuaranteed,
        F::MemoryGuaranteed => F::AccountRate { account: account(), limit: 150, retry_after },
        F::AccountRate { .. } => F::ServerRate { limit: 1000, retry_after },
        F::ServerRate { .. } => F::Overloaded { retry_after },
        F::Overloaded { .. } => F::Starting,
        F::Starting => F::Draining,
        F::Draining => F::DeadlineExceeded,
        F::DeadlineExceeded => F::Cancelled,
        F::Cancelled => F::AppliedUnknown { idempotent: true },
        F::AppliedUnknown { idempotent: true } => F::AppliedUnknown { idempotent: false },
        F::AppliedUnknown { idempotent: false } => F::NoOwner,
        F::NoOwner => F::QuotaUnknown { account: account() },
        F::QuotaUnknown { .. } => F::Internal,
        F::Internal => F::Other { code: Code::DataLoss as i32, message: "from elsewhere".to_owned() },
        F::Other { .. } => return None,
    })
}

fn all() -> Vec<Failure> {
    std::iter::successors(Some(Failure::Key(KeyError::Empty)), after).collect()
}

#[test]
fn every_variant_is_in_the_chain() {
    let discriminants: BTreeSet<String> =
        all().iter().map(|failure| format!("{:?}", std::mem::discriminant(failure))).collect();
    let source = include_str!("../failure.rs");
    let body = source.split_once("pub enum Failure {").unwrap().1.split_once("\n}").unwrap().0;
    let variants =
        body.lines().filter(|line| line.starts_with("    ") && line.as_bytes()[4].is_ascii_uppercase()).count();
    assert_eq!(discriminants.len(), variants);
}

#[test]
fn every_failure_comes_back_from_a_status() {
    for failure in all() {
        let status = to_status(&failure);
        assert_eq!(status.code(), failure.code());
        assert_eq!(failure_of(&status), failure);
    }
}

#[test]
fn every_failure_comes_back_from_trailers() {
    for failure in all() {
        let trailers = to_trailers(&failure);
        let status = Status::from_header_map(&trailers).unwrap();
        assert_eq!(status.message(), failure.to_string());
        assert_eq!(failure_of(&status), failure);
        let pushback =
            trailers.get(GRPC_RETRY_PUSHBACK_MS).map(|value| value.to_str().unwrap().parse::<i64>().unwrap());
        assert_eq!(pushback, failure.retry_after().as_millis(), "{failure:?}");
        assert!(trailers.values().map(HeaderValue::len).sum::<usize>() < 4096, "{failure:?}");
    }
}

#[test]
fn every_failure_comes_back_from_an_error_in_a_batch() {
    for failure in all() {
        assert_eq!(failure_of_error(&to_error(&failure)), failure);
    }
}

#[test]
fn a_reason_and_a_number_belong_to_one_variant() {
    let mut reasons = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    let mut variants = BTreeSet::new();
    for failure in all() {
        if variants.insert(format!("{:?}", std::mem::discriminant(&failure))) {
            assert!(reasons.insert(failure.reason()), "{failure:?}");
            assert!(numbers.insert(failure.user_error_code()), "{failure:?}");
        }
    }
}

#[test]
fn details_are_error_then_error_info_then_what_applies() {
    let names = |failure: &Failure| -> Vec<String> {
        let details = tonic_types::pb::Status::decode(to_status(failure).details()).unwrap().details;
        details.into_iter().map(|any| any.type_url.rsplit('.').next().unwrap().to_owned()).collect()
    };
    let rate = Failure::AccountRate { account: "a".to_owned(), limit: 1, retry_after: Duration::from_millis(1) };
    assert_eq!(names(&Failure::NotFound), ["Error", "ErrorInfo"]);
    assert_eq!(names(&rate), ["Error", "ErrorInfo", "RetryInfo", "QuotaFailure"]);
    assert_eq!(names(&Failure::Cursor), ["Error", "ErrorInfo", "BadRequest"]);
}

#[test]
fn stock_tools_read_the_details() {
    let failure = Failure::VersionMismatch { current: Version::from_u64(41) };
    let info = to_status(&failure).get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("VERSION_MISMATCH", DOMAIN));
    assert_eq!(info.metadata["current_version"], "41");
    let failure = Failure::Overloaded { retry_after: Duration::from_millis(20) };
    let retry = to_status(&failure).get_details_retry_info().unwrap();
    assert_eq!(retry.retry_delay, Some(Duration::from_millis(20)));
}

#[test]
fn whether_a_lost_call_may_be_retried_is_in_the_pushback() {
    let lost = |idempotent| to_trailers(&Failure::AppliedUnknown { idempotent });
    assert_eq!(lost(false)[GRPC_RETRY_PUSHBACK_MS], "-1");
    assert_eq!(lost(true)[GRPC_RETRY_PUSHBACK_MS], "50");
}

#[test]
fn a_pushback_is_never_early() {
    assert_eq!(Pushback::After(Duration::from_micros(1001)).as_millis(), Some(2));
    assert_eq!(Pushback::After(Duration::ZERO).as_millis(), Some(1));
}

#[test]
fn a_message_travels_percent_encoded_and_bounded() {
    let failure = Failure::UnknownMethod(format!("/100%ä\n{}", "x".repeat(20_000)));
    let trailers = to_trailers(&failure);
    let message = trailers[GRPC_MESSAGE].to_str().unwrap();
    assert!(message.starts_with("there is no method /100%25%C3%A4%0Axxx"), "{message}");
    assert!(trailers.values().map(HeaderValue::len).sum::<usize>() < 4096);
}

#[test]
fn the_tutorials_trailer_is_padded_base64_of_its_error() {
    let text = rpc_error_trailer(&Failure::NotFound);
    let error = tutorial::Error::decode(STANDARD.decode(text.as_bytes()).unwrap().as_slice()).unwrap();
    assert_eq!(error, to_tutorial(&Failure::NotFound));
    assert_eq!((error.code, error.messsage.as_str(), error.temporary), (5, "the key has no value", false));
}

#[test]
fn statuses_of_others_keep_their_code() {
    assert_eq!(failure_of(&Status::cancelled("Timeout expired")), Failure::DeadlineExceeded);
    let other = failure_of(&Status::unavailable("no route"));
    assert_eq!((other.code(), other.temporary(), other.to_string().as_str()), (Code::Unavailable, true, "no route"));
    let newer = v1::Error { code: 5, message: "new".to_owned(), reason: "NEWER".to_owned(), ..Default::default() };
    assert_eq!(failure_of_error(&newer).code(), Code::NotFound);
}

/// `UPDATE=1 cargo test the_error_table` writes the page.
#[test]
#[expect(clippy::disallowed_methods, reason = "says what to do with a page, configures nothing")]
fn the_error_table_in_the_docs_is_the_one_in_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/errors.md");
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/errors.md differs from src/rpc/status.rs: run `UPDATE=1 cargo test the_error_table`"
    );
}

fn page() -> String {
    let mut page = String::from(
        "# Errors\n\nGenerated from `src/rpc/status.rs` by a test (`UPDATE=1 cargo test the_error_table`); do not edit.\n\n\
         Every error carries, in `grpc-status-details-bin`, a `larder.v1.Error` and a `google.rpc.ErrorInfo` (domain\n\
         `larder.dev`) with the reason and the facts below, and where they apply `RetryInfo` (for a pushback), `QuotaFailure` or\n\
         `BadRequest`. The pushback travels as `grpc-retry-pushback-ms`; *never* is -1: stock clients then do not retry by\n\
         themselves. Temporary: the same call may succeed later although nothing is changed. A number or reason never changes\n\
         its meaning.\n\n\
         | number | reason | code | temporary | pushback | facts | for example |\n|---|---|---|---|---|---|---|\n",
    );
    for failure in all() {
        let pushback = match (&failure, failure.retry_after()) {
            (_, Pushback::Unsaid) => String::new(),
            (_, Pushback::Never) => "never".to_owned(),
            (Failure::AccountRate { .. } | Failure::ServerRate { .. } | Failure::Overloaded { .. }, _) => {
                "until there is room".to_owned()
            }
            (_, Pushback::After(wait)) => format!("{} ms", wait.as_millis()),
        };
        let facts: BTreeSet<String> = to_error(&failure).metadata.into_keys().map(|name| format!("`{name}`")).collect();
        let facts = facts.into_iter().collect::<Vec<_>>().join(", ");
        let code = match failure {
            Failure::Other { .. } => "as it came".to_owned(),
            _ => code_name(failure.code()),
        };
        let temporary = match failure {
            Failure::Other { .. } => "if UNAVAILABLE",
            _ if failure.temporary() => "yes",
            _ => "",
        };
        let (number, reason) = (failure.user_error_code(), failure.reason());
        writeln!(page, "| {number} | {reason} | {code} | {temporary} | {pushback} | {facts} | {failure} |").unwrap();
    }
    page
}

/// The code as the gRPC documents spell it.
fn code_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
