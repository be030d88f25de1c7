//! `larder delete`.

use clap::Args;

use super::connect::Connect;
use super::exit::{self, Problem};

/// Remove a key; a missing one is no error
#[derive(Args, Debug)]
pub struct Delete {
    /// Key to remove
    key: String,

    /// Only if the current version is this one
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
    if_version: Option<u64>,

    #[command(flatten)]
    connect: Connect,
}

impl Delete {
    pub async fn run(self) -> Result<(), Problem> {
        let existed = self.connect.client()?.delete(&self.key, self.if_version).await?;
        exit::say(&if existed { "deleted" } else { "there was no value" })
    }
}
