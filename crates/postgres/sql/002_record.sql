-- Recording a change takes two functions. Values become JSON by to_jsonb, which runs casts that the
-- owner of a column's type wrote; that has to happen as the writer, as the triggers of the table
-- do. The insert has to happen as the owner of the outbox. So the trigger function runs as the
-- writer and calls tidewire.record, which runs as the definer and runs nothing of anybody else's.

-- Inserts a change into the outbox; gives whether it did. Any role may call it, and it does
-- something only for the trigger function below: the second frame of the call stack is that
-- function at the one line that calls this. A frame names a function with its schema and cannot
-- be forged: what other callers put there begins with other words, or names another function.
CREATE OR REPLACE FUNCTION tidewire.record(
  operation pg_catalog."char", relation pg_catalog.oid,
  new_row pg_catalog.jsonb, old_row pg_catalog.jsonb, trouble pg_catalog.text)
RETURNS pg_catalog.bool LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS $body$
DECLARE stack pg_catalog.text; number pg_catalog.int8; key pg_catalog.int4; before pg_catalog.record;
BEGIN
  GET DIAGNOSTICS stack = PG_CONTEXT;
  -- The words around name and line are in the language of the session, so our own frame is the
  -- pattern of the other one.
  IF pg_catalog.split_part(stack, E'\n', 2) IS DISTINCT FROM pg_catalog.replace(pg_catalog.replace(
      pg_catalog.replace(pg_catalog.split_part(stack, E'\n', 1), 'GET DIAGNOSTICS', 'IF'), '@frame_line@', '@call_line@'),
      'tidewire.record("char",oid,jsonb,jsonb,text)', pg_catalog.concat(pg_catalog.quote_ident(@surface_text@), '.notify_table_change()')) THEN
    RETURN false;
  END IF;
  IF pg_catalog.to_regclass('tidewire.outbox') IS NULL THEN
    RETURN true;
  END IF;
  IF operation = 'T' AND (SELECT c.relispartition FROM pg_catalog.pg_class c WHERE c.oid = relation) THEN
    -- Nobody knows which rows of its table were in a partition. When it was truncated with the
    -- table, that came before and nothing in between; so did another partition, truncated alone.
    SELECT o.op, o.rel INTO before FROM tidewire.outbox o
      WHERE o.xid = pg_catalog.pg_current_xact_id() ORDER BY o.xid DESC, o.id DESC LIMIT 1;
    IF before.op IN ('T', 'E')
        AND coalesce(pg_catalog.pg_partition_root(before.rel)::pg_catalog.oid, before.rel)
          = pg_catalog.pg_partition_root(relation)::pg_catalog.oid THEN
      RETURN true;
    END IF;
    operation := 'E';
    trouble := 'a partition was truncated alone';
  END IF;
  INSERT INTO tidewire.outbox (op, rel, rec, old, payload)
    VALUES (operation, relation, new_row, old_row, trouble)
    RETURNING id, (SELECT s.lock_key FROM tidewire.settings s) INTO number, key;
  -- A reader that sleeps holds this lock exclusively and waits to be notified. One that is awake
  -- looks again within milliseconds, so the lock is free and no NOTIFY holds up the commit.
  IF NOT pg_catalog.pg_try_advisory_xact_lock_shared(key, 1) THEN
    PERFORM pg_catalog.pg_notify('tidewire', '');
  END IF;
  IF number % 256 = 0 THEN
    PERFORM tidewire.prune();
  END IF;
  RETURN true;
END
$body$;
REVOKE ALL ON FUNCTION tidewire.record(pg_catalog."char", pg_catalog.oid, pg_catalog.jsonb, pg_catalog.jsonb, pg_catalog.text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tidewire.record(pg_catalog."char", pg_catalog.oid, pg_catalog.jsonb, pg_catalog.jsonb, pg_catalog.text) TO PUBLIC;

-- The trigger function. It must never make a user's write fail: what can fail is caught, and a
-- missing outbox is no error. Values are written as to_jsonb gives them under these settings,
-- whatever the writer's session has. It runs as the writer, who needs no right on anything.
CREATE OR REPLACE FUNCTION @surface@.notify_table_change() RETURNS pg_catalog.trigger
LANGUAGE plpgsql SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, MDY'
SET intervalstyle = 'postgres'
SET bytea_output = 'hex'
SET extra_float_digits = '1'
SET lc_monetary = 'C'
SET quote_all_identifiers = 'off'
AS $body$
DECLARE
  operation pg_catalog."char" := pg_catalog.left(TG_OP, 1);
  new_row pg_catalog.jsonb;
  old_row pg_catalog.jsonb;
  trouble pg_catalog.text;
BEGIN
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
    trouble := 'the trigger is FOR EACH STATEMENT, which records no rows';
  END IF;
  -- Each of these is the same call. One in which an error was raised (a time limit, a full disk) is
  -- evaluated in another way until its transaction ends, with a stack that proves nothing; where a
  -- savepoint was rolled back and the writer goes on, the next one serves.
  IF pg_catalog.to_regproc('tidewire.record') IS NULL THEN
    NULL;
  ELSIF tidewire.record(operation, TG_RELID, new_row, old_row, trouble) THEN
    NULL;
  ELSIF tidewire.record(operation, TG_RELID, new_row, old_row, trouble) THEN
    NULL;
  ELSIF tidewire.record(operation, TG_RELID, new_row, old_row, trouble) THEN
    NULL;
  ELSIF tidewire.record(operation, TG_RELID, new_row, old_row, trouble) THEN
    NULL;
  ELSE
    RAISE EXCEPTION 'the change of % could not be recorded', TG_RELID::pg_catalog.regclass
      USING HINT = 'recording failed several times in this transaction: begin another one';
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
COMMENT ON FUNCTION @surface@.notify_table_change() IS
  'Tidewire: records a change of a row for clients that subscribe to its table';
REVOKE ALL ON FUNCTION @surface@.notify_table_change() FROM PUBLIC;
