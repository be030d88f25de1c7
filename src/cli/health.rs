//! `larder health`.

use clap::Args;

use super::connect::Connect;
use super::exit::{self, Problem};
use crate::client;

/// Say whether the server serves; needs no token
#[derive(Args, Debug)]
pub struct Health {
    #[command(flatten)]
    connect: Connect,
}

impl Health {
    pub async fn run(self) -> Result<(), Problem> {
        match self.connect.client()?.health().await? {
            client::Health::Serving => exit::say(&"SERVING"),
            client::Health::NotServing => Err(Problem::unavailable(&"NOT_SERVING: the server starts or ends")),
            client::Health::Unknown => Err(Problem::unavailable(&"UNKNOWN: the server does not say whether it serves")),
        }
    }
}
