//! A database whose search path begins with functions and operators of a stranger, under the names
//! of PostgreSQL's own: none of them ever runs as us.

use tidewire::Authenticator;
use tidewire_postgres::{AuthFunction, Preparer, SnapshotLimits, Snapshots, Target, doctor};
use tidewire_protocol::{Code, Interest, Token, Topic};
use tokio_postgres::Client;

use crate::support::changes::Witness;
use crate::support::{cluster, database, newer_cluster};
use crate::wal::quick;

/// Makes a function and an operator that fail, for every one that PostgreSQL has with arguments of
/// plain types, and has everybody's sessions look there first.
const HOSTILE: &str = r"
CREATE SCHEMA hostile;
DO $do$
DECLARE it record;
BEGIN
  FOR it IN SELECT p.proname, pg_catalog.oidvectortypes(p.proargtypes) AS args,
                   pg_catalog.pg_get_function_result(p.oid) AS result
            FROM pg_catalog.pg_proc p
            WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f'
              AND NOT EXISTS (SELECT FROM unnest(p.proargtypes) a JOIN pg_type t ON t.oid = a
                              WHERE t.typtype = 'p')
  LOOP
    BEGIN
      EXECUTE format($f$CREATE FUNCTION hostile.%I(%s) RETURNS %s LANGUAGE plpgsql AS
        $b$BEGIN RAISE EXCEPTION 'hostile.%s ran as %%', current_user; END$b$ $f$,
        it.proname, it.args, it.result, it.proname);
    EXCEPTION WHEN others THEN NULL;
    END;
  END LOOP;
  FOR it IN SELECT o.oprname, o.oprleft::regtype::text AS l, o.oprright::regtype::text AS r,
                   p.proname
            FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
            WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprleft <> 0
  LOOP
    BEGIN
      EXECUTE format('CREATE OPERATOR hostile.%s (FUNCTION = hostile.%I, LEFTARG = %s, RIGHTARG = %s)',
        it.oprname, it.proname, it.l, it.r);
    EXCEPTION WHEN others THEN NULL;
    END;
  END LOOP;
  -- Closer to what is asked than PostgreSQL's own of any type.
  FOREACH it.l IN ARRAY ARRAY['boolean', 'text', 'jsonb', 'integer'] LOOP
    EXECUTE format($f$CREATE FUNCTION hostile.to_jsonb(%s) RETURNS jsonb LANGUAGE sql AS
      $b$ SELECT 'true'::jsonb $b$ $f$, it.l);
  END LOOP;
END $do$;
";

async fn prepare(sql: &Client, name: &str) {
    sql.batch_execute(HOSTILE).await.unwrap();
    let made = "SELECT (SELECT count(*) FROM pg_proc WHERE pronamespace = 'hostile'::regnamespace),
                       (SELECT count(*) FROM pg_operator WHERE oprnamespace = 'hostile'::regnamespace)";
    let made = sql.query_one(made, &[]).await.unwrap();
    assert!(made.get::<_, i64>(0) > 1_000 && made.get::<_, i64>(1) > 300, "{made:?}");
    let setup = format!(
        "CREATE SCHEMA app;
         CREATE TYPE app.mood AS ENUM ('calm', 'cross');
         CREATE TABLE app.t (id int PRIMARY KEY, name text, feels app.mood, at timestamptz);
         INSERT INTO app.t VALUES (1, 'one', 'calm', '2024-01-01 00:00Z');
         CREATE FUNCTION app.check_token(token text) RETURNS boolean LANGUAGE sql
           AS $$ SELECT token OPERATOR(pg_catalog.=) 'good' $$;
         ALTER DATABASE {name} SET search_path = hostile, pg_catalog, app"
    );
    sql.batch_execute(&setup).await.unwrap();
}

