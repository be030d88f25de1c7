use super::*;

const HASH: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const OTHER: &str = "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

fn problem(text: &str) -> String {
    parse(text.as_bytes()).map_or_else(|error| error.to_string(), |_| "none".into())
}

fn account(fields: &str) -> String {
    format!(r#"{{"accounts": [{{"id": "a", "tokens": [{{"hash": "{HASH}"}}], {fields}}}]}}"#)
}

#[test]
fn a_whole_file_is_read() {
    let text = format!(
        r#"{{"accounts": [{{"id": "team-a", "tokens": [{{"hash": "{HASH}", "access": "read-only"}}, {{"hash": "{OTHER}"}}],
            "max_cache_keys": 10, "max_bytes": 20, "requests_per_second": 150, "burst": 5, "guaranteed_bytes": 30,
            "default_ttl_ms": 40, "max_ttl_ms": 50}}, {{"id": "team-b", "tokens": []}}]}}"#
    );
    let book = parse(text.as_bytes()).unwrap();
    let limits = Limits {
        max_keys: Some(10),
        max_bytes: Some(20),
        requests_per_second: Some(150),
        burst: 5,
        guaranteed_bytes: 30,
        default_ttl_ms: Some(40),
        max_ttl_ms: 50,
    };
    let reader = book.find("abc").unwrap();
    assert_eq!(*reader.account, Account { id: AccountId::new("team-a").unwrap(), limits });
    assert!(reader.read_only);
    assert!(!book.find("foo").unwrap().read_only);
    assert_eq!((book.len(), book.tokens()), (2, 2));
}

#[test]
fn a_mistake_in_the_limits_gets_its_sentence() {
    for (text, sentence) in [
        (String::new(), "line 1, column 0: EOF while parsing a value"),
        ("{\n \"accounts\": [}".into(), "line 2, column 15: expected value"),
        ("[]".into(), "line 1, column 2: invalid length 0, expected an object with `accounts`"),
        ("{}".into(), "line 1, column 2: missing field `accounts`"),
        (
            account(r#""max_keys": 1"#),
            "line 1, column 133: unknown field `max_keys`, expected one of `id`, `tokens`, `max_cache_keys`, `max_bytes`, `requests_per_second`, `burst`, `guaranteed_bytes`, `default_ttl_ms`, `max_ttl_ms`",
        ),
        (
            account(r#""max_cache_keys": -1"#),
            "line 1, column 143: invalid value: integer, expected a whole number from 0 upwards",
        ),
        (
            account(r#""max_cache_keys": "many""#),
            "line 1, column 147: invalid type: string, expected a whole number from 0 upwards",
        ),
        (account(r#""burst": 5"#), "account `a` has `burst` without `requests_per_second`; set both, or neither"),
        (
            account(r#""requests_per_second": 4294967296"#),
            "account `a` has `requests_per_second` or `burst` over 4294967295; use at most that, or 0 for no limit",
        ),
        (
            account(r#""max_ttl_ms": 34560000001"#),
            "account `a` has `max_ttl_ms` 34560000001; at most 34560000000 ms (400 days) are allowed",
        ),
        (
            account(r#""max_ttl_ms": 10, "default_ttl_ms": 11"#),
            "account `a` has `default_ttl_ms` 11 over its `max_ttl_ms` 10; lower the first or raise the second",
        ),
        (account(r#""id": "b""#), "line 1, column 127: duplicate field `id`"),
    ] {
        assert_eq!(problem(&text), sentence);
    }
}

#[test]
fn a_mistake_in_ids_and_tokens_gets_its_sentence_which_repeats_no_token() {
    let two = |first: &str, second: &str| format!(r#"{{"accounts": [{first}, {second}]}}"#);
    let named = |id: &str, hash: &str| format!(r#"{{"id": "{id}", "tokens": [{{"hash": "{hash}"}}]}}"#);
    for (text, sentence) in [
        (two(&named("a", HASH), &named("a", OTHER)), "account `a` is there twice; put all its tokens into one entry"),
        (
            two(&named("a", HASH), &named("b", HASH)),
            "accounts `a` and `b` have a token in common (hash ba7816bf..); give each its own",
        ),
        (
            two(&named("tutorial", HASH), &named("b", OTHER)),
            "account `tutorial` is reserved for the tutorial's API; choose another id",
        ),
        (
            two(&named("Team A", HASH), &named("b", OTHER)),
            "line 1, column 29: an account id has 1 to 63 characters of a-z, 0-9 and '-'",
        ),
        (
            two(&named("a", "sha256:12"), &named("b", OTHER)),
            "line 1, column 58: a token's hash is `sha256:` and 64 hex digits; `larder account hash` prints it",
        ),
        (
            r#"{"accounts": [{"id": "a", "tokens": [{"token": "larder_0123"}]}]}"#.into(),
            r#"line 1, column 45: a token is kept only as its hash: pipe it into `larder account hash` and write `"hash": "sha256:…"`"#,
        ),
        (
            r#"{"accounts": [{"id": "a", "tokens": ["larder_0123456789abcdefghjkmnpqrst"]}]}"#.into(),
            "line 1, column 73: invalid type: string, expected an object with `hash`, which `larder account hash` makes of a token",
        ),
        (
            r#"{"accounts": [{"id": "a", "tokens": [{"larder_0123456789abcdefghjkmnpqrst": 1}]}]}"#.into(),
            "line 1, column 74: unknown field, expected `hash` or `access`",
        ),
        (
            account("").replace("}], }", r#", "access": "all"}]}"#),
            "line 1, column 136: unknown variant `all`, expected `read-write` or `read-only`",
        ),
        (
            account("").replace("], ", &format!(r#", {{"hash": "{HASH}"}}]"#)),
            "account `a` has a token twice; remove one of the two",
        ),
        (
            account("").replace("], ", &format!("{}]", format!(r#", {{"hash": "{OTHER}"}}"#).repeat(16))),
            "account `a` has 17 tokens; at most 16 are allowed: revoke old ones",
        ),
        (two(&named("a", HASH), &named("b", OTHER)) + " x", "line 1, column 236: trailing characters"),
        (
            " ".repeat(MAX_FILE_BYTES + 1),
            "it has 8388609 bytes; at most 8388608 are allowed: use a remote Accounts service",
        ),
    ] {
        assert_eq!(problem(&text), sentence);
    }
}

#[test]
fn a_file_has_at_most_10_000_accounts() {
    let file = |accounts: usize| File {
        accounts: (0..accounts).map(|n| FileAccount::new(AccountId::new(&n.to_string()).unwrap())).collect(),
    };
    assert_eq!(file(MAX_ACCOUNTS).book().unwrap().len(), 10_000);
    assert_eq!(file(MAX_ACCOUNTS + 1).book().unwrap_err(), FileError::TooManyAccounts(10_001));
}

#[test]
fn what_is_written_is_read_again() {
    let mut account = FileAccount::new(AccountId::new("a").unwrap());
    account.max_bytes = 7;
    account.tokens.push(FileToken { hash: Digest::of("abc"), access: Access::ReadOnly });
    let file = File { accounts: vec![account] };
    let text = serde_json::to_string(&file).unwrap();
    assert_eq!(
        text,
        format!(r#"{{"accounts":[{{"id":"a","tokens":[{{"hash":"{HASH}","access":"read-only"}}],"max_bytes":7}}]}}"#)
    );
    assert_eq!(File::parse(text.as_bytes()).unwrap(), file);
}
