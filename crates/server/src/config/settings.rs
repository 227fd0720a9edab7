//! The configuration as used: every value typed, checked and ready for the parts it is for.
//!
//! Plain data. Nothing here knows the engine or an adapter; `assemble` hands each part its own.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::check;
use super::error::{ConfigError, Problem};
use super::postgres_url::PostgresUrl;
use super::values::Values;
use super::written::Written;

/// Everything the server is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen; not empty, no address twice.
    pub listen: Vec<SocketAddr>,
    /// Where operators alone find how the server is; empty for nowhere else.
    pub listen_operators: Vec<SocketAddr>,
    /// Listening beyond this machine without authentication was asked for in so many words.
    pub insecure: bool,
    /// Web pages that may connect besides the server's own; `*` stands for every page.
    pub origins: Vec<String>,
    /// Proxies in front of the server; good addresses or networks.
    pub proxies: Vec<String>,
    /// Whether these proxies name their client in `Forwarded`; no, in `X-Forwarded-For`.
    pub forwarded: bool,
    /// Worker threads.
    pub threads: NonZeroUsize,
    /// Threads that serve connections.
    pub connection_threads: NonZeroUsize,
    /// The database, when there is one.
    pub postgres: Option<PostgresSettings>,
    /// How row changes are followed.
    pub tables: TableSettings,
    /// Who is who.
    pub auth: AuthSettings,
    /// Rules by topic pattern; each right is decided by the first that matches and has it.
    pub namespaces: Vec<NamespaceSettings>,
    /// How much is remembered.
    pub history: HistorySettings,
    /// What clients and requests may use.
    pub limits: LimitSettings,
    /// What one client may use of what all share.
    pub budgets: BudgetSettings,
    /// Repeated publishes.
    pub idempotency: IdempotencySettings,
    /// TLS on the listening addresses, when there is any.
    pub tls: Option<TlsSettings>,
    /// How to let go of clients at the end.
    pub shutdown: ShutdownSettings,
    /// What to log.
    pub log: LogSettings,
    /// What is allowed but probably not meant; for the log, at level *warn*.
    pub warnings: Vec<String>,
    pub(super) values: Values,
}

/// The database.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// Connection string.
    pub url: PostgresUrl,
    /// Connections besides the one that listens; 4.
    pub pool_size: usize,
    /// Channels followed at the same time; 10,000.
    pub max_channels: usize,
    /// Channels listened to from the start; each a good channel name.
    pub listen_channels: Vec<String>,
}

/// How row changes are followed.
#[derive(Clone, Debug)]
pub struct TableSettings {
    /// `auto`, `wal` or `outbox`.
    pub source: String,
    /// Name of a persistent slot; a temporary one without.
    pub slot: Option<String>,
    /// Whether standbys keep a copy of the persistent slot.
    pub failover: bool,
    /// Name of the publication; one of our own without.
    pub publication: Option<String>,
    /// Log that may be kept for a persistent slot; 8 GiB.
    pub max_lag_bytes: u64,
    /// Whether large transactions are read while they run.
    pub streaming: bool,
    /// Where they are kept until they commit; `/var/tmp`.
    pub spool_dir: PathBuf,
    /// Bytes they may take; 4 GiB.
    pub spool_bytes: u64,
    /// Whether messages in the log are published that `tidewire.publish` did not sign.
    pub unsigned_messages: bool,
    /// Whether the outbox is installed when it is needed.
    pub install: bool,
    /// Rows a subscription may begin with; 10,000.
    pub snapshot_rows: usize,
    /// Bytes of them; 16 MiB.
    pub snapshot_bytes: usize,
    /// Time to read them; 15 s.
    pub snapshot_time: Duration,
    /// Roles of tokens that see tables with row level security; none.
    pub bypass_roles: Vec<String>,
}

