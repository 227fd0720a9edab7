//! Settings to running parts: the only list of all parts.

mod authentication;
mod convert;
mod history;

use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::{Mutex, RwLock};
use prometheus_client::registry::Registry;
use tidewire::history::MemorySettings;
use tidewire::{Metrics, Namespaces, Node, Publisher, Topic};
use tidewire_adapters::DiskHistory;
use tidewire_axum::{App, Listening, ListeningMetrics, Threads, Tls, Transports};
use tidewire_postgres::wal::{SlotKind, WalOptions};
use tidewire_postgres::{
    NotifyOptions, NotifySource, OutboxOptions, RowSecurity, SecuredTables, SnapshotLimits,
    TableOptions, TableSource, Target,
};
use tidewire_protocol::TopicKind;

pub(crate) use self::authentication::{Authentication, jwt_settings};
use crate::api::{self, Api, Door};
use crate::config::{PostgresSettings, Settings, TableSettings};

/// What begins every metric's name.
const METRIC_PREFIX: &str = "tidewire";

/// All parts of a running server.
pub(crate) struct Parts {
    pub(crate) node: Node,
    pub(crate) transports: Transports,
    pub(crate) notify: Option<Arc<NotifySource>>,
    pub(crate) tables: Option<Arc<TableSource>>,
    pub(crate) authentication: Authentication,
    /// The history, where it is on disk, to be closed last.
    pub(crate) disk: Option<Arc<DiskHistory>>,
    pub(crate) tls: Option<Tls>,
    /// As it was at the start: `auth.anonymous` needs a restart, in the rules of namespaces too.
    anonymous: bool,
    namespaces: Arc<RwLock<Arc<Namespaces>>>,
    registry: Arc<Mutex<Registry>>,
}

impl Parts {
    /// Builds and starts every part that the settings name.
    ///
    /// A database or key server that is down is no error: it is tried again, and `/ready` says so.
    ///
    /// # Errors
    /// What in the settings cannot be used.
    pub(crate) fn start(settings: &Settings) -> anyhow::Result<Self> {
        let mut registry = Registry::with_prefix(METRIC_PREFIX);
        let metrics = Metrics::default();
        metrics.register(&mut registry);
        crate::open_files::register(&mut registry);

        let target = postgres_target(settings)?;
        let authentication = Authentication::start(&settings.auth, target.as_ref())?;
        let anonymous = settings.auth.anonymous;
        let namespaces = Arc::new(RwLock::new(Arc::new(convert::namespaces(settings, anonymous)?)));

        let disk = history::open(settings, &namespaces, &metrics, &mut registry)?;
        let mut builder = Node::builder()
            .metrics(metrics)
            .limits(convert::limits(settings))
            .memory(memory(settings))
            .namespaces(Arc::clone(&namespaces))
            .anonymous(settings.auth.anonymous);
        if let Some(disk) = &disk {
            builder = builder.history(Arc::clone(disk) as _);
        }
        if let Some(authenticator) = authentication.authenticator() {
            builder = builder.authenticator(authenticator);
        }
        let row_security = target.as_ref().map(|target| row_security(target, settings));
        if let Some(rule) = &row_security {
            let allowed = Arc::clone(&namespaces) as _;
            builder = builder.authorizer(Arc::new(SecuredTables::new(allowed, rule.clone())));
        }
        let mut prepared = builder.prepare();
        let publisher = prepared.publisher().clone();
        let notify = target.clone().zip(settings.postgres.as_ref());
        let notify = notify
            .map(|(target, postgres)| start_notify(target, postgres, publisher.clone()))
            .transpose()?;
        if let Some(source) = &notify {
            source.metrics().register(&mut registry);
            prepared = prepared.upstream(TopicKind::Notify, Arc::clone(source) as _);
        }
        let registry = Arc::new(Mutex::new(registry));
        let tables = target.map(|target| {
            let options = TableOptions { row_security, ..table_options(settings, &registry) };
            Arc::new(TableSource::start(target, publisher, options))
        });
        if let Some(tables) = &tables {
            prepared = prepared.upstream(TopicKind::Table, Arc::clone(tables) as _);
        }
        let node = prepared.start();
        Ok(Self {
            transports: Transports::new(node.clone(), convert::origins(settings)?)
                .behind(convert::proxies(settings)?),
            node,
            notify,
            tables,
            authentication,
            disk,
            tls: tls(settings)?,
            anonymous,
            namespaces,
            registry,
        })
    }

    /// Every path of the server.
    pub(crate) fn app(&self, operators_elsewhere: bool) -> App {
        let api = self.api(Door::Public { operators_elsewhere });
        let paths = tidewire_axum::router(&self.transports).merge(api::router(api.clone()));
        api::shortcuts(tidewire_axum::finish(paths, &self.transports), api)
    }

