-- Tidewire's part of a database, version @version@: changes of rows, and tidewire.publish.
--
-- Idempotent: running it again changes nothing, running it over an older version brings that up to
-- date. Everything happens in one transaction. Objects: schema tidewire, and in schema @surface@
-- the functions enable_realtime, disable_realtime, notify_table_change and the view
-- realtime_enabled_tables; where the installing role may create roles, the role @definer@, which
-- can do nothing but own schema tidewire. `tidewire sql uninstall` removes them all.
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL client_min_messages = warning;
-- A table of ours that is in use (a long poll, a dump) must not hold up writers behind us.
SET LOCAL lock_timeout = '10s';

DO $begin$
DECLARE
  it pg_catalog.record;
  installed pg_catalog.int4;
  reason pg_catalog.text;
  owner pg_catalog.name := CURRENT_USER;
BEGIN
  -- One installation at a time. Any role can take this lock, so it is waited for, but not for ever.
  FOR attempt IN 1..50 LOOP
    EXIT WHEN pg_catalog.pg_try_advisory_xact_lock(1953064037, 3);
    PERFORM pg_catalog.pg_sleep(0.1);
  END LOOP;

  -- What a stranger owns, a stranger can change: nothing of it is taken over, run or read.
  FOR it IN
    SELECT o.what, pg_catalog.pg_get_userbyid(o.owner) AS owner FROM (@objects@) o (what, owner)
      WHERE NOT @trusted(o.owner)@
  LOOP
    RAISE EXCEPTION '% belongs to role %, who could have it do anything as whoever uses it', it.what, it.owner
      USING ERRCODE = 'TW003',
        HINT = pg_catalog.format('drop it, or have a superuser look at it and give it to %I; where that role installed Tidewire, run `tidewire sql uninstall` as that role first', CURRENT_USER);
  END LOOP;
  -- A table of ours has neither triggers nor rules nor policies.
  FOR it IN
    SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = 'tidewire' AND (c.relkind NOT IN ('r', 'i', 'S', 't') OR c.relrowsecurity
        OR EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid)
        OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid)
        OR EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent)
          AND c.relkind = 'r'))
  LOOP
    RAISE EXCEPTION 'tidewire.% is no plain table', it.relname USING ERRCODE = 'TW003',
      HINT = 'a table of Tidewire has no trigger, rule or policy: remove it';
  END LOOP;

  -- Another program of ours may have functions of the same names.
  SELECT pg_catalog.format('%I.%I', n.nspname, p.proname) INTO reason
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname = @surface_text@
      AND p.proname IN ('notify_table_change', 'enable_realtime', 'disable_realtime')
      AND p.proargtypes::pg_catalog.text IN ('', '25', '25 25')
      AND coalesce(pg_catalog.obj_description(p.oid, 'pg_proc'), '') NOT LIKE 'Tidewire:%'
    LIMIT 1;
  IF reason IS NOT NULL AND NOT @replace@ THEN
    RAISE EXCEPTION 'the function % is there already and is not Tidewire''s', reason
      USING ERRCODE = 'TW002',
        HINT = 'run `tidewire sql install --replace` to put ours in its place, so that triggers that use it feed Tidewire, or `--schema NAME` to install ours in another schema';
  END IF;

  -- Who owns schema tidewire, as whom the functions there run that applications call: a role that
  -- can do nothing else, where there may be one; else the role that installs.
  SELECT r.rolsuper, r.rolcreaterole INTO it FROM pg_catalog.pg_roles r WHERE r.rolname = CURRENT_USER;
  IF it.rolsuper OR it.rolcreaterole THEN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = '@definer@') THEN
      BEGIN
        CREATE ROLE @definer@ NOLOGIN;
      EXCEPTION WHEN duplicate_object OR unique_violation THEN
        NULL;  -- Made by an installation in another database just now.
      END;
    END IF;
    reason := @definer_flaw@;
    IF reason IS NOT NULL THEN
      RAISE EXCEPTION 'role @definer@ is there already and cannot own Tidewire''s tables: %', reason
        USING ERRCODE = 'TW004', HINT = 'rename or drop it; Tidewire makes a role of this name for itself';
    END IF;
    IF it.rolsuper THEN
      owner := '@definer@';
    ELSIF pg_catalog.current_setting('server_version_num')::pg_catalog.int4 < 160000 THEN
      GRANT @definer@ TO CURRENT_USER;
      owner := '@definer@';
    ELSIF pg_catalog.pg_has_role('@definer@', 'MEMBER WITH ADMIN OPTION') THEN
      EXECUTE 'GRANT @definer@ TO CURRENT_USER WITH INHERIT TRUE, SET TRUE';
      owner := '@definer@';
    END IF;
  END IF;
  IF pg_catalog.to_regclass('tidewire.versions') IS NOT NULL THEN
    SELECT pg_catalog.max(v.version) INTO installed FROM tidewire.versions v;
    IF installed > @version@ THEN
      RAISE EXCEPTION 'version % of Tidewire''s tables is installed, which is newer than version @version@', installed
        USING ERRCODE = 'TW001', HINT = 'use the tidewire program that installed it, or a newer one';
    END IF;
  END IF;
  PERFORM pg_catalog.set_config('tidewire.definer', owner, true),
    pg_catalog.set_config('tidewire.fresh', (pg_catalog.to_regnamespace('tidewire') IS NULL)::pg_catalog.text, true);
END
$begin$;
