//! A stranger in the database: a role that may log in, have temporary tables, and make objects in
//! schema public and in a schema of its own.

use std::sync::Arc;

use tidewire_postgres::doctor::{self, Outcome};
use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::sql::{self, InstallOptions};
use tidewire_postgres::{OutboxOptions, OutboxSource, Target, WalOptions};
use tidewire_protocol::{Code, Topic};
use tokio_postgres::Client;

use crate::support::changes::Witness;
use crate::support::{cluster, connect, database, database_url, newer_cluster};

const VERSION_2: &str = include_str!("version_2.sql");
const HOSTILE: &str = include_str!("hostile.sql");

/// A database in which a stranger's objects say as whom they ran.
struct Scene {
    _cluster: Arc<PrivateCluster>,
    target: Target,
    admin: Client,
    stranger: Client,
    url: String,
}

impl Scene {
    async fn new(cluster: Arc<PrivateCluster>, name: &str) -> Self {
        let (target, admin) = database(&cluster, name).await;
        admin
            .batch_execute(&format!(
                "CREATE ROLE mallory LOGIN; CREATE ROLE writer LOGIN; \
                 GRANT CREATE ON SCHEMA public TO mallory; \
                 GRANT CREATE ON DATABASE {name} TO mallory; \
                 CREATE TABLE public.ran (who text, what text); \
                 GRANT INSERT ON public.ran TO PUBLIC"
            ))
            .await
            .unwrap();
        let url = database_url(&cluster, name);
        let stranger = connect(&as_role(&url, "mallory")).await;
        Self { _cluster: cluster, target, admin, stranger, url }
    }

    async fn as_role(&self, role: &str) -> Client {
        connect(&as_role(&self.url, role)).await
    }