    /// The paths for operators alone.
    pub(crate) fn operators_app(&self) -> App {
        let paths = api::operators_router(self.api(Door::Operators));
        tidewire_axum::finish(paths, &self.transports)
    }

    fn api(&self, door: Door) -> Api {
        Api {
            transports: self.transports.clone(),
            notify: self.notify.clone(),
            tables: self.tables.clone(),
            disk: self.disk.clone(),
            authentication: self.authentication.clone(),
            door,
            registry: Arc::clone(&self.registry),
        }
    }

    /// How connections are taken in.
    pub(crate) fn listening(&self, settings: &Settings, threads: Threads) -> Listening {
        let metrics = ListeningMetrics::default();
        metrics.register(&mut self.registry.lock());
        Listening {
            metrics,
            tls: self.tls.clone(),
            threads: Some(threads),
            handshake_timeout: settings.limits.handshake_timeout,
            write_timeout: settings.limits.write_timeout,
            sockets: match settings.limits.sockets {
                0 => crate::open_files::for_clients(),
                sockets => sockets,
            },
            ..Listening::default()
        }
    }

    /// Puts in force what may change while the server runs: keys, rules, limits, certificates.
    ///
    /// # Errors
    /// The first part that refused; those before it have changed, those after have not.
    pub(crate) fn reload(&self, settings: &Settings) -> anyhow::Result<()> {
        let exchanged = self.exchange(settings);
        // Also after an error: what was exchanged before it is in force.
        self.node.review();
        exchanged
    }

    fn exchange(&self, settings: &Settings) -> anyhow::Result<()> {
        let namespaces = convert::namespaces(settings, self.anonymous)?;
        self.authentication.reload(&settings.auth)?;
        if let Some(tls) = &self.tls {
            tls.reload().context("reading the certificate again")?;
        }
        *self.namespaces.write() = Arc::new(namespaces);
        self.node.set_limits(convert::limits(settings));
        Ok(())
    }
}

fn memory(settings: &Settings) -> MemorySettings {
    let history = &settings.history;
    MemorySettings {
        total_bytes: history.total_bytes,
        topics: history.topics,
        idle: history.idle_topic,
    }
}

fn postgres_target(settings: &Settings) -> anyhow::Result<Option<Target>> {
    let Some(postgres) = &settings.postgres else { return Ok(None) };
    let target = postgres.url.expose().parse::<Target>();
    target.map(Some).context("postgres.url cannot be used")
}

/// How the write-ahead log is read.
pub(crate) fn wal_options(tables: &TableSettings) -> WalOptions {
    let slot = match tables.slot.clone() {
        Some(name) => SlotKind::Persistent { name, failover: tables.failover },
        None => SlotKind::Temporary,
    };
    WalOptions {
        slot,
        publication: tables.publication.clone(),
        max_lag_bytes: Some(tables.max_lag_bytes),
        streaming: tables.streaming,
        unsigned_messages: tables.unsigned_messages,
        spool_dir: tables.spool_dir.clone(),
        spool_bytes: tables.spool_bytes,
        ..WalOptions::default()
    }
}

/// Who sees tables with row level security.
fn row_security(target: &Target, settings: &Settings) -> RowSecurity {
    RowSecurity::new(target, settings.tables.bypass_roles.iter().map(String::as_str))
}

fn table_options(settings: &Settings, registry: &Arc<Mutex<Registry>>) -> TableOptions {
    let tables = &settings.tables;
    TableOptions {
        source: tables.source.parse().expect("the settings allow only the words for sources"),
        wal: wal_options(tables),
        outbox: OutboxOptions { install: tables.install, ..OutboxOptions::default() },
        snapshot: SnapshotLimits {
            rows: tables.snapshot_rows,
            bytes: tables.snapshot_bytes,
            time: tables.snapshot_time,
        },
        registry: Some(Arc::clone(registry)),
        row_security: None,
    }
}

fn start_notify(
    target: Target,
    settings: &PostgresSettings,
    publisher: Publisher,
) -> anyhow::Result<Arc<NotifySource>> {
    let always = settings.listen_channels.iter().map(|name| Topic::notify(name));
    let options = NotifyOptions {
        pool_size: settings.pool_size,
        channel_limit: settings.max_channels,
        always: always.collect::<Result<_, _>>().context("postgres.listen_channels")?,
        ..NotifyOptions::default()
    };
    Ok(Arc::new(NotifySource::start(target, publisher, options)))
}

fn tls(settings: &Settings) -> anyhow::Result<Option<Tls>> {
    let Some(files) = &settings.tls else { return Ok(None) };
    let tls = Tls::from_files(&files.certificate, &files.key);
    tls.map(Some).context("tls.certificate and tls.key cannot be used")
}
