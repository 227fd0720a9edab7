//! Asks the catalog what the log does not tell about a table: its key, and how its types are
//! turned to JSON.

use tidewire_protocol::change::{Column, Relation};
use tokio_postgres::Client;

use super::{Ended, Reader, unless};
use crate::notify::Backoff;
use crate::values::Catalog;
use crate::wal::assembly::{Description, Flow, Known};

/// The names of the columns of a table's primary key.
const KEY: &str = "\
SELECT a.attname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_attribute a
    ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
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
                    let known = self.known(description, key.as_deref());
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

    /// Reads types that are not known; gives the key when it is not the replica identity.
    async fn asked(&self, description: &Description) -> Result<Option<Vec<String>>, String> {
        let oids = description.columns.iter().map(|column| column.type_oid);
        let unknown = self.catalog.unknown(oids);
        if unknown.is_empty() && description.by_key {
            return Ok(None);
        }
        let pooled = self.shared.pool.get().await.map_err(|error| error.to_string())?;
        let ask = |client| ask(client, &self.catalog, description, &unknown);
        match pooled.run(ask).await {
            Some(Ok(key)) => Ok(key),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("no answer in time".to_owned()),
        }
    }

    fn known(&self, description: Description, key: Option<&[String]>) -> Known {
        let (mut columns, mut shapes) = (Vec::new(), Vec::new());
        for column in &description.columns {
            let kind = self.catalog.get(column.type_oid).expect("it was read a moment ago");
            columns.push(Column {
                name: column.name.as_str().into(),
                type_oid: column.type_oid,
                type_name: kind.name,
                key: match key {
                    Some(key) => key.contains(&column.name),
                    None => column.identity,
                },
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
) -> Result<Option<Vec<String>>, tokio_postgres::Error> {
    if !unknown.is_empty() {
        catalog.load(client, unknown).await?;
    }
    if description.by_key {
        return Ok(None);
    }
    let rows = client.query(KEY, &[&description.oid]).await?;
    Ok(Some(rows.iter().map(|row| row.get(0)).collect()))
}
