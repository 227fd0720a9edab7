//! Asks the catalog what the log does not tell about a table: its key, of what it is a partition, and
//! how its types are turned to JSON.

use std::time::Duration;

use tidewire_protocol::change::{Column, Relation};
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{Ended, Reader, unless};
use crate::naming::topic;
use crate::notify::Backoff;
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

/// The schema of a table.
const SCHEMA: &str = "\
SELECT n.nspname::text FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1";

/// What the catalog says about a relation.
struct Said {
    /// The primary key, where the replica identity is not it.
    key: Vec<String>,
    /// The table that it is a partition of, if it is told as that.
    whole: Option<Whole>,
    /// The schema it is in now.
    schema: Option<String>,
}

impl Reader {
    /// Makes a table known. While the catalog cannot be asked it is tried again: the log waits.
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
                    let at = self.assembly.commit_place().map_or(Lsn(u64::MAX), Lsn);
                    self.shared.tables().meet(known.relation.oid, known.topic.as_ref(), at);
                    self.assembly.know(known);
                    return Ok(());
                }
                Err(problem) => wait(&stop, &mut backoff, &problem).await?,
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
                Err(problem) => wait(&stop, &mut backoff, &problem).await?,
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
                Err(problem) => wait(&stop, &mut backoff, &problem).await?,
            }
        }
    }

    async fn asked_key(&self) -> Result<Option<String>, String> {
        let pooled = self.shared.pool.get().await.map_err(|error| error.to_string())?;
        said(pooled.run(sql::message_key).await)
    }

    async fn asked_parts(&self, tables: &[u32]) -> Result<Parts, String> {
        let pooled = self.shared.pool.get().await.map_err(|error| error.to_string())?;
        said(pooled.run(|client| partitions::with_rows(client, tables)).await)
    }

    /// Reads types that are not known, and what else the log does not say.
    async fn asked(&self, description: &Description) -> Result<Said, String> {
        let oids = description.columns.iter().map(|column| column.type_oid);
        let unknown = self.catalog.unknown(oids);
        let remembered = self.shared.partitions().table_of(description.oid);
        let publication = self.shared.publication.as_str();
        let pooled = self.shared.pool.get().await.map_err(|error| error.to_string())?;
        let ask =
            |client| ask(client, &self.catalog, &unknown, publication, description, remembered);
        said(pooled.run(ask).await)
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

fn said<T>(outcome: Option<Result<T, tokio_postgres::Error>>) -> Result<T, String> {
    match outcome {
        Some(Ok(said)) => Ok(said),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("no answer in time".to_owned()),
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
    let schema = client.query_opt(SCHEMA, &[&description.oid]).await?.map(|row| row.get(0));
    if description.is_by_key() || whole.is_some() {
        return Ok(Said { key: Vec::new(), whole, schema });
    }
    let rows = client.query(KEY, &[&description.oid]).await?;
    Ok(Said { key: rows.iter().map(|row| row.get(0)).collect(), whole, schema })
}

async fn wait(stop: &CancellationToken, backoff: &mut Backoff, problem: &str) -> Result<(), Ended> {
    tracing::warn!(problem, "what a table is like cannot be asked, trying again");
    unless(stop, backoff.pause()).await.ok_or(Ended::Stopped)
}