impl TableSettings {
    fn from_values(values: &Values) -> Self {
        Self {
            source: values.text("source").to_owned(),
            slot: values.find_text("wal.slot").map(str::to_owned),
            failover: values.is_on("wal.failover"),
            publication: values.find_text("wal.publication").map(str::to_owned),
            max_lag_bytes: values.amount("wal.max_lag_bytes"),
            streaming: values.is_on("wal.streaming"),
            unsigned_messages: values.is_on("wal.unsigned_messages"),
            spool_dir: values.text("wal.spool_dir").into(),
            spool_bytes: values.amount("wal.spool_bytes"),
            install: values.is_on("outbox.install"),
            snapshot_rows: values.amount("snapshot.rows"),
            snapshot_bytes: values.amount("snapshot.bytes"),
            snapshot_time: values.time("snapshot.time"),
            bypass_roles: values.texts("row_security.bypass_roles").to_vec(),
        }
    }
}

/// Who is who.
#[derive(Clone, Debug)]
pub struct AuthSettings {
    /// Whether clients may come without a token; meaningful only with authentication configured.
    pub anonymous: bool,
    /// Time to show a token after connecting; 10 s.
    pub timeout: Duration,
    /// JSON Web Tokens, when a key for them is configured.
    pub jwt: Option<JwtSettings>,
    /// API keys.
    pub keys: Vec<ApiKeySettings>,
    /// SQL function to ask about tokens: one or two plain identifiers.
    pub function: Option<String>,
}

impl AuthSettings {
    /// Whether there is any way to tell one client from another.
    pub fn is_configured(&self) -> bool {
        self.jwt.is_some() || !self.keys.is_empty() || self.function.is_some()
    }
}

/// JSON Web Tokens; at least one of secret, public key and key set is there.
#[derive(Clone, Debug)]
pub struct JwtSettings {
    /// Shared secret for HS*.
    pub secret: Option<SecretString>,
    /// Public key in PEM.
    pub public_key: Option<String>,
    /// File of a JSON Web Key Set.
    pub jwks_file: Option<PathBuf>,
    /// Address of a JSON Web Key Set.
    pub jwks_url: Option<String>,
    /// Accepted values of `aud`; empty accepts any.
    pub audience: Vec<String>,
    /// Accepted value of `iss`.
    pub issuer: Option<String>,
    /// Claim with the role; `role`.
    pub role_claim: String,
    /// Claim with rights; `tidewire`.
    pub grants_claim: String,
    /// How far clocks may differ; 5 s.
    pub leeway: Duration,
    /// Whether tokens without `exp` are refused; they are.
    pub require_exp: bool,
}

/// One API key.
#[derive(Clone, Debug)]
pub struct ApiKeySettings {
    /// Name in logs and answers; unique.
    pub name: String,
    /// `sha256:` and 64 hexadecimal digits.
    pub hash: String,
    /// Its own rights; without them it may do what namespaces allow the authenticated.
    pub grants: Option<Grants>,
}

/// Topic patterns by action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Everything is allowed.
    pub admin: bool,
    /// To listen to.
    pub subscribe: Vec<String>,
    /// To publish to.
    pub publish: Vec<String>,
    /// To see the members of.
    pub presence: Vec<String>,
    /// To be seen on.
    pub track: Vec<String>,
    /// To read the history of.
    pub history: Vec<String>,
}

/// Rules for the topics of one pattern; what is not written is as if there were no such entry.
#[derive(Clone, Debug)]
pub struct NamespaceSettings {
    /// The pattern.
    pub pattern: String,
    /// Who may listen and read the history.
    pub subscribe: Option<Who>,
    /// Of tables, which rows that gives.
    pub rows: Option<String>,
    /// Who may publish.
    pub publish: Option<Who>,
    /// Who may see members and be one.
    pub presence: Option<Who>,
    /// Events kept for each topic.
    pub events: Option<usize>,
    /// Bytes kept for each topic.
    pub bytes: Option<usize>,
    /// How long an event is kept.
    pub age: Option<Duration>,
}

/// Who may do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Every client that was let in.
    Anyone,
    /// Clients that showed a token.
    Authenticated,
    /// No one, unless a token says so.
    Nobody,
}

/// How much is remembered.
#[derive(Clone, Debug)]
pub struct HistorySettings {
    /// The folder of a history on disk; `None` for one in memory.
    pub path: Option<PathBuf>,
    /// Whether a history on disk waits for the disk itself; no.
    pub fsync: bool,
    /// Bytes that a history on disk may take; 1 GiB.
    pub disk_bytes: u64,
    /// Events kept for each topic; 1,000.
    pub events: usize,
    /// Bytes kept for each topic; 1 MiB.
    pub bytes: usize,
    /// How long an event is kept; 1 h.
    pub age: Duration,
    /// Bytes kept for all topics together; 256 MiB.
    pub total_bytes: usize,
    /// Topics at the same time; 500,000.
    pub topics: usize,
    /// How long an idle topic is remembered; 1 h.
    pub idle_topic: Duration,
}

