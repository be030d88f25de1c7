//! The token that the client shows: a fixed one, or a file's, read again when it changes (Kubernetes swaps mounted Secrets).

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::Mutex;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::error::{Error, ErrorKind};
use crate::rpc::token::Token;

/// How often the file is looked at, at most.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What the client shows now.
#[derive(Debug)]
pub(super) struct TokenSource {
    file: Option<PathBuf>,
    /// Grows with each other token.
    generation: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Marked as sensitive, so that nothing prints it.
    header: Option<HeaderValue>,
    looked: Instant,
}

impl TokenSource {
    /// # Errors
    /// When the file cannot be used.
    pub(super) fn new(token: Option<&Token>, file: Option<&Path>) -> Result<Self, Error> {
        let header = match file {
            Some(path) => header(&read(path)?),
            None => token.and_then(header),
        };
        let state = Mutex::new(State { header, looked: Instant::now() });
        Ok(Self { file: file.map(Path::to_owned), generation: AtomicU64::new(0), state })
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The header, and which it is.
    pub(super) fn current(&self) -> (u64, Option<HeaderValue>) {
        let state = self.state.lock();
        (self.generation(), state.header.clone())
    }

    /// Looks at the file, if there is one and it is time to. One that cannot be used leaves the token as it was.
    pub(super) fn look(&self, now: Instant) {
        let Some(path) = &self.file else { return };
        let mut state = self.state.lock();
        if now.saturating_duration_since(state.looked) < LOOK_INTERVAL {
            return;
        }
        state.looked = now;
        let Ok(Some(new)) = read(path).map(|token| header(&token)) else { return };
        if state.header.as_ref() != Some(&new) {
            state.header = Some(new);
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }
}

fn read(path: &Path) -> Result<Token, Error> {
    let failed = |problem: String| ErrorKind::TokenFile { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| failed(error.to_string()))?;
    Ok(Token::new(text.trim()).map_err(|error| failed(error.to_string()))?)
}

fn header(token: &Token) -> Option<HeaderValue> {
    let text = Zeroizing::new(format!("Bearer {}", token.expose()));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_file_is_read_again_when_it_changes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one\n").unwrap();
        let source = TokenSource::new(None, Some(file.path())).unwrap();
        let shown = |source: &TokenSource| source.current().1.unwrap().to_str().unwrap().to_owned();
        assert_eq!((source.generation(), shown(&source).as_str()), (0, "Bearer one"));
        std::fs::write(file.path(), "two").unwrap();
        source.look(Instant::now());
        assert_eq!(source.generation(), 0, "it was looked at a moment ago");
        tokio::time::advance(LOOK_INTERVAL).await;
        source.look(Instant::now());
        assert_eq!((source.generation(), shown(&source).as_str()), (1, "Bearer two"));
        std::fs::write(file.path(), "").unwrap();
        tokio::time::advance(LOOK_INTERVAL).await;
        source.look(Instant::now());
        assert_eq!((source.generation(), shown(&source).as_str()), (1, "Bearer two"));
        assert!(!format!("{source:?}").contains("two"));
    }

    #[test]
    fn a_token_file_that_cannot_be_used_is_named() {
        let error = TokenSource::new(None, Some(Path::new("no/such/file"))).unwrap_err();
        assert!(error.to_string().contains("no/such/file"), "{error}");
    }
}
