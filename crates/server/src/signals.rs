//! Signals: SIGTERM and SIGINT stop the server, SIGHUP has it read its configuration again, and
//! SIGXFSZ is ignored.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Settings, Written};
use crate::server::Reloads;
use crate::telemetry::Telemetry;

/// What a shell reports of a process that a signal has ended: 128 and the signal's number.
const INTERRUPTED: i32 = 130;
const TERMINATED: i32 = 143;

/// What a process is sent that writes beyond its limit on the size of files (`ulimit -f`); the same
/// number on Linux and macOS.
const FILE_TOO_LARGE: i32 = 25;

/// From here on such a write is an error of its own, as on a full disk, and not the end of the
/// process.
///
/// # Errors
/// When the system does not let us listen to signals.
pub(crate) fn outlive_file_limits() -> std::io::Result<()> {
    // What is once listened to stays so.
    signal(SignalKind::from_raw(FILE_TOO_LARGE)).map(drop)
}

/// A token that is cancelled at the first SIGTERM or SIGINT; a second one ends the process.
///
/// # Errors
/// When the system does not let us listen to signals.
pub(crate) fn stop() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        for _ in 0..2 {
            let status = tokio::select! {
                _ = terminate.recv() => TERMINATED,
                _ = interrupt.recv() => INTERRUPTED,
            };
            if told.is_cancelled() {
                // Whoever asks twice does not want to wait.
                std::process::exit(status);
            }
            told.cancel();
        }
    });
    Ok(stop)
}

/// Reads the configuration again at each SIGHUP.
pub(crate) struct Hangups {
    signal: Signal,
    written: Written,
    telemetry: Telemetry,
}

impl Hangups {
    pub(crate) fn listen(written: Written, telemetry: Telemetry) -> std::io::Result<Self> {
        Ok(Self { signal: signal(SignalKind::hangup())?, written, telemetry })
    }
}

impl Reloads for Hangups {
    async fn next(&mut self) -> anyhow::Result<Settings> {
        if self.signal.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        let settings = Settings::load(&self.written)?;
        self.telemetry.set_level(&settings.log.level)?;
        Ok(settings)
    }
}
