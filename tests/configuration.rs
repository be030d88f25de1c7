//! `docs/configuration.md` is made from the flags, and says what they say.

#![expect(clippy::unwrap_used, reason = "unwrapping is how a test fails")]

use std::fmt::Write as _;
use std::path::Path;

use clap::CommandFactory as _;
use larder::server::config::Standalone;

const HEAD: &str = "# Configuration\n\n\
    Every setting of `larder serve` is a flag and an environment variable; a flag wins. Durations are written like `500ms`, `30s`, \
    `5min`, sizes like `512MiB`. A configuration that cannot work ends with exit status 64 and a sentence that says what to \
    change; `larder serve --print-config` prints the one in force, as an environment file. Where accounts and their limits come from is in \
    [accounts.md](accounts.md).\n\n\
    This page is made from `src/server/config.rs`: `UPDATE=1 cargo test --test configuration`.\n";

/// The page as the flags have it, a table under each heading of the help.
fn page() -> String {
    let command = Standalone::command();
    let mut page = HEAD.to_owned();
    let mut heading = String::new();
    for arg in command.get_arguments().filter(|arg| arg.get_env().is_some()) {
        let its = arg.get_help_heading().unwrap_or("Other");
        if its != heading {
            its.clone_into(&mut heading);
            write!(page, "\n## {heading}\n\n| flag | variable | default | meaning |\n|---|---|---|---|\n").unwrap();
        }
        let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default = if defaults.is_empty() { "none".into() } else { format!("`{}`", defaults.join(" ")) };
        let values: Vec<_> = arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
        let values = if values.is_empty() { String::new() } else { format!(" ({})", values.join(", ")) };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let (flag, variable) = (arg.get_long().unwrap(), arg.get_env().unwrap().to_string_lossy());
        writeln!(page, "| `--{flag}` | `{variable}` | {default} | {help}{values} |").unwrap();
    }
    page
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test is told by the environment to write rather than to compare")]
fn the_documentation_says_what_the_flags_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "docs/configuration.md is out of date: UPDATE=1 cargo test --test configuration");
}

#[test]
fn every_flag_has_a_variable_named_after_larder_or_opentelemetry_and_a_sentence() {
    for arg in Standalone::command().get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str()))
    {
        let variable = arg.get_env().unwrap_or_else(|| panic!("{} has no variable", arg.get_id()));
        let named = |prefix| variable.to_string_lossy().starts_with(prefix);
        assert!(named("LARDER_") || named("OTEL_"), "{variable:?}");
        assert!(arg.get_help().is_some(), "{variable:?} has no help");
    }
}
