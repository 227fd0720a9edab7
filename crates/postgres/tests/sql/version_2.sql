-- Tidewire's part of a database, version 2: changes of rows, and tidewire.publish.
--
-- Idempotent: running it again changes nothing, running it over an older version brings that up to
-- date. Everything happens in one transaction. Objects: schema tidewire, and in schema "public"
-- the functions enable_realtime, disable_realtime, notify_table_change and the view
-- realtime_enabled_tables. `tidewire sql uninstall` removes them all.
BEGIN;
SET LOCAL search_path = '';
SET LOCAL client_min_messages = warning;
-- A table of ours that is in use (a long poll, a dump) must not hold up writers behind us.
SET LOCAL lock_timeout = '10s';
-- One installation at a time.
SELECT pg_catalog.pg_advisory_xact_lock(1953064037, 3);

DO $begin$
DECLARE
  found pg_catalog.int4;
  stranger pg_catalog.text;
BEGIN
  IF pg_catalog.to_regclass('tidewire.versions') IS NOT NULL THEN
    SELECT pg_catalog.max(version) INTO found FROM tidewire.versions;
    IF found > 2 THEN
      RAISE EXCEPTION 'version % of Tidewire''s tables is installed, which is newer than version 2', found
        USING ERRCODE = 'TW001', HINT = 'use the tidewire program that installed it, or a newer one';
    END IF;
  END IF;
  -- Another program may have functions of the same names.
  SELECT pg_catalog.format('%I.%I', n.nspname, p.proname) INTO stranger
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = 'public'
      AND p.proname IN ('notify_table_change', 'enable_realtime', 'disable_realtime')
      AND coalesce(pg_catalog.obj_description(p.oid, 'pg_proc'), '') NOT LIKE 'Tidewire:%'
    LIMIT 1;
  IF stranger IS NOT NULL AND NOT false THEN
    RAISE EXCEPTION 'the function % is there already and is not Tidewire''s', stranger
      USING ERRCODE = 'TW002',
        HINT = 'run `tidewire sql install --replace` to put ours in its place, so that triggers that use it feed Tidewire, or `--schema NAME` to install ours in another schema';
  END IF;
END
$begin$;
-- Tables. Whoever runs this owns them; nobody else has any right on them.

CREATE SCHEMA IF NOT EXISTS tidewire;
REVOKE ALL ON SCHEMA tidewire FROM PUBLIC;

CREATE TABLE IF NOT EXISTS tidewire.versions (
  version pg_catalog.int4 PRIMARY KEY,
  installed_at pg_catalog.timestamptz NOT NULL DEFAULT pg_catalog.now()
);

CREATE TABLE IF NOT EXISTS tidewire.settings (
  only_row pg_catalog.bool PRIMARY KEY DEFAULT true CHECK (only_row),
  -- Where tidewire.publish says things: outbox, or wal (the write-ahead log).
  sink pg_catalog.text NOT NULL CHECK (sink IN ('outbox', 'wal')),
  -- How long changes wait for a reader before writers begin to remove the oldest.
  retention pg_catalog.interval NOT NULL,
  -- The schema of enable_realtime and its friends.
  surface pg_catalog.name NOT NULL
);

