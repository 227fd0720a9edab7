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

CREATE OR REPLACE FUNCTION @surface@.enable_realtime(schema_name pg_catalog.text, table_name pg_catalog.text)
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
      AND t.tgfoid = '@surface@.notify_table_change()'::pg_catalog.regprocedure
      AND t.tgtype IN (29, 32) AND t.tgenabled IN ('O', 'A')
    HAVING pg_catalog.count(*) = 2;
  IF NOT FOUND THEN
    EXECUTE pg_catalog.format(
      'CREATE OR REPLACE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %I.%I '
      'FOR EACH ROW EXECUTE FUNCTION @surface@.notify_table_change()',
      change_trigger, schema_name, table_name);
    EXECUTE pg_catalog.format(
      'CREATE OR REPLACE TRIGGER %I AFTER TRUNCATE ON %I.%I '
      'FOR EACH STATEMENT EXECUTE FUNCTION @surface@.notify_table_change()',
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
            AND t.tgfoid = '@surface@.notify_table_change()'::pg_catalog.regprocedure) t
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
        'FOR EACH STATEMENT EXECUTE FUNCTION @surface@.notify_table_change()',
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
COMMENT ON FUNCTION @surface@.enable_realtime(pg_catalog.text, pg_catalog.text) IS
  'Tidewire: lets clients follow the changes of a table';

CREATE OR REPLACE FUNCTION @surface@.disable_realtime(schema_name pg_catalog.text, table_name pg_catalog.text)
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
      AND t.tgfoid = '@surface@.notify_table_change()'::pg_catalog.regprocedure
  LOOP
    EXECUTE pg_catalog.format('DROP TRIGGER %I ON %I.%I', it.tgname, it.nspname, it.relname);
  END LOOP;
END
$body$;
COMMENT ON FUNCTION @surface@.disable_realtime(pg_catalog.text, pg_catalog.text) IS
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

CREATE OR REPLACE FUNCTION @surface@.enable_realtime(table_name pg_catalog.text)
RETURNS pg_catalog.void LANGUAGE sql AS $body$
  SELECT @surface@.enable_realtime(n.schema_part, n.table_part) FROM tidewire.named(table_name) n
$body$;
COMMENT ON FUNCTION @surface@.enable_realtime(pg_catalog.text) IS
  'Tidewire: lets clients follow the changes of a table';

CREATE OR REPLACE FUNCTION @surface@.disable_realtime(table_name pg_catalog.text)
RETURNS pg_catalog.void LANGUAGE sql AS $body$
  SELECT @surface@.disable_realtime(n.schema_part, n.table_part) FROM tidewire.named(table_name) n
$body$;
COMMENT ON FUNCTION @surface@.disable_realtime(pg_catalog.text) IS
  'Tidewire: ends what enable_realtime began';

CREATE OR REPLACE VIEW @surface@.realtime_enabled_tables AS
  SELECT n.nspname::pg_catalog.text AS schema_name, c.relname::pg_catalog.text AS table_name,
    t.tgname::pg_catalog.text AS trigger_name, t.tgenabled IN ('O', 'A') AS enabled
  FROM pg_catalog.pg_trigger t
  JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE t.tgfoid = '@surface@.notify_table_change()'::pg_catalog.regprocedure
    AND t.tgparentid = 0 AND t.tgtype & 1 = 1;
COMMENT ON VIEW @surface@.realtime_enabled_tables IS
  'Tidewire: tables whose changes clients can follow';

REVOKE ALL ON FUNCTION
  tidewire.trigger_name(pg_catalog.text, pg_catalog.text),
  tidewire.named(pg_catalog.text),
  @surface@.enable_realtime(pg_catalog.text, pg_catalog.text),
  @surface@.enable_realtime(pg_catalog.text),
  @surface@.disable_realtime(pg_catalog.text, pg_catalog.text),
  @surface@.disable_realtime(pg_catalog.text)
  FROM PUBLIC;
