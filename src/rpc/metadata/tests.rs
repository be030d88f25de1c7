use super::*;

fn headers(name: &'static str, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
}

#[test]
fn a_token_comes_after_bearer_in_any_case() {
    for good in ["Bearer t-1", "bearer t-1", "BEARER  t-1 "] {
        assert_eq!(bearer(&headers(AUTHORIZATION, good)), Ok(Some("t-1")), "{good}");
    }
    for missing in ["Basic dTpw", "Bearer", "Bearer ", "t-1"] {
        assert_eq!(bearer(&headers(AUTHORIZATION, missing)), Err(Failure::TokenMissing), "{missing}");
    }
    assert_eq!(bearer(&HeaderMap::new()), Ok(None));
    let long = format!("Bearer {}", "x".repeat(513));
    assert_eq!(bearer(&headers(AUTHORIZATION, &long)), Err(Failure::TokenUnknown));
}

#[test]
fn a_timeout_has_1_to_8_digits_and_a_unit() {
    let table = [
        ("1H", Duration::from_hours(1)),
        ("2M", Duration::from_mins(2)),
        ("3S", Duration::from_secs(3)),
        ("50m", Duration::from_millis(50)),
        ("7u", Duration::from_micros(7)),
        ("99999999n", Duration::from_nanos(99_999_999)),
        ("0m", Duration::ZERO),
        ("99999999H", MAX_TIMEOUT),
    ];
    for (text, wanted) in table {
        assert_eq!(timeout(&headers(GRPC_TIMEOUT, text)), Ok(Some(wanted)), "{text}");
    }
    for bad in ["", "1", "S", "1s", "-1S", "+1S", "1.5S", " 1S", "123456789m", "1mS"] {
        assert!(timeout(&headers(GRPC_TIMEOUT, bad)).is_err(), "{bad:?}");
    }
    assert_eq!(timeout(&HeaderMap::new()), Ok(None));
}

#[test]
fn a_written_timeout_is_read_as_at_most_the_same() {
    for nanos in [0, 1, 99_999_999, 100_000_000, 1_000_000_000, 86_400_000_000_000, 31_536_000_000_000_000] {
        let wanted = Duration::from_nanos(nanos);
        let mut map = HeaderMap::new();
        map.insert(GRPC_TIMEOUT, timeout_value(wanted));
        let read = timeout(&map).unwrap().unwrap();
        let lost = wanted.checked_sub(read).expect("nobody waits longer");
        assert!(lost < Duration::from_mins(1), "{wanted:?} was read as {read:?}");
    }
}

#[test]
fn a_dry_run_is_never_taken_for_a_real_one() {
    assert_eq!(dry_run(&headers(DRY_RUN, "1")), Ok(true));
    assert_eq!(dry_run(&headers(DRY_RUN, "true")), Ok(true));
    assert_eq!(dry_run(&headers(DRY_RUN, "0")), Ok(false));
    assert_eq!(dry_run(&HeaderMap::new()), Ok(false));
    assert!(dry_run(&headers(DRY_RUN, "yes")).is_err());
}
