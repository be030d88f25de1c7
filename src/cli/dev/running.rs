//! The commands to a `larder dev` that runs: `scale`, `restart`, `kill`, `ring`.

use std::time::Duration;

use clap::Args;

use super::super::connect::duration;
use super::super::exit::{self, Problem};
use super::control::{self, Answer, Request};
use super::operations::MAX_REPLICAS;
use super::place::{self, PlaceError};
use super::{At, show};

/// What the one that runs may need to say that it did not get done in time.
const ANSWER_SLACK: Duration = Duration::from_secs(2);

/// How long `ring` waits for the one that runs.
const SHOW_LIMIT: Duration = Duration::from_secs(5);

/// Start or end replicas, until there are N: the youngest end first
#[derive(Args, Debug)]
pub struct Scale {
    /// Replicas
    #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(0..=i64::from(MAX_REPLICAS)))]
    replicas: u16,

    #[command(flatten)]
    to: To,
}

/// Replace every replica by a new one, which serves before the old one is told to end
#[derive(Args, Debug)]
pub struct Restart {
    #[command(flatten)]
    to: To,
}

/// Kill replica K (SIGKILL); it is started again in place, empty
#[derive(Args, Debug)]
pub struct Kill {
    /// Its number, as `larder dev ring` shows it
    #[arg(value_name = "K")]
    number: u16,

    #[command(flatten)]
    to: To,
}

/// Show the replicas, their state, their shares of the ring and the keys that they hold
#[derive(Args, Debug)]
pub struct RingOf {
    #[command(flatten)]
    at: At,
}

/// To which one, and how long it may take.
#[derive(Args, Debug)]
struct To {
    #[command(flatten)]
    at: At,

    /// How long it may take
    #[arg(long, default_value = "60s", value_name = "TIME", value_parser = duration)]
    timeout: Duration,
}

impl Scale {
    pub async fn run(self) -> Result<(), Problem> {
        let Self { replicas, to } = self;
        to.ask(|limit| Request::Scale { replicas, limit }).await
    }
}

impl Restart {
    pub async fn run(self) -> Result<(), Problem> {
        self.to.ask(|limit| Request::Restart { limit }).await
    }
}

impl Kill {
    pub async fn run(self) -> Result<(), Problem> {
        let Self { number, to } = self;
        to.ask(|limit| Request::Kill { number, limit }).await
    }
}

impl RingOf {
    pub async fn run(self) -> Result<(), Problem> {
        match ask(&self.at, SHOW_LIMIT, &Request::Show).await? {
            Answer::Replicas(replicas) => exit::say(&show::ring(&replicas).await),
            other => Err(Problem::failure(&format_args!("an answer to another question: {other:?}"))),
        }
    }
}

impl To {
    async fn ask(self, request: impl FnOnce(Duration) -> Request) -> Result<(), Problem> {
        match ask(&self.at, self.timeout + ANSWER_SLACK, &request(self.timeout)).await? {
            Answer::Done(what) => exit::say(&what),
            Answer::Failed(why) => Err(Problem::failure(&why)),
            Answer::Replicas(_) => Err(Problem::failure(&"an answer to another question")),
        }
    }
}

async fn ask(at: &At, limit: Duration, request: &Request) -> Result<Answer, Problem> {
    let found = place::find(at.runtime_dir.as_deref(), at.base_port).map_err(|error| match error {
        PlaceError::Nobody { .. } => Problem::unavailable(&error),
        other => Problem::failure(&other),
    })?;
    let who = format!("the `larder dev` with base port {}, process {},", at.base_port, found.pid);
    match tokio::time::timeout(limit, control::ask(&found.socket, request)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Problem::unavailable(&format_args!("{who} ended before it answered: {error}"))),
        Err(_) => {
            Err(Problem::unavailable(&format_args!("{who} does not answer; an earlier command may still be at work")))
        }
    }
}
