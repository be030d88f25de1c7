//! `larder get`.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::connect::Connect;
use super::exit::{self, Problem};

/// Write a value to standard output, as it was stored
#[derive(Args, Debug)]
pub struct Get {
    /// Key to read
    key: String,

    /// Write the value to a file instead
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Say the version and the remaining time to live on standard error
    #[arg(long, short)]
    verbose: bool,

    #[command(flatten)]
    connect: Connect,
}

impl Get {
    pub async fn run(self) -> Result<(), Problem> {
        let Some(entry) = self.connect.client()?.get(&self.key).await? else {
            return Err(Problem::failure(&format!("the key `{}` has no value", self.key)));
        };
        if self.verbose {
            let ttl = entry
                .remaining_ttl
                .map_or("does not expire".to_owned(), |ttl| format!("expires in {}", humantime::format_duration(ttl)));
            exit::note(&format_args!("version {}, {} bytes, {ttl}", entry.version, entry.value.len()));
        }
        match &self.output {
            Some(path) => std::fs::write(path, &entry.value)
                .map_err(|error| Problem::failure(&format!("cannot write {}: {error}", path.display()))),
            None => std::io::stdout()
                .write_all(&entry.value)
                .and_then(|()| std::io::stdout().flush())
                .map_err(|error| Problem::output(&error)),
        }
    }
}
