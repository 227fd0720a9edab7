//! Whether values fit each other, and what is allowed but probably not meant.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;

use secrecy::ExposeSecret;
use tidewire_protocol::Topic;

use tidewire_axum::client::Proxy;

use super::error::Problem;
use super::settings::{Settings, listen};
use super::value::Kind;
use super::values::{Origin, Values};

/// Everything that keeps the server from starting, in the order of the keys.
pub(super) fn problems(values: &Values) -> Vec<Problem> {
    let mut found = Vec::new();
    check_listen(values, &mut found);
    check_origins(values, &mut found);
    check_proxies(values, &mut found);
    check_postgres(values, &mut found);
    check_slot(values, &mut found);
    check_jwt(values, &mut found);
    check_keys(values, &mut found);
    check_sizes(values, &mut found);
    check_history(values, &mut found);
    check_times(values, &mut found);
    check_tls(values, &mut found);
    check_namespaces(values, &mut found);
    found
}

/// The keys of which one makes JSON Web Tokens work.
const JWT_KEYS: [&str; 4] =
    ["auth.jwt.secret", "auth.jwt.public_key", "auth.jwt.jwks_file", "auth.jwt.jwks_url"];

pub(super) fn has_jwt_key(values: &Values) -> bool {
    JWT_KEYS.iter().any(|path| values.entry(path).is_some())
}

fn is_authentication_configured(values: &Values) -> bool {
    has_jwt_key(values)
        || !values.records("auth.keys").is_empty()
        || values.entry("auth.function").is_some()
}

fn check_listen(values: &Values, found: &mut Vec<Problem>) {
    if values.addresses("listen").is_empty() {
        found.push(at(values, "listen", "no address, write one such as 127.0.0.1:8080"));
    }
    let open = listen(values).into_iter().find(|address| is_beyond(*address));
    let is_guarded = values.is_on("insecure") || is_authentication_configured(values);
    if let (Some(address), false) = (open, is_guarded) {
        let path = match values.addresses("listen").contains(&address) {
            true => "listen",
            false => "listen_also",
        };
        let message = format!(
            "{address} can be reached from other machines and no authentication is configured; \
             set auth.jwt.secret (TIDEWIRE_JWT_SECRET), auth.keys or auth.function, \
             or pass --insecure to let everybody do everything"
        );
        found.push(at(values, path, message));
    }
}

/// Whether other machines reach the address.
fn is_beyond(address: SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

fn check_proxies(values: &Values, found: &mut Vec<Problem>) {
    for proxy in values.texts("proxies") {
        if let Err(error) = proxy.parse::<Proxy>() {
            found.push(at(values, "proxies", error.to_string()));
        }
    }
}

fn check_origins(values: &Values, found: &mut Vec<Problem>) {
    for origin in values.texts("origins") {
        if origin != "*" && !is_origin(origin) {
            let message = format!(
                "{origin:?} is not an origin, write it as browsers do: https://shop.example, \
                 with its port if it has one and without a path, https://*.shop.example for all \
                 its subdomains, or * for every page"
            );
            found.push(at(values, "origins", message));
        }
    }
    let is_guarded = values.is_on("insecure") || is_authentication_configured(values);
    if values.texts("origins").iter().any(|origin| origin == "*") && !is_guarded {
        let message = "every page could do everything here, since no authentication is configured; \
                       list the origins of the pages, configure authentication, or pass --insecure";
        found.push(at(values, "origins", message));
    }
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return false };
    let scheme_fits = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric());
    let has_more = |c: char| c.is_whitespace() || "/?#@*".contains(c);
    // All subdomains are written with a star of their own.
    let host = host.strip_prefix("*.").unwrap_or(host);
    scheme_fits && !host.is_empty() && !host.contains(has_more)
}

fn check_postgres(values: &Values, found: &mut Vec<Problem>) {
    for channel in values.texts("postgres.listen_channels") {
        if let Err(error) = Topic::notify(channel) {
            found.push(at(values, "postgres.listen_channels", format!("{channel:?}: {error}")));
        }
    }
    let channels = values.texts("postgres.listen_channels").len();
    if channels > values.amount("postgres.max_channels") {
        let message = "has more channels than postgres.max_channels allows, raise that";
        found.push(at(values, "postgres.listen_channels", message));
    }
    if values.entry("postgres.url").is_some() || values.entry("postgres.url_file").is_some() {
        return;
    }
    for path in ["postgres.listen_channels", "auth.function"] {
        if values.is_written(path) {
            found.push(at(values, path, "needs a database, set postgres.url (--postgres-url)"));
        }
    }
}

