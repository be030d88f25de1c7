//! `larder health`.

use clap::Args;
use futures::future::join_all;

use super::connect::Connect;
use super::exit::{self, Problem};
use crate::client::{self, Target};

/// Say whether the server serves, or each of several targets; needs no token
#[derive(Args, Debug)]
pub struct Health {
    #[command(flatten)]
    connect: Connect,
}

impl Health {
    pub async fn run(self) -> Result<(), Problem> {
        let ask = async |target: &Target| -> Result<_, Problem> {
            // Of this one, and of no other replica.
            Ok(self.connect.only(target.clone()).client()?.health().await?)
        };
        if let [target] = &self.connect.target[..] {
            return match ask(target).await? {
                client::Health::Serving => exit::say(&"SERVING"),
                client::Health::NotServing => Err(Problem::unavailable(&"NOT_SERVING: the server starts or ends")),
                client::Health::Unknown => {
                    Err(Problem::unavailable(&"UNKNOWN: the server does not say whether it serves"))
                }
            };
        }
        let all = join_all(self.connect.target.iter().map(ask)).await;
        let mut serving = 0;
        for (target, health) in self.connect.target.iter().zip(&all) {
            let said = match health {
                Ok(client::Health::Serving) => {
                    serving += 1;
                    "SERVING".to_owned()
                }
                Ok(client::Health::NotServing) => "NOT_SERVING".to_owned(),
                Ok(client::Health::Unknown) => "UNKNOWN".to_owned(),
                Err(problem) => problem.to_string(),
            };
            exit::say(&format_args!("{target}\t{said}"))?;
        }
        match all.len() - serving {
            0 => Ok(()),
            some => Err(Problem::unavailable(&format_args!("{some} of {} do not serve", all.len()))),
        }
    }
}
