//! `larder touch`.

use std::time::Duration;

use clap::Args;

use super::connect::{Connect, ttl};
use super::exit::{self, Problem};
use crate::client::Touch as Mode;

/// Change how long an entry lives
#[derive(Args, Debug)]
pub struct Touch {
    /// Key of the entry
    key: String,

    /// Time to live from now, like 10m; default: the account's own, else for ever
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    ttl: Option<Duration>,

    /// Only make it live longer
    #[arg(long, conflicts_with = "shorten_only")]
    extend_only: bool,

    /// Only make it live shorter
    #[arg(long)]
    shorten_only: bool,

    #[command(flatten)]
    connect: Connect,
}

impl Touch {
    pub async fn run(self) -> Result<(), Problem> {
        let mode = match (self.extend_only, self.shorten_only) {
            (true, _) => Mode::ExtendOnly,
            (_, true) => Mode::ShortenOnly,
            _ => Mode::Overwrite,
        };
        let touched = self.connect.client()?.touch(&self.key, self.ttl, mode).await?;
        let changed = if touched.changed { "changed" } else { "unchanged" };
        match touched.remaining_ttl {
            Some(ttl) => exit::say(&format_args!("{changed}: expires in {}", humantime::format_duration(ttl))),
            None => exit::say(&format_args!("{changed}: does not expire")),
        }
    }
}
