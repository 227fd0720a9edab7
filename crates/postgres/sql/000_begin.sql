-- Tidewire's part of a database, version @version@: changes of rows, and tidewire.publish.
--
-- Idempotent: running it again changes nothing, running it over an older version brings that up to
-- date. Everything happens in one transaction. Objects: schema tidewire, and in schema @surface@
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
    IF found > @version@ THEN
      RAISE EXCEPTION 'version % of Tidewire''s tables is installed, which is newer than version @version@', found
        USING ERRCODE = 'TW001', HINT = 'use the tidewire program that installed it, or a newer one';
    END IF;
  END IF;
  -- Another program may have functions of the same names.
  SELECT pg_catalog.format('%I.%I', n.nspname, p.proname) INTO stranger
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = @surface_text@
      AND p.proname IN ('notify_table_change', 'enable_realtime', 'disable_realtime')
      AND coalesce(pg_catalog.obj_description(p.oid, 'pg_proc'), '') NOT LIKE 'Tidewire:%'
    LIMIT 1;
  IF stranger IS NOT NULL AND NOT @replace@ THEN
    RAISE EXCEPTION 'the function % is there already and is not Tidewire''s', stranger
      USING ERRCODE = 'TW002',
        HINT = 'run `tidewire sql install --replace` to put ours in its place, so that triggers that use it feed Tidewire, or `--schema NAME` to install ours in another schema';
  END IF;
END
$begin$;
