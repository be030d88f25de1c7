//! The contract, through generated clients against a server in this process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "contract/asking.rs"]
mod asking;
#[path = "contract/batches.rs"]
mod batches;
#[path = "contract/deadlines.rs"]
mod deadlines;
#[path = "contract/dry_run.rs"]
mod dry_run;
#[path = "contract/dumps.rs"]
mod dumps;
#[path = "contract/held.rs"]
mod held;
#[path = "contract/keys.rs"]
mod keys;
#[path = "contract/pipelines.rs"]
mod pipelines;
#[path = "contract/raw.rs"]
mod raw;
#[path = "contract/remote_accounts.rs"]
mod remote_accounts;
#[path = "contract/standard.rs"]
mod standard;
mod support;
#[path = "contract/topology.rs"]
mod topology;
#[path = "contract/tutorial.rs"]
mod tutorial;
#[path = "contract/wall.rs"]
mod wall;
