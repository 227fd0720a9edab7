-- Removes everything that `tidewire sql install` made, and the triggers of every table. Nothing of
-- anybody else's is touched: what depends on ours is an error that names it.
BEGIN;
SET LOCAL search_path = '';
SET LOCAL lock_timeout = '10s';
SELECT pg_catalog.pg_advisory_xact_lock(1953064037, 3);

DO $uninstall$
DECLARE
  it record;
  surface pg_catalog.text;
BEGIN
  IF pg_catalog.to_regclass('tidewire.settings') IS NULL THEN
    RETURN;
  END IF;
  SELECT s.surface INTO surface FROM tidewire.settings s;
  FOR it IN
    SELECT t.tgname, n.nspname, c.relname FROM pg_catalog.pg_trigger t
      JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
      JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE p.proname = 'notify_table_change' AND t.tgparentid = 0
      AND pg_catalog.obj_description(p.oid, 'pg_proc') LIKE 'Tidewire:%'
  LOOP
    EXECUTE pg_catalog.format('DROP TRIGGER %I ON %I.%I', it.tgname, it.nspname, it.relname);
  END LOOP;
  EXECUTE pg_catalog.format('DROP VIEW IF EXISTS %I.realtime_enabled_tables', surface);
  FOR it IN
    SELECT p.oid::pg_catalog.regprocedure AS signature FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE (p.proname IN ('notify_table_change', 'enable_realtime', 'disable_realtime')
        AND pg_catalog.obj_description(p.oid, 'pg_proc') LIKE 'Tidewire:%')
      OR (n.nspname = 'tidewire'
        AND p.proname IN ('trigger_name', 'named', 'publish', 'say', 'prune'))
  LOOP
    EXECUTE pg_catalog.format('DROP FUNCTION %s', it.signature);
  END LOOP;
  DROP TABLE IF EXISTS
    tidewire.outbox, tidewire.outbox_epoch, tidewire.settings, tidewire.versions;
  DROP SEQUENCE IF EXISTS tidewire.outbox_losses;
  DROP SCHEMA tidewire;
END
$uninstall$;
COMMIT;
