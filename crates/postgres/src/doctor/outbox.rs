//! What the outbox needs: to be installed, or the rights for it.

use tokio_postgres::{Client, Row};

use super::Check;
use crate::sql::ownership::{DEFINER, trigger_function};
use crate::sql::triggers::{flaw, ordinary, untruncated};
use crate::sql::{self, Installation};

/// Rows that wait in the outbox; a reader that is there leaves some seconds' worth.
const MANY_ROWS: i64 = 1_000_000;

pub(super) async fn examine(
    client: &Client,
    checks: &mut Vec<Check>,
) -> Result<(), tokio_postgres::Error> {
    const NAME: &str = "outbox";
    let installed = match sql::found(client).await {
        Ok(installed) => installed,
        // Installed by another role; what is missing is what the documentation says to grant.
        Err(error) if sql::is_denied(&error) => {
            checks.push(Check::warn(
                NAME,
                "installed, and this role may not read it",
                "grant what docs/sql.md lists for a server that does not own the outbox",
            ));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    match installed {
        None => checks.push(rights(client).await?),
        Some(Installation { untrusted: Some(what), .. }) => checks.push(Check::fail(
            NAME,
            format!("{what}, which is neither this role nor one that could act as it: not used"),
            "find out who made it; drop it, or run the server as the role that installed it",
        )),
        Some(installed) => {
            checks.push(version(&installed));
            checks.push(definer(client, &installed).await?);
            checks.push(triggers(client).await?);
            checks.push(backlog(client).await?);
            checks.push(reader(client).await?);
        }
    }
    Ok(())
}

fn version(installed: &Installation) -> Check {
    let found = format!(
        "version {} is installed, its functions in schema {}; tidewire.publish writes to the {}",
        installed.version, installed.schema, installed.sink
    );
    let vulnerable = sql::outdated(installed.version);
    match installed.version.cmp(&sql::VERSION) {
        std::cmp::Ordering::Less => Check::warn("outbox", found, vulnerable),
        std::cmp::Ordering::Equal => Check::ok("outbox", found),
        std::cmp::Ordering::Greater => {
            Check::warn("outbox", found, "a newer Tidewire installed it: upgrade this one")
        }
    }
}

/// As whom functions run that others call.
async fn definer(
    client: &Client,
    installed: &Installation,
) -> Result<Check, tokio_postgres::Error> {
    const NAME: &str = "definer";
    let Some(role) = &installed.definer else {
        return Ok(Check::warn(
            NAME,
            "the role that installed it",
            sql::outdated(installed.version),
        ));
    };
    if role == DEFINER {
        return Ok(Check::ok(NAME, format!("role {role}, which can do nothing else")));
    }
    const SQL: &str = "SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = $1";
    let found = format!("role {role}, which installed it and could not create roles");
    let is_super = client.query_opt(SQL, &[role]).await?.is_some_and(|row| row.get(0));
    Ok(match is_super {
        false => Check::ok(NAME, found),
        true => Check::warn(
            NAME,
            format!("role {role}, a superuser"),
            "run `tidewire sql install` as a superuser, which makes a role of its own for it",
        ),
    })
}

async fn rights(client: &Client) -> Result<Check, tokio_postgres::Error> {
    const SQL: &str = "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'), \
        pg_catalog.has_schema_privilege('public', 'CREATE')";
    let row = client.query_one(SQL, &[]).await?;
    let found = "not installed";
    Ok(match (row.get(0), row.get(1)) {
        (true, true) => Check::ok("outbox", format!("{found}; it is when first needed")),
        (database, _) => {
            let what = if database { "in schema public" } else { "in the database" };
            Check::warn(
                "outbox",
                format!("{found}, and this role may not CREATE {what}"),
                "have a role that may run `tidewire sql install`, if row changes are to come from \
                 the outbox or tidewire.publish is to be used",
            )
        }
    })
}

/// Each table that has a trigger of ours, and partitioned ones for their partitions, looked at whole.
async fn triggers(client: &Client) -> Result<Check, tokio_postgres::Error> {
    const SQL: &str = concat!(
        "WITH ours AS MATERIALIZED (SELECT ",
        trigger_function!(),
        " AS oid) SELECT c.oid::pg_catalog.regclass::pg_catalog.text, coalesce(",
        flaw!("ours.oid"),
        ", ",
        untruncated!("ours.oid"),
        "), ",
        ordinary!("ours.oid"),
        " FROM ours, pg_catalog.pg_class c WHERE c.oid IN (
          SELECT coalesce(pg_catalog.pg_partition_root(t.tgrelid)::pg_catalog.oid, t.tgrelid)
          FROM pg_catalog.pg_trigger t WHERE t.tgfoid = ours.oid) ORDER BY 1"
    );
    let rows = client.query(SQL, &[]).await?;
    let table = |row: &Row| row.get::<_, String>(0);
    let flaw = |row: &Row| row.get::<_, Option<String>>(1);
    let found = format!("on {} tables", rows.len());
    let odd: Vec<(String, String)> =
        rows.iter().filter_map(|row| Some((table(row), flaw(row)?))).collect();
    let ordinary: Vec<String> =
        rows.iter().filter(|row| flaw(row).is_none() && row.get(2)).map(table).collect();
    Ok(if !odd.is_empty() {
        let (names, flaws): (Vec<String>, Vec<String>) =
            odd.into_iter().map(|(name, flaw)| (name.clone(), format!("{name}: {flaw}"))).unzip();
        Check::warn(
            "triggers",
            format!("{found}; incomplete or switched off on {}", names.join(", ")),
            format!(
                "SELECT enable_realtime, or disable_realtime, for each of these ({})",
                flaws.join("; ")
            ),
        )
    } else if !ordinary.is_empty() {
        Check::warn(
            "triggers",
            format!(
                "{found}; rows written with session_replication_role = replica are not recorded on {}",
                ordinary.join(", ")
            ),
            "SELECT enable_realtime for each of these as its owner",
        )
    } else {
        Check::ok("triggers", found)
    })
}

async fn backlog(client: &Client) -> Result<Check, tokio_postgres::Error> {
    // An exact count would read the whole table; the ends of the key are at hand.
    const SQL: &str = "SELECT coalesce(pg_catalog.max(o.id) - pg_catalog.min(o.id) + 1, 0), \
        pg_catalog.pg_size_pretty(pg_catalog.pg_total_relation_size('tidewire.outbox')) \
        FROM tidewire.outbox o";
    let row = client.query_one(SQL, &[]).await?;
    let (rows, size): (i64, &str) = (row.get(0), row.get(1));
    let found = format!("at most {rows} rows, {size}");
    Ok(match rows > MANY_ROWS {
        true => Check::warn(
            "backlog",
            found,
            "start the server that reads it, look whether a transaction is open for long, and \
             whether autovacuum runs",
        ),
        false => Check::ok("backlog", found),
    })
}

async fn reader(client: &Client) -> Result<Check, tokio_postgres::Error> {
    const SQL: &str = "\
        SELECT l.pid, a.usename::pg_catalog.text, \
          pg_catalog.has_table_privilege(a.usesysid, 'tidewire.outbox', 'DELETE') \
        FROM tidewire.settings s JOIN pg_catalog.pg_locks l \
          ON l.locktype = 'advisory' AND l.classid::pg_catalog.int8 = s.lock_key AND l.objid = 2 \
          AND l.objsubid = 2 AND l.granted \
        JOIN pg_catalog.pg_database d ON d.oid = l.database \
        JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
        WHERE d.datname = pg_catalog.current_database()";
    Ok(match client.query_opt(SQL, &[]).await? {
        Some(row) if row.get(2) => {
            Check::ok("reader", format!("a server reads it, backend {}", row.get::<_, i32>(0)))
        }
        Some(row) => Check::warn(
            "reader",
            format!(
                "backend {} of role {} holds the lock of a reader without the right to be one",
                row.get::<_, i32>(0),
                row.get::<_, String>(1)
            ),
            "nothing has to be done for Tidewire, which takes another lock; find out what the role does",
        ),
        None => Check::ok("reader", "no server reads it at the moment"),
    })
}
