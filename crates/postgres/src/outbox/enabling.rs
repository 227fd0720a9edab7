//! Making a table one whose changes are recorded: the outbox installed, its triggers there.

use std::time::Duration;

use tidewire_protocol::{Code, Refusal, Topic};
use tokio::time::sleep;
use tokio_postgres::{Client, Row};

use super::relations::{self, Known};
use crate::connect::Pool;
use crate::sql::{self, InstallOptions, Installation, SqlError};

/// The table of a name.
const TABLE: &str = "\
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text,
  CASE WHEN c.relispartition THEN pg_catalog.pg_partition_root(c.oid)::text END,
  EXISTS (SELECT FROM pg_catalog.pg_attribute a
          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1::pg_catalog.text AND c.relname = $2::pg_catalog.text
  AND c.relkind IN ('r', 'p', 'v', 'm', 'f')";

/// Attempts to get the lock that new triggers need. While we wait for it, writers wait behind us,
/// so each attempt is short.
const ATTEMPTS: u32 = 6;
const LOCK_PATIENCE: &str = "300ms";

/// Makes sure that the table's changes are recorded, and gives its oid.
pub(super) async fn ensure(pool: &Pool, topic: &Topic, may: bool) -> Result<u32, Refusal> {
    let connection = pool.get().await.map_err(|error| unavailable(&error.to_string()))?;
    let oid = ask(connection.run(async |client| find(client, topic).await).await)??;
    let installed = ask(connection.run(sql::found).await)?;
    let schema = match sql::usable(installed.clone()) {
        Ok(installed) => installed.schema,
        Err(why) if !may || installed.as_ref().is_some_and(|it| it.untrusted.is_some()) => {
            return Err(Refusal::new(Code::NotConfigured, why));
        }
        Err(_) => {
            let options = as_it_is(installed);
            let script = sql::print(&options);
            let done = connection.run(async |client| install(client, &script).await).await;
            let explain = |error| refuse(&sql::explain(error, &options.schema));
            done.ok_or_else(silence)?.map_err(explain)?;
            tracing::info!(schema = options.schema, version = sql::VERSION, "installed the outbox");
            options.schema
        }
    };
    let recorded = async |client: &Client| relations::load(client, &[oid]).await;
    let known = ask(connection.run(recorded).await)?.pop().map(|(_, known)| known);
    let flaw = known.as_ref().and_then(|known| known.flaw.clone());
    if known.is_some_and(|known| known.flows && !(may && known.mendable)) {
        return Ok(oid);
    }
    if !may {
        let flaw = flaw.unwrap_or_else(|| "it is gone".to_owned());
        return Err(unrecorded(topic, &flaw, &schema));
    }
    for attempt in 1..=ATTEMPTS {
        let enabled = async |client: &Client| enable(client, oid, &schema).await;
        let outcome = connection.run(enabled).await.ok_or_else(silence)?;
        match outcome {
            Ok(()) => return is_mended(ask(connection.run(recorded).await)?, topic, &schema),
            Err(error) if is_locked(&error) && attempt < ATTEMPTS => {
                // Lets the writers through that waited behind us.
                sleep(Duration::from_millis(200) * attempt).await;
            }
            Err(error) => return Err(refuse(&sql::explain(error, &schema))),
        }
    }
    unreachable!("the last attempt returns")
}

/// What could be switched on may be off in a part that belongs to somebody else.
fn is_mended(known: Vec<(u32, Known)>, topic: &Topic, schema: &str) -> Result<u32, Refusal> {
    match known.into_iter().next() {
        Some((oid, known)) => match known.flaw {
            None => Ok(oid),
            Some(flaw) => Err(unrecorded(topic, &flaw, schema)),
        },
        None => Err(Refusal::new(Code::NotFound, format!("there is no table {}", topic.name()))),
    }
}

fn unrecorded(topic: &Topic, flaw: &str, schema: &str) -> Refusal {
    let (name, schema) = (topic.name(), quote(schema));
    let (table_schema, table) = name.split_once('.').unwrap_or(("", name));
    let literal = |part: &str| format!("'{}'", part.replace('\'', "''"));
    let message = format!(
        "changes of {name} are not all recorded, because {flaw}: as its owner, run \
         SELECT {schema}.enable_realtime({}, {})",
        literal(table_schema),
        literal(table)
    );
    Refusal::new(Code::NotConfigured, message)
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// An upgrade leaves what was chosen.
fn as_it_is(installed: Option<Installation>) -> InstallOptions {
    let fresh = InstallOptions::default();
    match installed {
        Some(Installation { schema, retention, .. }) => {
            InstallOptions { schema, retention, ..fresh }
        }
        None => fresh,
    }
}

async fn find(
    client: &Client,
    topic: &Topic,
) -> Result<Result<u32, Refusal>, tokio_postgres::Error> {
    // The first dot of a topic ends the schema, so that nothing else has the same name.
    let (schema, table) = topic.name().split_once('.').expect("a table is named schema.table");
    let rows = client.query(TABLE, &[&schema, &table]).await?;
    Ok(judge(&rows, topic.name()))
}

fn judge(rows: &[Row], name: &str) -> Result<u32, Refusal> {
    let row = match rows {
        [row] => row,
        [] => return Err(Refusal::new(Code::NotFound, format!("there is no table {name}"))),
        _ => {
            let message = format!("{name} is the name of more than one table");
            return Err(Refusal::new(Code::BadTopic, message));
        }
    };
    let kind: String = row.get(3);
    if kind != "r" && kind != "p" {
        let message = format!("{name} is not an ordinary table, so its rows cannot be followed");
        return Err(Refusal::new(Code::BadTopic, message));
    }
    if let Some(root) = row.get::<_, Option<String>>(4) {
        let message = format!("{name} is a partition: its changes are told as those of {root}");
        return Err(Refusal::new(Code::BadTopic, message));
    }
    if !row.get::<_, bool>(5) {
        let message = format!("{name} has no columns, so there is nothing to tell of its rows");
        return Err(Refusal::new(Code::BadTopic, message));
    }
    Ok(row.get(0))
}

async fn install(client: &Client, script: &str) -> Result<(), tokio_postgres::Error> {
    let done = client.batch_execute(script).await;
    if done.is_err() {
        let _ = client.batch_execute("ROLLBACK").await;
    }
    done
}

pub(super) async fn enable(
    client: &Client,
    oid: u32,
    schema: &str,
) -> Result<(), tokio_postgres::Error> {
    let schema = quote(schema);
    let sql = format!(
        "SELECT {schema}.enable_realtime(n.nspname::pg_catalog.text, c.relname::pg_catalog.text) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.oid = {oid}"
    );
    let begin = format!("BEGIN; SET LOCAL lock_timeout = '{LOCK_PATIENCE}'");
    client.batch_execute(&begin).await?;
    match client.batch_execute(&sql).await {
        Ok(()) => client.batch_execute("COMMIT").await,
        Err(error) => {
            let _ = client.batch_execute("ROLLBACK").await;
            Err(error)
        }
    }
}

fn is_locked(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code() == "55P03")
}

fn ask<T>(answer: Option<Result<T, tokio_postgres::Error>>) -> Result<T, Refusal> {
    answer.ok_or_else(silence)?.map_err(|error| refuse(&sql::explain(error, "public")))
}

fn silence() -> Refusal {
    unavailable("PostgreSQL does not answer in time")
}

fn unavailable(why: &str) -> Refusal {
    let message = format!("changes of tables cannot be followed at the moment: {why}");
    Refusal::new(Code::Unavailable, message)
}

fn refuse(error: &SqlError) -> Refusal {
    tracing::warn!(error = error as &dyn std::error::Error, "a table cannot be followed");
    match error {
        error if error.is_permanent() => Refusal::new(Code::NotConfigured, error.to_string()),
        _ => unavailable(&error.to_string()),
    }
}
