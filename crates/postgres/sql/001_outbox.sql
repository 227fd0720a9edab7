-- Tables. The definer owns them; nobody else has any right on them.

CREATE SCHEMA IF NOT EXISTS tidewire;
-- Whoever writes to a followed table calls tidewire.record, which is the one thing here for all.
REVOKE ALL ON SCHEMA tidewire FROM PUBLIC;
GRANT USAGE ON SCHEMA tidewire TO PUBLIC;

CREATE TABLE IF NOT EXISTS tidewire.versions (
  version pg_catalog.int4 PRIMARY KEY,
  installed_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now()
);

CREATE TABLE IF NOT EXISTS tidewire.settings (
  only_row pg_catalog.bool PRIMARY KEY DEFAULT true CHECK (only_row),
  -- Where tidewire.publish writes: outbox, or wal (the write-ahead log).
  sink pg_catalog.text NOT NULL CHECK (sink IN ('outbox', 'wal')),
  -- How long changes wait for a reader before writers begin to remove the oldest.
  retention pg_catalog.interval NOT NULL,
  -- The schema of enable_realtime and its friends.
  surface pg_catalog.name NOT NULL
);
-- Since version 3.
ALTER TABLE tidewire.settings
  -- The role as which functions run that others call.
  ADD COLUMN IF NOT EXISTS definer pg_catalog.name,
  -- First half of the keys of the advisory locks of readers and writers. Any role can take any
  -- advisory lock, so a reader that finds a stranger holding one puts another number here.
  ADD COLUMN IF NOT EXISTS lock_key pg_catalog.int4 NOT NULL
    DEFAULT pg_catalog.hashtext(pg_catalog.gen_random_uuid()::pg_catalog.text) & 2147483647,
  -- Signs what tidewire.publish writes to the log, where any role can write.
  ADD COLUMN IF NOT EXISTS message_key pg_catalog.text NOT NULL
    DEFAULT pg_catalog.concat(pg_catalog.gen_random_uuid(), pg_catalog.gen_random_uuid());

-- Unlogged: costs no write-ahead log, and is emptied by a crash of the server, which the epoch
-- below tells. Ids order the changes of one row, so the sequence must not hand out ranges.
CREATE UNLOGGED TABLE IF NOT EXISTS tidewire.outbox (
  id pg_catalog.int8 GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
  xid pg_catalog.xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
  -- I, U, D, T: a row was inserted, updated, deleted, a table truncated, in table rel.
  -- E: something changed in table rel that could not be recorded; payload says why.
  -- J, M: tidewire.publish published something, JSON or text.
  op pg_catalog."char" NOT NULL,
  rel pg_catalog.oid,
  rec pg_catalog.jsonb,
  old pg_catalog.jsonb,
  at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  topic pg_catalog.text,
  event pg_catalog.text,
  payload pg_catalog.text
) WITH (
  -- Rows live for seconds, so what matters is how many died, not what share.
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
  autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_threshold = 1000000
);
CREATE INDEX IF NOT EXISTS outbox_xid ON tidewire.outbox (xid, id);

-- One row while the outbox is whole; none after a crash emptied both.
CREATE UNLOGGED TABLE IF NOT EXISTS tidewire.outbox_epoch (
  only_row pg_catalog.bool PRIMARY KEY DEFAULT true CHECK (only_row),
  epoch pg_catalog.uuid NOT NULL,
  -- A reader of version 1 put its name here; it removes changes and does not say which.
  reader pg_catalog.uuid
);
-- Since version 2. What readers have told and may have removed: who is not that far cannot go on.
ALTER TABLE tidewire.outbox_epoch ADD COLUMN IF NOT EXISTS told pg_catalog.pg_snapshot;

-- Moves when a writer removes changes that no reader had delivered.
CREATE SEQUENCE IF NOT EXISTS tidewire.outbox_losses;

INSERT INTO tidewire.settings (sink, retention, surface, definer)
  VALUES (@sink@, @retention@, @surface_text@, pg_catalog.current_setting('tidewire.definer'))
  ON CONFLICT (only_row) DO UPDATE
    SET sink = EXCLUDED.sink, retention = EXCLUDED.retention, surface = EXCLUDED.surface,
      definer = EXCLUDED.definer;

-- Removes changes that waited too long for a reader. Writers call this now and then, so that a
-- server that is never started again does not fill the disk. It never waits for anything.
CREATE OR REPLACE FUNCTION tidewire.prune() RETURNS pg_catalog.void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  stale pg_catalog.int8[];
  told pg_catalog.pg_snapshot;
  oldest pg_catalog.timestamptz;
BEGIN
  -- In a stricter isolation a row removed by another writer would fail this transaction.
  IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
    RETURN;
  END IF;
  -- A reader removes what it has read, so writers leave it four times as long. Holding the lock is
  -- no proof of being one: the holder must have the right to remove.
  SELECT pg_catalog.clock_timestamp() - s.retention * CASE WHEN EXISTS (
      SELECT FROM pg_catalog.pg_locks l
        JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
        JOIN pg_catalog.pg_database d ON d.oid = l.database
      WHERE l.locktype = 'advisory' AND l.classid::pg_catalog.int8 = s.lock_key AND l.objid = 2
        AND l.objsubid = 2 AND l.granted AND d.datname = pg_catalog.current_database()
        AND pg_catalog.has_table_privilege(a.usesysid, 'tidewire.outbox', 'DELETE')
    ) THEN 4 ELSE 1 END
    INTO oldest FROM tidewire.settings s;
  stale := ARRAY(
    SELECT o.id FROM tidewire.outbox o
    WHERE o.id IN (SELECT i.id FROM tidewire.outbox i ORDER BY i.id LIMIT 1024) AND o.at < oldest
    FOR UPDATE SKIP LOCKED);
  IF pg_catalog.cardinality(stale) > 0 THEN
    SELECT e.told INTO told FROM tidewire.outbox_epoch e;
    -- First, and without waiting for the commit: so whoever misses one of them finds this moved.
    PERFORM pg_catalog.nextval('tidewire.outbox_losses') FROM (
      SELECT FROM tidewire.outbox o
      WHERE o.id = ANY (stale)
        AND (told IS NULL OR NOT pg_catalog.pg_visible_in_snapshot(o.xid, told))
      LIMIT 1) unread;
    DELETE FROM tidewire.outbox o WHERE o.id = ANY (stale);
  END IF;
END
$body$;
REVOKE ALL ON FUNCTION tidewire.prune() FROM PUBLIC;
