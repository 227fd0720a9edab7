//! Asks the catalog what the log does not tell about a table: its key, of what it is a partition, and
//! how its types are turned to JSON.

use std::time::Duration;

use tidewire_protocol::change::{Column, Relation};
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{Ended, Reader, unless};
use crate::connect::{ConnectError, fails_again};
use crate::naming::topic;
use crate::notify::Backoff;
use crate::row_security::has_row_security;
use crate::sql;
use crate::values::{Catalog, TypeInfo};
use crate::wal::assembly::{Described, Description, Flow, Known, Parts};
use crate::wal::partitions::{self, Whole, whole};
use crate::wal::pgoutput::Lsn;

/// The names of the columns of a table's primary key, without those that it only includes.
const KEY: &str = "\
SELECT a.attname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a
    ON a.attrelid = i.indrelid
    AND a.attnum = ANY ((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1])
WHERE i.indrelid = $1 AND i.indisprimary";

/// The schema of a table, and whether it has row level security.
const SCHEMA: &str = concat!(
    "SELECT n.nspname::text, ",
    has_row_security!(),
    " FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1"
);

/// What the catalog says about a relation.
struct Said {
    /// The primary key, where the replica identity is not it.
    key: Vec<String>,
    /// The table that it is a partition of, if it is told as that.
    whole: Option<Whole>,
    /// The schema it is in now.
    schema: Option<String>,
    /// Whether it has row level security now: PostgreSQL describes a table anew before the first
    /// row that was written since that was switched on.
    secured: bool,
}

/// Why the catalog did not say.
struct Failure {
    problem: String,
    /// It would fail again however often it is asked.
    is_lasting: bool,
}

impl Reader {
    /// Makes a table known. While the catalog cannot be asked it is tried again: the log waits. What
    /// it can never say makes a gap of each of the table's changes.
    pub(super) async fn learn(&mut self, description: Description) -> Result<(), Ended> {
        let mut backoff = Backoff::default();
        let stop = self.stop.clone();
        loop {
            let asked = self.asked(&description);
            match unless(&stop, asked).await.ok_or(Ended::Stopped)? {
                Ok(said) => {
                    if let Some(whole) = &said.whole {
                        self.shared.partitions().meet(whole.oid, description.oid);
                    }
                    let known = self.known(description, &said);
                    if let (true, Some(topic)) = (said.secured, &known.topic)
                        && !self.options.bypass_row_security
                    {
                        self.shared.tables().let_go(topic, Instant::now());
                    }
                    let at = self.assembly.commit_place().map_or(Lsn(u64::MAX), Lsn);
                    self.shared.tables().meet(known.relation.oid, known.topic.as_ref(), at);
                    self.assembly.know(known);
                    return Ok(());
                }
                Err(Failure { problem, is_lasting: true }) => {
                    tracing::warn!(
                        schema = description.schema,
                        table = description.table,
                        problem,
                        "what a table is like cannot be read, so its changes are gaps"
                    );
                    let known = self.unreadable(description);
                    let at = self.assembly.commit_place().map_or(Lsn(u64::MAX), Lsn);
                    self.shared.tables().meet(known.relation.oid, known.topic.as_ref(), at);
                    self.assembly.know(known);
                    return Ok(());
                }
                Err(failure) => wait(&stop, &mut backoff, &failure.problem).await?,
            }
        }
    }

    /// Makes the partitions of tables known, in the same way.
    pub(super) async fn learn_parts(&mut self, tables: &[u32]) -> Result<(), Ended> {
        let mut backoff = Backoff::default();
        let stop = self.stop.clone();
        loop {
            let asked = self.asked_parts(tables);
            match unless(&stop, asked).await.ok_or(Ended::Stopped)? {
                Ok(parts) => {
                    self.assembly.know_parts(parts);
                    return Ok(());
                }
                Err(Failure { is_lasting: true, .. }) => {
                    // As if none were left: then it is a gap.
                    self.assembly.know_parts(Parts::default());
                    return Ok(());
                }
                Err(failure) => wait(&stop, &mut backoff, &failure.problem).await?,
            }
        }
    }

    /// Makes the key of messages known. Whoever writes messages with a wrong signature has it asked for
    /// once a second at most.
    pub(super) async fn learn_key(&mut self) -> Result<(), Ended> {
        const PAUSE: Duration = Duration::from_secs(1);
        let mut backoff = Backoff::default();
        let stop = self.stop.clone();
        loop {
            if let Some((asked, key)) = &self.key
                && asked.elapsed() < PAUSE
            {
                self.assembly.know_key(key.clone());
                return Ok(());
            }
            match unless(&stop, self.asked_key()).await.ok_or(Ended::Stopped)? {
                Ok(key) => self.key = Some((Instant::now(), key)),
                Err(Failure { problem, is_lasting: true }) => {
                    tracing::warn!(problem, "the key of messages cannot be read, so none is taken");
                    self.key = Some((Instant::now(), None));
                }
                Err(failure) => wait(&stop, &mut backoff, &failure.problem).await?,
            }
        }
    }

