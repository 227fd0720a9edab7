-- The trigger function. It must never make a user's write fail: what can fail is caught, and a
-- missing outbox is no error. Values are written as to_jsonb gives them under these settings,
-- whatever the writer's session has. It writes as its owner, so writers need no right on anything.

CREATE OR REPLACE FUNCTION @surface@.notify_table_change() RETURNS pg_catalog.trigger
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
COMMENT ON FUNCTION @surface@.notify_table_change() IS
  'Tidewire: records a change of a row for clients that listen to its table';
REVOKE ALL ON FUNCTION @surface@.notify_table_change() FROM PUBLIC;
