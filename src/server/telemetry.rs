//! Logs. Lines go to standard error, as JSON or as text; what is logged is a filter that an operator sets.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer as _, fmt};

use super::config::{LogFormat, ProcessConfig};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("--log is no filter; write a level such as info, or directives such as info,larder::access=off")]
    Filter,
    #[error("something else set up logging in this process before")]
    Taken(#[from] TryInitError),
}

/// Sets up logging for the whole process.
///
/// # Errors
/// When the filter is malformed, or logging is set up already.
pub fn init(config: &ProcessConfig) -> Result<(), TelemetryError> {
    let filter = filter(&config.log)?;
    let lines = match config.log_format {
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed(),
        LogFormat::Text => {
            let ansi = std::io::stderr().is_terminal();
            fmt::layer().with_ansi(ansi).with_writer(std::io::stderr).boxed()
        }
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init()?;
    Ok(())
}

/// A bare word that is no level would be taken for a target's name: `inof` would log nothing at all.
fn filter(text: &str) -> Result<Targets, TelemetryError> {
    let misspelt = |directive: &str| !directive.contains('=') && directive.parse::<LevelFilter>().is_err();
    if text.split(',').any(misspelt) {
        return Err(TelemetryError::Filter);
    }
    text.parse().map_err(|_| TelemetryError::Filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_no_filter() {
        for right in ["info", "INFO", "off", "info,larder::access=warn"] {
            assert!(filter(right).is_ok(), "{right}");
        }
        for wrong in ["inof", "info,larder::access", "larder=loud"] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }
}
