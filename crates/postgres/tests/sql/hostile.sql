-- What a role makes that may create in schema public, in a schema of its own and temporary tables:
-- an object under every name that our SQL uses. Each says as whom it ran.
CREATE SCHEMA evil;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE FUNCTION evil.spy(what pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.ran VALUES (CAST(current_user AS pg_catalog.text), what);
  RETURN true;
END $$;

DO $make$
DECLARE
  word pg_catalog.text;
  place pg_catalog.text;
  it pg_catalog.record;
BEGIN
  FOREACH place IN ARRAY ARRAY['pg_temp', 'public', 'evil'] LOOP
    FOREACH word IN ARRAY pg_catalog.string_to_array('@words@', ',') LOOP
      -- Types: a domain whose check is run when a variable of the type is made.
      IF EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.typname = word
          AND t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace) THEN
        BEGIN
          EXECUTE pg_catalog.format('CREATE DOMAIN %s.%I AS pg_catalog.text CHECK (evil.spy(%L))',
            place, word, 'type ' || word);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
      END IF;
      -- Relations: ours and the system's.
      IF EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relname = word AND n.nspname IN ('pg_catalog', 'tidewire') AND c.relkind IN ('r', 'v', 'S')) THEN
        BEGIN
          EXECUTE pg_catalog.format('CREATE VIEW %s.%I AS SELECT evil.spy(%L)', place, word, 'relation ' || word);
          EXECUTE pg_catalog.format('GRANT ALL ON %s.%I TO PUBLIC', place, word);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
      END IF;
      -- Functions: of the same arguments, and of others that fit better than those of the system.
      FOR it IN
        SELECT DISTINCT a.types FROM (
          SELECT pg_catalog.array_to_string(ARRAY(
              SELECT CASE WHEN y.typtype = 'p' THEN 'pg_catalog.text' ELSE pg_catalog.format('pg_catalog.%I', y.typname) END
              FROM pg_catalog.unnest(p.proargtypes) WITH ORDINALITY u (oid, at)
              JOIN pg_catalog.pg_type y ON y.oid = u.oid ORDER BY u.at), ', ') AS types
          FROM pg_catalog.pg_proc p WHERE p.proname = word
            AND p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
          UNION ALL SELECT f.types FROM (VALUES ('pg_catalog.name'), ('pg_catalog.oid'),
            ('pg_catalog.text, pg_catalog.name'), ('pg_catalog.text, pg_catalog.name, pg_catalog.name'),
            ('pg_catalog.oid, pg_catalog.text'), ('pg_catalog.name, pg_catalog.text'), ('pg_catalog.bool')) f (types)
          WHERE EXISTS (SELECT FROM pg_catalog.pg_proc p WHERE p.proname = word)) a
      LOOP
        BEGIN
          EXECUTE pg_catalog.format('CREATE FUNCTION %s.%I(%s) RETURNS pg_catalog.text LANGUAGE plpgsql AS '
            '$f$ BEGIN PERFORM evil.spy(%L); RETURN NULL; END $f$', place, word, it.types, 'function ' || word);
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
      END LOOP;
    END LOOP;
    -- Operators, of types that those of the system do not take as they are.
    FOR it IN
      SELECT o.name, l.type AS lhs, r.type AS rhs
        FROM (VALUES ('='), ('<>'), ('~'), ('!~'), ('||'), ('%'), ('&'), ('<'), ('>'), ('~~'), ('!~~'), ('->>')) o (name),
          (VALUES ('text'), ('name'), ('oid'), ('int2'), ('int4'), ('int8'), ('"char"'), ('regclass'), ('xid8'), ('bytea'), ('jsonb')) l (type),
          (VALUES ('text'), ('name'), ('oid'), ('int2'), ('int4'), ('int8'), ('"char"'), ('regclass'), ('xid8'), ('bytea'), ('jsonb')) r (type)
    LOOP
      BEGIN
        EXECUTE pg_catalog.format('CREATE OR REPLACE FUNCTION evil.operate(pg_catalog.%s, pg_catalog.%s) RETURNS pg_catalog.bool '
          'LANGUAGE plpgsql AS $f$ BEGIN RETURN evil.spy(%L); END $f$', it.lhs, it.rhs, 'operator');
        EXECUTE pg_catalog.format('CREATE OPERATOR %s.%s (LEFTARG = pg_catalog.%s, RIGHTARG = pg_catalog.%s, FUNCTION = evil.operate)',
          place, it.name, it.lhs, it.rhs);
      EXCEPTION WHEN OTHERS THEN NULL;
      END;
    END LOOP;
  END LOOP;
END
$make$;

