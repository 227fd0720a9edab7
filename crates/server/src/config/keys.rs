//! Every key of the configuration, listed once.
//!
//! From this table come reading, the names of environment variables, the defaults, what
//! `tidewire config` prints, what a SIGHUP may change, and `docs/config.md`. To add a key, add it
//! here and to the settings that are made of it; a test says which other places to bring up to
//! date.

use super::value::Kind;

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    path: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    other_variables: &'static [&'static str],
    live: bool,
    doc: &'static str,
}

impl Key {
    /// The path in a file, `limits.burst`; in a record, relative to the record.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// What may be written.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What holds when nothing is written, as it would be written.
    pub fn default(&self) -> Option<&'static str> {
        self.default
    }

    /// Whether a SIGHUP takes a new value; otherwise it needs a restart.
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// What it means, in Markdown.
    pub fn doc(&self) -> &'static str {
        self.doc
    }

    /// The environment variables that set it, the strongest first.
    pub fn variables(&self) -> Vec<String> {
        let own = format!("TIDEWIRE_{}", self.path.to_ascii_uppercase().replace('.', "_"));
        std::iter::once(own)
            .chain(self.other_variables.iter().map(|name| (*name).to_owned()))
            .collect()
    }

    const fn new(path: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { path, kind, default: None, other_variables: &[], live: false, doc }
    }

    const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    const fn also(self, other_variables: &'static [&'static str]) -> Self {
        Self { other_variables, ..self }
    }

    const fn live(self) -> Self {
        Self { live: true, ..self }
    }
}

/// A heading of the documentation and the keys below it.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// The beginning its keys share; empty for the keys at the top.
    pub prefix: &'static str,
    /// What they are about, in Markdown.
    pub doc: &'static str,
}

/// Variables that begin with `TIDEWIRE_` and are no key, with their meaning.
pub const OTHER_VARIABLES: [(&str, &str); 3] = [
    ("TIDEWIRE_CONFIG", "The configuration file, as `--config`."),
    ("TIDEWIRE_SERVER", "The server that `tidewire listen` and `tidewire publish` speak to."),
    ("TIDEWIRE_TOKEN", "The token that `tidewire listen` and `tidewire publish` show."),
];

/// Sections in the order of the documentation; each key belongs to the longest prefix it has.
pub const SECTIONS: [Section; 16] = [
    Section { prefix: "", doc: "Where the server listens and who may come." },
    Section {
        prefix: "postgres",
        doc: "The database whose notifications are passed on. Without it, application topics, \
              presence and history work; NOTIFY channels answer that they are unavailable.",
    },
    Section { prefix: "wal", doc: "Row changes from PostgreSQL's write-ahead log." },
    Section { prefix: "outbox", doc: "Row changes from triggers." },
    Section { prefix: "snapshot", doc: "Rows that come before changes." },
    Section {
        prefix: "row_security",
        doc: "Tables with row level security. Policies are not enforced for what clients are told.",
    },
    Section {
        prefix: "auth",
        doc: "Who is who. Authentication is configured as soon as there is a key of `auth.jwt`, \
              one of `auth.keys`, or `auth.function`. Without any, everybody on this machine may \
              do everything, and listening beyond it is refused unless `insecure` is on.",
    },
    Section {
        prefix: "auth.jwt",
        doc: "JSON Web Tokens. Several keys may be given at once, for instance while moving from \
              a secret to a key set; a token must fit one of them, and only with an algorithm of \
              that key's own family.",
    },
    Section { prefix: "history", doc: "How much is remembered, for clients that come back." },
    Section {
        prefix: "limits",
        doc: "What one client, one request or all of them together may use. Whatever is over a \
              limit is answered with an error or a named close and counted in a metric; other \
              clients do not notice.",
    },
    Section {
        prefix: "budgets",
        doc: "What one client may use of what all share: one address (for IPv6 one /64) as long as \
              it showed no good token, and one subject afterwards. A request over a budget is \
              refused with `over_budget` and counted in `tidewire_over_budget_total`; other \
              clients do not notice. Without authentication clients are not told apart, and only \
              the totals count. Behind a proxy, name it in `proxies`, or all of its clients are \
              one address.",
    },
    Section {
        prefix: "idempotency",
        doc: "Keys by which a repeated publish is recognised and answered as the first time.",
    },
    Section { prefix: "tls", doc: "TLS for the listening addresses; both files or neither." },
    Section { prefix: "shutdown", doc: "How a server that is told to stop lets go of clients." },
    Section { prefix: "log", doc: "What is written to standard error." },
    Section { prefix: "namespaces", doc: NAMESPACES_DOC },
];

