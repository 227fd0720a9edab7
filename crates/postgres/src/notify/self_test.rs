//! Does a notification that is sent arrive?
//!
//! A pooler in transaction mode (PgBouncer and its like) accepts LISTEN, runs it on whatever
//! server connection is free, and nothing ever arrives. Nothing else tells, so it is tried.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::types::Type;

use super::link::{Arrived, Link};
use crate::connect::{ConnectError, ErrorKind, Pool, STANDBY_FIX, Target};

/// How long a notification may take; locally it takes a tenth of a millisecond.
const PATIENCE: Duration = Duration::from_secs(2);

/// Refuses a server that is in recovery, where LISTEN is an error.
pub(super) async fn refuse_standby(link: &mut Link, target: &Target) -> Result<(), ConnectError> {
    let rows = link.ask("SELECT pg_catalog.pg_is_in_recovery()").await?;
    let standby = rows.first().and_then(|row| row.first()?.as_deref());
    if standby == Some("t") {
        let message = format!("PostgreSQL at {target} is a standby{STANDBY_FIX}");
        return Err(ConnectError::new(ErrorKind::Standby, message));
    }
    Ok(())
}

/// Listens to a channel that nobody else knows, and says something on it over the pool.
pub(super) async fn run(link: &mut Link, pool: &Pool, target: &Target) -> Result<(), ConnectError> {
    let random = getrandom::u64().map_err(|error| {
        ConnectError::new(ErrorKind::Server, format!("no randomness on this machine: {error}"))
    })?;
    let channel = format!("tidewire_self_test_{random:016x}");
    link.ask(&format!("LISTEN {channel}")).await?;
    notify(pool, &channel, target).await?;
    match timeout(PATIENCE, arrives(link, &channel)).await {
        Ok(outcome) => outcome?,
        Err(_) => return Err(swallowed(target)),
    }
    link.ask(&format!("UNLISTEN {channel}")).await.map(drop)
}

async fn notify(pool: &Pool, channel: &str, target: &Target) -> Result<(), ConnectError> {
    let connection = pool.get().await?;
    let said = connection
        .run(async |client| {
            client.query_typed("SELECT pg_notify($1, '')", &[(&channel, Type::TEXT)]).await
        })
        .await;
    match said {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(ConnectError::explain(error, &target.to_string())),
        None => Err(ConnectError::new(
            ErrorKind::Unreachable,
            format!("PostgreSQL at {target}: no answer to the self-test's NOTIFY"),
        )),
    }
}

async fn arrives(link: &mut Link, channel: &str) -> Result<(), ConnectError> {
    loop {
        if let Arrived::Notifications(taken) = link.next().await?
            && taken.iter().any(|notification| notification.channel == channel)
        {
            return Ok(());
        }
    }
}

fn swallowed(target: &Target) -> ConnectError {
    ConnectError::new(
        ErrorKind::Pooler,
        format!(
            "LISTEN succeeded at {target} but a notification sent as a test did not arrive within \
             {} s: most likely a connection pooler in transaction mode (PgBouncer, Supavisor) \
             stands between, which swallows LISTEN silently; use a direct connection to PostgreSQL, \
             or the pooler's session mode",
            PATIENCE.as_secs()
        ),
    )
}
