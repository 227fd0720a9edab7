//! The log: text for people or JSON for machines, on standard error.
//!
//! The only place that touches the process-wide tracing subscriber. The level can be changed
//! while the server runs; the format cannot.

use std::io::{IsTerminal as _, stderr};

use thiserror::Error;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::{LogFormat, LogSettings};

/// The running log; keep it to change the level.
#[derive(Clone, Debug)]
pub struct Telemetry {
    filter: reload::Handle<EnvFilter, Registry>,
}

/// Why there is no log, or no other level.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("log level {level:?} is not a filter such as info or tidewire=debug,info")]
    Filter {
        /// What was written.
        level: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The process has a log already.
    #[error("the log of this process is set up already")]
    Repeated(#[from] TryInitError),
    /// The log has gone, with the process ending.
    #[error("the log has ended")]
    Ended(#[from] reload::Error),
}

/// Starts the log of this process.
///
/// # Errors
/// [`TelemetryError`] when the level does not parse or there is a log already.
pub fn start(settings: &LogSettings) -> Result<Telemetry, TelemetryError> {
    let (filter, handle) = reload::Layer::new(filter(&settings.level)?);
    tracing_subscriber::registry().with(filter).with(lines(settings.format)).try_init()?;
    Ok(Telemetry { filter: handle })
}

impl Telemetry {
    /// Changes what is logged from now on.
    ///
    /// # Errors
    /// [`TelemetryError::Filter`] when the level does not parse; the old one stays.
    pub fn set_level(&self, level: &str) -> Result<(), TelemetryError> {
        Ok(self.filter.reload(filter(level)?)?)
    }
}

type Filtered = tracing_subscriber::layer::Layered<reload::Layer<EnvFilter, Registry>, Registry>;

fn lines(format: LogFormat) -> Box<dyn Layer<Filtered> + Send + Sync> {
    match format {
        LogFormat::Text => fmt::layer().with_writer(stderr).with_ansi(wants_colour()).boxed(),
        LogFormat::Json => fmt::layer().with_writer(stderr).json().flatten_event(true).boxed(),
    }
}

/// Colour is for a terminal, unless <https://no-color.org> is asked for.
fn wants_colour() -> bool {
    stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(own_target(level))
        .map_err(|source| TelemetryError::Filter { level: level.to_owned(), source })
}

/// Alle's documentation filters by its own name, `alle=info,info`; here that means this program.
fn own_target(level: &str) -> String {
    let parts: Vec<String> = level
        .split(',')
        .map(|part| match part.trim().strip_prefix("alle") {
            Some(rest) if rest.is_empty() || rest.starts_with(['=', ':', '[']) => {
                format!("tidewire{rest}")
            }
            _ => part.to_owned(),
        })
        .collect();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alles_own_name_means_this_program() {
        assert_eq!(own_target("alle=info,info"), "tidewire=info,info");
        assert_eq!(own_target("warn,alle::bridge=debug"), "warn,tidewire::bridge=debug");
        assert_eq!(own_target("allegro=info"), "allegro=info");
    }

    #[test]
    fn a_level_that_is_no_filter_is_refused_with_an_example() {
        let refused = filter("info,=,=").unwrap_err();
        assert!(refused.to_string().contains("tidewire=debug,info"), "{refused}");
    }
}
