use std::os::unix::fs::symlink;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::rpc::failure::Failure;
use crate::server::accounts::hash::Digest;

fn text(tokens: &[&str], max_bytes: u64) -> String {
    let tokens: Vec<_> = tokens.iter().map(|token| format!(r#"{{"hash": "{}"}}"#, Digest::of(token))).collect();
    format!(r#"{{"accounts": [{{"id": "a", "tokens": [{}], "max_bytes": {max_bytes}}}]}}"#, tokens.join(", "))
}

fn watched(content: &str) -> (TempDir, PathBuf, FileWatch) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("accounts.json");
    fs::write(&path, content).unwrap();
    let watch = FileWatch::open(&path).unwrap();
    (directory, path, watch)
}

#[test]
fn a_token_is_rotated_without_an_outage_and_the_removed_one_stops_working() {
    let (_directory, path, mut watch) = watched(&text(&["old"], 1));
    let accounts = watch.accounts();
    for (tokens, old_works, new_works) in
        [(vec!["old", "new"], true, true), (vec!["new"], false, true), (vec![], false, false)]
    {
        fs::write(&path, text(&tokens, 1)).unwrap();
        assert_eq!(watch.poll(), Poll::Loaded);
        assert_eq!((accounts.find("old").is_ok(), accounts.find("new").is_ok()), (old_works, new_works), "{tokens:?}");
    }
    assert_eq!(accounts.find("old").unwrap_err(), Failure::TokenUnknown);
}

#[test]
fn changed_limits_take_effect_and_unchanged_accounts_stay_the_same_value() {
    let (_directory, path, mut watch) = watched(&text(&["t"], 1));
    let accounts = watch.accounts();
    let before = accounts.find("t").unwrap().account;
    fs::write(&path, text(&["t", "u"], 1)).unwrap();
    assert_eq!(watch.poll(), Poll::Loaded);
    assert!(Arc::ptr_eq(&before, &accounts.find("u").unwrap().account));
    fs::write(&path, text(&["t"], 2)).unwrap();
    assert_eq!(watch.poll(), Poll::Loaded);
    assert_eq!(accounts.find("t").unwrap().account.limits.max_bytes, Some(2));
}

#[test]
fn the_generation_grows_with_each_change_that_is_taken_and_with_no_other() {
    let (_directory, path, mut watch) = watched(&text(&["t"], 1));
    let accounts = watch.accounts();
    assert_eq!((watch.poll(), accounts.generation()), (Poll::Unchanged, 0));
    fs::write(&path, text(&["t"], 2)).unwrap();
    assert_eq!((watch.poll(), accounts.generation()), (Poll::Loaded, 1));
    fs::write(&path, "{").unwrap();
    assert_eq!((watch.poll(), accounts.generation()), (Poll::Kept, 1));
}

#[test]
fn a_swap_of_kubernetes_symlinks_is_a_change() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (version, max_bytes) in [("..one", 1), ("..two", 2)] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("accounts.json"), text(&["t"], max_bytes)).unwrap();
    }
    symlink("..one", at("..data")).unwrap();
    symlink("..data/accounts.json", at("accounts.json")).unwrap();
    let mut watch = FileWatch::open(&at("accounts.json")).unwrap();
    assert_eq!(watch.poll(), Poll::Unchanged);

    symlink("..two", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    fs::remove_dir_all(at("..one")).unwrap();
    assert_eq!(watch.poll(), Poll::Loaded);
    assert_eq!(watch.accounts().find("t").unwrap().account.limits.max_bytes, Some(2));
}

#[test]
fn a_broken_file_keeps_the_accounts_of_before_and_counts_once_per_change() {
    let (_directory, path, mut watch) = watched(&text(&["t"], 1));
    let accounts = watch.accounts();
    for broken in ["", "{", &text(&["t", "t"], 1)] {
        fs::write(&path, broken).unwrap();
        assert_eq!((watch.poll(), watch.poll()), (Poll::Kept, Poll::Unchanged), "{broken}");
        assert!(accounts.find("t").is_ok());
    }
    assert_eq!((accounts.stats().failed_reloads, accounts.stats().current), (3, false));
    fs::write(&path, text(&["u"], 1)).unwrap();
    assert_eq!(watch.poll(), Poll::Loaded);
    assert_eq!((accounts.stats().reloads, accounts.stats().current), (1, true));
    assert!(accounts.find("u").is_ok());
}

#[test]
fn a_file_that_is_mended_to_what_it_was_is_current_again() {
    let (_directory, path, mut watch) = watched(&text(&["t"], 1));
    fs::write(&path, "{").unwrap();
    watch.poll();
    fs::write(&path, text(&["t"], 1)).unwrap();
    assert_eq!(watch.poll(), Poll::Unchanged);
    assert!(watch.accounts().stats().current);
}

#[test]
fn a_file_that_is_missing_for_a_moment_is_no_news_and_for_long_it_is() {
    let (_directory, path, mut watch) = watched(&text(&["t"], 1));
    let accounts = watch.accounts();
    fs::remove_file(&path).unwrap();
    assert_eq!([watch.poll(), watch.poll()], [Poll::Unchanged; 2]);
    assert!(accounts.stats().current);
    assert_eq!([watch.poll(), watch.poll()], [Poll::Kept, Poll::Unchanged]);
    assert!(accounts.find("t").is_ok() && !accounts.stats().current);
    fs::write(&path, text(&["t"], 2)).unwrap();
    assert_eq!(watch.poll(), Poll::Loaded);
}

#[test]
fn a_server_does_not_start_with_a_wrong_file_and_is_told_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.json");
    let shown = path.display();
    let missing = FileWatch::open(&path).unwrap_err().to_string();
    assert!(missing.starts_with(&format!("the accounts file {shown} cannot be read: No such file")), "{missing}");
    assert!(missing.ends_with(&format!("; make one with `larder account add --file {shown} --id <id>`")), "{missing}");
    fs::write(&path, "{}").unwrap();
    let wrong = FileWatch::open(&path).unwrap_err().to_string();
    assert_eq!(wrong, format!("the accounts file {shown} is wrong: line 1, column 2: missing field `accounts`"));
}

#[tokio::test]
async fn a_running_watch_takes_changes() {
    let (_directory, path, watch) = watched(&text(&["t"], 1));
    let accounts = watch.accounts();
    let running = tokio::spawn(watch.run(Duration::from_millis(1)));
    fs::write(&path, text(&["u"], 1)).unwrap();
    let seen = tokio::time::timeout(Duration::from_secs(10), async {
        while accounts.find("u").is_err() {
            tokio::task::yield_now().await;
        }
    });
    assert!(seen.await.is_ok());
    running.abort();
}
