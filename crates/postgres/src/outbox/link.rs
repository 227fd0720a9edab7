//! The reader's one connection: polls, locks, and notifications that wake it.
//!
//! It is never in a transaction for longer than a statement, so it holds up neither vacuum nor
//! the notification queue.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Row, RowStream, Statement};

use super::place::{Outbox, Scene};
use crate::connect::{ConnectError, ErrorKind, Target, Wire};
use crate::naming::naming_stamp;
use crate::sql;

/// Second halves of the keys of our advisory locks; the SQL scripts have the same numbers. The first
/// half is in `tidewire.settings`: any role can take an advisory lock whose key it knows, and
/// `pg_locks` shows all, so [`Link::evade`] puts another number there when a stranger does.
///
/// Held by a reader that sleeps.
const SLEEP_LOCK: i32 = 1;

/// Held by the one reader of a database.
const READER_LOCK: i32 = 2;

/// Locks of ours ($1: which) that this session does not hold, held by one who may not read the outbox,
/// or, a sleeping reader's, held by another at all.
const STRANGERS: &str = "\
SELECT a.pid, a.usename::pg_catalog.text
FROM tidewire.settings s JOIN pg_catalog.pg_locks l
  ON l.locktype = 'advisory' AND l.classid::pg_catalog.int8 = s.lock_key
  AND l.objid::pg_catalog.int8 = $1::pg_catalog.int4 AND l.objsubid = 2 AND l.granted
JOIN pg_catalog.pg_database d ON d.oid = l.database
JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE d.datname = pg_catalog.current_database() AND l.pid <> pg_catalog.pg_backend_pid()
  AND (l.objid = 2 OR l.mode = 'ExclusiveLock')
  AND NOT pg_catalog.has_table_privilege(a.usesysid, 'tidewire.outbox', 'DELETE')
LIMIT 1";

/// Takes other locks from now on, unless another reader saw to it.
const EVADE: &str = "\
UPDATE tidewire.settings SET lock_key =
  pg_catalog.hashtext(pg_catalog.gen_random_uuid()::pg_catalog.text) & 2147483647
WHERE lock_key = $1";

/// How long an answer may take before the connection is given up. Sorting what a transaction of
/// some million rows wrote takes many seconds; a dead connection is noticed in this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// The planner knows nothing of a table that is emptied all the time, so it is told: the index,
/// always, with the snapshot of the very poll. No limit of time: a poll may bring millions of rows.
const SESSION: &str = "\
SET statement_timeout = 0; SET lock_timeout = '5s'; SET default_transaction_read_only = off; \
SET jit = off; SET enable_seqscan = off; \
SET enable_bitmapscan = off; SET plan_cache_mode = force_custom_plan; LISTEN tidewire";

