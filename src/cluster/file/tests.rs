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
    assert!(matches!(source.poll(), Err(KeptOut::NotThereYet)));
    for (version, listed) in [(1, &["a"][..]), (2, &["a", "b"]), (9, &[])] {
        members(version, listed).write(&path).unwrap();
        let news = source.poll().unwrap();
        assert_eq!(news.as_ref().map(|view| view.source_version().0), Some(version));
        assert_eq!(uids(news).unwrap(), listed);
        assert_eq!(source.poll().unwrap(), None, "once");
    }
}

#[test]
fn what_is_wrong_is_kept_out_and_the_view_of_before_stays() {
    let (_directory, path, mut source) = source();
    members(5, &["a"]).write(&path).unwrap();
    assert!(source.poll().unwrap().is_some());
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
        assert!(source.poll().is_err(), "{wrong}");
    }
    fs::remove_file(&path).unwrap();
    assert!(source.poll().is_err());
    members(5, &["a"]).write(&path).unwrap();
    assert_eq!(source.poll().unwrap(), None, "what is in use came back");
    members(6, &["b"]).write(&path).unwrap();
    assert_eq!(uids(source.poll().unwrap()).unwrap(), ["b"]);
}

#[test]
fn what_is_wrong_is_said_once_per_content() {
    let (_directory, path, mut source) = source();
    let mut complaints = || {
        let polls = (0..3 * READ_AGAIN_POLLS).filter_map(|_| source.poll().err());
        polls.map(|error| error.to_string()).collect::<Vec<_>>()
    };
    let mut said = |what: &str| {
        let complaints = complaints();
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].contains(what), "{complaints:?}");
    };
    said("no members file yet");
    fs::write(&path, "{").unwrap();
    said("no JSON");
    fs::write(&path, "[").unwrap();
    said("no JSON");
    members(0, &["a"]).write(&path).unwrap();
    said("its version is 0");
    members(5, &["a"]).write(&path).unwrap();
    assert!(source.poll().unwrap().is_some());
    let mut said = |what: &str| assert!(source.poll().unwrap_err().to_string().contains(what));
    members(4, &["a"]).write(&path).unwrap();
    said("went back from 5 to 4");
    members(5, &["b"]).write(&path).unwrap();
    said("version 5 as before, and other endpoints");
    fs::remove_file(&path).unwrap();
    said("cannot be read");
}

#[test]
fn a_change_that_leaves_time_inode_and_length_is_seen_at_the_next_full_read() {
    let (_directory, path, mut source) = source();
    members(1, &["a"]).write(&path).unwrap();
    source.poll().unwrap();
    members(2, &["b"]).write(&path).unwrap();
    // As if both files had looked the same from outside.
    let Seen::Content { state, .. } = &mut source.seen else { panic!("it was read") };
    *state = State::of(&fs::metadata(&path).unwrap());
    let news: Vec<_> = (0..READ_AGAIN_POLLS).filter_map(|_| uids(source.poll().unwrap())).collect();
    assert_eq!(news, [["b"]]);
}

#[tokio::test(start_paused = true)]
async fn the_age_grows_while_the_file_is_wrong_or_missing_and_not_while_it_stays_as_it_is() {
    let (_directory, path, mut source) = source();
    let heard = source.last_heard();
    members(1, &["a"]).write(&path).unwrap();
    let minute = Duration::from_secs(60);
    source.look();
    tokio::time::advance(minute).await;
    source.look();
    assert_eq!(heard.age(), Duration::ZERO);
    for spoil in [|path: &Path| fs::write(path, "{").unwrap(), |path: &Path| fs::remove_file(path).unwrap()] {
        spoil(&path);
        let before = heard.age();
        tokio::time::advance(minute).await;
        source.look();
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
