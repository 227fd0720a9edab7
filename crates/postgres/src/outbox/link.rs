//! The reader's one connection: polls, locks, and notifications that wake it.
//!
//! It is never in a transaction for longer than a statement, so it holds up neither vacuum nor
//! the notification queue.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Row, RowStream, Statement};

use crate::connect::{ConnectError, ErrorKind, Target, Wire};

/// First half of the keys of our advisory locks: `tide`. The SQL scripts have the same numbers.
const LOCK_CLASS: i32 = 0x7469_6465;

/// Held by a reader that sleeps.
const SLEEP_LOCK: i32 = 1;

/// Held by the one reader of a database.
const READER_LOCK: i32 = 2;

/// How long an answer may take before the connection is given up. Sorting what a transaction of
/// some million rows wrote takes many seconds; a dead connection is noticed in this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// The planner knows nothing of a table that is emptied all the time, so it is told: the index,
/// always, with the snapshot of the very poll. No limit of time: a poll may bring millions of rows.
const SESSION: &str = "\
SET statement_timeout = 0; SET lock_timeout = '5s'; SET jit = off; SET enable_seqscan = off; \
SET enable_bitmapscan = off; SET plan_cache_mode = force_custom_plan; LISTEN tidewire";

/// What became visible since a snapshot ($1), of the tables $2 with their rows.
///
/// The first row is the snapshot that this query saw. Then come transactions in an order in which
/// they may have committed: when one waited for another, what it wrote last has the higher id.
/// The transaction $3, of which a poll that broke off told a part, comes first of all.
/// Partitions are told as the table they are part of.
const POLL: &str = "\
WITH seen AS MATERIALIZED (SELECT pg_current_snapshot() AS now), news AS (
  SELECT o.* FROM seen, tidewire.outbox o
  WHERE o.xid >= pg_snapshot_xmax($1::text::pg_snapshot) AND o.xid < pg_snapshot_xmax(seen.now)
  UNION ALL
  SELECT o.* FROM tidewire.outbox o
  WHERE o.xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
)
SELECT seen.now::text AS snapshot, NULL::int8 AS id, NULL::int8 AS xid, NULL::int8 AS at,
  NULL::\"char\" AS op, NULL::oid AS root, NULL::bool AS wanted, NULL::text AS rec,
  NULL::text AS old, NULL::text AS topic, NULL::text AS event, NULL::text AS payload,
  NULL::int8 AS place
FROM seen
UNION ALL
SELECT NULL, n.id, n.xid::text::int8,
  (extract(epoch FROM max(n.at) OVER written) * 1000000)::int8, n.op, n.root,
  n.root = ANY ($2), CASE WHEN n.root = ANY ($2) THEN n.rec::text END,
  CASE WHEN n.root = ANY ($2) THEN n.old::text END, n.topic, n.event, n.payload,
  CASE WHEN n.xid::text::int8 = $3 THEN 0 ELSE max(n.id) OVER written END
FROM (SELECT o.*, coalesce(pg_partition_root(o.rel)::oid, o.rel) AS root FROM news o) n
WINDOW written AS (PARTITION BY n.xid)
ORDER BY place NULLS FIRST, id";

/// Removes rows that were told (visible in $1) a while ago, and rows from a future that belongs
/// to another cluster, as a restored dump has them. Only the oldest are looked at.
const PRUNE: &str = "\
DELETE FROM tidewire.outbox WHERE id = ANY (ARRAY(
  SELECT o.id FROM (SELECT id, xid, at FROM tidewire.outbox ORDER BY id LIMIT 10000) o
  WHERE (o.at < clock_timestamp() - interval '10 seconds'
      AND pg_visible_in_snapshot(o.xid, $1::text::pg_snapshot))
    OR o.xid >= pg_snapshot_xmax(pg_current_snapshot())))";

/// Rows that one [`Link::prune`] looks at; as many removed means that there are more.
pub(super) const PRUNED_AT_ONCE: u64 = 10_000;

/// Takes over the outbox. The old row says whether anybody else read meanwhile.
const TAKE_OVER: &str = "\
WITH before AS (SELECT epoch, reader FROM tidewire.outbox_epoch), now AS (
  INSERT INTO tidewire.outbox_epoch (epoch, reader)
  VALUES (gen_random_uuid(), $1::text::uuid)
  ON CONFLICT (only_row) DO UPDATE SET reader = EXCLUDED.reader RETURNING epoch)
SELECT now.epoch::text, (before.reader = $1::text::uuid) IS TRUE AS mine,
  pg_current_snapshot()::text, current_setting('max_prepared_transactions')::int4 = 0,
  (SELECT last_value + is_called::int4 FROM tidewire.outbox_losses)
FROM now LEFT JOIN before ON true";

/// What is there when a reader takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scene {
    /// Which outbox: a new one after a crash, and another in another cluster.
    pub(super) epoch: String,
    /// Nobody else read since this reader last did.
    pub(super) mine: bool,
    /// What is visible now.
    pub(super) snapshot: String,
    /// Writers can notify: no transaction of theirs may be prepared, which excludes it.
    pub(super) may_sleep: bool,
    /// Moves when writers removed changes that waited too long.
    pub(super) losses: i64,
}

