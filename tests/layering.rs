//! The floors hold: no file names a crate or a module that its floor must not know. Reads the sources as tokens, so that
//! comments, strings and doc links do not count, while macros and grouped imports do. What a type alias or a re-export hides
//! it does not see.

#![expect(clippy::unwrap_used, reason = "unwrapping is how a test fails")]

#[path = "layering/paths.rs"]
mod paths;

use std::fs;
use std::path::{Path, PathBuf};

use paths::{Named, named_in};

/// The smell of a file that wants to be two.
const MAX_LINES: usize = 500;

/// Which module lives on which floor.
const FLOORS: &[(&str, u8)] = &[
    ("cache", 0),
    ("ring", 0),
    ("ownership", 0),
    ("rpc", 1),
    ("client", 2),
    ("cluster", 2),
    ("kubernetes", 2),
    ("server", 3),
    ("cli", 3),
    ("main", 3),
];

/// Crates and parts of std that a floor must not name, with the reason. A floor's list holds on that floor only.
const FORBIDDEN: &[(u8, &[&str], &str)] = &[
    (0, &["tokio", "tokio_stream", "tokio_util", "futures", "futures_util"], "floor 0 is synchronous"),
    (
        0,
        &["tonic", "tonic_types", "prost", "http", "http_body", "hyper", "hyper_util", "h2", "tower"],
        "floor 0 knows no wire",
    ),
    (0, &["std::net", "std::fs", "std::process"], "floor 0 does no I/O"),
    (0, &["std::time", "std::env", "rand"], "floor 0 is given time, configuration and chance as arguments"),
    (0, &["tracing", "prometheus_client", "clap"], "floor 0 reports by what it returns"),
    (0, &["async", "await"], "floor 0 is synchronous"),
    (1, &["clap", "std::env"], "the wire is configured by its callers"),
];

/// What stays allowed below something forbidden: a length of time is a value.
const ALLOWED: &[&str] = &["std::time::Duration"];

/// The crates of Kubernetes, and the one module that names them.
const KUBERNETES: &[&str] = &["kube", "k8s_openapi"];
const KUBERNETES_ADAPTER: &str = "kubernetes";

/// The one file that makes a `tonic::Status`.
const STATUS_TABLE: &str = "rpc/status.rs";

/// The functions of `tonic::Status` (and of tonic-types' extension) that make one.
const STATUS_MAKERS: &[&str] = &[
    "new",
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
    "with_details",
    "with_metadata",
    "with_details_and_metadata",
    "with_error_details",
    "with_error_details_and_metadata",
    "with_error_details_vec",
    "with_error_details_vec_and_metadata",
    "from_error",
    "try_from_error",
];

