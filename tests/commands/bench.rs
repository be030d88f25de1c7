//! `larder bench` against a server: what it measures, what it verifies, and how it ends.

use serde_json::Value;

use super::support::TestServer;
use super::{Larder, Said};

/// The last line of what was said.
fn summary(said: &Said) -> Value {
    let out = String::from_utf8(said.out.clone()).unwrap();
    let last = out.lines().last().unwrap_or_else(|| panic!("nothing was said: {}", said.err));
    serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}"))
}

#[test]
fn every_kind_of_call_is_made_and_verified() {
    let server = TestServer::start();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (json, plot) = (path("report.json"), path("plot.svg"));
    let mix = "get=50,store=20,delete=10,touch=10,incr=10";
    let mut arguments = vec!["bench", "--verify", "--mix", mix, "--keys", "50", "--value-size", "40..2KiB"];
    arguments.extend(["--requests", "3000", "--warm-up", "0s", "--threads", "2", "--timeout", "10s"]);
    arguments.extend(["--json", &json, "--plot", &plot]);
    let said = Larder::of(&server).run(&arguments);
    let summary = summary(&said);
    assert_eq!(said.status, 0, "{}\n{summary}", said.err);
    assert_eq!(summary["verdict"], "passed");
    for what in ["failed", "lost", "stale", "corrupt", "unread", "late", "in_doubt"] {
        assert_eq!(summary[what], 0, "{what}: {summary}");
    }
    assert_eq!(summary["succeeded"], 3000, "{summary}");
    assert_eq!(summary["operations"].as_object().unwrap().len(), 5, "{summary}");
    assert!(summary["p50_us"].as_u64() > Some(0), "{summary}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(report["p99_us"], summary["p99_us"]);
    assert!(std::fs::read_to_string(plot).unwrap().starts_with("<svg"));
}

#[test]
fn a_server_that_forgets_is_found_out() {
    let mut builder = TestServer::builder();
    builder.capacity_bytes = 1024 * 1024;
    let server = builder.start();
    let arguments =
        ["bench", "--verify", "--keys", "1000", "--value-size", "4KiB", "--requests", "100", "--timeout", "10s"];
    let said = Larder::of(&server).run(&arguments);
    let summary = summary(&said);
    assert_eq!(said.status, 1, "{summary}");
    assert!(summary["lost"].as_u64() > Some(500), "{summary}");
    assert_eq!((&summary["stale"], &summary["corrupt"]), (&Value::from(0), &Value::from(0)), "{summary}");
}

#[test]
fn an_open_loop_keeps_its_rate_or_is_void() {
    let server = TestServer::start();
    let larder = Larder::of(&server);
    let bench = |rate: &str| {
        let arguments =
            ["bench", "--rate", rate, "--window", "8", "--duration", "500ms", "--warm-up", "100ms", "--keys", "10"];
        larder.run(&[arguments.as_slice(), &["--timeout", "10s", "--json", "-"]].concat())
    };
    let said = bench("50");
    let report = summary(&said);
    assert_eq!(
        (said.status, &report["calls"], &report["planned_rate"]),
        (0, &Value::from(25), &Value::from(50.0)),
        "{report}"
    );
    let said = bench("5000000");
    assert_eq!(said.status, 75, "{}", said.err);
    assert_eq!(summary(&said)["verdict"], "void");
    assert!(said.err.contains("below its planned rate"), "{}", said.err);
}

#[test]
fn what_makes_no_sense_is_refused_with_a_sentence() {
    let larder = Larder::at("127.0.0.1:1");
    for (arguments, wanted) in [
        (&["--mix", "put=1"][..], "there is no operation `put`"),
        (&["--value-size", "huge"], "`huge` is no size"),
        (&["--distribution", "bell"], "no distribution `bell`"),
        (&["--rate", "0"], "0 is not in 1.."),
        (&["--verify", "--value-size", "8"], "40 bytes at least"),
        (&["--verify", "--dry-run"], "a dry run stores nothing"),
        (&["--verify", "--duration", "2h", "--ttl", "1h"], "would expire"),
        (&["--verify", "--no-fill"], "cannot be used with"),
        (&["--plot", "plot.png"], "ends in .svg"),
        (&["--duration", "0s"], "in no time"),
    ] {
        let said = larder.run(&[&["bench"], arguments].concat());
        assert_eq!(said.status, 64, "{arguments:?}: {}", said.err);
        assert!(said.err.contains(wanted), "{arguments:?}: {}", said.err);
    }
}

#[test]
fn a_server_that_is_not_there_is_said_to_be_so() {
    let (_socket, address) = super::support::nobody();
    let said = Larder::at(address).run(&["bench", "--keys", "1"]);
    assert_eq!(said.status, 69, "{}", said.err);
    assert!(said.err.contains("cannot reach"), "{}", said.err);
}