/// What became visible since a snapshot ($1), of the tables $2 with their rows; up to the snapshot
/// $3 where there is one, else up to now.
///
/// The first row is the snapshot up to which this reads, and the state of the outbox: a writer moves
/// `losses` before it removes anything, so what a poll does not see because it was removed is told
/// by the same poll. Then come transactions in an order in which they may have committed: when one
/// waited for another, what it wrote last has the higher id. The same two snapshots give the same
/// order. Partitions are told as the table they are part of.
///
/// The first row also says how the tables $4 are named, as this very poll sees it: whoever renames a
/// table waits for those who write it, so a row that is visible was written under one of the names up
/// to here.
///
/// A row's content comes with it ($5) unless it is larger than $6 bytes. PostgreSQL fails the whole
/// query for one content that it cannot print or convert; then the rows come without ($5 is false),
/// and the content of each is asked for by itself.
const POLL: &str = concat!(
    "\
SELECT snapshot, losses, file, id, xid, at, op, root, wanted, part,
  oids, schemas, tables, stamps,
  CASE WHEN $5 THEN bytes ELSE stored END AS size,
  CASE WHEN bytes <= $6 THEN rec END AS rec, CASE WHEN bytes <= $6 THEN old END AS old,
  topic, event, CASE WHEN bytes <= $6 THEN payload END AS payload
FROM (
WITH seen AS MATERIALIZED (
  SELECT coalesce($3::text::pg_snapshot, pg_current_snapshot()) AS now
), news AS (
  SELECT o.* FROM seen, tidewire.outbox o
  WHERE o.xid >= pg_snapshot_xmax($1::text::pg_snapshot) AND o.xid < pg_snapshot_xmax(seen.now)
    AND ($3::text IS NULL OR pg_visible_in_snapshot(o.xid, $3::text::pg_snapshot))
  UNION ALL
  SELECT o.* FROM tidewire.outbox o
  WHERE o.xid = ANY (ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
    AND ($3::text IS NULL OR pg_visible_in_snapshot(o.xid, $3::text::pg_snapshot))
)
SELECT seen.now::text AS snapshot,
  (SELECT last_value + is_called::int4 FROM tidewire.outbox_losses) AS losses,
  pg_relation_filenode('tidewire.outbox') AS file, NULL::int8 AS id, NULL::int8 AS xid,
  NULL::int8 AS at, NULL::\"char\" AS op, NULL::oid AS root, NULL::bool AS wanted,
  NULL::text AS rec, NULL::text AS old, NULL::text AS topic, NULL::text AS event,
  NULL::text AS payload, NULL::int8 AS place, NULL::oid AS part, NULL::int8 AS stored,
  named.oids, named.schemas, named.tables, named.stamps
FROM seen CROSS JOIN (
  SELECT array_agg(c.oid) AS oids, array_agg(n.nspname::text) AS schemas,
    array_agg(c.relname::text) AS tables, array_agg(",
    naming_stamp!(),
    ") AS stamps
  FROM unnest($4::oid[]) followed (oid) JOIN pg_class c ON c.oid = followed.oid
  JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_type t ON t.oid = c.reltype) named
UNION ALL
SELECT NULL, NULL, NULL, n.id, n.xid::text::int8,
  (extract(epoch FROM max(n.at) OVER written) * 1000000)::int8, n.op, n.root,
  n.root = ANY ($2), CASE WHEN $5 AND n.root = ANY ($2) THEN n.rec::text END,
  CASE WHEN $5 AND n.root = ANY ($2) THEN n.old::text END, CASE WHEN $5 THEN n.topic END,
  CASE WHEN $5 THEN n.event END, CASE WHEN $5 THEN n.payload END,
  max(n.id) OVER written, CASE WHEN n.root <> n.rel AND n.root = ANY ($2) THEN n.rel END,
  CASE WHEN NOT $5 THEN coalesce(pg_column_size(n.rec), 0)::int8
    + coalesce(pg_column_size(n.old), 0) + coalesce(pg_column_size(n.payload), 0) END,
  NULL, NULL, NULL, NULL
FROM (SELECT o.*, coalesce(pg_partition_root(o.rel)::oid, o.rel) AS root FROM news o) n
WINDOW written AS (PARTITION BY n.xid)
ORDER BY place NULLS FIRST, id
) found CROSS JOIN LATERAL (SELECT coalesce(octet_length(rec), 0)::int8
  + coalesce(octet_length(old), 0) + coalesce(octet_length(payload), 0)) sized (bytes)
ORDER BY place NULLS FIRST, id"
);

/// Removes rows that were told (visible in $1) a while ago, and rows from a future that belongs
/// to another cluster, as a restored dump has them. Only the oldest are looked at. In the same step
/// it says what may be gone now: to readers whose history is older, and to writers, for whom to
/// remove such rows is no loss.
const PRUNE: &str = "\
WITH told AS (
  UPDATE tidewire.outbox_epoch SET told = $1::text::pg_snapshot
  WHERE told::text IS DISTINCT FROM $1::text AND EXISTS (SELECT FROM tidewire.outbox)
), gone AS (
  DELETE FROM tidewire.outbox WHERE id = ANY (ARRAY(
    SELECT o.id FROM (SELECT id, xid, at FROM tidewire.outbox ORDER BY id LIMIT 10000) o
    WHERE (o.at < clock_timestamp() - interval '10 seconds'
        AND pg_visible_in_snapshot(o.xid, $1::text::pg_snapshot))
      OR o.xid >= pg_snapshot_xmax(pg_current_snapshot())))
  RETURNING 1
)
SELECT count(*) FROM gone";

/// Rows that one [`Link::prune`] looks at; as many removed means that there are more.
pub(super) const PRUNED_AT_ONCE: u64 = 10_000;

/// Takes over the outbox. A reader of the first version leaves its name in the old row.
const TAKE_OVER: &str = "\
WITH before AS (SELECT reader, told FROM tidewire.outbox_epoch), now AS (
  INSERT INTO tidewire.outbox_epoch (epoch) VALUES (gen_random_uuid())
  ON CONFLICT (only_row) DO UPDATE SET reader = NULL RETURNING epoch)
SELECT now.epoch::text, pg_relation_filenode('tidewire.outbox'),
  (SELECT last_value + is_called::int4 FROM tidewire.outbox_losses),
  pg_current_snapshot()::text, before.told::text, before.reader IS NOT NULL,
  current_setting('max_prepared_transactions')::int4 = 0,
  (SELECT oid FROM pg_database WHERE datname = current_database())
FROM now LEFT JOIN before ON true";

/// What of each row a poll brings.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// All of it, unless its content is larger than this many bytes.
    Whole(usize),
    /// Everything but its content.
    Listed,
}

impl Asked {
    fn is_whole(self) -> bool {
        matches!(self, Self::Whole(_))
    }

    fn most_bytes(self) -> i64 {
        match self {
            Self::Whole(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
            Self::Listed => 0,
        }
    }
}

/// The reader's connection.
pub(super) struct Link {
    client: Client,
    notified: Arc<Notify>,
    task: JoinHandle<()>,
    place: String,
    /// First half of the keys of the locks that are held.
    lock_key: AtomicI32,
}

impl Link {
    pub(super) async fn open(target: &Target) -> Result<Self, ConnectError> {
        let (client, wire) = target.connect().await?;
        let notified = Arc::new(Notify::new());
        let task = tokio::spawn(attend(wire, Arc::clone(&notified)));
        let lock_key = AtomicI32::new(0);
        let link = Self { client, notified, task, place: target.to_string(), lock_key };
        link.answer(link.client.batch_execute(SESSION)).await?;
        Ok(link)
    }

