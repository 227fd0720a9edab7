-- Removes everything that `tidewire sql install` made, and the triggers of every table. Nothing of
-- anybody else's is touched or used: what a stranger owns, or what depends on ours, is an error that
-- names it.
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL lock_timeout = '10s';

DO $uninstall$
DECLARE
  it pg_catalog.record;
  surface pg_catalog.text;
  ours pg_catalog.oid;
  definer pg_catalog.name;
BEGIN
  FOR attempt IN 1..50 LOOP
    EXIT WHEN pg_catalog.pg_try_advisory_xact_lock(1953064037, 3);
    PERFORM pg_catalog.pg_sleep(0.1);
  END LOOP;
  IF pg_catalog.to_regclass('tidewire.settings') IS NULL THEN
    RETURN;
  END IF;
  FOR it IN
    SELECT o.what, pg_catalog.pg_get_userbyid(o.owner) AS owner FROM (@tidewire_objects@) o (what, owner)
      WHERE NOT @trusted(o.owner)@
  LOOP
    RAISE EXCEPTION '% belongs to role %, so it is not what Tidewire installed for this role', it.what, it.owner
      USING ERRCODE = 'TW003', HINT = 'uninstall as that role, or drop it';
  END LOOP;
  -- A role that made the definer and is no superuser is a member of it for this transaction.
  SELECT n.nspowner::pg_catalog.regrole::pg_catalog.text INTO definer FROM pg_catalog.pg_namespace n WHERE n.nspname = 'tidewire';
  IF definer = '@definer@' AND NOT pg_catalog.pg_has_role(definer, 'USAGE') THEN
    IF pg_catalog.current_setting('server_version_num')::pg_catalog.int4 < 160000 THEN
      GRANT @definer@ TO CURRENT_USER;
    ELSE
      EXECUTE 'GRANT @definer@ TO CURRENT_USER WITH INHERIT TRUE, SET TRUE';
    END IF;
  END IF;
  SELECT s.surface INTO surface FROM tidewire.settings s;
  SELECT p.oid INTO ours FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = surface AND p.proname = 'notify_table_change' AND p.pronargs = 0
      AND pg_catalog.obj_description(p.oid, 'pg_proc') LIKE 'Tidewire:%' AND @trusted(p.proowner)@;
  FOR it IN
    SELECT t.tgname, n.nspname, c.relname FROM pg_catalog.pg_trigger t
      JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE t.tgfoid = ours AND t.tgparentid = 0
  LOOP
    EXECUTE pg_catalog.format('DROP TRIGGER %I ON %I.%I', it.tgname, it.nspname, it.relname);
  END LOOP;
  IF EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = surface AND c.relname = 'realtime_enabled_tables' AND c.relkind = 'v'
        AND pg_catalog.obj_description(c.oid, 'pg_class') LIKE 'Tidewire:%' AND @trusted(c.relowner)@) THEN
    EXECUTE pg_catalog.format('DROP VIEW %I.realtime_enabled_tables', surface);
  END IF;
  FOR it IN
    SELECT p.oid::pg_catalog.regprocedure AS signature FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE (n.nspname = surface AND p.proname IN ('notify_table_change', 'enable_realtime', 'disable_realtime')
        AND p.proargtypes::pg_catalog.text IN ('', '25', '25 25')
        AND pg_catalog.obj_description(p.oid, 'pg_proc') LIKE 'Tidewire:%' AND @trusted(p.proowner)@)
      OR (n.nspname = 'tidewire' AND p.proname IN
        ('trigger_name', 'free_trigger_name', 'named', 'publish', 'say', 'enqueue', 'check_message', 'record', 'prune'))
  LOOP
    EXECUTE pg_catalog.format('DROP FUNCTION %s', it.signature);
  END LOOP;
  DROP TABLE IF EXISTS
    tidewire.outbox, tidewire.outbox_epoch, tidewire.settings, tidewire.versions;
  DROP SEQUENCE IF EXISTS tidewire.outbox_losses;
  DROP SCHEMA tidewire;
  IF definer = '@definer@' THEN
    BEGIN
      -- Other databases may have it, too.
      DROP ROLE @definer@;
    EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege OR undefined_object OR object_in_use THEN
      IF EXISTS (SELECT FROM pg_catalog.pg_auth_members m
          WHERE pg_catalog.pg_get_userbyid(m.roleid) = definer AND pg_catalog.pg_get_userbyid(m.member) = CURRENT_USER
            AND pg_catalog.pg_get_userbyid(m.grantor) = CURRENT_USER) THEN
        REVOKE @definer@ FROM CURRENT_USER;
      END IF;
    END;
  END IF;
END
$uninstall$;
COMMIT;
