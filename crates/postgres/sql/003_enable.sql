-- Switching tables on and off. These run with the rights of the caller, who needs TRIGGER on the
-- table to switch it on and must own it to switch it off.

DROP FUNCTION IF EXISTS tidewire.trigger_name(pg_catalog.text, pg_catalog.text);

-- A name for a trigger that neither the table nor one of its partitions has: <table><suffix>, or,
-- where an application has one of that name, <table>_tidewire<suffix>.
CREATE OR REPLACE FUNCTION tidewire.free_trigger_name(relation pg_catalog.oid, suffix pg_catalog.text)
RETURNS pg_catalog.name LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  table_name pg_catalog.text := (SELECT c.relname FROM pg_catalog.pg_class c WHERE c.oid = relation);
  ending pg_catalog.text := suffix;
  beginning pg_catalog.text;
BEGIN
  FOR attempt IN 1..100 LOOP
    beginning := table_name;
    -- A longer name would be cut at 63 bytes, and lose the end by which it is recognised.
    WHILE pg_catalog.octet_length(beginning) + pg_catalog.octet_length(ending) > 63 LOOP
      beginning := pg_catalog.left(beginning, -1);
    END LOOP;
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_trigger t
        WHERE t.tgname = (beginning || ending)::pg_catalog.name AND (t.tgrelid = relation
          OR t.tgrelid IN (SELECT p.relid FROM pg_catalog.pg_partition_tree(relation) p))) THEN
      RETURN beginning || ending;
    END IF;
    ending := pg_catalog.concat('_tidewire', NULLIF(attempt, 1), suffix);
  END LOOP;
  RAISE EXCEPTION 'every name for a trigger of % is taken', relation::pg_catalog.regclass
    USING ERRCODE = 'duplicate_object';
END
$body$;

CREATE OR REPLACE FUNCTION @surface@.enable_realtime(schema_name pg_catalog.text, table_name pg_catalog.text)
RETURNS pg_catalog.void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  it pg_catalog.record;
  one pg_catalog.record;
  ours pg_catalog.oid := '@surface@.notify_table_change()'::pg_catalog.regprocedure;
  change_trigger pg_catalog.name;
  truncate_trigger pg_catalog.name;