/// What clients and requests may use; see `docs/config.md` for each.
#[derive(Clone, Debug)]
pub struct LimitSettings {
    /// Clients at the same time; 100,000.
    pub connections: usize,
    /// Sockets at the same time; 0 for what the limit of open files leaves.
    pub sockets: usize,
    /// Subscriptions of one client; 1,000.
    pub subscriptions: usize,
    /// Bytes of one message from a client; 64 KiB.
    pub message_bytes: usize,
    /// Bytes of one payload; 64 KiB.
    pub payload_bytes: usize,
    /// Bytes of one HTTP request's body; 8 MiB.
    pub body_bytes: usize,
    /// Events in one publish request; 1,000.
    pub batch: usize,
    /// Messages a second of one client, on average; 100.
    pub messages_per_second: u32,
    /// Publications a second over HTTP by one caller on average.
    pub publishes_per_second: u32,
    /// Publications over HTTP at once by one caller.
    pub publish_burst: u32,
    /// Publications under way at once, of all callers; 16,384.
    pub publishing: usize,
    /// Messages of one client at once; 200.
    pub burst: u32,
    /// Bytes that wait for one slow client; 1 MiB.
    pub mailbox_bytes: usize,
    /// Members of one topic; 1,000.
    pub members: usize,
    /// Time for TLS and the request; 10 s.
    pub handshake_timeout: Duration,
    /// Silence before a ping; 25 s.
    pub ping_interval: Duration,
    /// Silence before a WebSocket client is gone; 60 s.
    pub idle_timeout: Duration,
    /// Time without taking a byte; 30 s.
    pub write_timeout: Duration,
    /// Longest long-poll; 60 s.
    pub poll_timeout: Duration,
    /// How long a topic without listeners stays followed; 5 s.
    pub linger: Duration,
    /// Comings and goings told together; 50 ms.
    pub presence_interval: Duration,
}

/// What one client may use of what all share; see `docs/config.md` for each.
#[derive(Clone, Debug)]
pub struct BudgetSettings {
    /// Sockets of one address; 1,000.
    pub address_sockets: usize,
    /// Sockets without a request yet; 4,096.
    pub handshakes: usize,
    /// The same of one address; 128.
    pub address_handshakes: usize,
    /// Clients of one address without a good token; 250.
    pub address_connections: usize,
    /// The part of all clients that may be without a good token, in percent; 50.
    pub unauthenticated_percent: u8,
    /// Clients of one subject; 1,000.
    pub subject_connections: usize,
    /// Bytes of bodies of one address; 16 MiB.
    pub address_body_bytes: usize,
    /// Bytes of bodies of one subject; 64 MiB.
    pub subject_body_bytes: usize,
    /// Bytes of bodies of all; 256 MiB.
    pub body_bytes: usize,
    /// Tokens of one address that are checked at once; 2.
    pub address_token_checks: usize,
    /// Bytes that wait for all slow clients; 512 MiB.
    pub mailbox_bytes: usize,
    /// Bytes of the filters of one client; 64 MiB.
    pub filter_bytes: usize,
    /// Bytes of the filters of all; 512 MiB.
    pub all_filter_bytes: usize,
    /// New topics of one client in a second; 10.
    pub new_topics_per_second: u32,
    /// New topics of one client at once; 10,000.
    pub new_topic_burst: u32,
    /// Subscriptions of one client to channels; 1,000.
    pub channels: usize,
    /// Idempotency keys of one client; 10,000.
    pub idempotency_keys: usize,
    /// Snapshots of one client that are read at once; 2.
    pub snapshots: usize,
    /// Snapshots of one client that are read or wait; 1,000.
    pub waiting_snapshots: usize,
    /// Tokens of one address that may be refused in a second; 5.
    pub failed_tokens_per_second: u32,
    /// Tokens of one address that may be refused at once; 100.
    pub failed_token_burst: u32,
}

