//! What is done before and after a run: every key is stored, and every key is read once more, by clients that are patient.

use futures::StreamExt as _;
use futures::stream;

use super::calls::Calls;
use super::live::Live;
use super::seats::{Seat, each};
use super::stop::Stop;
use crate::cli::exit::Problem;
use crate::client::Client;

/// Calls of one thread under way at once.
const BULK: usize = 64;

/// Stores every key once. Each thread takes its part; an error that lasts ends the run.
pub fn fill(seats: &[Seat], calls: &Calls, keys: u64) -> Result<(), Problem> {
    let part = async |number: usize, client: Client| {
        let keys = (number as u64..keys).step_by(seats.len());
        let fill = async |key| {
            let filled = calls.fill(&client, key).await;
            filled.failed.map_or(Ok(()), |error| Err(Problem::from(error)))
        };
        let mut filled = stream::iter(keys).map(fill).buffer_unordered(BULK);
        while let Some(filled) = filled.next().await {
            filled?;
        }
        Ok(())
    };
    each(seats, part, |_| ())?.into_iter().collect()
}

/// Reads every key once more; one that cannot be read is remembered as such.
pub fn check(seats: &[Seat], calls: &Calls, keys: u64, stop: &Stop, live: &Live) -> Result<(), Problem> {
    let Some(ledger) = &calls.ledger else { return Ok(()) };
    let part = async |number: usize, client: Client| {
        let check = async |key| {
            if stop.is_said() {
                return ledger.unread(key, &"the bench was stopped");
            }
            if let Err(error) = calls.check(&client, key).await {
                ledger.unread(key, &error);
            }
        };
        stream::iter((number as u64..keys).step_by(seats.len()))
            .map(check)
            .buffer_unordered(BULK)
            .collect::<()>()
            .await;
    };
    each(seats, part, |working| live.signals(stop, working)).map(|_| ())
}
