//! What the source `wal` needs. Where it is missing the outbox is used, so nothing here fails.

use tokio_postgres::{Client, Row};

use super::Check;

/// From this version on a slot can be made without a restart; the server raises its level itself.
const RAISES_ITSELF: i32 = 190_000;

/// A lag of a slot that is worth a word: a segment of the log is 16 MB, a busy minute some GB.
const LAG_BYTES: i64 = 1 << 30;

pub(super) async fn examine(
    client: &Client,
    checks: &mut Vec<Check>,
) -> Result<(), tokio_postgres::Error> {
    const SQL: &str = "\
        SELECT current_setting('wal_level'), current_setting('server_version_num')::int4, \
          (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user), \
          current_user::text, \
          current_setting('max_replication_slots')::int8, \
          (SELECT count(*) FROM pg_replication_slots), \
          current_setting('max_wal_senders')::int8, (SELECT count(*) FROM pg_stat_replication), \
          current_setting('max_slot_wal_keep_size'), \
          has_database_privilege(current_database(), 'CREATE')";
    let row = client.query_one(SQL, &[]).await?;
    checks.push(level(row.get(0), row.get(1)));
    checks.push(replication(row.get(2), row.get(3)));
    checks.push(free("replication slots", "max_replication_slots", row.get(4), row.get(5)));
    checks.push(free("wal senders", "max_wal_senders", row.get(6), row.get(7)));
    let keeps: String = row.get(8);
    checks.push(publications(client, row.get(9)).await?);
    slots(client, &keeps, checks).await
}

fn level(level: &str, version: i32) -> Check {
    const NAME: &str = "wal level";
    if level == "logical" || version >= RAISES_ITSELF {
        return Check::ok(NAME, level);
    }
    Check::warn(
        NAME,
        format!("{level}, so row changes come from the outbox"),
        "for the write-ahead log as source: ALTER SYSTEM SET wal_level = logical and restart \
         (managed services have a parameter for it, such as rds.logical_replication)",
    )
}

fn replication(may: Option<bool>, role: &str) -> Check {
    const NAME: &str = "replication";
    match may {
        Some(true) => Check::ok(NAME, format!("role {role} may replicate")),
        _ => Check::warn(
            NAME,
            format!("role {role} may not replicate, so row changes come from the outbox"),
            format!(
                "for the write-ahead log as source: ALTER ROLE \"{}\" REPLICATION (on RDS, GRANT \
                 rds_replication)",
                role.replace('"', "\"\"")
            ),
        ),
    }
}

fn free(name: &'static str, setting: &str, most: i64, used: i64) -> Check {
    let found = format!("{used} of {most} used");
    match used >= most {
        true => {
            Check::warn(name, found, format!("raise {setting} and restart, or drop an old one"))
        }
        false => Check::ok(name, found),
    }
}

async fn publications(client: &Client, create: bool) -> Result<Check, tokio_postgres::Error> {
    const NAME: &str = "publication";
    const SQL: &str = "\
        SELECT pubname::text, puballtables, \
          (SELECT count(*) FROM pg_publication_rel r WHERE r.prpubid = p.oid) \
        FROM pg_publication p WHERE pubname LIKE 'tidewire%' ORDER BY pubname";
    let rows = client.query(SQL, &[]).await?;
    if let Some(row) = rows.iter().find(|row| row.get(1)) {
        return Ok(Check::warn(
            NAME,
            format!("{} is for all tables", row.get::<_, &str>(0)),
            "a table without a primary key cannot be updated then: drop it, Tidewire makes its own",
        ));
    }
    if rows.is_empty() && !create {
        return Ok(Check::warn(
            NAME,
            "none, and this role may not make one",
            "for the write-ahead log as source: GRANT CREATE ON DATABASE to this role, which must \
             own the tables",
        ));
    }
    let one = |row: &Row| format!("{} ({} tables)", row.get::<_, &str>(0), row.get::<_, i64>(2));
    let listed: Vec<String> = rows.iter().map(one).collect();
    Ok(Check::ok(NAME, if listed.is_empty() { "none yet".to_owned() } else { listed.join(", ") }))
}

async fn slots(
    client: &Client,
    keeps: &str,
    checks: &mut Vec<Check>,
) -> Result<(), tokio_postgres::Error> {
    const SQL: &str = "\
        SELECT slot_name::text, temporary, active, coalesce(wal_status, 'unknown'), \
          CASE WHEN NOT pg_is_in_recovery() \
            THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8 END \
        FROM pg_replication_slots \
        WHERE slot_name LIKE 'tidewire%' AND database = current_database() ORDER BY 1";
    let rows = client.query(SQL, &[]).await?;
    for row in &rows {
        checks.push(slot(row));
    }
    let persistent = rows.iter().any(|row| !row.get::<_, bool>(1));
    if persistent && keeps == "-1" {
        checks.push(Check::warn(
            "slot limit",
            "max_slot_wal_keep_size is unlimited, so a Tidewire that is down fills this disk",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '10GB', then SELECT pg_reload_conf()",
        ));
    } else {
        checks.push(Check::ok("slot limit", format!("max_slot_wal_keep_size is {keeps}")));
    }
    Ok(())
}

fn slot(row: &Row) -> Check {
    let (name, temporary, active): (&str, bool, bool) = (row.get(0), row.get(1), row.get(2));
    let (status, lag): (&str, Option<i64>) = (row.get(3), row.get(4));
    let kind = if temporary { "temporary" } else { "persistent" };
    let state = if active { "in use" } else { "not in use" };
    let megabytes = lag.unwrap_or(0) >> 20;
    let found = format!("{name}, {kind}, {state}, {status}, {megabytes} MB behind");
    if matches!(status, "lost" | "unreserved") {
        let advice = "changes are missing for it: Tidewire makes a new one and tells a gap";
        return Check::warn("slot", found, advice);
    }
    if lag.is_some_and(|lag| lag > LAG_BYTES) {
        let advice = "it keeps the server's log from being removed: start the Tidewire that uses \
                      it, or SELECT pg_drop_replication_slot";
        return Check::warn("slot", found, advice);
    }
    Check::ok("slot", found)
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn what_the_log_as_source_lacks_is_told_with_its_fix() {
        assert_eq!(level("logical", 150_000).outcome, Outcome::Ok);
        assert_eq!(level("replica", 150_000).outcome, Outcome::Warn);
        assert_eq!(level("replica", 190_000).outcome, Outcome::Ok);
        assert!(replication(Some(false), "a\"b").advice.unwrap().contains("\"a\"\"b\""));
        assert_eq!(free("wal senders", "max_wal_senders", 10, 10).outcome, Outcome::Warn);
    }
}