/// Repeated publishes.
#[derive(Clone, Debug)]
pub struct IdempotencySettings {
    /// How long a key is remembered; 5 min.
    pub ttl: Duration,
    /// Keys remembered; 100,000.
    pub keys: usize,
}

/// TLS files, both in PEM.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// How to let go of clients.
#[derive(Clone, Debug)]
pub struct ShutdownSettings {
    /// Clients come back within this time; 10 s.
    pub spread: Duration,
    /// Longest wait for clients to go; 15 s.
    pub grace: Duration,
}

/// What to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A filter that parses; `info`.
    pub level: String,
    /// Text or JSON.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

impl Settings {
    /// Reads, checks and types what was written.
    ///
    /// Reads the configuration file and the files of secrets; call it again for a SIGHUP.
    ///
    /// # Errors
    /// [`ConfigError`] with everything that is wrong.
    pub fn load(written: &Written) -> Result<Self, ConfigError> {
        let mut values = written.values()?;
        let mut problems = Vec::new();
        take_files(&mut values, &mut problems);
        problems.extend(check::problems(&values));
        let values = ConfigError::unless(problems, values)?;
        let mut settings = Self::from_values(values);
        settings.warnings = check::warnings(&settings);
        Ok(settings)
    }

    fn from_values(values: Values) -> Self {
        Self {
            listen: listen(&values),
            insecure: values.is_on("insecure"),
            origins: values.texts("origins").to_vec(),
            proxies: values.texts("proxies").to_vec(),
            forwarded: values.text("proxy_header") == "forwarded",
            threads: threads(&values),
            connection_threads: connection_threads(&values),
            postgres: PostgresSettings::from_values(&values),
            tables: TableSettings::from_values(&values),
            auth: AuthSettings::from_values(&values),
            namespaces: NamespaceSettings::all(&values),
            history: HistorySettings::from_values(&values),
            limits: LimitSettings::from_values(&values),
            budgets: BudgetSettings::from_values(&values),
            idempotency: IdempotencySettings {
                ttl: values.time("idempotency.ttl"),
                keys: values.amount("idempotency.keys"),
            },
            tls: TlsSettings::from_values(&values),
            shutdown: ShutdownSettings {
                spread: values.time("shutdown.spread"),
                grace: values.time("shutdown.grace"),
            },
            log: LogSettings::from_values(&values),
            listen_operators: values.addresses("listen_operators").to_vec(),
            warnings: Vec::new(),
            values,
        }
    }
}

/// All addresses, those of both keys.
pub(super) fn listen(values: &Values) -> Vec<SocketAddr> {
    let mut addresses = values.addresses("listen").to_vec();
    for address in values.addresses("listen_also") {
        if !addresses.contains(address) {
            addresses.push(*address);
        }
    }
    addresses
}

fn threads(values: &Values) -> NonZeroUsize {
    NonZeroUsize::new(values.amount("threads"))
        .or_else(|| std::thread::available_parallelism().ok())
        .unwrap_or(NonZeroUsize::MIN)
}

fn connection_threads(values: &Values) -> NonZeroUsize {
    NonZeroUsize::new(values.amount("connection_threads"))
        .or_else(|| NonZeroUsize::new(threads(values).get() / 2))
        .unwrap_or(NonZeroUsize::MIN)
}

impl PostgresSettings {
    fn from_values(values: &Values) -> Option<Self> {
        Some(Self {
            url: values.find_postgres_url("postgres.url")?.clone(),
            pool_size: values.amount("postgres.pool_size"),
            max_channels: values.amount("postgres.max_channels"),
            listen_channels: values.texts("postgres.listen_channels").to_vec(),
        })
    }
}

impl AuthSettings {
    fn from_values(values: &Values) -> Self {
        Self {
            anonymous: values.is_on("auth.anonymous"),
            timeout: values.time("auth.timeout"),
            jwt: check::has_jwt_key(values).then(|| JwtSettings::from_values(values)),
            keys: values.records("auth.keys").iter().map(ApiKeySettings::from_values).collect(),
            function: values.find_text("auth.function").map(str::to_owned),
        }
    }
}