    /// For statements of others, between polls.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Becomes the one reader of the database.
    pub(super) async fn become_reader(&self) -> Result<bool, ConnectError> {
        const SQL: &str = "SELECT s.lock_key FROM tidewire.settings s";
        loop {
            let key = self.answer(self.client.query_one(SQL, &[])).await?.get(0);
            self.lock_key.store(key, Ordering::Relaxed);
            if self.lock("pg_try_advisory_lock", READER_LOCK).await? {
                return Ok(true);
            }
            if !self.evade(READER_LOCK).await? {
                return Ok(false);
            }
        }
    }

    /// Tells writers to notify; not when one is at work that will not.
    pub(super) async fn sleep(&self) -> Result<bool, ConnectError> {
        let asleep = self.lock("pg_try_advisory_lock", SLEEP_LOCK).await?;
        if !asleep && self.evade(SLEEP_LOCK).await? {
            // The old lock goes with the session, which has the new one from now on.
            self.become_reader().await?;
        }
        Ok(asleep)
    }

    /// Tells writers not to notify.
    pub(super) async fn rise(&self) -> Result<(), ConnectError> {
        self.lock("pg_advisory_unlock", SLEEP_LOCK).await.map(drop)
    }

    async fn lock(&self, what: &str, which: i32) -> Result<bool, ConnectError> {
        let key = self.lock_key.load(Ordering::Relaxed);
        let sql = format!("SELECT pg_catalog.{what}({key}, {which})");
        Ok(self.answer(self.client.query_one(&sql, &[])).await?.get(0))
    }

    /// Has readers and writers take other locks where a stranger holds this one; says whether it did.
    async fn evade(&self, which: i32) -> Result<bool, ConnectError> {
        let Some(row) = self.answer(self.client.query_opt(STRANGERS, &[&which])).await? else {
            return Ok(false);
        };
        let (pid, role): (i32, Option<String>) = (row.get(0), row.get(1));
        let key = self.lock_key.load(Ordering::Relaxed);
        match self.client.execute(EVADE, &[&key]).await {
            Ok(_) => {
                tracing::warn!(
                    pid,
                    role,
                    "a role took a lock of Tidewire, which takes another one"
                );
                Ok(true)
            }
            Err(error) if sql::is_denied(&error) => {
                tracing::warn!(
                    pid,
                    role,
                    "a role took a lock of Tidewire: GRANT UPDATE (lock_key) ON tidewire.settings \
                     to the role of the server, so that it can take another one"
                );
                Ok(false)
            }
            Err(error) => Err(ConnectError::explain(error, &self.place)),
        }
    }

    /// Takes over the outbox.
    pub(super) async fn take_over(&self) -> Result<Scene, ConnectError> {
        let row = self.answer(self.client.query_one(TAKE_OVER, &[])).await?;
        let cluster = self.cluster().await?;
        let (epoch, database): (String, u32) = (row.get(0), row.get(7));
        let epoch = format!("{epoch}/{cluster}/{database}");
        Ok(Scene {
            outbox: Outbox { epoch, file: row.get(1), losses: row.get(2) },
            snapshot: row.get(3),
            told: row.get(4),
            secretive: row.get(5),
            may_sleep: row.get(6),
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
            "SELECT l.pid FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' \
             AND l.classid::pg_catalog.int8 = {} AND l.objid = {READER_LOCK} AND l.objsubid = 2 \
             AND l.granted",
            self.lock_key.load(Ordering::Relaxed)
        );
        self.answer(self.client.query_opt(&sql, &[])).await.ok()??.get(0)
    }

    pub(super) async fn prepare_poll(&self) -> Result<Statement, ConnectError> {
        self.answer(self.client.prepare(POLL)).await
    }

    /// What became visible since a snapshot, up to another or else up to now, of the `wanted` tables
    /// with rows, and how the `followed` ones are named. The server waits while the rows are not taken.
    pub(super) async fn poll(
        &self,
        statement: &Statement,
        since: &str,
        upto: Option<&str>,
        (wanted, followed): (&[u32], &[u32]),
        content: Asked,
    ) -> Result<RowStream, ConnectError> {
        let (whole, most) = (content.is_whole(), content.most_bytes());
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&since, &wanted, &upto, &followed, &whole, &most];
        self.answer(self.client.query_raw(statement, parameters)).await
    }

    /// Removes rows that were told, and says how many.
    pub(super) async fn prune(&self, told: &str) -> Result<u64, ConnectError> {
        let row = self.answer(self.client.query_one(PRUNE, &[&told])).await?;
        Ok(row.get::<_, i64>(0).cast_unsigned())
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