/// A slot's name is PostgreSQL's to accept, and a standby keeps a copy of a slot with a name only.
fn check_slot(values: &Values, found: &mut Vec<Problem>) {
    let slot = values.find_text("wal.slot");
    if let Some(name) = slot
        && !is_slot(name)
    {
        let message = format!(
            "{name:?} is not a name of a slot: PostgreSQL takes 1 to 63 small letters, digits and _"
        );
        found.push(at(values, "wal.slot", message));
    }
    if slot.is_none() && values.is_on("wal.failover") {
        let message = "needs wal.slot: a temporary slot ends with its connection, so no standby \
                       keeps a copy of it";
        found.push(at(values, "wal.failover", message));
    }
}

fn is_slot(name: &str) -> bool {
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    (1..=63).contains(&name.len()) && name.bytes().all(fits)
}

fn check_jwt(values: &Values, found: &mut Vec<Problem>) {
    if let Some(secret) = values.find_secret("auth.jwt.secret")
        && secret.expose_secret().trim().is_empty()
    {
        found.push(at(values, "auth.jwt.secret", "is empty"));
    }
    if let Some(key) = values.find_text("auth.jwt.public_key")
        && !key.contains("-----BEGIN ")
    {
        let message = "is not PEM, which begins with -----BEGIN PUBLIC KEY-----; \
                       a path belongs in auth.jwt.public_key_file";
        found.push(at(values, "auth.jwt.public_key", message));
    }
    check_file(values, "auth.jwt.jwks_file", found);
    // A file that could not be read has its own complaint.
    let points_to_key = ["auth.jwt.secret_file", "auth.jwt.public_key_file"]
        .iter()
        .any(|path| values.entry(path).is_some());
    let option = values.written().find(|(path, _)| path.starts_with("auth.jwt."));
    if let (Some((path, _)), false, false) = (option, has_jwt_key(values), points_to_key) {
        let message = "has no effect without a key, set auth.jwt.secret (TIDEWIRE_JWT_SECRET), \
                       auth.jwt.public_key_file, auth.jwt.jwks_file or auth.jwt.jwks_url";
        found.push(at(values, path, message));
    }
}

fn check_keys(values: &Values, found: &mut Vec<Problem>) {
    let mut names = HashSet::new();
    for (index, record) in values.records("auth.keys").iter().enumerate() {
        let place = |field| values.place_within("auth.keys", index, field);
        match record.find_text("name") {
            None | Some("") => found.push(Problem::new(place("name"), "is missing")),
            Some(name) if !names.insert(name) => {
                let message = format!("{name:?} is taken by another key");
                found.push(Problem::new(place("name"), message));
            }
            Some(_) => {}
        }
        if !record.find_text("hash").is_some_and(is_hash) {
            let message = "expected sha256: and 64 hexadecimal digits, as `tidewire key new` \
                           prints them; the key itself does not belong here";
            found.push(Problem::new(place("hash"), message));
        }
    }
}

