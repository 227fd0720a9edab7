//! What the outbox needs: to be installed, or the rights for it.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use super::Check;
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
        Err(error) if error.code().is_some_and(|code| code.code() == "42501") => {
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
        Some(installed) => {
            checks.push(version(&installed));
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
    match installed.version.cmp(&sql::VERSION) {
        std::cmp::Ordering::Less => {
            Check::warn("outbox", found, "run `tidewire sql install` to upgrade")
        }
        std::cmp::Ordering::Equal => Check::ok("outbox", found),
        std::cmp::Ordering::Greater => {
            Check::warn("outbox", found, "a newer Tidewire installed it: upgrade this one")
        }
    }
}

async fn rights(client: &Client) -> Result<Check, tokio_postgres::Error> {
    const SQL: &str = "SELECT has_database_privilege(current_database(), 'CREATE'), \
        has_schema_privilege('public', 'CREATE')";
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

/// Row triggers are types 29, those for TRUNCATE 32. A partition has its table's row trigger and one of
/// its own for TRUNCATE; with another row trigger it would be told twice.
async fn triggers(client: &Client) -> Result<Check, tokio_postgres::Error> {
    const SQL: &str = "\
        SELECT coalesce(pg_partition_root(c.oid), c.oid)::regclass::text, c.relispartition, \
          count(*) FILTER (WHERE t.tgtype = 29) = 1 \
            AND count(*) FILTER (WHERE t.tgtype = 32) = 1 AND bool_and(t.tgenabled IN ('O', 'A')) \
            AND bool_and(t.tgtype = 32 OR (t.tgparentid <> 0) = c.relispartition) \
        FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid \
        WHERE p.proname = 'notify_table_change' \
          AND obj_description(p.oid, 'pg_proc') LIKE 'Tidewire:%' GROUP BY c.oid";
    let rows = client.query(SQL, &[]).await?;
    let odd: BTreeSet<&str> =
        rows.iter().filter(|row| !row.get::<_, bool>(2)).map(|row| row.get(0)).collect();
    let odd: Vec<&str> = odd.into_iter().collect();
    let found = format!("on {} tables", rows.iter().filter(|row| !row.get::<_, bool>(1)).count());
    Ok(match odd.is_empty() {
        true => Check::ok("triggers", found),
        false => Check::warn(
            "triggers",
            format!("{found}; incomplete or switched off on {}", odd.join(", ")),
            "SELECT enable_realtime, or disable_realtime, for each of these",
        ),
    })
}

async fn backlog(client: &Client) -> Result<Check, tokio_postgres::Error> {
    // An exact count would read the whole table; the ends of the key are at hand.
    const SQL: &str = "SELECT coalesce(max(id) - min(id) + 1, 0), \
        pg_size_pretty(pg_total_relation_size('tidewire.outbox')) FROM tidewire.outbox";
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
        SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
        WHERE l.locktype = 'advisory' AND l.classid = 1953064037 AND l.objid = 2 \
          AND l.objsubid = 2 AND l.granted AND d.datname = current_database()";
    let found = match client.query_opt(SQL, &[]).await? {
        Some(row) => format!("a server reads it, backend {}", row.get::<_, i32>(0)),
        None => "no server reads it at the moment".to_owned(),
    };
    Ok(Check::ok("reader", found))
}