impl JwtSettings {
    fn from_values(values: &Values) -> Self {
        Self {
            secret: values.find_secret("auth.jwt.secret").cloned(),
            public_key: values.find_text("auth.jwt.public_key").map(str::to_owned),
            jwks_file: values.find_file("auth.jwt.jwks_file").cloned(),
            jwks_url: values.find_text("auth.jwt.jwks_url").map(str::to_owned),
            audience: values.texts("auth.jwt.audience").to_vec(),
            issuer: values.find_text("auth.jwt.issuer").map(str::to_owned),
            role_claim: values.text("auth.jwt.role_claim").to_owned(),
            grants_claim: values.text("auth.jwt.grants_claim").to_owned(),
            leeway: values.time("auth.jwt.leeway"),
            require_exp: values.is_on("auth.jwt.require_exp"),
        }
    }
}

impl ApiKeySettings {
    fn from_values(record: &Values) -> Self {
        Self {
            name: record.find_text("name").unwrap_or_default().to_owned(),
            hash: record.find_text("hash").unwrap_or_default().to_owned(),
            grants: Grants::from_values(record),
        }
    }
}

impl Grants {
    fn from_values(record: &Values) -> Option<Self> {
        record.written().any(|(path, _)| path.starts_with("grants.")).then(|| Self {
            admin: record.is_on("grants.admin"),
            subscribe: record.texts("grants.subscribe").to_vec(),
            publish: record.texts("grants.publish").to_vec(),
            presence: record.texts("grants.presence").to_vec(),
            track: record.texts("grants.track").to_vec(),
            history: record.texts("grants.history").to_vec(),
        })
    }
}

impl NamespaceSettings {
    fn all(values: &Values) -> Vec<Self> {
        values.records("namespaces").iter().map(Self::from_values).collect()
    }

    fn from_values(record: &Values) -> Self {
        let who = |right| record.find_text(right).map(Who::from_word);
        let has = |path| record.entry(path).is_some();
        Self {
            pattern: record.find_text("pattern").unwrap_or_default().to_owned(),
            subscribe: who("subscribe"),
            rows: record.find_text("rows").map(str::to_owned),
            publish: who("publish"),
            presence: who("presence"),
            events: has("history.events").then(|| record.amount("history.events")),
            bytes: has("history.bytes").then(|| record.amount("history.bytes")),
            age: has("history.age").then(|| record.time("history.age")),
        }
    }
}

impl Who {
    fn from_word(word: &str) -> Self {
        match word {
            "anyone" => Self::Anyone,
            "authenticated" => Self::Authenticated,
            "nobody" => Self::Nobody,
            other => unreachable!("the kind of the key allows no {other}"),
        }
    }
}

impl HistorySettings {
    fn from_values(values: &Values) -> Self {
        Self {
            path: match values.text("history.store") {
                "disk" => values.find_file("history.path").map(Into::into),
                _ => None,
            },
            fsync: values.text("history.fsync") == "batch",
            disk_bytes: values.amount("history.disk_bytes"),
            events: values.amount("history.events"),
            bytes: values.amount("history.bytes"),
            age: values.time("history.age"),
            total_bytes: values.amount("history.total_bytes"),
            topics: values.amount("history.topics"),
            idle_topic: values.time("history.idle_topic"),
        }
    }
}

impl LimitSettings {
    fn from_values(values: &Values) -> Self {
        Self {
            connections: values.amount("limits.connections"),
            sockets: values.amount("limits.sockets"),
            subscriptions: values.amount("limits.subscriptions"),
            message_bytes: values.amount("limits.message_bytes"),
            payload_bytes: values.amount("limits.payload_bytes"),
            body_bytes: values.amount("limits.body_bytes"),
            batch: values.amount("limits.batch"),
            messages_per_second: values.amount("limits.messages_per_second"),
            publishes_per_second: values.amount("limits.publishes_per_second"),
            publish_burst: values.amount("limits.publish_burst"),
            publishing: values.amount("limits.publishing"),
            burst: values.amount("limits.burst"),
            mailbox_bytes: values.amount("limits.mailbox_bytes"),
            members: values.amount("limits.members"),
            handshake_timeout: values.time("limits.handshake_timeout"),
            ping_interval: values.time("limits.ping_interval"),
            idle_timeout: values.time("limits.idle_timeout"),
            write_timeout: values.time("limits.write_timeout"),
            poll_timeout: values.time("limits.poll_timeout"),
            linger: values.time("limits.linger"),
            presence_interval: values.time("limits.presence_interval"),
        }
    }
}

