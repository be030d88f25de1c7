//! `docs/metrics.md` is made from what replicas show, and no page names a metric that none shows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use larder::server::app;
use larder::server::clock::Clock;
use larder::server::config::Config;

use super::certificates::{ca, flags};
use super::test_cluster::{TestCluster, page, wait};

const HEAD: &str = "# Metrics\n\n\
    Every metric of `GET /metrics` on the admin port, as Prometheus has it (OpenMetrics 1.0). What to do when one of them looks wrong is in \
    [operations.md](operations.md).\n\n\
    This page is made from what replicas show: `UPDATE=1 cargo test --test cluster metrics`.\n";

/// Pages that people read, whose names of metrics must be right.
const PAGES: [&str; 5] = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "docs", "benches/README.md"];

/// Of a family: its name as it is asked for, its type and what it means.
type Row = (String, String, String);

/// The families of a page of metrics.
fn rows(metrics: &str) -> Vec<Row> {
    let mut types = BTreeMap::new();
    for line in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        types.insert(name, kind);
    }
    let described = metrics.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
    let row = |(name, help): (&str, &str)| {
        let suffix = match types[name] {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        (format!("{name}{suffix}"), types[name].to_owned(), help.trim_end_matches('.').to_owned())
    };
    described.map(row).collect()
}

async fn metrics(admin: SocketAddr) -> Vec<Row> {
    rows(&page(admin, "/metrics").await.1)
}

/// What replicas show that are alone, among others, with certificates, and ask an Accounts service.
async fn all() -> Vec<(&'static str, Vec<Row>)> {
    let mut cluster = TestCluster::empty(&[]);
    let (ca, directory) = (ca(), cluster.members_file().with_file_name("certificates"));
    let peers = flags(&directory, &ca, &ca);
    let path = |name: &str| directory.join(name).display().to_string();
    let clients = [format!("--tls-cert={}", path("tls.crt")), format!("--tls-key={}", path("tls.key"))];
    let more: Vec<&str> = peers.iter().chain(&clients).map(String::as_str).collect();
    let member = cluster.start("a", &more).await.addresses.admin;
    wait("it has seen the list", async || page(member, "/metrics").await.1.contains("larder_members{")).await;

    let ports = ["listen", "health-listen", "admin-listen"].map(|port| format!("--{port}=127.0.0.1:0"));
    let alone = |more: Vec<String>| Config::from_flags([&ports[..], &more].concat()).unwrap();
    let accounts = cluster.members_file().with_file_name("accounts.json");
    let mut shown = Vec::new();
    let (file, nobody) = (format!("--accounts={}", accounts.display()), "http://127.0.0.1:1");
    for (title, more) in [
        ("Of every replica", vec![file.clone()]),
        ("With `--accounts-url`", vec![format!("--accounts-url={nobody}")]),
        ("With `--otlp-endpoint`", vec![file, format!("--otlp-traces-endpoint={nobody}")]),
    ] {
        let bound = app::build(&alone(more), Clock::start()).await.unwrap();
        shown.push((title, metrics(bound.addresses.admin).await));
        bound.shutdown.now().await;
    }
    shown.insert(1, ("Among other replicas, and with certificates", metrics(member).await));
    cluster.end().await;
    shown
}

/// The page; each family where it is first shown.
fn written(shown: &[(&str, Vec<Row>)]) -> String {
    let mut page = HEAD.to_owned();
    let mut known: Vec<&str> = Vec::new();
    for (title, rows) in shown {
        write!(page, "\n## {title}\n\n| metric | type | meaning |\n|---|---|---|\n").unwrap();
        for (name, kind, help) in rows.iter().filter(|(name, ..)| !known.contains(&name.as_str())) {
            writeln!(page, "| `{name}` | {kind} | {help} |").unwrap();
        }
        known.extend(rows.iter().map(|(name, ..)| name.as_str()));
    }
    page
}

/// The words that look like names of metrics in a page, or in all pages of a directory.
fn named(path: &Path, found: &mut Vec<(String, String)>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            named(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "md") {
        let text = std::fs::read_to_string(path).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
        let names = words.filter(|word| word.starts_with("larder_") && !word.starts_with("larder_dev_"));
        found.extend(names.map(|name| (name.to_owned(), path.display().to_string())));
    }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test is told by the environment to write rather than to compare")]
async fn the_page_of_metrics_says_what_replicas_show_and_no_page_names_another() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shown = all().await;
    let page = written(&shown);
    let path = root.join("docs/metrics.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(on_disk == page, "docs/metrics.md is out of date: UPDATE=1 cargo test --test cluster metrics");

    let known = |name: &str| shown.iter().flat_map(|(_, rows)| rows).any(|(its, ..)| its == name);
    let mut found = Vec::new();
    for page in PAGES {
        named(&root.join(page), &mut found);
    }
    assert!(found.len() > 20, "it looks for nothing");
    for (name, page) in found.iter().filter(|(name, _)| name != "larder_") {
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        assert!(known(name) || known(family), "{page} names `{name}`, which no replica shows");
    }
}
