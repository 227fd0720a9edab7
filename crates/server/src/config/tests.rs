//! The configuration from end to end: what is written, what is made of it, what is refused.

use std::fs;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;

/// A configuration written for one test.
struct Sheet {
    folder: tempfile::TempDir,
    written: Written,
}

impl Sheet {
    fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), written: Written::default() }
    }

    fn file(mut self, name: &str, text: &str) -> Self {
        self.written.file = Some(self.beside(name, text));
        self
    }

    fn toml(text: &str) -> Self {
        Self::empty().file("tidewire.toml", text)
    }

    /// Writes a file beside the configuration.
    fn beside(&self, name: &str, text: &str) -> std::path::PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn variable(mut self, name: &str, text: &str) -> Self {
        self.written.environment.push((name.into(), text.into()));
        self
    }

    fn flag(mut self, path: &'static str, flag: &'static str, text: &str) -> Self {
        self.written.flags.push(Override { path, flag, text: text.to_owned() });
        self
    }

    #[track_caller]
    fn load(&self) -> Settings {
        Settings::load(&self.written).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The complaint, with the folder of the test cut out of it.
    #[track_caller]
    fn refusal(&self) -> String {
        let error = Settings::load(&self.written).expect_err("the configuration is wrong");
        error.to_string().replace(&format!("{}/", self.folder.path().display()), "")
    }
}

#[track_caller]
fn check_refused(toml: &str, expected: &str) {
    let refusal = Sheet::toml(toml).refusal();
    assert!(refusal.contains(expected), "expected: {expected}\nfound: {refusal}");
}

// Layers

#[test]
fn nothing_written_is_a_server_on_loopback() {
    let settings = Sheet::empty().load();
    assert_eq!(settings.listen, ["127.0.0.1:8080".parse().unwrap()]);
    assert!(settings.postgres.is_none());
    assert!(!settings.auth.is_configured());
    assert_eq!(settings.limits.message_bytes, 65_536);
    assert_eq!(settings.history.age, Duration::from_secs(3_600));
    assert_eq!(settings.warnings, [""; 0]);
}

#[test]
fn flags_are_over_environment_over_file_over_defaults() {
    let sheet = Sheet::toml("log.level = 'warn'");
    assert_eq!(sheet.load().log.level, "warn");
    let sheet = sheet.variable("TIDEWIRE_LOG_LEVEL", "debug");
    assert_eq!(sheet.load().log.level, "debug");
    let sheet = sheet.flag("log.level", "--log-level", "error");
    assert_eq!(sheet.load().log.level, "error");
}

#[test]
fn a_variable_of_our_own_is_over_one_shared_with_others() {
    let sheet = Sheet::empty()
        .variable("POSTGRES_URL", "postgresql:///theirs")
        .variable("TIDEWIRE_POSTGRES_URL", "postgresql:///ours");
    assert_eq!(sheet.load().postgres.unwrap().url.expose(), "postgresql:///ours");
}

#[test]
fn an_empty_variable_is_not_set() {
    let sheet = Sheet::toml("log.level = 'warn'").variable("TIDEWIRE_LOG_LEVEL", "");
    assert_eq!(sheet.load().log.level, "warn");
}

