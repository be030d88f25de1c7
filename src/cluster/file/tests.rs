use tokio::time::timeout;

use super::super::members::Member;
use super::*;

fn members(version: u64, uids: &[&str]) -> Members {
    let member = |uid: &&str| Member {
        address: "10.0.0.1:7070".into(),
        peer: "10.0.0.1:7071".into(),
        uid: (*uid).to_owned(),
        ..Member::default()
    };
    Members { version, endpoints: uids.iter().map(member).collect() }
}

/// A directory, the file's path in it, and its source.
fn source() -> (tempfile::TempDir, PathBuf, FileSource) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("members.json");
    let source = FileSource::new(&path);
    (directory, path, source)
}

fn uids(view: Option<Arc<View>>) -> Option<Vec<String>> {
    view.map(|view| view.endpoints().into_keys().map(|uid| uid.to_string()).collect())
}

#[test]
fn each_greater_version_is_a_view_and_nothing_is_one_before_the_file_is_there() {
    let (_directory, path, mut source) = source();
    assert_eq!(source.poll(), None);
    for (version, listed) in [(1, &["a"][..]), (2, &["a", "b"]), (9, &[])] {
        members(version, listed).write(&path).unwrap();
        let news = source.poll();
        assert_eq!(news.as_ref().map(|view| view.source_version().0), Some(version));
        assert_eq!(uids(news).unwrap(), listed);
        assert_eq!(source.poll(), None, "once");
    }
}

#[test]
fn what_is_wrong_is_kept_out_and_the_view_of_before_stays() {
    let (_directory, path, mut source) = source();
    members(5, &["a"]).write(&path).unwrap();
    assert!(source.poll().is_some());
    let json = |members: Members| serde_json::to_string(&members).unwrap();
    for wrong in [
        "{".to_owned(),
        String::new(),
        json(members(6, &["a", "a"])),
        json(members(4, &["a"])),
        json(members(5, &["a", "b"])),
        json(members(0, &["a"])),
    ] {
        fs::write(&path, &wrong).unwrap();
        assert_eq!(source.poll(), None, "{wrong}");
        assert!(matches!(source.seen, Seen::Content { taken: false, .. }), "{wrong}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(source.poll(), None);
    members(5, &["a"]).write(&path).unwrap();
    assert_eq!(source.poll(), None, "what is in use came back");
    members(6, &["b"]).write(&path).unwrap();
    assert_eq!(uids(source.poll()).unwrap(), ["b"]);
}

#[test]
fn why_a_file_is_kept_out_is_said_with_both_versions() {
    let (_directory, path, mut source) = source();
    members(5, &["a"]).write(&path).unwrap();
    source.poll();
    let judge = |members: Members| source.judge(&serde_json::to_vec(&members).unwrap()).unwrap_err().to_string();
    assert_eq!(judge(members(4, &["a"])), "its version went back from 5 to 4; versions only grow");
    assert!(judge(members(5, &["b"])).starts_with("it has version 5 as before, and other endpoints"));
}

#[test]
fn a_change_that_leaves_time_inode_and_length_is_seen_at_the_next_full_read() {
    let (_directory, path, mut source) = source();
    members(1, &["a"]).write(&path).unwrap();
    source.poll();
    members(2, &["b"]).write(&path).unwrap();
    // As if both files had looked the same from outside.
    let Seen::Content { state, .. } = &mut source.seen else { panic!("it was read") };
    *state = State::of(&fs::metadata(&path).unwrap());
    let news: Vec<_> = (0..READ_AGAIN_POLLS).filter_map(|_| uids(source.poll())).collect();
    assert_eq!(news, [["b"]]);
}

#[tokio::test(start_paused = true)]
async fn the_age_grows_while_the_file_is_wrong_or_missing_and_not_while_it_stays_as_it_is() {
    let (_directory, path, mut source) = source();
    let heard = source.last_heard();
    members(1, &["a"]).write(&path).unwrap();
    let minute = Duration::from_secs(60);
    source.poll();
    tokio::time::advance(minute).await;
    source.poll();
    assert_eq!(heard.age(), Duration::ZERO);
    for spoil in [|path: &Path| fs::write(path, "{").unwrap(), |path: &Path| fs::remove_file(path).unwrap()] {
        spoil(&path);
        let before = heard.age();
        tokio::time::advance(minute).await;
        source.poll();
        assert_eq!(heard.age(), before + minute);
    }
}

#[tokio::test]
async fn it_is_followed_until_nobody_listens() {
    let (_directory, path, source) = source();
    let (to, mut views) = watch::channel(None);
    let following = tokio::spawn(source.run(to));
    let soon = Duration::from_secs(10);
    for version in [1, 2] {
        members(version, &["a"]).write(&path).unwrap();
        let is_it = |view: &Option<Arc<View>>| view.as_ref().is_some_and(|view| view.source_version().0 == version);
        timeout(soon, views.wait_for(is_it)).await.unwrap().unwrap();
    }
    drop(views);
    timeout(soon, following).await.unwrap().unwrap();
}