BEGIN
  SELECT c.oid, c.relkind, c.relpersistence, pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned,
      @flaw@ AS flaw, @ordinary@ AS ordinary
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
  IF it.flaw IS NOT NULL OR it.ordinary AND it.owned THEN
    -- Triggers with our function are ours: one is made whole, others go. Triggers of the same name
    -- with another function are somebody else's and stay.
    SELECT pg_catalog.min(t.tgname::pg_catalog.text) FILTER (WHERE t.tgtype & 33 = 1),
        pg_catalog.min(t.tgname::pg_catalog.text) FILTER (WHERE t.tgtype & 33 = 32)
      INTO change_trigger, truncate_trigger
      FROM pg_catalog.pg_trigger t
      WHERE t.tgrelid = it.oid AND t.tgfoid = ours AND t.tgparentid = 0 AND t.tgconstraint = 0;
    change_trigger := coalesce(change_trigger, tidewire.free_trigger_name(it.oid, '_notify_change'));
    truncate_trigger := coalesce(truncate_trigger, tidewire.free_trigger_name(it.oid, '_notify_truncate'));
    FOR one IN
      SELECT t.tgname FROM pg_catalog.pg_trigger t
        WHERE t.tgrelid = it.oid AND t.tgfoid = ours AND t.tgparentid = 0
          AND t.tgname NOT IN (change_trigger, truncate_trigger)
    LOOP
      EXECUTE pg_catalog.format('DROP TRIGGER %I ON %I.%I', one.tgname, schema_name, table_name);
    END LOOP;
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
  -- one for TRUNCATE to none. A partition that was followed by itself before would record rows twice,
  -- one whose trigger was switched off none.
  FOR it IN
    SELECT c.oid, n.nspname, c.relname, pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned,
        c.relkind IN ('r', 'p') AS can_truncate, t.truncates, t.twice, t.asleep
      FROM pg_catalog.pg_partition_tree(it.oid) p
      JOIN pg_catalog.pg_class c ON c.oid = p.relid AND c.oid <> it.oid
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      CROSS JOIN LATERAL (
        SELECT coalesce(pg_catalog.bool_or(t.tgtype = 32 AND t.tgqual IS NULL AND t.tgenabled IN ('O', 'A')),
              c.relkind NOT IN ('r', 'p')) AS truncates,
            pg_catalog.array_agg(t.tgname) FILTER (WHERE t.tgtype <> 32 AND t.tgparentid = 0) AS twice,
            pg_catalog.min(t.tgname::pg_catalog.text)
              FILTER (WHERE t.tgparentid <> 0 AND t.tgenabled <> 'A') AS asleep
          FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgfoid = ours) t
      WHERE NOT t.truncates OR t.twice IS NOT NULL OR t.asleep IS NOT NULL
  LOOP
    BEGIN
      FOR one IN SELECT u.name FROM pg_catalog.unnest(it.twice) u (name) LOOP
        EXECUTE pg_catalog.format('DROP TRIGGER %I ON %I.%I', one.name, it.nspname, it.relname);
      END LOOP;
      IF it.asleep IS NOT NULL AND it.owned THEN
        EXECUTE pg_catalog.format('ALTER TABLE %I.%I ENABLE ALWAYS TRIGGER %I',
          it.nspname, it.relname, it.asleep);
      END IF;
      CONTINUE WHEN it.truncates OR NOT it.can_truncate;
      SELECT pg_catalog.min(t.tgname::pg_catalog.text) INTO truncate_trigger FROM pg_catalog.pg_trigger t
        WHERE t.tgrelid = it.oid AND t.tgfoid = ours AND t.tgtype = 32;
      truncate_trigger := coalesce(truncate_trigger, tidewire.free_trigger_name(it.oid, '_notify_truncate'));
      EXECUTE pg_catalog.format(
        'CREATE OR REPLACE TRIGGER %I AFTER TRUNCATE ON %I.%I '
        'FOR EACH STATEMENT EXECUTE FUNCTION @surface@.notify_table_change()',
        truncate_trigger, it.nspname, it.relname);
      IF it.owned THEN
        EXECUTE pg_catalog.format('ALTER TABLE %I.%I ENABLE ALWAYS TRIGGER %I',
          it.nspname, it.relname, truncate_trigger);
      END IF;
    EXCEPTION WHEN insufficient_privilege THEN
      RAISE WARNING 'the triggers of partition %.% are not as they should be and cannot be mended: %',
        it.nspname, it.relname, SQLERRM;
    END;
  END LOOP;
END
$body$;
COMMENT ON FUNCTION @surface@.enable_realtime(pg_catalog.text, pg_catalog.text) IS
  'Tidewire: lets clients follow the changes of a table';

CREATE OR REPLACE FUNCTION @surface@.disable_realtime(schema_name pg_catalog.text, table_name pg_catalog.text)
RETURNS pg_catalog.void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
  it pg_catalog.record;
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
-- So these three have the search_path of their caller, and nothing in them depends on it.
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
    t.tgname::pg_catalog.text AS trigger_name,
    t.tgenabled IN ('O', 'A') AND t.tgtype = 29 AND t.tgqual IS NULL
      AND pg_catalog.cardinality(t.tgattr::pg_catalog.int2[]) = 0 AS enabled
  FROM pg_catalog.pg_trigger t
  JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE t.tgfoid = '@surface@.notify_table_change()'::pg_catalog.regprocedure
    AND t.tgparentid = 0 AND t.tgtype & 1 = 1;
COMMENT ON VIEW @surface@.realtime_enabled_tables IS
  'Tidewire: tables whose changes clients can follow';

-- These two only look, with the rights of the caller.
GRANT EXECUTE ON FUNCTION
  tidewire.free_trigger_name(pg_catalog.oid, pg_catalog.text),
  tidewire.named(pg_catalog.text)
  TO PUBLIC;
REVOKE ALL ON FUNCTION
  @surface@.enable_realtime(pg_catalog.text, pg_catalog.text),
  @surface@.enable_realtime(pg_catalog.text),
  @surface@.disable_realtime(pg_catalog.text, pg_catalog.text),
  @surface@.disable_realtime(pg_catalog.text)
  FROM PUBLIC;