#[test]
fn alles_variables_mean_what_they_mean_there() {
    let settings = Sheet::empty()
        .variable("POSTGRES_URL", "postgresql://user:pass@localhost/mydb")
        .variable("WS_BIND_ADDR", "127.0.0.1:9000")
        .variable("SSE_BIND_ADDR", "127.0.0.1:9001")
        .variable("LISTEN_CHANNELS", "orders, alerts")
        .variable("AUTH_FUNCTION", "app.authenticate")
        .variable("RUST_LOG", "debug")
        .load();
    assert_eq!(settings.listen.len(), 2);
    assert_eq!(settings.postgres.unwrap().listen_channels, ["orders", "alerts"]);
    assert_eq!(settings.auth.function.as_deref(), Some("app.authenticate"));
    assert_eq!(settings.log.level, "debug");
    let listed = |list: &str| {
        let sheet = Sheet::empty().variable("POSTGRES_URL", "postgresql:///x");
        sheet.variable("LISTEN_CHANNELS", list).load().postgres.unwrap().listen_channels
    };
    assert_eq!(listed(r#"["a, b", "c"]"#), ["a, b", "c"]);
    assert_eq!(listed("[a],b"), ["[a]", "b"]);
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let sheet = Sheet::empty();
    let file = sheet.beside("a.toml", "limits.burst = 7");
    let sheet = sheet.variable("TIDEWIRE_CONFIG", file.to_str().unwrap());
    assert_eq!(sheet.load().limits.burst, 7);
}

#[test]
fn toml_and_yaml_say_the_same() {
    let toml = Sheet::toml(
        "listen = ['127.0.0.1:1', 'localhost:2']\n[limits]\nburst = 7\nlinger = '0s'\n\
         body_bytes = 1000000\n[[namespaces]]\npattern = 'room:*'\nhistory.events = 5",
    );
    let yaml = Sheet::empty().file(
        "tidewire.yaml",
        "listen: [127.0.0.1:1, localhost:2]\nlimits:\n  burst: 7\n  linger: 0s\n  \
         body_bytes: 1000000\nnamespaces:\n- pattern: room:*\n  history: {events: 5}\ntls:\n",
    );
    assert_eq!(changes(&toml.load(), &yaml.load()), Changes::default());
    assert_eq!(yaml.load().limits.burst, 7);
    Sheet::empty().file("empty.yml", "# nothing\n").load();
    Sheet::empty().file("empty.toml", "").load();
}

#[test]
fn lists_of_tables_are_json_in_a_variable() {
    let settings = Sheet::empty()
        .variable("TIDEWIRE_NAMESPACES", r#"[{"pattern": "a*", "publish": "nobody"}]"#)
        .load();
    assert_eq!(settings.namespaces[0].publish, Some(Who::Nobody));
    assert_eq!(settings.namespaces[0].subscribe, None);
    let refusal = Sheet::empty().variable("TIDEWIRE_NAMESPACES", "a*").refusal();
    assert!(refusal.contains("namespaces (TIDEWIRE_NAMESPACES): expected a list"), "{refusal}");
}

// Names

#[test]
fn an_unknown_key_names_the_nearest_and_where_it_stands() {
    let refusal = Sheet::toml("[limits]\nbrust = 5").refusal();
    assert_eq!(refusal, "limits.brust in tidewire.toml: unknown key, did you mean limits.burst?");
    check_refused("postgres_url = 'x'", "did you mean postgres.url?");
    check_refused("[jwt]\nsecret = 'x'", "did you mean auth.jwt.secret?");
    check_refused("colour = 'x'", "tidewire config --docs");
    check_refused("[limits.burst]\nx = 1", "limits.burst in tidewire.toml: expected a whole");
    check_refused("limits = 5", "limits in tidewire.toml: expected a table of keys");
    check_refused("[limit]", "limit in tidewire.toml: unknown key");
}

#[test]
fn an_unknown_field_of_a_list_names_the_nearest() {
    check_refused(
        "[[namespaces]]\npattern = 'a'\npublsh = 'nobody'",
        "namespaces[0].publsh in tidewire.toml: unknown key, did you mean publish?",
    );
    check_refused("namespaces = ['a']", "namespaces[0] in tidewire.toml: expected a table");
}

#[test]
fn an_unknown_variable_of_ours_names_the_nearest_and_others_are_left_alone() {
    let refusal = Sheet::empty().variable("TIDEWIRE_LISTN", "x").refusal();
    assert_eq!(refusal, "TIDEWIRE_LISTN: unknown variable, did you mean TIDEWIRE_LISTEN?");
    Sheet::empty().variable("LISTN", "x").variable("TIDEWIRE_TOKEN", "x").load();
}

#[test]
fn variables_that_kubernetes_makes_for_a_service_of_our_name_are_left_alone() {
    Sheet::empty()
        .variable("TIDEWIRE_SERVICE_HOST", "10.0.0.1")
        .variable("TIDEWIRE_SERVICE_PORT", "80")
        .variable("TIDEWIRE_SERVICE_PORT_HTTP", "80")
        .variable("TIDEWIRE_PORT", "tcp://10.0.0.1:80")
        .variable("TIDEWIRE_PORT_80_TCP", "tcp://10.0.0.1:80")
        .variable("TIDEWIRE_PORT_80_TCP_ADDR", "10.0.0.1")
        .load();
    let refusal = Sheet::empty().variable("TIDEWIRE_PORT", "8080").refusal();
    assert!(refusal.contains("TIDEWIRE_PORT: unknown variable"), "{refusal}");
}

// Values

#[test]
fn a_value_that_does_not_fit_names_key_value_and_what_would_fit() {
    assert_eq!(
        Sheet::toml("[limits]\nlinger = '5'").refusal(),
        "limits.linger in tidewire.toml: \"5\" does not fit, expected a length of time with its \
         unit, such as 10s, 5m or 1h30m"
    );
    assert_eq!(
        Sheet::empty().flag("listen", "--listen", "8080").refusal(),
        "listen (--listen): \"8080\" does not fit, expected an address with its port, such as \
         127.0.0.1:8080"
    );
    check_refused("limits.linger = 5", "expected a length of time");
    check_refused("limits.burst = -1", "\"-1\" does not fit, expected a whole number from 1");
    check_refused("limits.burst = 0", "0 is too little, the least is 1");
    check_refused("limits.body_bytes = '1GiB'", "1GiB is too much, the most is 256MiB");
    check_refused("limits.handshake_timeout = '2h'", "2h is too much, the most is 1h");
    check_refused("insecure = 'maybe'", "expected true or false");
    check_refused("log.format = 'xml'", "expected one of text, json");
    check_refused("log.level = 'a=b=c'", "expected a log filter");
    check_refused("origins = [5]", "expected a list of texts, found a number in it");
    check_refused("auth.function = 'f(); drop table x'", "expected the plain name of an SQL");
    check_refused("auth.function = 'a.b.c'", "expected the plain name of an SQL");
    check_refused("auth.jwt.jwks_url = 'ftp://x'", "begins with https://");
}

#[test]
fn every_problem_is_told_at_once() {
    let refusal = Sheet::toml("limits.burst = 0\ncolour = 'x'\norigins = ['x']").refusal();
    assert!(refusal.starts_with("2 problems with the configuration\n  - "), "{refusal}");
}

#[test]
fn a_file_that_is_missing_or_malformed_is_named() {
    let mut sheet = Sheet::empty();
    sheet.written.file = Some(sheet.folder.path().join("none.toml"));
    assert!(sheet.refusal().starts_with("none.toml (--config): cannot be read: "));
    assert_eq!(
        Sheet::empty().file("tidewire.json", "{}").refusal(),
        "tidewire.json (--config): the name of a configuration file ends in .toml, .yaml or .yml"
    );
    check_refused("a = 1\nb = [", "not valid TOML: line 2");
    check_refused("a = 1\na = 2", "not valid TOML: line 2: duplicate key");
    let refusal = Sheet::empty().file("t.yml", "- 1").refusal();
    assert!(refusal.contains("is a table of keys"), "{refusal}");
}

#[test]
fn a_malformed_file_is_not_quoted() {
    for (name, text) in [
        ("t.toml", "auth.jwt.secret = 'sesame' 'sesame'"),
        ("t.toml", "auth.jwt.secret = sesame"),
        ("t.yaml", "auth:\n  jwt:\n    secret: [sesame\n"),
        ("t.yaml", "auth: {jwt: {secret: sesame}\n  x"),
    ] {
        let refusal = Sheet::empty().file(name, text).refusal();
        assert!(!refusal.contains("sesame"), "{refusal}");
    }
}

// Values against each other

#[test]
fn listening_beyond_this_machine_needs_authentication_or_insecure() {
    let refusal = Sheet::empty().flag("listen", "--listen", "0.0.0.0:8080").refusal();
    assert!(refusal.starts_with("listen (--listen): 0.0.0.0:8080 can be reached"), "{refusal}");
    assert!(refusal.contains("TIDEWIRE_JWT_SECRET") && refusal.contains("--insecure"), "{refusal}");
    check_refused("listen_also = '[::]:1'", "listen_also in tidewire.toml: [::]:1 can be reached");
    check_refused("listen = '[::]:1'\nauth.anonymous = true", "no authentication is configured");
    Sheet::toml("listen = ['127.0.0.2:1', '[::1]:1', '[::ffff:127.0.0.1]:1']").load();
    Sheet::toml("listen = '0.0.0.0:1'").variable("TIDEWIRE_JWT_SECRET", "sesame").load();
    Sheet::toml("listen = '0.0.0.0:1'\nauth.function = 'f'\npostgres.url = 'postgres:///x'").load();
    let settings = Sheet::toml("listen = '0.0.0.0:1'\ninsecure = true").load();
    assert!(settings.warnings[0].contains("anyone"), "{:?}", settings.warnings);
}

#[test]
fn something_is_listened_on() {
    check_refused("listen = []", "listen in tidewire.toml: no address");
    assert_eq!(Sheet::toml("listen = ['[::1]:1', '[::1]:1']").load().listen.len(), 1);
}

#[test]
fn origins_are_written_as_browsers_send_them() {
    let good = "['https://shop.example', 'http://localhost:3000', 'https://*.shop.example', '*']";
    Sheet::toml(&format!("insecure = true\norigins = {good}")).load();
    check_refused("origins = ['*']", "every page could do everything here");
    check_refused("proxies = ['proxy.example']", "neither an address nor a network");
    for wrong in ["shop.example", "https://shop.example/", "https://a*.example", "https://*."] {
        check_refused(&format!("origins = ['{wrong}']"), "is not an origin");
    }
}

#[test]
fn a_slot_has_a_name_that_postgresql_takes_and_failover_has_a_slot() {
    let long = "x".repeat(64);
    for name in ["Keep", "a-b", "", "größe", &long] {
        check_refused(&format!("wal.slot = '{name}'"), "small letters, digits and _");
    }
    check_refused("wal.failover = true", "needs wal.slot");
    let settings = Sheet::toml("wal = { slot = 'keep_1', failover = true }").load();
    assert!(settings.tables.failover);
}

#[test]
fn what_needs_a_database_says_so() {
    check_refused("postgres.listen_channels = 'a'", "needs a database, set postgres.url");
    check_refused("auth.function = 'f'", "needs a database, set postgres.url");
    check_refused("postgres.url = 'localhost'", "begin with postgresql://");
}

#[test]
fn channels_to_listen_to_are_good_names_and_not_too_many() {
    let long = "c".repeat(64);
    check_refused(
        &format!("postgres = {{ url = 'postgres:///x', listen_channels = ['{long}'] }}"),
        "at most 63 bytes",
    );
    check_refused(
        "postgres = { url = 'postgres:///x', listen_channels = 'a,b', max_channels = 1 }",
        "more channels than postgres.max_channels",
    );
}

#[test]
fn rules_for_tokens_need_a_key_for_them() {
    check_refused("auth.jwt.issuer = 'x'", "auth.jwt.issuer in tidewire.toml: has no effect");
    check_refused("auth.jwt.public_key = 'key.pem'", "a path belongs in auth.jwt.public_key_file");
    check_refused("auth.jwt.jwks_file = 'none.json'", "none.json cannot be read");
    check_refused("auth.jwt.secret = ' '", "auth.jwt.secret in tidewire.toml: is empty");
}

#[test]
fn an_api_key_has_a_name_of_its_own_and_a_hash() {
    let hash = format!("sha256:{}", "0a".repeat(32));
    let key = |name: &str| format!("[[auth.keys]]\nname = '{name}'\nhash = '{hash}'\n");
    let settings = Sheet::toml(&(key("a") + "grants.publish = ['orders:*']\n" + &key("b"))).load();
    let grants = settings.auth.keys[0].grants.as_ref().unwrap();
    assert_eq!(grants.publish, ["orders:*"]);
    assert_eq!(settings.auth.keys[1].grants, None);
    assert!(settings.auth.is_configured());
    check_refused(&(key("a") + &key("a")), "auth.keys[1].name in tidewire.toml: \"a\" is taken");
    check_refused("[[auth.keys]]\nname = 'a'\nhash = 'twk_x'", "auth.keys[0].hash");
    check_refused(&key(""), "auth.keys[0].name in tidewire.toml: is missing");
}

#[test]
fn a_namespace_has_a_pattern_of_its_own_and_says_what_is_written_alone() {
    let settings =
        Sheet::toml("history.events = 9\n[[namespaces]]\npattern = 'a'\nhistory.age = '5m'").load();
    let namespace = &settings.namespaces[0];
    assert_eq!((namespace.events, namespace.age), (None, Some(Duration::from_secs(300))));
    assert_eq!(namespace.subscribe, None);
    let rows = "[[namespaces]]\nrows = 'a=eq.{sub}'\npattern = ";
    let settings = Sheet::toml(&format!("{rows}'table:public.a'\nsubscribe = 'anyone'")).load();
    assert_eq!(settings.namespaces[0].rows.as_deref(), Some("a=eq.{sub}"));
    check_refused(&format!("{rows}'table:public.a'"), "namespaces[0].rows");
    check_refused(&format!("{rows}'a'\nsubscribe = 'anyone'"), "namespaces[0].rows");
    assert!(settings.warnings[0].contains("namespaces"), "{:?}", settings.warnings);
    check_refused("[[namespaces]]\npublish = 'nobody'", "namespaces[0].pattern");
    check_refused("namespaces = [{ pattern = 'a' }, { pattern = 'a' }]", "namespaces[1].pattern");
}

#[test]
fn a_payload_fits_wherever_it_goes() {
    check_refused(
        "limits.payload_bytes = '2MiB'",
        "limits.payload_bytes in tidewire.toml: 2MiB is too much for limits.mailbox_bytes = 1MiB",
    );
    check_refused(
        "limits.body_bytes = '1KiB'",
        "limits.body_bytes in tidewire.toml: 1KiB is too little for limits.payload_bytes = 64KiB",
    );
    check_refused("history.store = 'disk'", "disk needs history.path beside it");
    check_refused("history.path = 'here'", "has no effect without history.store = disk");
    check_refused("history.bytes = '1KiB'", "history.bytes in tidewire.toml: 1KiB is too little");
    check_refused("history.bytes = '1GiB'", "is too much for history.total_bytes = 256MiB");
}

#[test]
fn a_client_is_pinged_before_it_is_given_up() {
    check_refused("limits.idle_timeout = '20s'", "too little for limits.ping_interval = 25s");
}

#[test]
fn tls_has_two_files_that_can_be_read() {
    let sheet = Sheet::toml("tls = { certificate = 'c.pem', key = 'k.pem' }");
    let refusal = sheet.refusal();
    assert!(
        refusal.contains("tls.certificate in tidewire.toml: c.pem cannot be read"),
        "{refusal}"
    );
    sheet.beside("c.pem", "");
    sheet.beside("k.pem", "");
    let tls = sheet.load().tls.unwrap();
    // Paths are relative to the file that names them.
    assert_eq!(tls.key, sheet.folder.path().join("k.pem"));
    let sheet = Sheet::toml("tls.key = 'k.pem'");
    sheet.beside("k.pem", "");
    assert!(sheet.refusal().contains("tls.key in tidewire.toml: needs tls.certificate beside it"));
}

// Secrets

#[test]
fn secrets_may_be_in_files_of_their_own() {
    let sheet = Sheet::toml("auth.jwt.secret_file = 's'\npostgres.url_file = 'u'");
    assert!(sheet.refusal().contains("s cannot be read"));
    sheet.beside("s", "sesame\n");
    sheet.beside("u", "postgresql://a:sesame@b/c\r\n");
    let settings = sheet.load();
    let secret = settings.auth.jwt.as_ref().unwrap().secret.as_ref().unwrap();
    assert_eq!(secret.expose_secret(), "sesame");
    assert_eq!(settings.postgres.unwrap().url.expose(), "postgresql://a:sesame@b/c");
    sheet.beside("s", "\n");
    assert!(sheet.refusal().contains("auth.jwt.secret_file in tidewire.toml: "));
}

#[test]
fn a_secret_and_its_file_are_not_written_side_by_side() {
    check_refused(
        "auth.jwt = { secret = 'a', secret_file = 'b' }",
        "auth.jwt.secret_file in tidewire.toml: is written beside auth.jwt.secret, keep one",
    );
    // In different layers the stronger one counts.
    let sheet = Sheet::toml("auth.jwt.secret_file = 's'").variable("TIDEWIRE_JWT_SECRET", "b");
    let jwt = sheet.load().auth.jwt.unwrap();
    assert_eq!(jwt.secret.unwrap().expose_secret(), "b");
    let sheet = Sheet::toml("auth.jwt.secret = 'a'");
    let file = sheet.beside("s", "from the file");
    let sheet = sheet.variable("TIDEWIRE_AUTH_JWT_SECRET_FILE", file.to_str().unwrap());
    let jwt = sheet.load().auth.jwt.unwrap();
    assert_eq!(jwt.secret.unwrap().expose_secret(), "from the file");
}

#[test]
fn nothing_secret_is_printed() {
    let sheet = Sheet::toml("auth.jwt.secret = 'sesame'")
        .variable("TIDEWIRE_POSTGRES_URL", "postgresql://app:sesame@db/shop");
    let settings = sheet.load();
    let printed = settings.to_toml();
    assert!(!printed.contains("sesame"), "{printed}");
    assert!(printed.contains("postgresql://app:***@db/shop"), "{printed}");
    assert!(!format!("{settings:?}").contains("sesame"));
    let refusal = Sheet::empty().variable("TIDEWIRE_POSTGRES_URL", "mysql://a:sesame@b").refusal();
    assert!(!refusal.contains("sesame"), "{refusal}");
    let refusal = Sheet::toml("auth.jwt.secret = ['sesame']").refusal();
    assert!(!refusal.contains("sesame"), "{refusal}");
}

#[test]
fn what_is_probably_not_meant_is_warned_of() {
    let warnings = |toml: &str| Sheet::toml(toml).load().warnings.join("\n");
    assert!(warnings("auth.jwt.secret = 'short'").contains("shorter than 32 bytes"));
    assert!(warnings("auth.jwt.jwks_url = 'http://keys.example'").contains("without TLS"));
    let rule = "[[namespaces]]\npattern = '*'\npublish = 'nobody'\n[auth.jwt]\n";
    assert_eq!(warnings(&format!("{rule}jwks_url = 'http://localhost:1/keys'")), "");
    assert!(warnings("auth.jwt.jwks_url = 'http://localhost:1/keys'").contains("namespaces"));
    assert!(warnings("auth.anonymous = true").contains("no effect"));
}

// What is printed

#[test]
fn what_is_printed_says_where_each_value_came_from() {
    let printed = Sheet::toml("limits.burst = 7")
        .variable("LISTEN_CHANNELS", "a,b")
        .variable("POSTGRES_URL", "postgres:///x")
        .flag("log.level", "--log-level", "debug")
        .load()
        .to_toml();
    for line in [
        "listen = [\"127.0.0.1:8080\"]  # default",
        "listen_channels = [\"a\", \"b\"]  # environment LISTEN_CHANNELS",
        "level = \"debug\"  # flag --log-level",
        "# certificate is not set",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}\n{printed}");
    }
    assert!(printed.contains("\nburst = 7  # file "), "{printed}");
}

#[test]
fn what_is_printed_reads_back_as_the_same() {
    let hash = format!("sha256:{}", "0a".repeat(32));
    let settings = Sheet::toml(&format!(
        "listen = ['[::1]:1', '127.0.0.1:2']\norigins = ['*']\n\
         postgres = {{ url = 'postgres:///x', listen_channels = ['a', 'ü'] }}\n\
         namespaces = [{{ pattern = 'a*', publish = 'nobody', history = {{ age = '90s' }} }}]\n\
         [[auth.keys]]\nname = 'a \"b\"'\nhash = '{hash}'\ngrants.publish = ['*']\n\
         [auth.jwt]\npublic_key = '''\n-----BEGIN PUBLIC KEY-----\nx\n'''\nleeway = '0s'\n\
         [limits]\nbody_bytes = 1000001"
    ))
    .load();
    let again = Sheet::toml(&settings.to_toml()).load();
    assert_eq!(changes(&settings, &again), Changes::default());
    assert_eq!(again.auth.keys[0].name, "a \"b\"");
}

#[test]
fn the_documentation_is_true() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(file, documentation()).unwrap();
    }
    let written = fs::read_to_string(file).unwrap_or_default();
    assert!(
        written == documentation(),
        "docs/config.md is out of date: run `cargo run -- config --docs > docs/config.md`"
    );
}