fn is_hash(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Pairs of keys of which the first must not be more than the second.
const NOT_MORE: [(&str, &str); 5] = [
    ("limits.payload_bytes", "limits.body_bytes"),
    ("limits.payload_bytes", "limits.mailbox_bytes"),
    ("limits.payload_bytes", "history.bytes"),
    ("history.bytes", "history.total_bytes"),
    ("history.bytes", "history.disk_bytes"),
];

fn check_sizes(values: &Values, found: &mut Vec<Problem>) {
    for (less, more) in NOT_MORE {
        if values.find_number(less) > values.find_number(more) {
            found.push(disorder(values, less, more));
        }
    }
}

fn check_history(values: &Values, found: &mut Vec<Problem>) {
    let is_on_disk = values.text("history.store") == "disk";
    if is_on_disk && values.entry("history.path").is_none() {
        let message = "disk needs history.path beside it, the folder to keep it in";
        found.push(at(values, "history.store", message));
    }
    if values.entry("history.path").is_some() && !is_on_disk {
        found.push(at(values, "history.path", "has no effect without history.store = disk"));
    }
}

fn check_times(values: &Values, found: &mut Vec<Problem>) {
    // A client is heard when it answers a ping, so the ping has to come first.
    if values.time("limits.ping_interval") >= values.time("limits.idle_timeout") {
        found.push(disorder(values, "limits.ping_interval", "limits.idle_timeout"));
    }
}

fn disorder(values: &Values, less: &str, more: &str) -> Problem {
    let shown = |path: &str| {
        values.entry(path).map(|entry| entry.value.to_string().replace('"', "")).unwrap_or_default()
    };
    // The one that somebody wrote is the one to complain about.
    let (place, message) = if values.is_written(less) {
        (less, format!("{} is too much for {more} = {}", shown(less), shown(more)))
    } else {
        (more, format!("{} is too little for {less} = {}", shown(more), shown(less)))
    };
    at(values, place, format!("{message}, change one of them"))
}

fn check_tls(values: &Values, found: &mut Vec<Problem>) {
    for (path, other) in [("tls.certificate", "tls.key"), ("tls.key", "tls.certificate")] {
        check_file(values, path, found);
        if values.entry(path).is_some() && values.entry(other).is_none() {
            found.push(at(values, path, format!("needs {other} beside it")));
        }
    }
}

fn check_file(values: &Values, path: &str, found: &mut Vec<Problem>) {
    if let Some(file) = values.find_file(path)
        && let Err(error) = can_be_read(file)
    {
        found.push(at(values, path, format!("{} cannot be read: {error}", file.display())));
    }
}

fn can_be_read(file: &Path) -> std::io::Result<()> {
    std::fs::File::open(file).map(|_| ())
}

fn check_namespaces(values: &Values, found: &mut Vec<Problem>) {
    let mut patterns = HashSet::new();
    for (index, record) in values.records("namespaces").iter().enumerate() {
        let place = values.place_within("namespaces", index, "pattern");
        match record.find_text("pattern") {
            None | Some("") => found.push(Problem::new(place, "is missing")),
            Some(pattern) if !patterns.insert(pattern) => {
                let message = format!("{pattern:?} has an entry before this one, which decides");
                found.push(Problem::new(place, message));
            }
            Some(_) => {}
        }
        let is_table = record.find_text("pattern").is_some_and(|text| text.starts_with("table:"));
        if record.find_text("rows").is_some()
            && !(is_table && record.find_text("subscribe").is_some())
        {
            let place = values.place_within("namespaces", index, "rows");
            let message = "goes with a pattern that begins with table: and with subscribe";
            found.push(Problem::new(place, message));
        }
    }
}

fn at(values: &Values, path: &str, message: impl Into<String>) -> Problem {
    Problem::new(values.place(path), message)
}

/// Shortest shared secret that cannot be guessed offline: the 256 bits that RFC 7518 demands.
const LONG_SECRET: usize = 32;

/// What is allowed but probably not meant.
pub(super) fn warnings(settings: &Settings) -> Vec<String> {
    let mut found = Vec::new();
    let auth = &settings.auth;
    found.extend(password_in_a_flag(settings));
    let is_open = settings.listen.iter().any(|address| is_beyond(*address));
    if is_open && !auth.is_configured() {
        found.push("anyone who reaches this server may do everything: insecure is on".to_owned());
    }
    if !auth.is_configured() && !settings.namespaces.is_empty() {
        let message = "namespaces do not say who may do what while no authentication is configured";
        found.push(message.to_owned());
    }
    if !auth.is_configured() && auth.anonymous {
        found.push("auth.anonymous has no effect while no authentication is configured".to_owned());
    }
    if auth.is_configured() && settings.namespaces.is_empty() {
        let message = "every signed-in client may do everything on every application topic: no \
                       namespaces are configured";
        found.push(message.to_owned());
    }
    if let Some(jwt) = &auth.jwt {
        let short = |secret: &str| secret.len() < LONG_SECRET;
        if jwt.secret.as_ref().is_some_and(|secret| short(secret.expose_secret())) {
            found.push("auth.jwt.secret is shorter than 32 bytes and can be guessed".to_owned());
        }
        if jwt.jwks_url.as_deref().is_some_and(is_open_to_others) {
            found.push("auth.jwt.jwks_url is fetched without TLS: keys can be replaced".to_owned());
        }
    }
    found
}

/// Flags are shown to every user of the machine by `ps`.
fn password_in_a_flag(settings: &Settings) -> Option<String> {
    let entry = settings.values.entry("postgres.url")?;
    let Origin::Flag(flag) = &entry.origin else { return None };
    // Programs that set a key call it otherwise.
    (flag.starts_with("--") && Kind::PostgresUrl.is_cut(&entry.value)).then(|| {
        format!(
            "the password in {flag} can be read by every user of this machine: write the \
             connection string into TIDEWIRE_POSTGRES_URL or a file, see postgres.url_file"
        )
    })
}

/// Whether an address is fetched without TLS from another machine.
fn is_open_to_others(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    !["localhost", "127.", "[::1]"].iter().any(|own| rest.starts_with(own))
}
