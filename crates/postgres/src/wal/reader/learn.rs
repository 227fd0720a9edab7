//! Asks the catalog what the log does not tell about a table: its key, and how its types are
//! turned to JSON.

use tidewire_protocol::change::{Column, Relation};
use tokio_postgres::Client;

use super::{Ended, Reader, unless};
use crate::notify::Backoff;
use crate::values::Catalog;
use crate::wal::assembly::{Description, Flow, Known};

/// The names of the columns of a table's primary key, without those that it only includes.
const KEY: &str = "\
SELECT a.attname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a
    ON a.attrelid = i.indrelid
    AND a.attnum = ANY ((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts - 1])
WHERE i.indrelid = $1 AND i.indisprimary";

impl Reader {
    /// Makes a table known. While the catalog cannot be asked it is tried again: the log waits.
    pub(super) async fn learn(&mut self, description: Description) -> Result<(), Ended> {
        let mut backoff = Backoff::default();
        let stop = self.stop.clone();
        loop {
            let asked = self.asked(&description);
            let Some(outcome) = unless(&stop, asked).await else { return Err(Ended::Stopped) };
            match outcome {
                Ok(key) => {
                    let known = self.known(description, &key);
                    self.assembly.know(known);
                    return Ok(());
                }
                Err(problem) => {
                    tracing::warn!(problem, "the types of a table cannot be asked, trying again");
                }
            }
            if unless(&stop, backoff.pause()).await.is_none() {
                return Err(Ended::Stopped);
            }
        }
    }

    /// Reads types that are not known; gives the primary key when the replica identity is not it.
    async fn asked(&self, description: &Description) -> Result<Vec<String>, String> {
        let oids = description.columns.iter().map(|column| column.type_oid);
        let unknown = self.catalog.unknown(oids);
        if unknown.is_empty() && description.is_by_key() {
            return Ok(Vec::new());
        }
        let pooled = self.shared.pool.get().await.map_err(|error| error.to_string())?;
        let ask = |client| ask(client, &self.catalog, description, &unknown);
        match pooled.run(ask).await {
            Some(Ok(key)) => Ok(key),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("no answer in time".to_owned()),
        }
    }

    fn known(&self, description: Description, primary: &[String]) -> Known {
        let (mut columns, mut shapes) = (Vec::new(), Vec::new());
        for (column, key) in description.columns.iter().zip(description.key(primary)) {
            let kind = self.catalog.get(column.type_oid).expect("it was read a moment ago");
            columns.push(Column {
                name: column.name.as_str().into(),
                type_oid: column.type_oid,
                type_name: kind.name,
                key,
            });
            shapes.push(kind.shape);
        }
        let relation = Relation {
            oid: description.oid,
            schema: description.schema.as_str().into(),
            table: description.table.as_str().into(),
            columns,
        };
        let flow = match description.topic() {
            Some(topic) => self.shared.tables().flow(&topic),
            None => Flow::default(),
        };
        Known::new(description, relation, flow, shapes)
    }
}

async fn ask(
    client: &Client,
    catalog: &Catalog,
    description: &Description,
    unknown: &[u32],
) -> Result<Vec<String>, tokio_postgres::Error> {
    if !unknown.is_empty() {
        catalog.load(client, unknown).await?;
    }
    if description.is_by_key() {
        return Ok(Vec::new());
    }
    let rows = client.query(KEY, &[&description.oid]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