impl BudgetSettings {
    fn from_values(values: &Values) -> Self {
        Self {
            address_sockets: values.amount("budgets.address_sockets"),
            handshakes: values.amount("budgets.handshakes"),
            address_handshakes: values.amount("budgets.address_handshakes"),
            address_connections: values.amount("budgets.address_connections"),
            unauthenticated_percent: values.amount("budgets.unauthenticated_percent"),
            subject_connections: values.amount("budgets.subject_connections"),
            address_body_bytes: values.amount("budgets.address_body_bytes"),
            subject_body_bytes: values.amount("budgets.subject_body_bytes"),
            body_bytes: values.amount("budgets.body_bytes"),
            address_token_checks: values.amount("budgets.address_token_checks"),
            mailbox_bytes: values.amount("budgets.mailbox_bytes"),
            filter_bytes: values.amount("budgets.filter_bytes"),
            all_filter_bytes: values.amount("budgets.all_filter_bytes"),
            new_topics_per_second: values.amount("budgets.new_topics_per_second"),
            new_topic_burst: values.amount("budgets.new_topic_burst"),
            channels: values.amount("budgets.channels"),
            idempotency_keys: values.amount("budgets.idempotency_keys"),
            snapshots: values.amount("budgets.snapshots"),
            waiting_snapshots: values.amount("budgets.waiting_snapshots"),
            failed_tokens_per_second: values.amount("budgets.failed_tokens_per_second"),
            failed_token_burst: values.amount("budgets.failed_token_burst"),
        }
    }
}

impl TlsSettings {
    fn from_values(values: &Values) -> Option<Self> {
        Some(Self {
            certificate: values.find_file("tls.certificate")?.clone(),
            key: values.find_file("tls.key")?.clone(),
        })
    }
}

impl LogSettings {
    fn from_values(values: &Values) -> Self {
        let format = match values.text("log.format") {
            "json" => LogFormat::Json,
            _ => LogFormat::Text,
        };
        Self { level: values.text("log.level").to_owned(), format }
    }
}

/// Keys that may be written in a file of their own instead, and the key that names the file.
pub(super) const IN_FILES: [(&str, &str); 3] = [
    ("postgres.url", "postgres.url_file"),
    ("auth.jwt.secret", "auth.jwt.secret_file"),
    ("auth.jwt.public_key", "auth.jwt.public_key_file"),
];

/// Replaces the path of a secret's file by the secret, where the path is the stronger of the two.
fn take_files(values: &mut Values, problems: &mut Vec<Problem>) {
    for (direct, in_file) in IN_FILES {
        let Some(pointer) = values.entry(in_file).cloned() else { continue };
        let rank = values.entry(direct).map(|entry| entry.origin.rank());
        if rank == Some(pointer.origin.rank()) {
            let message = format!("is written beside {direct}, keep one of the two");
            problems.push(Problem::new(values.place(in_file), message));
            continue;
        }
        if rank > Some(pointer.origin.rank()) {
            values.remove(in_file);
            continue;
        }
        let file = values.find_file(in_file).expect("the entry is there").clone();
        match read_secret(&file).and_then(|secret| {
            let key = values.keys().iter().find(|key| key.path() == direct);
            let kind = key.expect("the pairs are keys of the table").kind();
            kind.read_text(secret.expose_secret())
        }) {
            Ok(value) => values.offer(direct, value, pointer.origin),
            Err(message) => problems.push(Problem::new(values.place(in_file), message)),
        }
    }
}

/// A secret without the line end that editors and `echo` leave behind.
fn read_secret(file: &std::path::Path) -> Result<SecretString, String> {
    let text = std::fs::read_to_string(file)
        .map(SecretString::from)
        .map_err(|e| format!("{} cannot be read: {e}", file.display()))?;
    let secret = text.expose_secret().trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err(format!("{} is empty", file.display()));
    }
    Ok(secret.into())
}
