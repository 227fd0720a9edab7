//! `tidewire serve`: bootstrap without a runtime, then serve, then drain.

pub(super) mod started;

use anyhow::Context as _;

use crate::config::{Settings, Written};
use crate::open_files;
use crate::server::Server;
use crate::{signals, telemetry};

pub(super) fn run(written: &Written) -> anyhow::Result<()> {
    let settings = Settings::load(written)?;
    let telemetry = telemetry::start(&settings.log)?;
    started::log(&settings, open_files::raise().context("raising the limit on open files")?);
    runtime(&settings)?.block_on(async {
        let stop = signals::stop().context("listening to signals")?;
        signals::outlive_file_limits().context("listening to signals")?;
        let hangups = signals::Hangups::listen(written.clone(), telemetry)?;
        let server = Server::start(settings).await?;
        for address in server.addresses() {
            tracing::info!(%address, "serving");
        }
        for address in server.operator_addresses() {
            tracing::info!(%address, "serving operators");
        }
        server.run(stop, hangups).await;
        Ok(())
    })
}

pub(super) fn runtime(settings: &Settings) -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.threads.get())
        .enable_all()
        .build()
}
