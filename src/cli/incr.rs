//! `larder incr`.

use std::time::Duration;

use clap::Args;

use super::connect::{Connect, ttl};
use super::exit::{self, Problem};
use crate::client::IncrementOptions;

/// Add to a counter and print its value
#[derive(Args, Debug)]
pub struct Incr {
    /// Key of the counter; created at 0 if absent
    key: String,

    /// What to add; may be negative
    #[arg(default_value_t = 1, allow_negative_numbers = true)]
    delta: i64,

    /// Makes the call safe to repeat for 60 s: a repeated id adds nothing
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,

    /// Time to live if this call creates the counter, like 10m
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    ttl: Option<Duration>,

    #[command(flatten)]
    connect: Connect,
}

impl Incr {
    pub async fn run(self) -> Result<(), Problem> {
        let options = IncrementOptions { request_id: self.request_id.unwrap_or_default(), ttl: self.ttl };
        let counted = self.connect.client()?.increment(&self.key, self.delta, options).await?;
        exit::say(&counted.value)
    }
}