/// The reader's connection.
pub(super) struct Link {
    client: Client,
    notified: Arc<Notify>,
    task: JoinHandle<()>,
    place: String,
}

impl Link {
    pub(super) async fn open(target: &Target) -> Result<Self, ConnectError> {
        let (client, wire) = target.connect().await?;
        let notified = Arc::new(Notify::new());
        let task = tokio::spawn(attend(wire, Arc::clone(&notified)));
        let link = Self { client, notified, task, place: target.to_string() };
        link.answer(link.client.batch_execute(SESSION)).await?;
        Ok(link)
    }

    /// For statements of others, between polls.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Becomes the one reader of the database.
    pub(super) async fn become_reader(&self) -> Result<bool, ConnectError> {
        self.lock("pg_try_advisory_lock", READER_LOCK).await
    }

    /// Tells writers to notify; not when one is at work that will not.
    pub(super) async fn sleep(&self) -> Result<bool, ConnectError> {
        self.lock("pg_try_advisory_lock", SLEEP_LOCK).await
    }

    /// Tells writers not to notify.
    pub(super) async fn rise(&self) -> Result<(), ConnectError> {
        self.lock("pg_advisory_unlock", SLEEP_LOCK).await.map(drop)
    }

    async fn lock(&self, what: &str, key: i32) -> Result<bool, ConnectError> {
        let sql = format!("SELECT {what}({LOCK_CLASS}, {key})");
        Ok(self.answer(self.client.query_one(&sql, &[])).await?.get(0))
    }

    /// Takes over the outbox in the name of `reader`, a UUID.
    pub(super) async fn take_over(&self, reader: &str) -> Result<Scene, ConnectError> {
        let row = self.answer(self.client.query_one(TAKE_OVER, &[&reader])).await?;
        let cluster = self.cluster().await?;
        let losses: i64 = row.get(4);
        Ok(Scene {
            epoch: format!("{}/{cluster}", row.get::<_, String>(0)),
            mine: row.get(1),
            snapshot: row.get(2),
            may_sleep: row.get(3),
            losses,
        })
    }

    /// Which cluster this is; a dump restored into another brings the epoch along. Some services
    /// do not let us ask; then all are taken for one.
    async fn cluster(&self) -> Result<String, ConnectError> {
        const SQL: &str = "SELECT system_identifier::text FROM pg_control_system()";
        let asked = async {
            match self.client.query_one(SQL, &[]).await {
                Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                    Ok(String::new())
                }
                answer => Ok(answer?.get(0)),
            }
        };
        self.answer(asked).await
    }

    /// Who reads in our place, for a message.
    pub(super) async fn other_reader(&self) -> Option<i32> {
        let sql = format!(
            "SELECT pid FROM pg_catalog.pg_locks WHERE locktype = 'advisory' \
             AND classid = {LOCK_CLASS} AND objid = {READER_LOCK} AND objsubid = 2 AND granted"
        );
        self.answer(self.client.query_opt(&sql, &[])).await.ok()??.get(0)
    }

    pub(super) async fn prepare_poll(&self) -> Result<Statement, ConnectError> {
        self.answer(self.client.prepare(POLL)).await
    }

    /// What became visible since `snapshot`. The server waits while the rows are not taken.
    pub(super) async fn poll(
        &self,
        statement: &Statement,
        snapshot: &str,
        tables: &[u32],
        torn: u64,
    ) -> Result<RowStream, ConnectError> {
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&snapshot, &tables, &torn.cast_signed()];
        self.answer(self.client.query_raw(statement, parameters)).await
    }

    /// Removes rows that were told, and says how many.
    pub(super) async fn prune(&self, snapshot: &str) -> Result<u64, ConnectError> {
        self.answer(self.client.execute(PRUNE, &[&snapshot])).await
    }

    /// Waits until a writer notifies. Cancel safe.
    pub(super) async fn notified(&self) {
        self.notified.notified().await;
    }

    /// An answer, within the time that one may take.
    pub(super) async fn answer<T>(
        &self,
        asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, ConnectError> {
        match timeout(PATIENCE, asked).await {
            Ok(answer) => answer.map_err(|error| ConnectError::explain(error, &self.place)),
            Err(_) => Err(ConnectError::new(
                ErrorKind::Unreachable,
                format!("PostgreSQL at {}: no answer within {} s", self.place, PATIENCE.as_secs()),
            )),
        }
    }

    /// The next row of a poll.
    pub(super) async fn next_row(
        &self,
        rows: &mut std::pin::Pin<&mut RowStream>,
    ) -> Result<Option<Row>, ConnectError> {
        use futures_util::TryStreamExt as _;
        self.answer(rows.try_next()).await
    }

    /// Ends the session politely, so that its locks are free when this returns.
    pub(super) async fn close(self) {
        /// Good manners are worth a moment, not more.
        const MOMENT: Duration = Duration::from_millis(500);
        let Self { client, mut task, .. } = self;
        drop(client);
        if timeout(MOMENT, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// Moves the connection's messages until it ends.
async fn attend(mut wire: Wire, notified: Arc<Notify>) {
    loop {
        match std::future::poll_fn(|cx| wire.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notification(_))) => notified.notify_one(),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(%error, "the connection that reads the outbox ended");
                return;
            }
            None => return,
        }
    }
}
