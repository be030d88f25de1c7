//! The commands that talk to a server, run as a person runs them: the built program, its output and its exit status.

#![expect(clippy::unwrap_used, reason = "unwrapping is how a test fails")]

#[path = "../support/mod.rs"]
mod support;

mod bench;
mod bulk;
mod busy;
mod mistakes;
mod ring;
mod small;
mod tls;

use std::io::Write as _;
use std::process::{Command, Stdio};

use support::{TOKEN, TestServer};

/// The program with a clean environment, and what it needs to reach a server.
pub struct Larder {
    environment: Vec<(&'static str, String)>,
}

/// What it said and how it ended.
pub struct Said {
    pub status: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Larder {
    pub fn at(target: impl ToString) -> Self {
        Self { environment: vec![("LARDER_TARGET", target.to_string()), ("LARDER_TOKEN", TOKEN.to_owned())] }
    }

    pub fn of(server: &TestServer) -> Self {
        Self::at(server.address)
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.environment.retain(|(given, _)| *given != name);
        self.environment.push((name, value.to_string()));
        self
    }

    pub fn run(&self, arguments: &[&str]) -> Said {
        self.run_with(arguments, b"")
    }

    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> Said {
        self.run_between(arguments, input, Stdio::piped())
    }

    /// Runs it with a standard output of the caller's.
    pub fn run_into(&self, arguments: &[&str], out: impl Into<Stdio>) -> Said {
        self.run_between(arguments, b"", out.into())
    }

    fn run_between(&self, arguments: &[&str], input: &[u8], out: Stdio) -> Said {
        let mut child = Command::new(env!("CARGO_BIN_EXE_larder"))
            .args(arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert!(!err.contains(TOKEN), "the token was printed: {err}");
        Said { status: output.status.code().unwrap(), out: output.stdout, err }
    }

    /// Runs what must succeed; answers its output as text.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.status, 0, "{arguments:?}: {}", said.err);
        String::from_utf8(said.out).unwrap()
    }
}

/// Whether an entry stored for 10 minutes a moment ago is said to live that long; how long a moment is, the machine decides.
pub fn about_10_minutes(said: &str) -> bool {
    ["expires in 10m", "expires in 9m"].iter().any(|about| said.contains(about))
}