const NAMESPACES_DOC: &str = "Rules for the topics that match a pattern. Each right, and each \
    limit of the history, is decided by the first entry that matches the topic and has it written; \
    an entry in which it is not written is passed over. A right that no entry decides belongs to \
    every client that was let in on application topics, and to nobody on private topics, tables \
    and NOTIFY channels. Rights that a token or an API key carries come on top. Where no \
    authentication is configured, everybody may do everything and the rules about who do not \
    count. See [authentication.md](authentication.md).";

/// Most that a count of things in memory may be set to.
///
/// Far above what one machine holds; it keeps a slip of the finger from overflowing sums.
const MANY: u64 = 1_000_000_000;

/// Most bytes anything may be set to: 1 TiB, beyond the memory of today's machines.
const TIB: u64 = 1 << 40;

/// Most bytes anything on a disk may be set to: 1 PiB.
const PIB: u64 = 1 << 50;

/// Longest frame, body or payload: 256 MiB, held in memory whole.
const LARGEST_MESSAGE: u64 = 256 << 20;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const YEAR: u64 = 366 * 24 * HOUR;

/// Who may do something, as namespaces say it.
const WHO: Kind = Kind::Word(&["anyone", "authenticated", "nobody"]);

/// All keys, in the order of the documentation.
pub const KEYS: &[Key] = &[
    Key::new(
        "listen",
        Kind::Addresses,
        "Addresses to listen on. An address beyond this machine needs authentication, or \
         `insecure`.",
    )
    .or("127.0.0.1:8080")
    .also(&["WS_BIND_ADDR"]),
    Key::new(
        "listen_also",
        Kind::Addresses,
        "Further addresses to listen on, for Alle's second flag.",
    )
    .also(&["SSE_BIND_ADDR"]),
    Key::new(
        "listen_operators",
        Kind::Addresses,
        "Addresses at which operators alone find `/health`, `/ready` with all reasons, and \
         `/metrics`, without a token: let nobody else reach them. Elsewhere `/metrics` then needs an \
         administrator's token.",
    ),
    Key::new(
        "insecure",
        Kind::Switch,
        "Listen beyond this machine although no authentication is configured: anyone who reaches \
         the port may do everything.",
    )
    .or("false"),
    Key::new(
        "origins",
        Kind::Texts,
        "Origins of web pages that may connect besides the server's own, such as \
         `https://shop.example`; `*` allows every page. Without authentication only requests to \
         loopback hosts are answered, whatever stands here, and `*` needs `insecure`.",
    ),
    Key::new(
        "proxies",
        Kind::Texts,
        "Proxies in front of the server, as addresses or networks such as `10.0.0.0/8`; what they \
         say of the address of their client is believed, and no budget of an address is theirs.",
    ),
    Key::new(
        "proxy_header",
        Kind::Word(&["x-forwarded-for", "forwarded"]),
        "The header in which these proxies name their client; they must set or append it \
         themselves.",
    )
    .or("x-forwarded-for"),
    Key::new(
        "threads",
        Kind::Number(0, 1_024),
        "Worker threads, which hand events to listeners and speak to databases; 0 is one for each \
         processor core.",
    )
    .or("0"),
    Key::new(
        "connection_threads",
        Kind::Number(0, 1_024),
        "Threads that serve connections, besides those in `threads`; 0 is half as many as those.",
    )
    .or("0"),
    // PostgreSQL
    Key::new(
        "postgres.url",
        Kind::PostgresUrl,
        "Connection string, as libpq takes it, `sslmode` included. Its password is never printed.",
    )
    .also(&["POSTGRES_URL"]),
    Key::new("postgres.url_file", Kind::File, "A file that holds the connection string."),
    Key::new(
        "postgres.pool_size",
        Kind::Number(1, 1_000),
        "Connections for publishing and for questions, besides the one that listens.",
    )
    .or("4"),
    Key::new(
        "postgres.max_channels",
        Kind::Number(1, MANY),
        "NOTIFY channels that may be followed at the same time.",
    )
    .or("10000"),
    Key::new(
        "postgres.listen_channels",
        Kind::Texts,
        "Channels listened to from the start, so that their history begins before the first \
         subscriber.",
    )
    .also(&["LISTEN_CHANNELS"]),
    // Row changes
    Key::new(
        "source",
        Kind::Word(&["auto", "wal", "outbox"]),
        "Where row changes come from: `wal` is logical replication, `outbox` are triggers for \
         databases that do not offer it, `auto` takes the first that the database allows.",
    )
    .or("auto"),
    Key::new(
        "wal.slot",
        Kind::Text,
        "Name of a persistent replication slot, so that no change is missed over a restart; \
         PostgreSQL keeps its log for it while the server is down. Without a name the slot is \
         temporary.",
    ),
    Key::new(
        "wal.failover",
        Kind::Switch,
        "Let standbys keep a copy of the persistent slot (PostgreSQL 17 on).",
    )
    .or("false"),
    Key::new(
        "wal.publication",
        Kind::Text,
        "Name of the publication; by default one of the server's own.",
    ),
    Key::new(
        "wal.max_lag_bytes",
        Kind::Size(1 << 20, TIB),
        "Log that PostgreSQL may keep for a persistent slot before it is let go of, rather than \
         fill the disk.",
    )
    .or("8GiB"),
    Key::new(
        "wal.streaming",
        Kind::Switch,
        "Read large transactions while they still run and keep them on disk until they commit, so \
         that they are told at once when they do; otherwise PostgreSQL keeps them on its own disk.",
    )
    .or("false"),
    Key::new(
        "wal.spool_dir",
        Kind::Text,
        "Directory in which running transactions are kept, in files without a name.",
    )
    .or("/var/tmp"),
    Key::new(
        "wal.spool_bytes",
        Kind::Size(1 << 20, TIB),
        "Disk that running transactions may take together; beyond it the log is read without \
         `wal.streaming`.",
    )
    .or("4GiB"),
    Key::new(
        "wal.unsigned_messages",
        Kind::Switch,
        "Publish logical messages with the prefix `tidewire` whoever wrote them. Any role of the \
         database can, so by default only those that `tidewire.publish` signed are.",
    )
    .or("false"),
    Key::new(
        "outbox.install",
        Kind::Switch,
        "Install the outbox and its triggers when a table is first listened to; otherwise \
         `tidewire sql install` and `enable_realtime` do.",
    )
    .or("true"),
    Key::new("snapshot.rows", Kind::Number(1, MANY), "Rows a subscription may begin with.")
        .or("10000"),
    Key::new(
        "snapshot.bytes",
        Kind::Size(1_024, TIB),
        "Size of the rows a subscription may begin with.",
    )
    .or("16MiB"),
    Key::new(
        "snapshot.time",
        Kind::Time(SECOND, HOUR),
        "Time for reading the rows a subscription begins with.",
    )
    .or("15s"),
    Key::new(
        "row_security.bypass_roles",
        Kind::Texts,
        "Roles of tokens (the claim `role`) whose clients may see tables that have row level \
         security, with all their rows. `*` stands for every client that may otherwise see the \
         table, also without a token or with an API key. Empty: such tables are refused to all.",
    ),
    // Authentication
    Key::new(
        "auth.anonymous",
        Kind::Switch,
        "Let clients in that show no token; they may do what namespaces allow `anyone`.",
    )
    .or("false"),
    Key::new(
        "auth.timeout",
        Kind::Time(SECOND, HOUR),
        "How long a client may stay connected before it shows a token, where its dialect sends \
         one in a message.",
    )
    .or("10s")
    .live(),
    Key::new(
        "auth.function",
        Kind::Function,
        "An SQL function that is asked about tokens: it takes the token as text and returns \
         `(user_id text, authenticated boolean)` or one boolean. Needs `postgres.url`.",
    )
    .also(&["AUTH_FUNCTION"]),
    Key::new(
        "auth.keys",
        Kind::Records(API_KEYS),
        "API keys, for programs that publish. `tidewire key new` makes one.",
    )
    .live(),
    Key::new("auth.jwt.secret", Kind::Secret, "Shared secret for HS256, HS384 and HS512.")
        .also(&["TIDEWIRE_JWT_SECRET"])
        .live(),
    Key::new("auth.jwt.secret_file", Kind::File, "A file that holds the shared secret.").live(),
    Key::new(
        "auth.jwt.public_key",
        Kind::Text,
        "Public key in PEM, for RS256 and its kin, ES256, ES384 and EdDSA.",
    )
    .live(),
    Key::new("auth.jwt.public_key_file", Kind::File, "A file that holds the public key in PEM.")
        .live(),
    Key::new("auth.jwt.jwks_file", Kind::File, "A file that holds a JSON Web Key Set.").live(),
    Key::new(
        "auth.jwt.jwks_url",
        Kind::Web,
        "Where to fetch a JSON Web Key Set: cached, fetched again for an unknown `kid`, old keys \
         kept while it cannot be reached.",
    )
    .live(),
    Key::new("auth.jwt.audience", Kind::Texts, "Accepted values of `aud`; empty accepts any.")
        .live(),
    Key::new("auth.jwt.issuer", Kind::Text, "The one accepted value of `iss`.").live(),
    Key::new("auth.jwt.role_claim", Kind::Text, "The claim that holds the role.").or("role").live(),
    Key::new(
        "auth.jwt.grants_claim",
        Kind::Text,
        "The claim that carries rights: a table of actions, each with a list of topic patterns.",
    )
    .or("tidewire")
    .live(),
    Key::new(
        "auth.jwt.leeway",
        Kind::Time(0, HOUR),
        "How far clocks may differ when `exp` and `nbf` are checked.",
    )
    .or("5s")
    .live(),
    Key::new("auth.jwt.require_exp", Kind::Switch, "Refuse tokens without `exp`.")
        .or("true")
        .live(),
    // History
    Key::new(
        "history.store",
        Kind::Word(&["memory", "disk"]),
        "Where it is kept: `memory`, where it ends with the server and every client that comes back \
         is told a gap, or `disk`, where it survives a restart; see [history.md](history.md).",
    )
    .or("memory"),
    Key::new(
        "history.path",
        Kind::File,
        "The folder of a history on disk; made if it is not there. No two servers can share one.",
    ),
    Key::new(
        "history.fsync",
        Kind::Word(&["never", "batch"]),
        "When a history on disk has an event for sure: `never` leaves it to the operating system, \
         which is safe from any end of the server but not of the machine; `batch` waits for the \
         disk itself before an event is told, which is safe from a power failure and much slower.",
    )
    .or("never"),
    Key::new(
        "history.disk_bytes",
        Kind::Size(16 << 20, PIB),
        "Bytes that a history on disk may take; beyond it the oldest events go, whatever their \
         topic.",
    )
    .or("1GiB"),
    Key::new("history.events", Kind::Number(1, MANY), "Events kept for each topic.")
        .or("1000")
        .live(),
    Key::new("history.bytes", Kind::Size(1_024, TIB), "Bytes kept for each topic.")
        .or("1MiB")
        .live(),
    Key::new("history.age", Kind::Time(SECOND, YEAR), "How long an event is kept.").or("1h").live(),
    Key::new(
        "history.total_bytes",
        Kind::Size(1_024, TIB),
        "Bytes of events kept in memory for all topics together; beyond it topics give up the older \
         half of their events in turn, and those without events that nobody listens to are \
         forgotten. Of a history on disk the newest events are in memory, and none is given up.",
    )
    .or("256MiB"),
    Key::new(
        "history.topics",
        Kind::Number(1, MANY),
        "Topics remembered at the same time, each of which takes some 400 bytes and its name \
         beside its events. For another, one is forgotten that nobody listens to and that has no \
         events or was idle for a minute; where there is none, the new one is refused.",
    )
    .or("500000"),
    Key::new(
        "history.idle_topic",
        Kind::Time(10 * MINUTE, YEAR),
        "How long a topic is remembered that nobody speaks on or listens to.",
    )
    .or("1h"),
    // Limits
    Key::new("limits.connections", Kind::Number(1, MANY), "Clients connected at the same time.")
        .or("100000")
        .live(),
    Key::new(
        "limits.sockets",
        Kind::Number(0, MANY),
        "Sockets open at the same time; for another one idle ones are closed, then those on which \
         no request came. 0 is what the limit of open files leaves beside a reserve for \
         everything else.",
    )
    .or("0"),
    Key::new("limits.subscriptions", Kind::Number(1, MANY), "Subscriptions of one client.")
        .or("1000")
        .live(),
    Key::new(
        "limits.message_bytes",
        Kind::Size(1_024, LARGEST_MESSAGE),
        "Size of one message from a client.",
    )
    .or("64KiB")
    .live(),
    Key::new(
        "limits.payload_bytes",
        Kind::Size(1, LARGEST_MESSAGE),
        "Size of the payload of one event.",
    )
    .or("64KiB")
    .live(),
    Key::new(
        "limits.body_bytes",
        Kind::Size(1_024, LARGEST_MESSAGE),
        "Size of the body of one HTTP request.",
    )
    .or("8MiB")
    .live(),
    Key::new("limits.batch", Kind::Number(1, 100_000), "Events in one publish request.")
        .or("1000")
        .live(),
    Key::new(
        "limits.messages_per_second",
        Kind::Number(1, MANY),
        "Messages a second that one client may send on average.",
    )
    .or("100")
    .live(),
    Key::new(
        "limits.burst",
        Kind::Number(1, MANY),
        "Messages that one client may send at once after a silence.",
    )
    .or("200")
    .live(),
    Key::new(
        "limits.publishes_per_second",
        Kind::Number(1, MANY),
        "Publications a second that one caller may send over HTTP on average: one subject, or one \
         address without a token.",
    )
    .or("10000")
    .live(),
    Key::new(
        "limits.publish_burst",
        Kind::Number(1, MANY),
        "Publications that one caller may send over HTTP at once after a silence.",
    )
    .or("20000")
    .live(),
    Key::new(
        "limits.publishing",
        Kind::Number(1, MANY),
        "Publications that may be under way at once, waiting for the history on disk or for \
         PostgreSQL, also after their caller hung up; one caller may have an eighth of them.",
    )
    .or("16384")
    .live(),
    Key::new(
        "limits.mailbox_bytes",
        Kind::Size(1_024, TIB),
        "Bytes that wait in memory for one slow client before it reads on from the history.",
    )
    .or("1MiB")
    .live(),
    Key::new(
        "limits.members",
        Kind::Number(1, MANY),
        "Members that the presence of one topic shows.",
    )
    .or("1000")
    .live(),
    Key::new(
        "limits.handshake_timeout",
        Kind::Time(100, HOUR),
        "How long a client may take to send its request, TLS included.",
    )
    .or("10s"),
    Key::new(
        "limits.ping_interval",
        Kind::Time(SECOND, HOUR),
        "How long a connection is silent before the server pings (WebSocket) or sends a comment \
         (SSE).",
    )
    .or("25s")
    .live(),
    Key::new(
        "limits.idle_timeout",
        Kind::Time(SECOND, 24 * HOUR),
        "How long a WebSocket client may give no sign of life.",
    )
    .or("60s")
    .live(),
    Key::new(
        "limits.write_timeout",
        Kind::Time(SECOND, 24 * HOUR),
        "How long a client may take no bytes while some wait for it.",
    )
    .or("30s")
    .live(),
    Key::new(
        "limits.poll_timeout",
        Kind::Time(SECOND, HOUR),
        "Longest wait that a long-poll request may ask for.",
    )
    .or("60s")
    .live(),
    Key::new(
        "limits.linger",
        Kind::Time(0, HOUR),
        "How long a topic stays followed after its last listener left, so that a page reload does \
         not flap LISTEN.",
    )
    .or("5s")
    .live(),
    Key::new(
        "limits.presence_interval",
        Kind::Time(0, 10 * SECOND),
        "Comings and goings on one topic within this time are told together.",
    )
    .or("50ms")
    .live(),
    // Budgets
    Key::new(
        "budgets.address_sockets",
        Kind::Number(1, MANY),
        "Sockets of one address at the same time, those of clients with a good token not counted; \
         for another an idle one is closed, or one on which no request came.",
    )
    .or("1000")
    .live(),
    Key::new(
        "budgets.handshakes",
        Kind::Number(1, MANY),
        "Sockets on which no request came yet; for another one the oldest of the address with the \
         most is closed.",
    )
    .or("4096")
    .live(),
    Key::new(
        "budgets.address_handshakes",
        Kind::Number(1, MANY),
        "The same of one address; for another its oldest is closed.",
    )
    .or("128")
    .live(),
    Key::new(
        "budgets.address_connections",
        Kind::Number(1, MANY),
        "Clients of one address at the same time that showed no good token.",
    )
    .or("250")
    .live(),
    Key::new(
        "budgets.unauthenticated_percent",
        Kind::Number(1, 100),
        "Of `limits.connections`, the part that clients may have together that showed no good \
         token; the rest is kept for those who did.",
    )
    .or("50")
    .live(),
    Key::new(
        "budgets.subject_connections",
        Kind::Number(1, MANY),
        "Clients of one subject at the same time.",
    )
    .or("1000")
    .live(),
    Key::new(
        "budgets.address_body_bytes",
        Kind::Size(1_024, TIB),
        "Bytes of request bodies that one address may have in memory without a good token; one \
         whole body of `limits.body_bytes` is always possible.",
    )
    .or("16MiB")
    .live(),
    Key::new(
        "budgets.subject_body_bytes",
        Kind::Size(1_024, TIB),
        "Bytes of request bodies that one subject may have in memory.",
    )
    .or("64MiB")
    .live(),
    Key::new(
        "budgets.body_bytes",
        Kind::Size(1_024, TIB),
        "Bytes of request bodies in memory of all clients together, at most half of them of \
         requests without a good token.",
    )
    .or("256MiB")
    .live(),
    Key::new(
        "budgets.address_token_checks",
        Kind::Number(1, 1_000),
        "Tokens of one address that are checked at the same time; others wait for their turn.",
    )
    .or("2")
    .live(),
    Key::new(
        "budgets.mailbox_bytes",
        Kind::Size(64 << 10, TIB),
        "Bytes that wait in memory for all slow clients together. One client may hold an eighth of \
         what is left, and at most `limits.mailbox_bytes`; beyond it reads on from the history.",
    )
    .or("512MiB")
    .live(),
    Key::new(
        "budgets.filter_bytes",
        Kind::Size(1 << 20, TIB),
        "Memory that the filters of one address without a good token, or one subject, may take; a \
         small regular expression counts 256 KiB, a large one up to 8 MiB.",
    )
    .or("64MiB")
    .live(),
    Key::new(
        "budgets.all_filter_bytes",
        Kind::Size(1 << 20, TIB),
        "The same of all clients together, at most half of it of those without a good token.",
    )
    .or("512MiB")
    .live(),
    Key::new(
        "budgets.new_topics_per_second",
        Kind::Number(1, MANY),
        "Topics that publications of one address without a good token, or one subject, may bring \
         into being in a second on average.",
    )
    .or("10")
    .live(),
    Key::new(
        "budgets.new_topic_burst",
        Kind::Number(1, MANY),
        "The same at once after a silence.",
    )
    .or("10000")
    .live(),
    Key::new(
        "budgets.channels",
        Kind::Number(1, MANY),
        "Subscriptions to NOTIFY channels of one address without a good token, or one subject.",
    )
    .or("1000")
    .live(),
    Key::new(
        "budgets.idempotency_keys",
        Kind::Number(1, MANY),
        "Of `idempotency.keys`, those of one address without a good token, or one subject; for \
         another its oldest is forgotten.",
    )
    .or("10000")
    .live(),
    Key::new(
        "budgets.snapshots",
        Kind::Number(1, 1_000),
        "Snapshots that are read at the same time for one address without a good token, or one \
         subject; others of it wait for their turn.",
    )
    .or("2")
    .live(),
    Key::new(
        "budgets.waiting_snapshots",
        Kind::Number(1, MANY),
        "Snapshots of one address or subject that are read or wait.",
    )
    .or("1000")
    .live(),
    Key::new(
        "budgets.failed_tokens_per_second",
        Kind::Number(1, MANY),
        "Tokens of one address that may be refused in a second on average; beyond it none of that \
         address is checked for a while. Tokens that ran out do not count.",
    )
    .or("5")
    .live(),
    Key::new(
        "budgets.failed_token_burst",
        Kind::Number(1, MANY),
        "Tokens of one address that may be refused at once after a silence.",
    )
    .or("100")
    .live(),
    // Idempotency
    Key::new("idempotency.ttl", Kind::Time(SECOND, YEAR), "How long a key is remembered.").or("5m"),
    Key::new("idempotency.keys", Kind::Number(1, MANY), "Keys remembered at the same time.")
        .or("100000"),
    // TLS
    Key::new("tls.certificate", Kind::File, "Certificate chain in PEM, the server's own first."),
    Key::new("tls.key", Kind::File, "Private key in PEM."),
    // Shutdown
    Key::new(
        "shutdown.spread",
        Kind::Time(0, HOUR),
        "Clients are told to come back after a time of their own, at most this long, so that they \
         do not all come at once.",
    )
    .or("10s"),
    Key::new(
        "shutdown.grace",
        Kind::Time(0, HOUR),
        "How long the server waits for clients to take what is theirs before it leaves.",
    )
    .or("15s"),
    // Log
    Key::new(
        "log.level",
        Kind::Filter,
        "`error`, `warn`, `info`, `debug`, `trace`, or a filter by part, `tidewire=debug,info`.",
    )
    .or("info")
    .also(&["TIDEWIRE_LOG", "RUST_LOG"])
    .live(),
    Key::new(
        "log.format",
        Kind::Word(&["text", "json"]),
        "One line for people, or one JSON object.",
    )
    .or("text"),
    // Namespaces
    Key::new("namespaces", Kind::Records(NAMESPACES), "Rules by topic pattern.").live(),
];

