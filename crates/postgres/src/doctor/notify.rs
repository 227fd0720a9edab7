//! Whether notifications arrive, and how full their queue is.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client};

use super::Check;
use crate::connect::{ConnectError, Pool, Target, Wire};

/// How long a notification may take; locally it takes a tenth of a millisecond.
const PATIENCE: Duration = Duration::from_secs(2);

/// How full the queue may be. A queue that fills up has a session that listens and does not read.
const HIGH: f64 = 0.05;
const FULL: f64 = 0.5;

pub(super) async fn queue(
    client: &Client,
    checks: &mut Vec<Check>,
) -> Result<(), tokio_postgres::Error> {
    let used: f64 = client.query_one("SELECT pg_notification_queue_usage()", &[]).await?.get(0);
    let found = format!("{:.1} % full", used * 100.0);
    let advice = "a session that listens is in a transaction for long: find it in \
                  pg_stat_activity, since a full queue makes writers fail";
    checks.push(match used {
        used if used > FULL => Check::fail("notify queue", found, advice),
        used if used > HIGH => Check::warn("notify queue", found, advice),
        _ => Check::ok("notify queue", found),
    });
    Ok(())
}

/// Says something on a channel of our own, and waits for it.
pub(super) async fn round_trip(target: &Target, pool: &Pool) -> Check {
    const NAME: &str = "notify";
    match timeout(PATIENCE, said_and_heard(target, pool)).await {
        Ok(Ok(took)) => Check::ok(NAME, format!("arrives within {} µs", took.as_micros())),
        Ok(Err(error)) => Check::fail(NAME, error.to_string(), "see above"),
        Err(_) => Check::fail(
            NAME,
            format!("a notification did not arrive within {} s", PATIENCE.as_secs()),
            "most likely a pooler in transaction mode stands between: use a direct connection, or \
             the pooler's session mode",
        ),
    }
}

async fn said_and_heard(target: &Target, pool: &Pool) -> Result<Duration, ConnectError> {
    let (client, wire) = target.connect().await?;
    let (heard, mut hears) = mpsc::channel(1);
    // The task ends with the client.
    tokio::spawn(hear(wire, heard));
    let explain = |error| ConnectError::explain(error, &target.to_string());
    let channel = format!("tidewire_doctor_{:016x}", getrandom::u64().unwrap_or_default());
    client.batch_execute(&format!("LISTEN {channel}")).await.map_err(explain)?;
    let speaker = pool.get().await?;
    let said = Instant::now();
    let notified = speaker
        .run(async |client| {
            client.query_typed("SELECT pg_notify($1, '')", &[(&channel, Type::TEXT)]).await
        })
        .await;
    if let Some(Err(error)) = notified {
        return Err(explain(error));
    }
    // Nothing comes when the connection ends, so the time runs out; that says enough.
    match hears.recv().await {
        Some(()) => Ok(said.elapsed()),
        None => std::future::pending().await,
    }
}

async fn hear(mut wire: Wire, heard: mpsc::Sender<()>) {
    while let Some(Ok(message)) = std::future::poll_fn(|cx| wire.poll_message(cx)).await {
        if matches!(message, AsyncMessage::Notification(_)) && heard.send(()).await.is_err() {
            return;
        }
    }
}
