INSERT INTO tidewire.versions (version) VALUES (@version@) ON CONFLICT (version) DO NOTHING;

DO $end$
DECLARE
  it pg_catalog.record;
  definer pg_catalog.name := pg_catalog.current_setting('tidewire.definer');
BEGIN
  -- Default privileges may have given rights on what was just made.
  IF pg_catalog.current_setting('tidewire.fresh')::pg_catalog.bool THEN
    FOR it IN
      SELECT DISTINCT c.relkind, c.relname, g.rolname FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
        LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
      WHERE n.nspname = 'tidewire' AND a.grantee <> c.relowner
    LOOP
      EXECUTE pg_catalog.format('REVOKE ALL ON %s tidewire.%I FROM %s',
        CASE it.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, it.relname,
        coalesce(pg_catalog.quote_ident(it.rolname), 'PUBLIC'));
    END LOOP;
    -- What PUBLIC may do was said of each; a right of CREATE on the schema, or of EXECUTE on functions
    -- that are for some roles only, is nobody's by default.
    FOR it IN
      SELECT DISTINCT 'SCHEMA tidewire' AS what, g.rolname FROM pg_catalog.pg_namespace n
        CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) a
        JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
      WHERE n.nspname = 'tidewire' AND a.grantee <> n.nspowner
      UNION
      SELECT 'FUNCTION ' || p.oid::pg_catalog.regprocedure::pg_catalog.text, g.rolname
        FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) a
        JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
      WHERE a.grantee <> p.proowner AND (n.nspname = 'tidewire' OR n.nspname = @surface_text@
        AND p.proname IN ('notify_table_change', 'enable_realtime', 'disable_realtime'))
    LOOP
      EXECUTE pg_catalog.format('REVOKE ALL ON %s FROM %I', it.what, it.rolname);
    END LOOP;
  END IF;
  -- First the schema: only who may create in it can be given what is there.
  EXECUTE pg_catalog.format('ALTER SCHEMA tidewire OWNER TO %I', definer);
  FOR it IN
    SELECT pg_catalog.format('TABLE tidewire.%I', c.relname) AS what FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      WHERE n.nspname = 'tidewire' AND pg_catalog.pg_get_userbyid(c.relowner) <> definer
        AND (c.relkind = 'r' OR c.relkind = 'S' AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND d.objid = c.oid AND d.deptype = 'i'))
    UNION ALL SELECT pg_catalog.format('FUNCTION %s', p.oid::pg_catalog.regprocedure) FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
      WHERE n.nspname = 'tidewire' AND pg_catalog.pg_get_userbyid(p.proowner) <> definer
  LOOP
    EXECUTE pg_catalog.format('ALTER %s OWNER TO %I', it.what, definer);
  END LOOP;

  -- Who installed it works with it, too.
  IF definer <> CURRENT_USER THEN
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tidewire TO CURRENT_USER;
    GRANT SELECT ON SEQUENCE tidewire.outbox_losses TO CURRENT_USER;
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tidewire TO CURRENT_USER;
  END IF;

  -- Once more: somebody may have made one of these while we did.
  FOR it IN
    SELECT o.what, pg_catalog.pg_get_userbyid(o.owner) AS owner FROM (@objects@) o (what, owner)
      WHERE NOT @trusted(o.owner)@
  LOOP
    RAISE EXCEPTION '% belongs to role %, who could have it do anything as whoever uses it', it.what, it.owner
      USING ERRCODE = 'TW003', HINT = 'drop it';
  END LOOP;

  -- A role that is no superuser was a member of the definer for this transaction.
  IF definer <> CURRENT_USER AND EXISTS (
      SELECT FROM pg_catalog.pg_auth_members m
      WHERE pg_catalog.pg_get_userbyid(m.roleid) = definer AND pg_catalog.pg_get_userbyid(m.member) = CURRENT_USER
        AND pg_catalog.pg_get_userbyid(m.grantor) = CURRENT_USER) THEN
    EXECUTE pg_catalog.format('REVOKE %I FROM CURRENT_USER', definer);
  END IF;
END
$end$;
COMMIT;
