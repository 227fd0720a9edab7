//! Rows read through a cursor, in pages, up to a limit.
//!
//! Pages begin small and grow by what rows turn out to weigh, so that neither a large row nor many
//! of them are read far beyond the limit.

use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tidewire_protocol::change::{Row, RowBuilder, RowTooLarge, Value};
use tidewire_protocol::{Code, Refusal};
use tokio_postgres::Client;

use super::SnapshotLimits;
use super::condition::Condition;
use crate::prepare::{Plan, TableColumn, quoted};

/// Rows of the first page, whose weight nobody knows.
const FIRST_PAGE: usize = 32;

/// Most rows in a page.
const MOST: usize = 2_000;

/// What rows of a plan are read from. The parts of a table by inheritance have changes of their
/// own, those of a partitioned one have not.
pub(super) fn from(plan: &Plan) -> String {
    let only = if plan.table.partitioned { "" } else { "ONLY " };
    format!("{only}{}", plan.table.sql())
}

/// A query for rows.
pub(super) struct Query<'p> {
    sql: String,
    condition: Condition,
    /// For each column that changes tell, whether it is read.
    wanted: Vec<bool>,
    table: &'p str,
    limits: SnapshotLimits,
}

impl<'p> Query<'p> {
    pub(super) fn new(
        plan: &'p Plan,
        columns: &[Arc<str>],
        condition: Condition,
        limits: SnapshotLimits,
    ) -> Self {
        let table = &plan.table;
        let told: Vec<&TableColumn> = table.columns.iter().filter(|c| !c.generated).collect();
        let is_wanted = |column: &&TableColumn| {
            columns.is_empty() || column.key_place.is_some() || columns.contains(&column.name)
        };
        let wanted: Vec<bool> = told.iter().map(is_wanted).collect();
        let values = told.iter().zip(&wanted).filter(|(_, wanted)| **wanted);
        let values = values.map(|(column, _)| {
            format!("pg_catalog.to_jsonb({})::pg_catalog.text", quoted(&column.name))
        });
        let values: Vec<String> = values.collect();
        let key: Vec<String> = table.key().iter().map(|column| quoted(&column.name)).collect();
        let order = match key.is_empty() {
            true => String::new(),
            false => format!(" ORDER BY {}", key.join(", ")),
        };
        let sql = format!(
            "DECLARE rows NO SCROLL CURSOR FOR SELECT {} FROM {}{}{order} LIMIT {}",
            values.join(", "),
            from(plan),
            condition.sql(),
            limits.rows.saturating_add(1),
        );
        Self { sql, condition, wanted, table: &table.relation.table, limits }
    }

    /// Reads the rows; the inner error when there are too many.
    pub(super) async fn run(
        &self,
        client: &Client,
    ) -> Result<Result<Vec<Row>, Refusal>, tokio_postgres::Error> {
        client.query_typed(&self.sql, &self.condition.parameters()).await?;
        let builder = RowBuilder::at_most(self.limits.bytes);
        let mut read = Read { rows: Vec::new(), bytes: 0, builder };
        let mut page = FIRST_PAGE;
        loop {
            let before = read.rows.len();
            if !self.fetch(client, page, &mut read).await? {
                return Ok(Err(self.too_large()));
            }
            if read.rows.len() - before < page {
                return Ok(Ok(read.rows));
            }
            page = self.next_page(&read);
        }
    }

    /// Whether all is within the limits. A page that is not is left unread.
    async fn fetch(
        &self,
        client: &Client,
        page: usize,
        read: &mut Read,
    ) -> Result<bool, tokio_postgres::Error> {
        let no_parameters: [(String, tokio_postgres::types::Type); 0] = [];
        let fetch = format!("FETCH {page} FROM rows");
        let mut stream = pin!(client.query_typed_raw(&fetch, no_parameters).await?);
        while let Some(row) = stream.try_next().await? {
            let fits = read.push(&row, &self.wanted).is_ok();
            if !fits || read.rows.len() > self.limits.rows || read.bytes > self.limits.bytes {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// As many rows as the limit still has room for, if they weigh what rows weighed so far.
    fn next_page(&self, read: &Read) -> usize {
        let weight = (read.bytes / read.rows.len().max(1)).max(1);
        let room = self.limits.bytes.saturating_sub(read.bytes) / weight;
        (room + 1).min(2 * read.rows.len()).clamp(1, MOST)
    }

    fn too_large(&self) -> Refusal {
        let SnapshotLimits { rows, bytes, .. } = self.limits;
        let message = format!(
            "table {:?} has more than a snapshot may hold, {rows} rows or {bytes} bytes: narrow \
             the filter, name fewer columns, or subscribe without a snapshot",
            self.table
        );
        Refusal::new(Code::TooLarge, message)
    }
}

/// What was read.
struct Read {
    rows: Vec<Row>,
    bytes: usize,
    builder: RowBuilder,
}

impl Read {
    fn push(&mut self, row: &tokio_postgres::Row, wanted: &[bool]) -> Result<(), RowTooLarge> {
        let mut place = 0;
        for wanted in wanted {
            if !wanted {
                self.builder.push(Value::Absent);
                continue;
            }
            let text: Option<&str> = row.get(place);
            place += 1;
            self.builder.json(text.unwrap_or("null"));
        }
        let row = self.builder.finish()?;
        self.bytes += row.bytes();
        self.rows.push(row);
        Ok(())
    }
}