    /// What ran as somebody else than the stranger.
    async fn escalations(&self) -> Vec<(String, String)> {
        const SQL: &str =
            "SELECT DISTINCT who, what FROM public.ran WHERE who <> 'mallory' ORDER BY 2";
        let rows = self.admin.query(SQL, &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}

fn as_role(url: &str, role: &str) -> String {
    url.replacen("//postgres@", &format!("//{role}@"), 1)
}

async fn install(target: &Target) {
    sql::install(target, &InstallOptions::default()).await.unwrap();
}

/// Every word of our SQL that could be the name of something.
fn words() -> String {
    let text = sql::print(&InstallOptions::default());
    let mut words: Vec<&str> =
        text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    words.retain(|word| word.starts_with(|c: char| c.is_ascii_lowercase()) && word.len() < 60);
    words.sort_unstable();
    words.dedup();
    words.join(",")
}

/// Objects of the stranger under the name of everything that our SQL uses, in pg_temp, in schema public
/// and in a schema that it puts first in search_path, run nothing as anybody but the stranger.
async fn nothing_runs_as_another(cluster: Arc<PrivateCluster>, name: &str) {
    let scene = Scene::new(cluster, name).await;
    scene.admin.batch_execute(VERSION_2).await.unwrap();
    // The stranger was first: its objects are there before the upgrade.
    scene.stranger.batch_execute(&HOSTILE.replace("@words@", &words())).await.unwrap();
    let made: i64 = scene
        .stranger
        .query_one(
            "SELECT pg_catalog.count(*) FROM pg_catalog.pg_proc p \
        WHERE p.proowner = 'mallory'::pg_catalog.regrole",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert!(made > 200, "{made} hostile functions");
    install(&scene.target).await;
    scene
        .admin
        .batch_execute(
            "CREATE TABLE public.items (id int PRIMARY KEY, body text, at timestamptz); \
             CREATE TABLE public.parts (id int) PARTITION BY RANGE (id); \
             CREATE TABLE public.part1 PARTITION OF public.parts FOR VALUES FROM (0) TO (9); \
             GRANT ALL ON public.items, public.parts, public.part1 TO mallory, writer; \
             GRANT EXECUTE ON FUNCTION tidewire.publish(text, jsonb, text), \
               tidewire.publish(text, text, text) TO mallory; \
             SELECT public.enable_realtime('public', 'items'); SELECT public.enable_realtime('parts')",
        )
        .await
        .unwrap();
    let fire = "INSERT INTO public.items SELECT g, 'x' FROM pg_catalog.generate_series(1, 600) g; \
        UPDATE public.items SET body = 'y' WHERE id OPERATOR(pg_catalog.=) 1; \
        DELETE FROM public.items; INSERT INTO public.parts VALUES (1); TRUNCATE public.part1; \
        TRUNCATE public.parts, public.items;";
    let publish = "SELECT tidewire.publish('t', '{\"a\": 1}'::pg_catalog.jsonb, 'e'); \
        SELECT tidewire.publish('t'::pg_catalog.text, 'x'::pg_catalog.text);";
    for path in ["pg_temp, evil, public, pg_catalog", "evil", "public", "pg_temp"] {
        let set = format!("SET search_path = {path};");
        scene.stranger.batch_execute(&format!("{set}{fire}{publish}")).await.unwrap();
    }
    scene.admin.batch_execute("UPDATE tidewire.settings SET sink = 'wal'").await.unwrap();
    scene.stranger.batch_execute(publish).await.unwrap();
    // Others, who have what is in public before them.
    scene.admin.batch_execute(fire).await.unwrap();
    scene.as_role("writer").await.batch_execute(fire).await.unwrap();
    install(&scene.target).await;
    sql::installation(&scene.target).await.unwrap().unwrap();
    scene
        .admin
        .batch_execute(
            "ALTER TABLE public.part1 DISABLE TRIGGER ALL; \
             SELECT public.enable_realtime('parts'), public.enable_realtime('public', 'items'); \
             SELECT * FROM public.realtime_enabled_tables; SELECT public.disable_realtime('parts')",
        )
        .await
        .unwrap();
    sql::uninstall(&scene.target).await.unwrap();
    assert_eq!(scene.escalations().await, []);
}

#[tokio::test]
async fn objects_of_a_stranger_under_names_of_ours_run_as_nobody_else() {
    nothing_runs_as_another(cluster(), "st_names").await;
}

#[tokio::test]
async fn nor_do_they_on_the_newer_postgresql() {
    if let Some(newer) = newer_cluster() {
        nothing_runs_as_another(Arc::new(newer), "st_newer").await;
    }
}

#[tokio::test]
async fn a_cast_of_the_owner_of_a_table_runs_as_who_writes() {
    let scene = Scene::new(cluster(), "st_cast").await;
    install(&scene.target).await;
    scene
        .admin
        .batch_execute(
            "GRANT EXECUTE ON FUNCTION public.notify_table_change(), public.enable_realtime(text), \
               public.enable_realtime(text, text), tidewire.named(text), \
               tidewire.free_trigger_name(oid, text) TO mallory",
        )
        .await
        .unwrap();
    scene
        .stranger
        .batch_execute(
            "CREATE SCHEMA evil; CREATE TYPE evil.mood AS ENUM ('well'); \
             CREATE FUNCTION evil.spy(evil.mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN \
               INSERT INTO public.ran VALUES (current_user, 'cast'); \
               PERFORM tidewire.record('I', 'public.secret'::regclass, '{\"forged\": 1}', NULL, NULL); \
               RETURN '1'; END $$; \
             CREATE CAST (evil.mood AS json) WITH FUNCTION evil.spy(evil.mood); \
             CREATE TABLE public.trap (id int, m evil.mood); GRANT INSERT ON public.trap TO writer; \
             GRANT USAGE ON SCHEMA evil TO writer",
        )
        .await
        .unwrap();
    scene.admin.batch_execute("CREATE TABLE public.secret (id int)").await.unwrap();
    scene
        .stranger
        .batch_execute(
            "SELECT public.enable_realtime('trap'); \
        INSERT INTO public.trap VALUES (1, 'well')",
        )
        .await
        .unwrap();
    scene
        .as_role("writer")
        .await
        .batch_execute("INSERT INTO public.trap VALUES (2, 'well')")
        .await
        .unwrap();
    // As a trigger of the table would: as the one who writes, and as nobody else.
    let who: Vec<String> = scene
        .admin
        .query("SELECT DISTINCT who FROM public.ran ORDER BY 1", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert_eq!(who, ["mallory", "writer"]);
    let rows =
        scene.admin.query("SELECT rel::regclass::text FROM tidewire.outbox", &[]).await.unwrap();
    assert!(rows.iter().all(|row| row.get::<_, String>(0) == "trap"), "nothing was forged");
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn who_may_not_write_a_table_cannot_record_changes_of_it() {
    let scene = Scene::new(cluster(), "st_forge").await;
    install(&scene.target).await;
    scene
        .admin
        .batch_execute(
            "CREATE TABLE public.items (id int); \
        SELECT public.enable_realtime('items')",
        )
        .await
        .unwrap();
    let line = {
        // The line that our function really calls from, as a stranger can read it.
        let source: String = scene
            .stranger
            .query_one(
                "SELECT p.prosrc FROM pg_proc p \
            WHERE p.proname = 'notify_table_change'",
                &[],
            )
            .await
            .unwrap()
            .get(0);
        1 + source[..source.find("IF pg_catalog.to_regproc").unwrap()].matches('\n').count()
    };
    let frame = format!("PL/pgSQL function public.notify_table_change() line {line} at IF");
    let call = "tidewire.record('I', 'public.items'::regclass, '{\"id\": 9}', NULL, NULL)";
    for attempt in [
        format!("SELECT {call}"),
        format!("SELECT {call} \"\n{frame}\""),
        format!("DO $do$ BEGIN PERFORM {call}; END $do$"),
        format!("DO $do$ BEGIN EXECUTE $sql$SELECT {call} \"\n{frame}\"$sql$; END $do$"),
        format!("DO $do$ BEGIN EXECUTE $sql$SELECT {call} /* \"\n{frame}\n*/$sql$; END $do$"),
        format!("DO $do$ BEGIN{}IF {call} THEN NULL; END IF; END $do$", "\n".repeat(line - 1)),
        format!(
            "CREATE SCHEMA IF NOT EXISTS evil; CREATE FUNCTION evil.\"x()\n{frame}\"() RETURNS void \
             LANGUAGE plpgsql AS $f$ BEGIN IF {call} THEN NULL; END IF; END $f$; \
             SELECT evil.\"x()\n{}\"()",
            &frame
        ),
        format!(
            "CREATE FUNCTION evil.notify_table_change() RETURNS void LANGUAGE plpgsql AS $f${}\
             IF {call} THEN NULL; END IF; END $f$; SET search_path = evil, public; \
             SELECT evil.notify_table_change(); SELECT notify_table_change()",
            format_args!("{}BEGIN ", "\n".repeat(line - 1)),
        ),
        "INSERT INTO tidewire.outbox (op) VALUES ('I')".to_owned(),
        "CREATE TABLE public.mine (id int); CREATE TRIGGER t AFTER INSERT ON public.mine \
         FOR EACH ROW EXECUTE FUNCTION public.notify_table_change()"
            .to_owned(),
    ] {
        // Some are refused, the others do nothing.
        let _ = scene.stranger.batch_execute(&attempt).await;
        let rows = scene.admin.query("SELECT FROM tidewire.outbox", &[]).await.unwrap();
        assert_eq!(rows.len(), 0, "{attempt}");
    }
}

#[tokio::test]
async fn what_a_stranger_prepared_is_neither_installed_over_nor_used() {
    let scene = Scene::new(cluster(), "st_prepared").await;
    let spy = "RETURNS void LANGUAGE plpgsql AS $$ BEGIN \
               INSERT INTO public.ran VALUES (current_user, 'prepared'); END $$";
    let fake = format!(
        "CREATE FUNCTION public.enable_realtime(a text, b text) {spy}; \
         COMMENT ON FUNCTION public.enable_realtime(text, text) IS 'Tidewire: lets clients follow'"
    );
    scene.stranger.batch_execute(&fake).await.unwrap();
    for replace in [false, true] {
        let options = InstallOptions { replace, ..InstallOptions::default() };
        let refused = sql::install(&scene.target, &options).await.unwrap_err().to_string();
        assert!(refused.contains("belongs to role mallory"), "{refused}");
    }
    let nothing = scene
        .admin
        .query_one(
            "SELECT to_regnamespace('tidewire') IS NULL AND NOT EXISTS \
        (SELECT FROM pg_roles WHERE rolname = 'tidewire_owner')",
            &[],
        )
        .await
        .unwrap();
    assert!(nothing.get::<_, bool>(0), "nothing was done");

    // A whole installation of the stranger's.
    scene.stranger.batch_execute("DROP FUNCTION public.enable_realtime(text, text)").await.unwrap();
    let trap = format!(
        "{VERSION_2} CREATE FUNCTION public.spy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
           INSERT INTO public.ran VALUES (current_user, 'trap'); RETURN NEW; END $$; \
         CREATE TRIGGER t BEFORE INSERT OR UPDATE ON tidewire.settings FOR EACH ROW EXECUTE FUNCTION public.spy(); \
         CREATE TRIGGER t BEFORE INSERT ON tidewire.versions FOR EACH ROW EXECUTE FUNCTION public.spy(); \
         GRANT ALL ON SCHEMA tidewire TO PUBLIC; GRANT ALL ON ALL TABLES IN SCHEMA tidewire TO PUBLIC"
    );
    scene.stranger.batch_execute(&trap).await.unwrap();
    let refused = sql::install(&scene.target, &InstallOptions::default()).await.unwrap_err();
    assert!(refused.to_string().contains("schema tidewire belongs to role mallory"), "{refused}");
    let refused = sql::uninstall(&scene.target).await.unwrap_err();
    assert!(refused.to_string().contains("belongs to role mallory"), "{refused}");
    let found = sql::installation(&scene.target).await.unwrap().unwrap();
    assert!(found.untrusted.is_some_and(|what| what.contains("mallory")));
    let report = doctor::examine(&scene.target, &WalOptions::default()).await;
    let check = report.checks.iter().find(|check| check.name == "outbox").unwrap();
    assert_eq!(check.outcome, Outcome::Fail, "{}", report.text());
    doctor::tables(&scene.target, &WalOptions::default()).await.unwrap();
    assert!(sql::set_sink(&scene.target, sql::Sink::Wal).await.is_err());
    scene.admin.batch_execute("CREATE TABLE public.a (id int PRIMARY KEY)").await.unwrap();
    let (publisher, _witness) = Witness::new();
    let source = OutboxSource::start(scene.target.clone(), publisher, OutboxOptions::default());
    let refused = source.add(&Topic::table("public.a").unwrap()).await.unwrap_err();
    assert_eq!(refused.code, Code::NotConfigured, "{}", refused.message);
    assert!(refused.message.contains("mallory"), "{}", refused.message);
    source.shutdown().await;
    assert_eq!(scene.escalations().await, []);
}

#[tokio::test]
async fn a_role_that_is_there_already_is_not_taken_for_the_definer() {
    let scene = Scene::new(cluster(), "st_definer").await;
    for flaw in [
        "CREATE ROLE tidewire_owner LOGIN",
        "CREATE ROLE tidewire_owner CREATEROLE",
        "CREATE ROLE tidewire_owner; GRANT tidewire_owner TO mallory",
        "CREATE ROLE tidewire_owner; GRANT mallory TO tidewire_owner",
        "CREATE ROLE tidewire_owner; CREATE TABLE public.x (); ALTER TABLE public.x OWNER TO tidewire_owner",
    ] {
        scene.admin.batch_execute(flaw).await.unwrap();
        let refused = sql::install(&scene.target, &InstallOptions::default()).await.unwrap_err();
        assert!(refused.to_string().contains("tidewire_owner"), "{flaw}: {refused}");
        scene
            .admin
            .batch_execute("DROP OWNED BY tidewire_owner; DROP ROLE tidewire_owner")
            .await
            .unwrap();
    }
    install(&scene.target).await;
    const DEFINER: &str = "SELECT rolcanlogin OR rolsuper OR rolcreaterole OR rolreplication, \
        (SELECT nspowner = r.oid FROM pg_namespace WHERE nspname = 'tidewire'), \
        (SELECT bool_and(proowner = r.oid) FROM pg_proc WHERE prosecdef AND pronamespace = 'tidewire'::regnamespace) \
        FROM pg_roles r WHERE rolname = 'tidewire_owner'";
    let row = scene.admin.query_one(DEFINER, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (false, true, true));
    let found = sql::installation(&scene.target).await.unwrap().unwrap();
    assert_eq!(found.definer.as_deref(), Some("tidewire_owner"));
    // Whoever gets hold of it later makes the installation one that is not used.
    scene.admin.batch_execute("GRANT tidewire_owner TO mallory").await.unwrap();
    let found = sql::installation(&scene.target).await.unwrap().unwrap();
    assert!(found.untrusted.is_some());
}

#[tokio::test]
async fn a_role_that_may_create_roles_installs_uninstalls_and_is_no_member_of_the_definer() {
    let clusters = [Some(cluster()), newer_cluster().map(Arc::new)];
    for cluster in clusters.into_iter().flatten() {
        let scene = Scene::new(cluster, "st_creator").await;
        scene
            .admin
            .batch_execute(
                "CREATE ROLE creator LOGIN CREATEROLE; GRANT CREATE ON SCHEMA public TO creator; \
                 ALTER DATABASE st_creator OWNER TO creator",
            )
            .await
            .unwrap();
        let target: Target = as_role(&scene.url, "creator").parse().unwrap();
        install(&target).await;
        install(&target).await;
        let creator = scene.as_role("creator").await;
        creator
            .batch_execute(
                "CREATE TABLE a (id int); SELECT enable_realtime('a'); INSERT INTO a VALUES (1)",
            )
            .await
            .unwrap();
        let found = sql::installation(&target).await.unwrap().unwrap();
        assert_eq!((found.definer.as_deref(), found.untrusted), (Some("tidewire_owner"), None));
        let denied = creator.batch_execute("DROP TABLE tidewire.outbox").await;
        assert!(denied.is_err(), "it is no member after the installation");
        let rows = scene.admin.query("SELECT FROM tidewire.outbox", &[]).await.unwrap();
        assert_eq!(rows.len(), 1);
        sql::uninstall(&target).await.unwrap();
        let row = scene
            .admin
            .query_one("SELECT count(*) FROM pg_roles WHERE rolname = 'tidewire_owner'", &[]);
        assert_eq!(row.await.unwrap().get::<_, i64>(0), 0);
    }
}

#[tokio::test]
async fn an_older_version_is_called_vulnerable_until_it_is_upgraded() {
    let scene = Scene::new(cluster(), "st_older").await;
    scene.admin.batch_execute(VERSION_2).await.unwrap();
    scene
        .admin
        .batch_execute(
            "CREATE TABLE public.a (id int PRIMARY KEY); SELECT public.enable_realtime('a')",
        )
        .await
        .unwrap();
    let report = doctor::examine(&scene.target, &WalOptions::default()).await;
    assert!(report.text().contains("vulnerable"), "{}", report.text());
    let (publisher, _witness) = Witness::new();
    let options = OutboxOptions { install: false, ..OutboxOptions::default() };
    let source = OutboxSource::start(scene.target.clone(), publisher, options);
    let refused = source.add(&Topic::table("public.a").unwrap()).await.unwrap_err();
    assert!(refused.message.contains("vulnerable"), "{}", refused.message);
    source.shutdown().await;
    let (publisher, _second) = Witness::new();
    let source = OutboxSource::start(scene.target.clone(), publisher, OutboxOptions::default());
    source.add(&Topic::table("public.a").unwrap()).await.unwrap();
    source.shutdown().await;
    let found = sql::installation(&scene.target).await.unwrap().unwrap();
    assert_eq!((found.version, found.definer.as_deref()), (sql::VERSION, Some("tidewire_owner")));
    scene.admin.batch_execute("INSERT INTO public.a VALUES (1)").await.unwrap();
}

#[tokio::test]
async fn default_privileges_give_nobody_a_right_on_what_is_installed() {
    const RIGHTS: &str = "
        SELECT pg_catalog.has_schema_privilege('mallory', 'tidewire', 'CREATE') OR EXISTS (
            SELECT FROM pg_catalog.pg_proc p, LATERAL pg_catalog.aclexplode(p.proacl) a
            WHERE a.grantee = 'mallory'::pg_catalog.regrole) OR EXISTS (
            SELECT FROM pg_catalog.pg_class c, LATERAL pg_catalog.aclexplode(c.relacl) a
            WHERE c.relnamespace = 'tidewire'::pg_catalog.regnamespace
                AND a.grantee = 'mallory'::pg_catalog.regrole)";
    let scene = Scene::new(cluster(), "defaults").await;
    for kind in ["SCHEMAS", "FUNCTIONS", "TABLES", "SEQUENCES"] {
        let grant = format!("ALTER DEFAULT PRIVILEGES GRANT ALL ON {kind} TO mallory");
        scene.admin.batch_execute(&grant).await.unwrap();
    }
    sql::install(&scene.target, &InstallOptions::default()).await.unwrap();
    assert!(!scene.admin.query_one(RIGHTS, &[]).await.unwrap().get::<_, bool>(0));
    let refused = scene.stranger.batch_execute("SELECT tidewire.publish('a', 'b')").await;
    assert!(refused.is_err(), "who may publish is granted, and not by default");
}