/// Keys of one entry of `auth.keys`.
pub const API_KEYS: &[Key] = &[
    Key::new("name", Kind::Text, "Name in logs and answers; required, no two the same."),
    Key::new(
        "hash",
        Kind::Text,
        "What `tidewire key new` printed: `sha256:` and 64 digits; required.",
    ),
    Key::new("grants.admin", Kind::Switch, "Whether the key may do everything."),
    Key::new("grants.subscribe", Kind::Texts, "Topic patterns it may listen to."),
    Key::new("grants.publish", Kind::Texts, "Topic patterns it may publish to."),
    Key::new("grants.presence", Kind::Texts, "Topic patterns whose members it may see."),
    Key::new("grants.track", Kind::Texts, "Topic patterns on which it may be seen."),
    Key::new("grants.history", Kind::Texts, "Topic patterns whose history it may read."),
];

/// Keys of one entry of `namespaces`.
pub const NAMESPACES: &[Key] = &[
    Key::new(
        "pattern",
        Kind::Text,
        "Topics it is about; `*` stands for any run of characters, `{sub}` for the client's \
         subject; required. Application topics, unless it begins with another kind: `private:`, \
         `notify:`, `table:`.",
    ),
    Key::new("subscribe", WHO, "Who may subscribe and read the history."),
    Key::new(
        "rows",
        Kind::Text,
        "Of a table, the rows that `subscribe` gives: a filter such as `customer_id=eq.{sub}`, in \
         which `{sub}` is the client's subject. Goes with a `table:` pattern and `subscribe`.",
    ),
    Key::new("publish", WHO, "Who may publish."),
    Key::new("presence", WHO, "Who may see members and be one."),
    Key::new("history.events", Kind::Number(1, MANY), "As `history.events`, for these topics."),
    Key::new("history.bytes", Kind::Size(1_024, TIB), "As `history.bytes`, for these topics."),
    Key::new("history.age", Kind::Time(SECOND, YEAR), "As `history.age`, for these topics."),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> [&'static [Key]; 3] {
        [KEYS, API_KEYS, NAMESPACES]
    }

    #[test]
    fn every_default_fits_its_kind() {
        for key in tables().into_iter().flatten() {
            if let Some(default) = key.default() {
                key.kind().read_text(default).unwrap_or_else(|e| panic!("{}: {e}", key.path()));
            }
        }
    }

    #[test]
    fn no_path_and_no_variable_is_taken_twice() {
        for table in tables() {
            let mut paths: Vec<_> = table.iter().map(Key::path).collect();
            paths.sort_unstable();
            assert!(paths.windows(2).all(|pair| pair[0] != pair[1]), "{paths:?}");
        }
        let mut names: Vec<_> = KEYS.iter().flat_map(Key::variables).collect();
        names.extend(OTHER_VARIABLES.map(|(name, _)| name.to_owned()));
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    #[test]
    fn every_text_is_a_sentence() {
        for key in tables().into_iter().flatten() {
            assert!(key.doc().ends_with('.'), "{}", key.path());
            assert!(!key.doc().contains('|'), "{}: a | would break the table", key.path());
        }
    }
}
