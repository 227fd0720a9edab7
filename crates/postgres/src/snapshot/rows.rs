//! Rows read through a cursor, in pages, up to a limit.
//!
//! Values come as PostgreSQL prints them, and their JSON is made by the code that makes it for the
//! write-ahead log: both tell the same, and no cast of a type runs, which may be anybody's function.
//!
//! Pages begin small and grow by what rows turn out to weigh, so that neither a large row nor many
//! of them are read far beyond the limit.

use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt;
use tidewire_protocol::change::{Row, RowBuilder, RowTooLarge, Value};
use tidewire_protocol::{Code, Refusal};
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::SnapshotLimits;
use super::condition::Condition;
use crate::prepare::{Plan, TableColumn, quoted};
use crate::values::{self, Catalog, Shape};

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
    /// For each column that changes tell, how its JSON is made, if it is read.
    wanted: Vec<Option<Arc<Shape>>>,
    table: &'p str,
    limits: SnapshotLimits,
}

impl<'p> Query<'p> {
    pub(super) fn new(
        plan: &'p Plan,
        columns: &[Arc<str>],
        limits: SnapshotLimits,
        catalog: &Catalog,
    ) -> Self {
        let condition = Condition::new(plan);
        let table = &plan.table;
        let is_wanted = |column: &TableColumn| {
            columns.is_empty() || column.key_place.is_some() || columns.contains(&column.name)
        };
        let shape = |column: &TableColumn| {
            let known = catalog.get(column.type_oid).map(|known| known.shape);
            is_wanted(column).then(|| known.unwrap_or_else(|| Arc::new(Shape::Text)))
        };
        let told = || table.columns.iter().filter(|column| !column.generated);
        let wanted = told().map(shape).collect();
        let values = told().filter(|column| is_wanted(column)).map(|column| quoted(&column.name));
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
        // By the simple protocol, in which values are texts.
        let fetch = format!("FETCH {page} FROM rows");
        let mut stream = pin!(client.simple_query_raw(&fetch).await?);
        while let Some(message) = stream.try_next().await? {
            let SimpleQueryMessage::Row(row) = message else { continue };
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
    fn push(
        &mut self,
        row: &SimpleQueryRow,
        wanted: &[Option<Arc<Shape>>],
    ) -> Result<(), RowTooLarge> {
        let mut place = 0;
        for shape in wanted {
            let Some(shape) = shape else {
                self.builder.push(Value::Absent);
                continue;
            };
            // Only a database in SQL_ASCII can hold anything that is not UTF-8.
            let text = row.try_get(place).unwrap_or(Some("\u{fffd}"));
            place += 1;
            match text {
                None => self.builder.json("null"),
                Some(text) => self.builder.write(|out| write_value(shape, text, out)),
            }
        }
        let row = self.builder.finish()?;
        self.bytes += row.bytes();
        self.rows.push(row);
        Ok(())
    }
}

/// A value that does not have the shape of its type, which was altered a moment ago, is told as a
/// string.
fn write_value(shape: &Shape, text: &str, out: &mut String) {
    let start = out.len();
    if values::to_json(shape, text, out).is_err() {
        out.truncate(start);
        values::quote(text, out);
    }
}
