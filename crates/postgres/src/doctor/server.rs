//! The connection and the server behind it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tokio_postgres::Client;

use super::Check;
use crate::connect::{ConnectError, Target};

/// The oldest version that has everything the sources need, as its `server_version_num`.
const OLDEST: i32 = 140_000;

/// Clocks that differ by more make tokens expire early or late, and times look odd.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(2);

/// Free connections below which others may soon find none.
const FEW_CONNECTIONS: i64 = 10;

pub(super) fn unreachable(error: &ConnectError) -> Check {
    Check::fail("connection", error.to_string(), "check the connection string with psql")
}

pub(super) async fn connection(target: &Target) -> Check {
    match target.probe().await {
        Ok(probe) => {
            let tls = if probe.encrypted { "with TLS" } else { "without TLS" };
            Check::ok("connection", format!("{target}, {tls}"))
        }
        Err(error) => unreachable(&error),
    }
}

pub(super) async fn examine(
    client: &Client,
    checks: &mut Vec<Check>,
) -> Result<(), tokio_postgres::Error> {
    const SQL: &str = "\
        SELECT current_setting('server_version'), current_setting('server_version_num')::int4, \
          pg_is_in_recovery(), current_setting('max_connections')::int8, \
          (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), \
          current_setting('max_prepared_transactions')::int4";
    let row = client.query_one(SQL, &[]).await?;
    checks.push(version(row.get(0), row.get(1)));
    if row.get(2) {
        checks.push(Check::fail(
            "primary",
            "this is a standby, where nothing can be listened to",
            "connect to the primary, or add target_session_attrs=read-write and name all hosts",
        ));
    }
    checks.push(connections(row.get(3), row.get(4)));
    if row.get::<_, i32>(5) > 0 {
        checks.push(Check::ok(
            "prepared",
            "prepared transactions are allowed, so the outbox is polled 20 times a second when quiet",
        ));
    }
    checks.push(clock(client).await?);
    Ok(())
}

fn version(name: &str, number: i32) -> Check {
    match number >= OLDEST {
        true => Check::ok("version", format!("PostgreSQL {name}")),
        false => Check::fail("version", format!("PostgreSQL {name}"), "use version 14 or later"),
    }
}

fn connections(most: i64, used: i64) -> Check {
    let found = format!("{used} of {most} used");
    match most - used < FEW_CONNECTIONS {
        true => Check::warn("connections", found, "raise max_connections, or close some"),
        false => Check::ok("connections", found),
    }
}

/// The middle of the question counts as the moment of the answer.
async fn clock(client: &Client) -> Result<Check, tokio_postgres::Error> {
    const SQL: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::int8";
    let (asked, before) = (Instant::now(), SystemTime::now());
    let theirs: i64 = client.query_one(SQL, &[]).await?.get(0);
    let middle = before + asked.elapsed() / 2;
    let ours = middle.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let ahead = theirs - i64::try_from(ours).unwrap_or(i64::MAX);
    let found = format!(
        "the server's is {} ms {}",
        ahead.abs(),
        if ahead < 0 { "behind" } else { "ahead" }
    );
    Ok(match Duration::from_millis(ahead.unsigned_abs()) > CLOCK_DIFFERENCE {
        true => Check::warn("clock", found, "set both machines' clocks by NTP"),
        false => Check::ok("clock", found),
    })
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn old_versions_and_few_connections_are_told() {
        assert_eq!(version("13.9", 130_009).outcome, Outcome::Fail);
        assert_eq!(version("18.4", 180_004).outcome, Outcome::Ok);
        assert_eq!(connections(100, 95).outcome, Outcome::Warn);
    }
}
