use super::*;

const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn headers(traceparent: &str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static(TRACEPARENT), HeaderValue::from_str(traceparent).unwrap())])
}

#[test]
fn a_valid_trace_passes_unchanged_and_an_invalid_one_is_ignored() {
    let mut map = headers(GOOD);
    map.insert(TRACESTATE, HeaderValue::from_static("a=b"));
    let trace = Trace::of(&map).unwrap();
    let mut out = HeaderMap::new();
    trace.write(&mut out);
    assert_eq!(out, map);
    assert_eq!(trace.id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(Trace::of_texts(GOOD, "a=b"), Some(trace));
    let bad = [
        GOOD.to_uppercase(),
        GOOD.replacen("00", "ff", 1),
        format!("{GOOD}-more"),
        GOOD[..54].to_owned(),
        "00-00000000000000000000000000000000-b7ad6b7169203331-01".to_owned(),
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01".to_owned(),
        "hello".to_owned(),
        String::new(),
    ];
    for bad in bad {
        assert_eq!(Trace::of(&headers(&bad)), None, "{bad}");
    }
}

#[test]
fn a_future_version_is_read_and_goes_on_as_ours() {
    for future in [GOOD.replacen("00", "01", 1), format!("{}-more", GOOD.replacen("00", "cc", 1))] {
        let trace = Trace::of(&headers(&future)).unwrap();
        assert_eq!(trace.traceparent(), *GOOD.as_bytes(), "{future}");
    }
}

#[test]
fn who_records_is_the_last_bit_of_the_flags() {
    for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("03", true)] {
        let text = format!("{}{flags}", &GOOD[..53]);
        let trace = Trace::of_texts(&text, "").unwrap();
        assert_eq!((trace.is_sampled(), trace.traceparent().to_vec()), (sampled, text.into_bytes()));
    }
}

#[test]
fn another_place_keeps_trace_and_state() {
    let trace = Trace::of_texts(GOOD, "a=b").unwrap().at([7; 8], 0);
    assert_eq!(
        String::from_utf8_lossy(&trace.traceparent()),
        "00-0af7651916cd43dd8448eb211c80319c-0707070707070707-00"
    );
    assert_eq!(trace.tracestate(), "a=b");
}
