//! How the bulk commands bear with a server that is busy: they wait as it asks, longer each time, and not for ever.

use std::time::Duration;

use crate::client::{Error, ErrorKind};

/// Tries of one call. With the waits below a call gives up after about a quarter of a minute.
const MAX_TRIES: u32 = 16;

/// Tries when nobody answers at all: a restart is worth waiting for, a wrong target is not.
const MAX_UNREACHABLE_TRIES: u32 = 4;

/// The first wait; doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(25);

/// The longest wait, unless the server asks for more.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The longest that a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(30);

/// Repeats an idempotent call while its error is temporary.
pub async fn retry<T>(mut call: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut tries = 1;
    loop {
        let error = match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let Some(wait) = wait(&error, tries) else { return Err(error) };
        tokio::time::sleep(wait).await;
        tries += 1;
    }
}

/// How long to wait after the `tries`-th failure; `None`: give up. What the server asks for, and exponential backoff with
/// full jitter on top (AWS Architecture Blog, "Exponential Backoff And Jitter"), so that many callers do not come at once.
pub fn wait(error: &Error, tries: u32) -> Option<Duration> {
    let max_tries =
        if matches!(error.kind(), ErrorKind::Unreachable { .. }) { MAX_UNREACHABLE_TRIES } else { MAX_TRIES };
    if !error.temporary() || tries >= max_tries {
        return None;
    }
    let backoff = FIRST_WAIT.saturating_mul(1 << tries.min(10)).min(LONGEST_WAIT);
    let asked = error.retry_after().unwrap_or_default().min(LONGEST_ASKED);
    Some(asked + backoff.mul_f64(rand::random()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::failure::Failure;

    #[tokio::test(start_paused = true)]
    async fn a_temporary_error_is_borne_with_and_not_for_ever() {
        let mut calls = 0;
        let answer = retry(async || {
            calls += 1;
            if calls < 3 { Err(Error::from(Failure::Starting)) } else { Ok(calls) }
        });
        assert_eq!(answer.await.unwrap(), 3);
        let mut calls = 0;
        let never: Result<(), _> = retry(async || {
            calls += 1;
            Err(Error::from(Failure::Starting))
        })
        .await;
        assert!(never.is_err());
        assert_eq!(calls, MAX_TRIES);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lasting_error_is_not_repeated() {
        let mut calls = 0;
        let answer: Result<(), _> = retry(async || {
            calls += 1;
            Err(Error::from(Failure::TokenUnknown))
        })
        .await;
        assert!(answer.is_err());
        assert_eq!(calls, 1);
    }

    #[test]
    fn a_retry_is_never_earlier_than_the_server_asks() {
        let retry_after = Duration::from_millis(700);
        let error = Error::from(Failure::Overloaded { retry_after });
        for tries in 1..MAX_TRIES {
            let wait = wait(&error, tries).unwrap();
            assert!(wait >= retry_after && wait <= retry_after + LONGEST_WAIT, "{wait:?}");
        }
        assert_eq!(wait(&error, MAX_TRIES), None);
    }
}