#[test]
fn no_floor_reaches_up() {
    let found: Vec<String> = sources().iter().flat_map(|(file, text)| violations(file, text)).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn no_file_is_longer_than_500_lines() {
    let found: Vec<String> = sources()
        .iter()
        .filter(|(_, text)| text.lines().count() > MAX_LINES)
        .map(|(file, text)| format!("src/{file} has {} lines: split it by what it knows", text.lines().count()))
        .collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// Every sentence that is to be said about one file, given by its path below `src/`.
fn violations(file: &str, text: &str) -> Vec<String> {
    if file == "lib.rs" {
        return Vec::new();
    }
    let module = module_of(file);
    let Some(floor) = floor_of(&module[0]) else {
        return vec![format!("src/{file}: module `{}` has no floor; give it one in tests/layering.rs", module[0])];
    };
    let named = match named_in(text, &module) {
        Ok(named) => named,
        Err(problem) => return vec![format!("src/{file}: {problem}")],
    };
    named
        .iter()
        .filter_map(|name| reason_against(file, floor, name).map(|why| (name, why)))
        .map(|(name, why)| format!("src/{file}:{}: `{}`: {why}", name.line, name.path.join("::")))
        .collect()
}

fn reason_against(file: &str, floor: u8, name: &Named) -> Option<String> {
    let path = name.path.join("::");
    if KUBERNETES.contains(&name.path[0].as_str()) && module_of(file)[0] != KUBERNETES_ADAPTER {
        return Some(format!("only `{KUBERNETES_ADAPTER}` knows Kubernetes"));
    }
    if let [krate, module, ..] = &name.path[..]
        && (krate == "crate" || krate == "larder")
        && floor_of(module).is_some_and(|above| above > floor)
    {
        return Some(format!("`{module}` is on a floor above"));
    }
    if file != STATUS_TABLE && !name.in_tests && makes_a_status(&name.path) {
        return Some(format!("a Status is made in src/{STATUS_TABLE} only; return a `Failure`"));
    }
    let below = |prefix: &str| path == prefix || path.starts_with(&format!("{prefix}::"));
    // Floor 0 is pure in its tests, too; above, a test may be told things by the environment.
    if ALLOWED.iter().any(|allowed| below(allowed)) || (floor > 0 && name.in_tests) {
        return None;
    }
    let (_, _, why) = FORBIDDEN.iter().find(|(on, list, _)| *on == floor && list.iter().any(|prefix| below(prefix)))?;
    Some((*why).to_owned())
}

fn makes_a_status(path: &[String]) -> bool {
    matches!(path, [.., of, maker] if (of == "Status" || of == "StatusExt") && STATUS_MAKERS.contains(&maker.as_str()))
}

fn floor_of(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// `rpc/status.rs` is the module `rpc::status`.
fn module_of(file: &str) -> Vec<String> {
    file.trim_end_matches(".rs").trim_end_matches("/mod").split('/').map(str::to_owned).collect()
}

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 5, "there are no sources below {}", root.display());
    let relative = |file: &Path| file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    files.iter().map(|file| (relative(file), fs::read_to_string(file).unwrap())).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

mod the_check_can_fail {
    use super::violations;

    #[track_caller]
    fn refused(file: &str, text: &str) {
        assert_eq!(violations(file, text).len(), 1, "{file}: {text}\n{:?}", violations(file, text));
    }

    #[track_caller]
    fn accepted(file: &str, text: &str) {
        assert_eq!(violations(file, text), Vec::<String>::new(), "{file}: {text}");
    }

    #[test]
    fn on_a_crate_that_the_floor_must_not_know() {
        refused("cache/store.rs", "use tokio::sync::watch;");
        refused("cache/store.rs", "fn f() { let x = ::tonic::Code::Ok; }");
        refused("cache/store.rs", "use std::{collections::HashMap, time::{Duration, Instant}};");
        refused("cache/store.rs", "use std::time;");
        refused("cache/store.rs", "use std::time::*;");
        refused("cache/store.rs", "fn f() { println!(\"{:?}\", std::env::args()); }");
        refused("cache/store.rs", "mod deep { mod deeper { use kube::Client; } }");
        refused("cache/store.rs", "async fn f() {}");
        refused("client/pool.rs", "use k8s_openapi::api;");
        refused("server/app.rs", "use kube::Client;");
        accepted("kubernetes/watch.rs", "use kube::Client;");
    }

    #[test]
    fn on_the_environment_below_the_server() {
        refused("rpc/channels.rs", "fn f() { std::env::var_os(\"A\"); }");
        refused("cache/store/tests.rs", "fn f() { std::env::var_os(\"A\"); }");
    }

    #[test]
    fn on_a_floor_above() {
        refused("cache/key.rs", "use crate::rpc::failure::Failure;");
        refused("rpc/status.rs", "use crate::{cache::key::Key, server::config};");
        refused("rpc/status.rs", "use super::super::client::Client;");
        refused("rpc.rs", "mod x { fn f() { super::super::server::run() } }");
        refused("client/pool.rs", "fn f() -> crate::cli::Args { todo!() }");
    }

    #[test]
    fn on_a_status_made_elsewhere() {
        refused("server/service.rs", "fn f() -> tonic::Status { tonic::Status::internal(\"x\") }");
        refused("server/service.rs", "fn f() { let make = Status::new; }");
        refused("client/retry.rs", "fn f() { Status::with_error_details(a, b, c); }");
        accepted("rpc/status.rs", "fn f() -> tonic::Status { tonic::Status::internal(\"x\") }");
        accepted("client/retry.rs", "#[cfg(test)] mod tests { fn f() { Status::internal(\"x\"); } }");
        accepted("client/retry.rs", "fn f(s: &tonic::Status) -> tonic::Code { s.code() }");
    }

    #[test]
    fn on_a_module_without_a_floor_and_on_what_is_no_rust() {
        refused("attic.rs", "");
        refused("cache/key.rs", "fn f( {");
    }

    #[test]
    fn but_not_on_what_is_allowed() {
        accepted("cache/store.rs", "use std::time::Duration; use crate::cache::key::Key; use super::limits;");
        accepted(
            "cache/store.rs",
            "//! [`crate::server`] and tokio\n/* tonic::Status::new */ const A: &str = \"std::env\";",
        );
        accepted("rpc/status/tests.rs", "fn f() { std::env::var_os(\"A\"); }");
        accepted("rpc/coalesce.rs", "use tokio::io::AsyncRead; use crate::cache::limits;");
        accepted("rpc/health.rs", "use tonic_health::server::health_reporter; use tonic::transport::server::Routes;");
        accepted("client.rs", "use crate::rpc::proto::v1; mod server_list;");
        accepted("server/app.rs", "use crate::{client, cache, rpc}; use tokio::time::Instant;");
        accepted("main.rs", "use larder::cli; fn main() { larder::server::app::run(); }");
    }
}
