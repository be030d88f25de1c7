use std::fmt::Write as _;
use std::path::Path;

use super::*;

/// The heading of the flags that every command which talks to a server has.
const SHARED: &str = "Connection";

#[test]
fn the_command_line_is_consistent() {
    Larder::command().debug_assert();
}

/// `UPDATE=1 cargo test the_page_of_commands` writes it.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test is told by the environment to write rather than to compare")]
fn the_page_of_commands_is_what_the_commands_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/commands.md is out of date: UPDATE=1 cargo test the_page_of_commands");
}

fn page() -> String {
    let mut page = format!(
        "# Commands\n\nThe commands that talk to a server, and `larder dev`, which starts one. `larder serve` is in [configuration.md](configuration.md), `larder account` \
         in [accounts.md](accounts.md). A flag wins over its variable.\n\n{}\n\n\
         This page is made from `src/cli`: `UPDATE=1 cargo test the_page_of_commands`.\n",
        exit::HELP
    );
    let mut connection = None;
    for command in Larder::command().get_subcommands_mut() {
        if !command.get_arguments().any(is_shared) {
            continue;
        }
        let usage = command.render_usage().to_string().replace("Usage: ", "").replace("Usage:", "");
        let usage = usage.trim().trim_start_matches("larder ");
        let about = command.get_long_about().or(command.get_about()).unwrap();
        write!(page, "\n## larder {}\n\n`larder {usage}`\n\n{about}\n", command.get_name()).unwrap();
        let own: Vec<_> =
            command.get_arguments().filter(|argument| !is_shared(argument) && argument.get_id() != "help").collect();
        table(&mut page, &own);
        connection.get_or_insert_with(|| command.clone());
    }
    write!(page, "\n## Connection\n\nOf every command above.\n").unwrap();
    let connection = connection.unwrap();
    let shared: Vec<_> = connection.get_arguments().filter(|argument| is_shared(argument)).collect();
    table(&mut page, &shared);
    page.push_str(&dev());
    page
}

/// `larder dev` and its commands, which find the one that runs by themselves.
fn dev() -> String {
    let mut larder = Larder::command();
    larder.build();
    let dev = larder.find_subcommand_mut("dev").unwrap();
    let mut page = String::new();
    section(&mut page, dev, "dev");
    for command in dev.get_subcommands_mut().filter(|command| command.get_name() != "help") {
        let name = format!("dev {}", command.get_name());
        section(&mut page, command, &name);
    }
    page
}

fn section(page: &mut String, command: &mut clap::Command, name: &str) {
    let usage = command.render_usage().to_string().replace("Usage: ", "");
    let usage = usage.lines().map(|line| line.trim().trim_start_matches("larder ")).collect::<Vec<_>>().join("`, `");
    let about = command.get_about().unwrap();
    write!(page, "\n## larder {name}\n\n`{usage}`\n\n{about}\n").unwrap();
    let own: Vec<_> = command.get_arguments().filter(|argument| argument.get_id() != "help").collect();
    table(page, &own);
}

fn is_shared(argument: &clap::Arg) -> bool {
    argument.get_help_heading() == Some(SHARED)
}

fn table(page: &mut String, arguments: &[&clap::Arg]) {
    let mut rows = String::new();
    for argument in arguments {
        let flag = match (argument.get_long(), argument.get_short()) {
            (Some(long), Some(short)) => format!("`--{long}`, `-{short}`"),
            (Some(long), None) => format!("`--{long}`"),
            _ => format!("`{}`", argument.get_id().as_str().to_uppercase()),
        };
        let variable = argument.get_env().map_or(String::new(), |name| format!("`{}`", name.to_string_lossy()));
        let takes_value = argument.get_action().takes_values();
        let default = argument.get_default_values().first().filter(|value| takes_value && !value.is_empty());
        let default = default.map_or(String::new(), |value| format!("`{}`", value.to_string_lossy()));
        let help = argument.get_help().map_or(String::new(), ToString::to_string);
        writeln!(rows, "| {flag} | {variable} | {default} | {help} |").unwrap();
    }
    if !rows.is_empty() {
        write!(page, "\n| argument | variable | default | meaning |\n|---|---|---|---|\n{rows}").unwrap();
    }
}
