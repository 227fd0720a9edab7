//! What the source `wal` needs. Where it is missing the outbox is used, so nothing here fails.

use tokio_postgres::{Client, Row};

use super::Check;
use crate::wal::{SlotKind, WalOptions};

/// From this version on a slot can be made without a restart; the server raises its level itself.
const RAISES_ITSELF: i32 = 190_000;

/// A lag of a slot that is worth a word: a segment of the log is 16 MB, a busy minute some GB.
const LAG_BYTES: i64 = 1 << 30;

pub(super) async fn examine(
    client: &Client,
    options: &WalOptions,
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
    let (name, is_of_one_run) = options.publication_name();
    let publication = Some(name.as_str()).filter(|_| !is_of_one_run);
    checks.push(publications(client, publication, row.get(9)).await?);
    let slot = match &options.slot {
        SlotKind::Persistent { name, .. } => Some(name.as_str()),
        SlotKind::Temporary => None,
    };
    slots(client, slot, &keeps, checks).await
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

/// The publication of that name, or those that look like ours when ours has none yet.
async fn publications(
    client: &Client,
    configured: Option<&str>,
    create: bool,
) -> Result<Check, tokio_postgres::Error> {
    const NAME: &str = "publication";
    const SQL: &str = "\
        SELECT pubname::text, puballtables, \
          (SELECT count(*) FROM pg_publication_rel r WHERE r.prpubid = p.oid) \
        FROM pg_publication p \
        WHERE CASE WHEN $1::text IS NULL THEN pubname LIKE 'tidewire%' ELSE pubname = $1 END \
        ORDER BY pubname";
    let rows = client.query(SQL, &[&configured]).await?;
    if let Some(row) = rows.iter().find(|row| row.get(1)) {
        return Ok(Check::warn(
            NAME,
            format!("{} is for all tables", row.get::<_, &str>(0)),
            "a table without a primary key cannot be updated then: drop it, Tidewire makes its own",
        ));
    }
    let none = match configured {
        Some(name) => format!("none named {name}"),
        None => "none".to_owned(),
    };
    if rows.is_empty() && !create {
        return Ok(Check::warn(
            NAME,
            format!("{none}, and this role may not make one"),
            "for the write-ahead log as source: GRANT CREATE ON DATABASE to this role, which must \
             own the tables, or have their owner make one and name it in wal.publication",
        ));
    }
    let one = |row: &Row| format!("{} ({} tables)", row.get::<_, &str>(0), row.get::<_, i64>(2));
    let listed: Vec<String> = rows.iter().map(one).collect();
    Ok(Check::ok(NAME, if listed.is_empty() { format!("{none} yet") } else { listed.join(", ") }))
}

/// The slot that is configured and those that look like ours, and whether the log that they keep
/// has a limit.
async fn slots(
    client: &Client,
    configured: Option<&str>,
    keeps: &str,
    checks: &mut Vec<Check>,
) -> Result<(), tokio_postgres::Error> {
    // Newer versions tell more of a slot that they gave up than older ones have columns for.
    const SQL: &str = "\
        SELECT slot_name::text, temporary, active, coalesce(wal_status, 'unknown'), \
          CASE WHEN NOT pg_is_in_recovery() \
            THEN pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8 END, \
          coalesce(to_jsonb(s) ->> 'invalidation_reason', \
            CASE WHEN to_jsonb(s) ->> 'conflicting' = 'true' THEN 'it conflicted with recovery' END), \
          CASE WHEN plugin IS DISTINCT FROM 'pgoutput' THEN 'not for pgoutput' \
            WHEN database <> current_database() THEN 'of database ' || database END \
        FROM pg_replication_slots s \
        WHERE slot_name = $1 \
          OR slot_name LIKE 'tidewire%' AND database = current_database() ORDER BY 1";
    let rows = client.query(SQL, &[&configured]).await?;
    let found: Vec<Slot> = rows.iter().map(Slot::of).collect();
    checks.extend(found.iter().map(Slot::check));
    if let Some(name) = configured.filter(|name| found.iter().all(|slot| slot.name != *name)) {
        let words = format!("{name} is not there yet: it is made when Tidewire starts");
        checks.push(Check::ok("slot", words));
    }
    let persistent = configured.is_some() || found.iter().any(|slot| !slot.temporary);
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

/// A slot as the server tells of it.
#[derive(Clone, Debug)]
struct Slot {
    name: String,
    temporary: bool,
    active: bool,
    wal_status: String,
    /// Bytes of log that are kept for it; `None` on a standby, and when it was given up.
    kept: Option<i64>,
    /// Why the server gave it up.
    invalidated: Option<String>,
    /// Why Tidewire cannot read it.
    unusable: Option<String>,
}

impl Slot {
    fn of(row: &Row) -> Self {
        Self {
            name: row.get(0),
            temporary: row.get(1),
            active: row.get(2),
            wal_status: row.get(3),
            kept: row.get(4),
            invalidated: row.get(5),
            unusable: row.get(6),
        }
    }

    fn check(&self) -> Check {
        let kind = if self.temporary { "temporary" } else { "persistent" };
        let state = if self.active { "in use" } else { "not in use" };
        let megabytes = self.kept.unwrap_or(0) >> 20;
        let (name, status) = (&self.name, &self.wal_status);
        let found = format!("{name}, {kind}, {state}, {status}, {megabytes} MB behind");
        if let Some(why) = &self.unusable {
            let advice = "drop it, or name another one in wal.slot";
            return Check::warn("slot", format!("{found}, {why}"), advice);
        }
        if self.invalidated.is_some() || matches!(status.as_str(), "lost" | "unreserved") {
            let why = self.invalidated.iter().map(|why| format!(", given up: {why}"));
            let advice = "changes are missing for it: Tidewire makes a new one and tells a gap";
            return Check::warn("slot", found + &why.collect::<String>(), advice);
        }
        if self.kept.is_some_and(|kept| kept > LAG_BYTES) {
            let advice = "it keeps the server's log from being removed: start the Tidewire that \
                          uses it, or SELECT pg_drop_replication_slot";
            return Check::warn("slot", found, advice);
        }
        Check::ok("slot", found)
    }
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

    #[test]
    fn a_slot_that_is_of_no_use_is_told_with_why() {
        let well = Slot {
            name: "eyes".to_owned(),
            temporary: false,
            active: false,
            wal_status: "reserved".to_owned(),
            kept: Some(3 << 20),
            invalidated: None,
            unusable: None,
        };
        let check = well.check();
        assert_eq!(check.outcome, Outcome::Ok);
        assert_eq!(check.found, "eyes, persistent, not in use, reserved, 3 MB behind");
        let of_another = Some("of database b".to_owned());
        for (slot, words) in [
            (Slot { wal_status: "lost".to_owned(), kept: None, ..well.clone() }, "lost"),
            (Slot { invalidated: Some("idle_timeout".to_owned()), ..well.clone() }, "idle_timeout"),
            (Slot { kept: Some(2 << 30), ..well.clone() }, "2048 MB"),
            (Slot { unusable: of_another, ..well.clone() }, "of database b"),
        ] {
            let check = slot.check();
            assert_eq!(check.outcome, Outcome::Warn);
            assert!(check.found.contains(words), "{check:?}");
        }
    }
}