#[test]
fn the_example_in_the_documentation_loads() {
    let page = documentation();
    let (_, rest) = page.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let sheet = Sheet::empty();
    let secret = sheet.beside("jwt", "sesame");
    let example = example.replace("/run/secrets/jwt", secret.to_str().unwrap());
    sheet.file("tidewire.toml", &example).load();
}

// Read again

#[test]
fn a_second_reading_says_what_takes_effect_and_what_needs_a_restart() {
    let old = Sheet::toml("limits.burst = 7").load();
    let new = Sheet::toml("limits.burst = 8\nthreads = 2\nlisten = '127.0.0.1:8080'").load();
    let expected = Changes { live: vec!["limits.burst"], restart: vec!["threads"] };
    assert_eq!(changes(&old, &new), expected);
    let old = Sheet::toml("history.idle_topic = '1h'").load();
    let new = Sheet::toml(
        "history.idle_topic = '2h'\nhistory.events = 5\n[[namespaces]]\npattern = 'a*'\npublish = 'nobody'",
    );
    let expected =
        Changes { live: vec!["history.events", "namespaces"], restart: vec!["history.idle_topic"] };
    assert_eq!(changes(&old, &new.load()), expected);
    let sheet = Sheet::toml("auth.jwt.secret_file = 's'");
    sheet.beside("s", "one");
    let old = sheet.load();
    sheet.beside("s", "two");
    assert_eq!(changes(&old, &sheet.load()).live, ["auth.jwt.secret"]);
}

#[test]
fn the_first_key_and_taking_away_the_last_need_a_restart() {
    let without = Sheet::empty().load();
    let with = Sheet::toml("auth.jwt.secret = 'a'").load();
    assert_eq!(changes(&without, &with).restart, ["auth.jwt.secret"]);
    assert_eq!(changes(&with, &without).restart, ["auth.jwt.secret"]);
}