/// Everything that asks the database, once.
async fn ask_everything(target: &Target) {
    target.probe().await.unwrap();
    let report = doctor::examine(target, &quick()).await.text();
    assert!(!report.contains("hostile."), "{report}");
    let tables = doctor::tables(target, &quick()).await.unwrap();
    assert!(tables.iter().any(|table| table.table == "t"));

    let topic = Topic::table("app.t").unwrap();
    let snapshots = Snapshots::new(target, Preparer::new(target), SnapshotLimits::default());
    let filter = "name=ilike.ONE,feels=eq.calm,at=gt.2020-01-01,id=in.(1,2)";
    let interest = Interest { filter: Some(filter.into()), ..Interest::default() };
    assert_eq!(snapshots.snapshot(&topic, &interest).await.unwrap().rows.len(), 1);

    let (publisher, mut witness) = Witness::new();
    let source = tidewire_postgres::WalSource::start(target.clone(), publisher, quick());
    source.add(&topic).await.unwrap();
    source.catch_up().await.unwrap();
    witness.next().await;
    source.shutdown().await;

    for name in ["app.check_token", "check_token"] {
        let function = AuthFunction::new(target, name).unwrap();
        function.identify(&Token::new("good")).await.unwrap();
        let refused = function.identify(&Token::new("bad")).await.unwrap_err();
        assert_eq!(refused.code, Code::TokenInvalid);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_search_path_that_a_stranger_fills_runs_as_us() {
    let cluster = cluster();
    let (target, sql) = database(&cluster, "hostile_path").await;
    prepare(&sql, "hostile_path").await;
    ask_everything(&target).await;
    if let Some(newer) = newer_cluster() {
        let (target, sql) = database(&newer, "hostile_path").await;
        prepare(&sql, "hostile_path").await;
        ask_everything(&target).await;
    }
}

#[tokio::test]
async fn settings_of_the_role_and_the_connection_string_do_not_reach_us() {
    let cluster = cluster();
    let (_, sql) = database(&cluster, "settings_path").await;
    sql.batch_execute(
        "ALTER DATABASE settings_path SET standard_conforming_strings = off;
         ALTER DATABASE settings_path SET quote_all_identifiers = on;
         ALTER DATABASE settings_path SET default_transaction_isolation = 'serializable';
         ALTER DATABASE settings_path SET DateStyle = 'German';
         ALTER DATABASE settings_path SET idle_session_timeout = '3s';
         CREATE FUNCTION setting(token text) RETURNS TABLE (user_id text, authenticated boolean)
           LANGUAGE sql AS $$ SELECT current_setting(token), true $$;
         CREATE TYPE feeling AS ENUM ('it\\''s');
         CREATE TABLE t (id int PRIMARY KEY, day date, feels feeling, of regclass);
         INSERT INTO t VALUES (1, '2024-02-01', 'it\\''s', 't')",
    )
    .await
    .unwrap();
    let url = crate::support::database_url(&cluster, "settings_path");
    let target: Target = format!("{url}?options=-c%20search_path%3Dnowhere").parse().unwrap();
    let snapshots = Snapshots::new(&target, Preparer::new(&target), SnapshotLimits::default());
    let topic = Topic::table("public.t").unwrap();
    let interest = Interest { filter: Some("feels=eq.it\\'s".into()), ..Interest::default() };
    let rows = snapshots.snapshot(&topic, &interest).await.unwrap();
    let values: Vec<_> = (0..4).map(|at| rows.rows[0].json(at).unwrap().to_owned()).collect();
    assert_eq!(values, ["1", "\"2024-02-01\"", "\"it\\\\'s\"", "\"public.t\""]);
    let target: Target = url.parse().unwrap();
    let function = AuthFunction::new(&target, "setting").unwrap();
    for (name, expected) in [
        ("idle_session_timeout", "0"),
        ("standard_conforming_strings", "on"),
        ("DateStyle", "ISO, MDY"),
        ("transaction_isolation", "read committed"),
        // Names that the function's body does not qualify mean what they mean to the role.
        ("search_path", "public, pg_temp"),
    ] {
        let identity = function.identify(&Token::new(name)).await.unwrap();
        assert_eq!(identity.subject.as_deref().unwrap().replace('"', ""), expected, "{name}");
    }
}