-- Unlogged: costs no write-ahead log, and is emptied by a crash of the server, which the epoch
-- below tells. Ids order the changes of one row, so the sequence must not hand out ranges.
CREATE UNLOGGED TABLE IF NOT EXISTS tidewire.outbox (
  id pg_catalog.int8 GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
  xid pg_catalog.xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
  -- I, U, D, T: a row was inserted, updated, deleted, a table truncated, in table rel.
  -- E: something changed in table rel that could not be recorded; payload says why.
  -- J, M: tidewire.publish said something, JSON or text.
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

-- Moves when a writer removes changes that nobody had told.
CREATE SEQUENCE IF NOT EXISTS tidewire.outbox_losses;

INSERT INTO tidewire.settings (sink, retention, surface)
  VALUES ('outbox', '600 seconds', 'public')
  ON CONFLICT (only_row) DO UPDATE
    SET sink = EXCLUDED.sink, retention = EXCLUDED.retention, surface = EXCLUDED.surface;

-- Removes changes that waited too long for a reader. Writers call this now and then, so that a
-- server that is never started again does not fill the disk. It never waits for anything.
CREATE OR REPLACE FUNCTION tidewire.prune() RETURNS pg_catalog.void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $body$
DECLARE
  stale pg_catalog.int8[];
  told pg_catalog.pg_snapshot;
BEGIN
  -- In a stricter isolation a row removed by another writer would fail this transaction.
  IF pg_catalog.current_setting('transaction_isolation') <> 'read committed' THEN
    RETURN;
  END IF;
  -- A reader is there and removes what it has read.
  PERFORM FROM pg_catalog.pg_locks l
    WHERE l.locktype = 'advisory' AND l.classid = 1953064037 AND l.objid = 2 AND l.objsubid = 2
      AND l.granted AND l.database = (
        SELECT d.oid FROM pg_catalog.pg_database d
        WHERE d.datname = pg_catalog.current_database());
  IF FOUND THEN
    RETURN;
  END IF;
  stale := ARRAY(
    SELECT o.id FROM tidewire.outbox o
    WHERE o.id IN (SELECT i.id FROM tidewire.outbox i ORDER BY i.id LIMIT 1024)
      AND o.at < pg_catalog.clock_timestamp() - (SELECT s.retention FROM tidewire.settings s)
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
-- The trigger function. It must never make a user's write fail: what can fail is caught, and a
-- missing outbox is no error. Values are written as to_jsonb gives them under these settings,
-- whatever the writer's session has. It writes as its owner, so writers need no right on anything.

CREATE OR REPLACE FUNCTION "public".notify_table_change() RETURNS pg_catalog.trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = ''
SET timezone = 'UTC'
SET datestyle = 'ISO, MDY'
SET intervalstyle = 'postgres'
SET bytea_output = 'hex'
SET extra_float_digits = '1'
AS $body$
DECLARE
  operation pg_catalog."char" := pg_catalog.left(TG_OP, 1);
  new_row pg_catalog.jsonb;
  old_row pg_catalog.jsonb;
  trouble pg_catalog.text;
  number pg_catalog.int8;
  before record;
BEGIN
  IF pg_catalog.to_regclass('tidewire.outbox') IS NOT NULL THEN
    IF TG_LEVEL = 'ROW' THEN
      -- A json value with \u0000, or a string of 256 MB, is a row that jsonb cannot hold. This
      -- block writes nothing, so its savepoint costs half a microsecond and no transaction id.
      BEGIN
        IF TG_OP <> 'DELETE' THEN
          new_row := pg_catalog.to_jsonb(NEW);
        END IF;
        IF TG_OP <> 'INSERT' THEN
          old_row := pg_catalog.to_jsonb(OLD);
        END IF;
      EXCEPTION WHEN OTHERS THEN
        operation := 'E';
        new_row := NULL;
        old_row := NULL;
        trouble := pg_catalog.concat(SQLSTATE, ' ', SQLERRM);
      END;
    ELSIF TG_OP <> 'TRUNCATE' THEN
      operation := 'E';
      trouble := 'the trigger is FOR EACH STATEMENT, which tells no rows';
    ELSIF (SELECT c.relispartition FROM pg_catalog.pg_class c WHERE c.oid = TG_RELID) THEN
      -- Nobody knows which rows of its table were in a partition. When it was truncated with the
      -- table, that came before and nothing in between; so did another partition, truncated alone.
      SELECT o.op, o.rel INTO before FROM tidewire.outbox o
        WHERE o.xid = pg_catalog.pg_current_xact_id() ORDER BY o.xid DESC, o.id DESC LIMIT 1;
      IF before.op IN ('T', 'E')
          AND coalesce(pg_catalog.pg_partition_root(before.rel)::pg_catalog.oid, before.rel)
            = pg_catalog.pg_partition_root(TG_RELID)::pg_catalog.oid THEN
        RETURN NULL;
      END IF;
      operation := 'E';
      trouble := 'a partition was truncated alone';
    END IF;
    INSERT INTO tidewire.outbox (op, rel, rec, old, payload)
      VALUES (operation, TG_RELID, new_row, old_row, trouble)
      RETURNING id INTO number;
    -- A reader that sleeps holds this lock exclusively and waits to be notified. One that is awake
    -- looks again within milliseconds, so the lock is free and no NOTIFY holds up the commit.
    IF NOT pg_catalog.pg_try_advisory_xact_lock_shared(1953064037, 1) THEN
      PERFORM pg_catalog.pg_notify('tidewire', '');
    END IF;
    IF number % 256 = 0 THEN
      PERFORM tidewire.prune();
    END IF;
  END IF;
  -- Nobody looks at this after the fact; in a BEFORE trigger NULL would cancel the write.
  IF TG_LEVEL = 'STATEMENT' THEN
    RETURN NULL;
  ELSIF TG_OP = 'DELETE' THEN
    RETURN OLD;
  END IF;
  RETURN NEW;
END
$body$;
COMMENT ON FUNCTION "public".notify_table_change() IS
  'Tidewire: records a change of a row for clients that listen to its table';
REVOKE ALL ON FUNCTION "public".notify_table_change() FROM PUBLIC;
-- Switching tables on and off. These run with the rights of the caller, who needs TRIGGER on the
-- table to switch it on and must own it to switch it off.

CREATE OR REPLACE FUNCTION tidewire.trigger_name(table_name pg_catalog.text, suffix pg_catalog.text)
RETURNS pg_catalog.name LANGUAGE plpgsql IMMUTABLE SET search_path = '' AS $body$
BEGIN
  -- A longer name would be cut at 63 bytes, and lose the end by which it is recognised.
  WHILE pg_catalog.octet_length(table_name) + pg_catalog.octet_length(suffix) > 63 LOOP
    table_name := pg_catalog.left(table_name, -1);
  END LOOP;
  RETURN table_name || suffix;
END
$body$;

CREATE OR REPLACE FUNCTION "public".enable_realtime(schema_name pg_catalog.text, table_name pg_catalog.text)
RETURNS pg_catalog.void LANGUAGE plpgsql SET search_path = '' AS $body$
DECLARE
  it record;
  change_trigger pg_catalog.name := tidewire.trigger_name(table_name, '_notify_change');
  truncate_trigger pg_catalog.name := tidewire.trigger_name(table_name, '_notify_truncate');
BEGIN
  SELECT c.oid, c.relkind, c.relpersistence,
      pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned
    INTO it
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = schema_name AND c.relname = table_name;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'there is no table %.%', schema_name, table_name USING ERRCODE = 'undefined_table';
  END IF;
  IF it.relkind NOT IN ('r', 'p') OR it.relpersistence = 't' THEN
    RAISE EXCEPTION '%.% is not an ordinary table, so its rows cannot be followed', schema_name, table_name
      USING ERRCODE = 'wrong_object_type', HINT = 'enable the tables that it is made of';
  END IF;
  IF schema_name IN ('pg_catalog', 'information_schema', 'tidewire') THEN
    RAISE EXCEPTION 'tables of schema % cannot be followed', schema_name
      USING ERRCODE = 'insufficient_privilege';
  END IF;
  -- Nothing is done to a table that is as it should be, so this takes no lock then.
  PERFORM FROM pg_catalog.pg_trigger t
    WHERE t.tgrelid = it.oid AND t.tgname IN (change_trigger, truncate_trigger)
      AND t.tgfoid = '"public".notify_table_change()'::pg_catalog.regprocedure
      AND t.tgtype IN (29, 32) AND t.tgenabled IN ('O', 'A')
    HAVING pg_catalog.count(*) = 2;
  IF NOT FOUND THEN
    EXECUTE pg_catalog.format(
      'CREATE OR REPLACE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %I.%I '
      'FOR EACH ROW EXECUTE FUNCTION "public".notify_table_change()',
      change_trigger, schema_name, table_name);
    EXECUTE pg_catalog.format(
      'CREATE OR REPLACE TRIGGER %I AFTER TRUNCATE ON %I.%I '
      'FOR EACH STATEMENT EXECUTE FUNCTION "public".notify_table_change()',
      truncate_trigger, schema_name, table_name);
    -- Rows that logical replication brings are changes like any others; only an owner may say so.
    IF it.owned THEN
      EXECUTE pg_catalog.format(
        'ALTER TABLE %I.%I ENABLE ALWAYS TRIGGER %I, ENABLE ALWAYS TRIGGER %I',
        schema_name, table_name, change_trigger, truncate_trigger);
    END IF;
  END IF;
  -- PostgreSQL gives the trigger for rows to each partition, also to those that come later, and the
  -- one for TRUNCATE to none. A partition that was followed by itself before would tell rows twice.
  FOR it IN
    SELECT n.nspname, c.relname, pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned,
        t.truncates, t.twice
      FROM pg_catalog.pg_partition_tree(it.oid) p
      JOIN pg_catalog.pg_class c ON c.oid = p.relid AND c.oid <> it.oid AND c.relkind IN ('r', 'p')
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      CROSS JOIN LATERAL (
        SELECT coalesce(pg_catalog.bool_or(t.tgtype = 32 AND t.tgenabled IN ('O', 'A')), false) AS truncates,
            pg_catalog.min(t.tgname::pg_catalog.text) FILTER (WHERE t.tgtype & 1 = 1 AND t.tgparentid = 0) AS twice
          FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid
            AND t.tgfoid = '"public".notify_table_change()'::pg_catalog.regprocedure) t
      WHERE NOT t.truncates OR t.twice IS NOT NULL
  LOOP
    BEGIN
      IF it.twice IS NOT NULL THEN
        EXECUTE pg_catalog.format('DROP TRIGGER %I ON %I.%I', it.twice, it.nspname, it.relname);
      END IF;
      CONTINUE WHEN it.truncates;
      truncate_trigger := tidewire.trigger_name(it.relname, '_notify_truncate');
      EXECUTE pg_catalog.format(
        'CREATE OR REPLACE TRIGGER %I AFTER TRUNCATE ON %I.%I '
        'FOR EACH STATEMENT EXECUTE FUNCTION "public".notify_table_change()',
        truncate_trigger, it.nspname, it.relname);
      IF it.owned THEN
        EXECUTE pg_catalog.format('ALTER TABLE %I.%I ENABLE ALWAYS TRIGGER %I',
          it.nspname, it.relname, truncate_trigger);
      END IF;
    EXCEPTION WHEN insufficient_privilege THEN
      RAISE WARNING 'what TRUNCATE does to partition %.% alone cannot be recorded: %',
        it.nspname, it.relname, SQLERRM;
    END;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION "public".enable_realtime(pg_catalog.text, pg_catalog.text) IS
  'Tidewire: lets clients follow the changes of a table';

CREATE OR REPLACE FUNCTION "public".disable_realtime(schema_name pg_catalog.text, table_name pg_catalog.text)
RETURNS pg_catalog.void LANGUAGE plpgsql SET search_path = '' AS $body$
DECLARE
  it record;
BEGIN
  FOR it IN
    SELECT t.tgname, pn.nspname, p.relname
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      CROSS JOIN LATERAL (
        SELECT c.oid UNION SELECT t.relid::pg_catalog.oid
          FROM pg_catalog.pg_partition_tree(c.oid) t) part (oid)
      JOIN pg_catalog.pg_class p ON p.oid = part.oid
      JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
      JOIN pg_catalog.pg_trigger t ON t.tgrelid = p.oid
    WHERE n.nspname = schema_name AND c.relname = table_name AND t.tgparentid = 0
      AND t.tgfoid = '"public".notify_table_change()'::pg_catalog.regprocedure
  LOOP
    EXECUTE pg_catalog.format('DROP TRIGGER %I ON %I.%I', it.tgname, it.nspname, it.relname);
  END LOOP;
END
$body$;
COMMENT ON FUNCTION "public".disable_realtime(pg_catalog.text, pg_catalog.text) IS
  'Tidewire: ends what enable_realtime began';

-- With one argument the table is found as in a query: by search_path, or schema and table in one.
CREATE OR REPLACE FUNCTION tidewire.named(table_name pg_catalog.text, OUT schema_part pg_catalog.text, OUT table_part pg_catalog.text)
LANGUAGE plpgsql STABLE AS $body$
DECLARE
  found pg_catalog.regclass := coalesce(
    pg_catalog.to_regclass(pg_catalog.quote_ident(table_name)), pg_catalog.to_regclass(table_name));
BEGIN
  IF found IS NULL THEN
    RAISE EXCEPTION 'there is no table %', table_name USING ERRCODE = 'undefined_table';
  END IF;
  SELECT n.nspname, c.relname INTO schema_part, table_part
    FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    WHERE c.oid OPERATOR(pg_catalog.=) found;
END
$body$;

CREATE OR REPLACE FUNCTION "public".enable_realtime(table_name pg_catalog.text)
RETURNS pg_catalog.void LANGUAGE sql AS $body$
  SELECT "public".enable_realtime(n.schema_part, n.table_part) FROM tidewire.named(table_name) n
$body$;
COMMENT ON FUNCTION "public".enable_realtime(pg_catalog.text) IS
  'Tidewire: lets clients follow the changes of a table';

CREATE OR REPLACE FUNCTION "public".disable_realtime(table_name pg_catalog.text)
RETURNS pg_catalog.void LANGUAGE sql AS $body$
  SELECT "public".disable_realtime(n.schema_part, n.table_part) FROM tidewire.named(table_name) n
$body$;
COMMENT ON FUNCTION "public".disable_realtime(pg_catalog.text) IS
  'Tidewire: ends what enable_realtime began';

CREATE OR REPLACE VIEW "public".realtime_enabled_tables AS
  SELECT n.nspname::pg_catalog.text AS schema_name, c.relname::pg_catalog.text AS table_name,
    t.tgname::pg_catalog.text AS trigger_name, t.tgenabled IN ('O', 'A') AS enabled
  FROM pg_catalog.pg_trigger t
  JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE t.tgfoid = '"public".notify_table_change()'::pg_catalog.regprocedure
    AND t.tgparentid = 0 AND t.tgtype & 1 = 1;
COMMENT ON VIEW "public".realtime_enabled_tables IS
  'Tidewire: tables whose changes clients can follow';

REVOKE ALL ON FUNCTION
  tidewire.trigger_name(pg_catalog.text, pg_catalog.text),
  tidewire.named(pg_catalog.text),
  "public".enable_realtime(pg_catalog.text, pg_catalog.text),
  "public".enable_realtime(pg_catalog.text),
  "public".disable_realtime(pg_catalog.text, pg_catalog.text),
  "public".disable_realtime(pg_catalog.text)
  FROM PUBLIC;
-- Saying something on a topic as part of a transaction: it is said when the transaction commits,
-- and was never said when it rolls back. There is no limit of 8,000 bytes.

CREATE OR REPLACE FUNCTION tidewire.say(kind pg_catalog."char", topic pg_catalog.text, payload pg_catalog.text, event pg_catalog.text)
RETURNS pg_catalog.void LANGUAGE plpgsql SET search_path = '' AS $body$
DECLARE
  sink pg_catalog.text;
  number pg_catalog.int8;
BEGIN
  IF topic IS NULL OR topic = '' OR pg_catalog.octet_length(topic) > 255
    OR topic ~ '[[:cntrl:]]' THEN
    RAISE EXCEPTION 'a topic is a text of 1 to 255 bytes without control characters'
      USING ERRCODE = 'invalid_parameter_value';
  END IF;
  SELECT s.sink INTO sink FROM tidewire.settings s;
  IF sink = 'wal' THEN
    PERFORM pg_catalog.pg_logical_emit_message(true, 'tidewire', pg_catalog.json_build_object(
      'topic', topic, 'event', event,
      CASE kind WHEN 'J' THEN 'json' ELSE 'text' END,
      CASE kind WHEN 'J' THEN payload::pg_catalog.json ELSE pg_catalog.to_json(payload) END)::pg_catalog.text);
    RETURN;
  END IF;
  INSERT INTO tidewire.outbox (op, topic, event, payload) VALUES (kind, topic, event, payload)
    RETURNING id INTO number;
  IF NOT pg_catalog.pg_try_advisory_xact_lock_shared(1953064037, 1) THEN
    PERFORM pg_catalog.pg_notify('tidewire', '');
  END IF;
  IF number % 256 = 0 THEN
    PERFORM tidewire.prune();
  END IF;
END
$body$;
REVOKE ALL ON FUNCTION tidewire.say(pg_catalog."char", pg_catalog.text, pg_catalog.text, pg_catalog.text) FROM PUBLIC;

CREATE OR REPLACE FUNCTION tidewire.publish(topic pg_catalog.text, payload pg_catalog.jsonb, event pg_catalog.text DEFAULT NULL)
RETURNS pg_catalog.void LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $body$
  SELECT tidewire.say('J', topic, coalesce(payload::pg_catalog.text, 'null'), event)
$body$;
COMMENT ON FUNCTION tidewire.publish(pg_catalog.text, pg_catalog.jsonb, pg_catalog.text) IS
  'Tidewire: says JSON on a topic when this transaction commits';

CREATE OR REPLACE FUNCTION tidewire.publish(topic pg_catalog.text, payload pg_catalog.text, event pg_catalog.text DEFAULT NULL)
RETURNS pg_catalog.void LANGUAGE sql SECURITY DEFINER SET search_path = '' AS $body$
  SELECT tidewire.say('M', topic, coalesce(payload, ''), event)
$body$;
COMMENT ON FUNCTION tidewire.publish(pg_catalog.text, pg_catalog.text, pg_catalog.text) IS
  'Tidewire: says a text on a topic when this transaction commits';

REVOKE ALL ON FUNCTION
  tidewire.publish(pg_catalog.text, pg_catalog.jsonb, pg_catalog.text),
  tidewire.publish(pg_catalog.text, pg_catalog.text, pg_catalog.text)
  FROM PUBLIC;
INSERT INTO tidewire.versions (version) VALUES (2) ON CONFLICT (version) DO NOTHING;
COMMIT;

