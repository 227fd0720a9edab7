//! The rows of a table as they are now, of those that a filter admits.
//!
//! One REPEATABLE READ transaction reads which transactions it sees and then the rows, so that
//! afterwards each change can be told apart: in the rows already, or still to come. The table is
//! locked against alteration first, since rows of a table that is rewritten vanish for a snapshot
//! that is older.
//!
//! Many listeners that ask the same at the same time share one query. A query that has begun is
//! never shared with somebody who asks later: it may lack what was committed, and published,
//! before the later one began to listen.

mod condition;
mod rows;

use std::sync::Arc;
use std::time::Duration;

use tidewire::TableRows;
use tidewire_protocol::filter::Filter;
use tidewire_protocol::{Code, Interest, Refusal, Topic};
use tokio_postgres::Client;

use crate::connect::{Pool, Target};
use crate::prepare::{FIRST_NORMAL_OID, Flights, Plan, Preparer, Table, describe, transaction};
use crate::values::Catalog;

/// Connections that read rows at the same time; each keeps a core of the database busy.
const POOL_SIZE: usize = 4;

/// How long to wait for a connection. Behind thousands of others the turn comes late, but a client
/// still waits longer than this only in vain.
const PATIENCE: Duration = Duration::from_secs(10);

/// Times that a snapshot is begun anew because the table was altered since the filter was made
/// ready.
const ATTEMPTS: usize = 3;

/// How large a snapshot may be.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotLimits {
    /// Rows; 10,000 by default.
    pub rows: usize,
    /// Bytes of values as JSON; 16 MiB by default.
    pub bytes: usize,
    /// Time for the whole of it; 15 seconds by default.
    pub time: Duration,
}

impl Default for SnapshotLimits {
    fn default() -> Self {
        Self { rows: 10_000, bytes: 16 << 20, time: Duration::from_secs(15) }
    }
}

/// Reads rows of tables; cheap to clone.
#[derive(Clone)]
pub struct Snapshots(Arc<Inner>);

struct Inner {
    pool: Pool,
    preparer: Preparer,
    limits: SnapshotLimits,
    flights: Flights<Asked, TableRows>,
    catalog: Catalog,
}

/// What is asked; equal ones are answered together.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Asked {
    topic: Topic,
    columns: Vec<Arc<str>>,
    filter: Option<Arc<str>>,
    limit: Option<Arc<Filter>>,
}

impl Snapshots {
    /// Will read from the database at `target`, with filters made ready by `preparer`; does not
    /// connect before it must.
    pub fn new(target: &Target, preparer: Preparer, limits: SnapshotLimits) -> Self {
        let pool = Pool::new(target, POOL_SIZE, PATIENCE, limits.time);
        Self(Arc::new(Inner {
            pool,
            preparer,
            limits,
            flights: Flights::default(),
            catalog: Catalog::default(),
        }))
    }

    /// The rows as they are at some moment after this was called, in the order of the primary key.
    ///
    /// Columns that are not wanted are [`Absent`](tidewire_protocol::change::Value::Absent), but
    /// for those of the key. Dropping the future gives up waiting.
    ///
    /// # Errors
    /// As [`Preparer::prepare`], and [`Code::TooLarge`] when there are more rows or bytes than a
    /// snapshot may have.
    pub async fn snapshot(&self, topic: &Topic, interest: &Interest) -> Result<TableRows, Refusal> {
        let mut columns = interest.columns.clone();
        columns.sort_unstable();
        columns.dedup();
        let (filter, limit) = (interest.filter.clone(), interest.limit.clone());
        let asked = Asked { topic: topic.clone(), columns, filter, limit };
        let inner = Arc::clone(&self.0);
        let work = |asked: Asked| async move { inner.read(&asked).await };
        let rows = self.0.flights.join(asked, work).await;
        rows.map_err(|refusal| refusal.about(topic))
    }
}

impl Inner {
    async fn read(&self, asked: &Asked) -> Result<TableRows, Refusal> {
        let Asked { topic, columns, filter, limit } = asked;
        let (columns_wanted, filter, limit) = (columns.clone(), filter.clone(), limit.clone());
        let interest = Interest { columns: columns_wanted, filter, limit, operations: Vec::new() };
        for _ in 0..ATTEMPTS {
            let plan = self.preparer.plan(topic, &interest).await?;
            match self.read_planned(topic, columns, &plan).await? {
                Some(rows) => return Ok(rows),
                None => self.preparer.forget(topic),
            }
        }
        let message = format!("table {} is being altered again and again", topic.name());
        Err(Refusal::new(Code::Unavailable, message))
    }

    /// Reads types that are not known, and all that are not PostgreSQL's own: they may have been
    /// altered.
    async fn learn_types(
        &self,
        client: &Client,
        table: &Table,
    ) -> Result<(), tokio_postgres::Error> {
        let types = || table.columns.iter().map(|column| column.type_oid);
        let mut wanted = self.catalog.unknown(types());
        wanted.extend(types().filter(|oid| *oid >= FIRST_NORMAL_OID));
        match wanted.is_empty() {
            true => Ok(()),
            false => self.catalog.load(client, &wanted).await,
        }
    }

    /// `None` when the table is not as it was when the plan was made.
    async fn read_planned(
        &self,
        topic: &Topic,
        columns: &[Arc<str>],
        plan: &Plan,
    ) -> Result<Option<TableRows>, Refusal> {
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE {} IN ACCESS SHARE MODE",
            rows::from(plan)
        );
        transaction(&self.pool, &begin, async |client: &Client| {
            let seen: String =
                client.query_typed("SELECT pg_catalog.pg_current_snapshot()::text", &[]).await?[0]
                    .get(0);
            let seen = seen.parse().expect("pg_current_snapshot prints a snapshot");
            let now = match describe(client, topic).await? {
                Ok(now) => now,
                Err(refusal) => return Ok(Err(refusal)),
            };
            if now != *plan.table {
                return Ok(Ok(None));
            }
            self.learn_types(client, &plan.table).await?;
            let query = rows::Query::new(plan, columns, self.limits, &self.catalog);
            let relation = Arc::clone(&plan.table.relation);
            let rows = query.run(client).await?;
            Ok(rows.map(|rows| Some(TableRows { relation, rows: Arc::new(rows), seen })))
        })
        .await
    }
}