    async fn asked_key(&self) -> Result<Option<String>, Failure> {
        let pooled = self.shared.pool.get().await?;
        said(pooled.run(sql::message_key).await)
    }

    async fn asked_parts(&self, tables: &[u32]) -> Result<Parts, Failure> {
        let pooled = self.shared.pool.get().await?;
        said(pooled.run(|client| partitions::with_rows(client, tables)).await)
    }

    /// Reads types that are not known, and what else the log does not say.
    async fn asked(&self, description: &Description) -> Result<Said, Failure> {
        let oids = description.columns.iter().map(|column| column.type_oid);
        let unknown = self.catalog.unknown(oids);
        let remembered = self.shared.partitions().table_of(description.oid);
        let publication = self.shared.publication.as_str();
        let pooled = self.shared.pool.get().await?;
        let ask =
            |client| ask(client, &self.catalog, &unknown, publication, description, remembered);
        said(pooled.run(ask).await)
    }

    /// A table of which the catalog says nothing.
    fn unreadable(&self, description: Description) -> Known {
        let description = Description { is_readable: false, ..description };
        let (schema, table) = (description.schema.as_str(), description.table.as_str());
        let relation = Relation::new(description.oid, schema, table, Vec::new());
        let (topic, oid) = (topic(schema, table), description.oid);
        let flow = topic.map(|topic| self.shared.tables().flow(&topic, oid)).unwrap_or_default();
        Known::new(description, relation, flow, Vec::new())
    }

    fn known(&self, description: Description, said: &Said) -> Known {
        let shapes = description.columns.iter().map(|column| self.kind(column).shape).collect();
        let names = description.columns.iter().map(|column| column.name.as_str());
        let (keys, order) = match &said.whole {
            Some(whole) => (description.key_as_part(&whole.key), whole.order(names)),
            None => (description.key(&said.key), (0..description.columns.len()).collect()),
        };
        let column = |at: &usize| {
            let column = &description.columns[*at];
            let (name, type_name) = (column.name.as_str().into(), self.kind(column).name);
            Column { name, type_oid: column.type_oid, type_name, key: keys[*at] }
        };
        let columns = order.iter().map(column).collect();
        let (oid, schema, table) = match &said.whole {
            Some(whole) => (whole.oid, &whole.schema, &whole.table),
            // What the log says of it was not so any more after its schema was renamed.
            None if !self.names_schemas() => {
                let schema = said.schema.as_ref().unwrap_or(&description.schema);
                (description.oid, schema, &description.table)
            }
            None => (description.oid, &description.schema, &description.table),
        };
        let relation = Relation::new(oid, schema.as_str(), table.as_str(), columns);
        let flow = match topic(&relation.schema, &relation.table) {
            Some(topic) => self.shared.tables().flow(&topic, oid),
            None => Flow::default(),
        };
        Known::new(description, relation, flow, shapes).reordered(&order)
    }

    fn kind(&self, column: &Described) -> TypeInfo {
        self.catalog.get(column.type_oid).expect("it was read a moment ago")
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self { problem: error.to_string(), is_lasting: false }
    }
}

fn said<T>(outcome: Option<Result<T, tokio_postgres::Error>>) -> Result<T, Failure> {
    match outcome {
        Some(Ok(said)) => Ok(said),
        Some(Err(error)) => {
            let is_lasting = fails_again(&error);
            Err(Failure {
                problem: error
                    .as_db_error()
                    .map_or_else(|| error.to_string(), |said| said.message().to_owned()),
                is_lasting,
            })
        }
        None => Err(Failure { problem: "no answer in time".to_owned(), is_lasting: false }),
    }
}

async fn ask(
    client: &Client,
    catalog: &Catalog,
    unknown: &[u32],
    publication: &str,
    description: &Description,
    remembered: Option<u32>,
) -> Result<Said, tokio_postgres::Error> {
    if !unknown.is_empty() {
        catalog.load(client, unknown).await?;
    }
    let whole = whole(client, publication, description.oid, remembered).await?;
    let found = client.query_opt(SCHEMA, &[&description.oid]).await?;
    let secured = found.as_ref().is_some_and(|row| row.get(1));
    let schema = found.map(|row| row.get(0));
    if description.is_by_key() || whole.is_some() {
        return Ok(Said { key: Vec::new(), whole, schema, secured });
    }
    let rows = client.query(KEY, &[&description.oid]).await?;
    let key = rows.iter().map(|row| row.get(0)).collect();
    Ok(Said { key, whole, schema, secured })
}

async fn wait(stop: &CancellationToken, backoff: &mut Backoff, problem: &str) -> Result<(), Ended> {
    tracing::warn!(problem, "what a table is like cannot be asked, trying again");
    unless(stop, backoff.pause()).await.ok_or(Ended::Stopped)
}
