//! `larder account`, as a person or a script runs it.

#![expect(clippy::unwrap_used, reason = "unwrapping is how a test fails")]

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use larder::server::accounts::file::parse;
use larder::server::accounts::hash::Digest;
use tempfile::TempDir;

struct Ran {
    status: i32,
    out: String,
    err: String,
}

/// Runs `larder account <arguments> --file <path>` with something on standard input.
fn run(arguments: &str, path: Option<&Path>, input: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.arg("account").args(arguments.split_whitespace()).env_remove("LARDER_ACCOUNTS");
    if let Some(path) = path {
        command.arg("--file").arg(path);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { status: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// The same; it must succeed, and what it prints is answered.
fn larder(arguments: &str, path: &Path) -> String {
    let ran = run(arguments, Some(path), "");
    assert_eq!(ran.status, 0, "{arguments}: {}", ran.err);
    ran.out
}

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("accounts.json");
    (directory, path)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn add_makes_a_file_for_its_owner_alone_and_prints_the_token_and_nothing_else() {
    let (directory, path) = place();
    let out = larder("add --id team-a --max-cache-keys 5 --max-bytes 1KiB --max-ttl 1h", &path);
    let token = out.strip_suffix('\n').unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let grant = parse(text.as_bytes()).unwrap().find(token).unwrap();
    let limits = grant.account.limits;
    assert_eq!((grant.account.id.as_str(), grant.read_only), ("team-a", false));
    assert_eq!((limits.max_keys, limits.max_bytes, limits.max_ttl_ms), (Some(5), Some(1024), 3_600_000));
    assert!(!text.contains(token));
    assert_eq!(mode(&path), 0o600);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_token_is_rotated_by_add_and_revoke() {
    let (_directory, path) = place();
    let old = larder("add --id a", &path);
    let new = larder("add --id a --read-only", &path);
    let find = |token: &str| parse(&fs::read(&path).unwrap()).unwrap().find(token.trim());
    assert!(!find(&old).unwrap().read_only && find(&new).unwrap().read_only);
    let short = Digest::of(old.trim()).short(8);
    assert!(larder("list", &path).contains(&format!("    {short}  read-write\n")));
    larder(&format!("revoke --id a --hash {short}"), &path);
    assert!(find(&old).is_err() && find(&new).is_ok());
    larder("set --id a --requests-per-second 150 --burst 5", &path);
    assert_eq!(find(&new).unwrap().account.limits.requests_per_second, Some(150));
    larder("remove --id a", &path);
    assert!(find(&new).is_err());
}

#[test]
fn a_list_shows_no_token_and_no_whole_hash() {
    let (_directory, path) = place();
    let token = larder("add --id a", &path);
    let list = larder("list", &path);
    let hash = Digest::of(token.trim()).to_string();
    assert!(!list.contains(token.trim()) && !list.contains(&hash["sha256:".len()..]), "{list}");
}

#[test]
fn the_hash_of_a_token_from_standard_input_can_be_added() {
    let (_directory, path) = place();
    let token = "9f86d081884c7d659a2feaa0c55ad015";
    for end in ["", "\n", "\r\n"] {
        let ran = run("hash", None, &format!("{token}{end}"));
        assert_eq!((ran.out, ran.status), (format!("{}\n", Digest::of(token)), 0), "{}", ran.err);
    }
    assert_eq!(larder(&format!("add --id a --hash {}", Digest::of(token)), &path), "");
    assert!(parse(&fs::read(&path).unwrap()).unwrap().find(token).is_ok());
}

#[test]
fn a_file_behind_a_link_is_changed_in_its_place_and_keeps_its_mode() {
    let (directory, path) = place();
    larder("add --id a", &path);
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let link = directory.path().join("link.json");
    symlink("accounts.json", &link).unwrap();
    larder("add --id b", &link);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!((parse(&fs::read(&path).unwrap()).unwrap().len(), mode(&path)), (2, 0o640));
}

#[test]
fn a_mistake_gets_a_sentence_an_exit_status_and_changes_nothing() {
    let (_directory, path) = place();
    larder("add --id a", &path);
    let before = fs::read(&path).unwrap();
    for (arguments, status, sentence) in [
        ("add --id Team", 64, "an account id has 1 to 63 characters of a-z, 0-9 and '-'"),
        (
            "add --id tutorial",
            64,
            "would be wrong: account `tutorial` is reserved for the tutorial's API; choose another",
        ),
        ("add --id a --burst 5", 64, "account `a` has `burst` without `requests_per_second`; set both, or neither"),
        ("add --id a --hash abc", 64, "a token's hash is `sha256:` and 64 hex digits; `larder account hash` prints it"),
        ("add --id a --max-bytes much", 64, "--max-bytes"),
        ("set --id a", 1, "no limit is given; `larder account set --help` lists them"),
        ("set --id a --max-ttl 401d", 64, "at most 34560000000 ms (400 days) are allowed"),
        ("set --id b --burst 1", 1, "there is no account `b` in the file; `larder account list` shows those that are"),
        ("revoke --id a --hash 0", 1, "give at least 4 digits of the token's hash"),
        ("remove --id b", 1, "there is no account `b` in the file"),
    ] {
        let ran = run(arguments, Some(&path), "");
        assert_eq!((ran.status, ran.out.as_str()), (status, ""), "{arguments}: {}", ran.err);
        assert!(ran.err.contains(sentence), "{arguments}: {}", ran.err);
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn the_file_and_the_commands_of_the_documentation_are_right() {
    let (_directory, path) = place();
    let page = include_str!("../docs/accounts.md");
    let block = |language: &str| page.split_once(&format!("```{language}\n")).unwrap().1.split_once("```").unwrap().0;
    assert_eq!(parse(block("json").as_bytes()).unwrap().tokens(), 2);
    fs::write(&path, block("json")).unwrap();
    for line in block("sh").lines() {
        let (command, _) = line.split_once('#').unwrap_or((line, ""));
        let arguments = command.strip_prefix("larder account").unwrap().replace("--file accounts.json", "");
        larder(&arguments, &path);
    }
    assert_eq!(larder("list", &path), "team-b  no limits\n    no tokens\n");
}

#[test]
fn a_file_that_is_missing_or_wrong_is_named() {
    let (_directory, path) = place();
    let missing = run("list", Some(&path), "");
    assert_eq!(missing.status, 1);
    let sentence = format!("larder: cannot read the accounts file {}: No such file", path.display());
    assert!(missing.err.starts_with(&sentence), "{}", missing.err);
    fs::write(&path, r#"{"accounts": [{"id": "a"}]}"#).unwrap();
    let wrong = run("add --id b", Some(&path), "");
    let sentence = "is wrong: line 1, column 25: missing field `tokens`\n";
    assert!(wrong.status == 64 && wrong.err.ends_with(sentence), "{}", wrong.err);
}

#[test]
fn a_token_that_may_be_guessed_is_not_hashed() {
    for (token, sentence) in [
        ("", "the token is empty"),
        ("hunter2\n", "the token has 7 characters, which may be guessed"),
        (&"x".repeat(600), "the token has 600 bytes; at most 512 are allowed"),
        ("two words two words two words two words", "white space"),
    ] {
        let ran = run("hash", None, token);
        assert_eq!((ran.status, ran.out.as_str()), (1, ""), "{token}");
        assert!(ran.err.contains(sentence), "{}", ran.err);
    }
}
