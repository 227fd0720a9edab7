//! Settings in the words of the parts they are for.

use anyhow::Context as _;
use tidewire::{Budgets, HistoryLimits, Limits, Namespace, Namespaces, Who};
use tidewire_axum::client::Proxy;
use tidewire_axum::{ForwardedHeader, Origin, Origins, Proxies};

use crate::config::{BudgetSettings, NamespaceSettings, Settings, Who as WhoSettings};

/// What stands for every web page in `origins`.
const ANY_ORIGIN: &str = "*";

pub(super) fn limits(settings: &Settings) -> Limits {
    let limits = &settings.limits;
    Limits {
        connections: limits.connections,
        subscriptions: limits.subscriptions,
        message_bytes: limits.message_bytes,
        payload_bytes: limits.payload_bytes,
        messages_per_second: limits.messages_per_second,
        burst: limits.burst,
        publishes_per_second: limits.publishes_per_second,
        publish_burst: limits.publish_burst,
        publishing: limits.publishing,
        mailbox_bytes: limits.mailbox_bytes,
        members: limits.members,
        batch: limits.batch,
        body_bytes: limits.body_bytes,
        handshake_timeout: limits.handshake_timeout,
        ping_interval: limits.ping_interval,
        idle_timeout: limits.idle_timeout,
        write_timeout: limits.write_timeout,
        poll_timeout: limits.poll_timeout,
        linger: limits.linger,
        authentication_timeout: settings.auth.timeout,
        idempotency_ttl: settings.idempotency.ttl,
        idempotency_keys: settings.idempotency.keys,
        presence_interval: limits.presence_interval,
        budgets: budgets(&settings.budgets),
    }
}

fn budgets(settings: &BudgetSettings) -> Budgets {
    Budgets {
        address_sockets: settings.address_sockets,
        handshakes: settings.handshakes,
        address_handshakes: settings.address_handshakes,
        address_connections: settings.address_connections,
        unauthenticated_percent: settings.unauthenticated_percent,
        subject_connections: settings.subject_connections,
        address_body_bytes: settings.address_body_bytes,
        subject_body_bytes: settings.subject_body_bytes,
        body_bytes: settings.body_bytes,
        address_token_checks: settings.address_token_checks,
        mailbox_bytes: settings.mailbox_bytes,
        filter_bytes: settings.filter_bytes,
        all_filter_bytes: settings.all_filter_bytes,
        new_topics_per_second: settings.new_topics_per_second,
        new_topic_burst: settings.new_topic_burst,
        channels: settings.channels,
        idempotency_keys: settings.idempotency_keys,
        snapshots: settings.snapshots,
        waiting_snapshots: settings.waiting_snapshots,
        failed_tokens_per_second: settings.failed_tokens_per_second,
        failed_token_burst: settings.failed_token_burst,
    }
}

/// The proxies in front of the server.
pub(super) fn proxies(settings: &Settings) -> anyhow::Result<Proxies> {
    let networks = settings.proxies.iter().map(|text| text.parse::<Proxy>());
    Ok(Proxies {
        networks: networks.collect::<Result<_, _>>().context("proxies")?,
        header: match settings.forwarded {
            true => ForwardedHeader::Forwarded,
            false => ForwardedHeader::XForwardedFor,
        },
    })
}

/// The rules; `anonymous` says whether clients without a token are let in.
pub(super) fn namespaces(settings: &Settings, anonymous: bool) -> anyhow::Result<Namespaces> {
    let list = settings.namespaces.iter().map(namespace).collect::<anyhow::Result<_>>()?;
    let history = &settings.history;
    let default = HistoryLimits { events: history.events, bytes: history.bytes, age: history.age };
    Ok(Namespaces::new(list, default, anonymous))
}

fn namespace(settings: &NamespaceSettings) -> anyhow::Result<Namespace> {
    let pattern = settings.pattern.parse();
    let rows = settings.rows.as_deref().map(str::parse).transpose();
    Ok(Namespace {
        pattern: pattern.with_context(|| format!("namespace {:?}", settings.pattern))?,
        subscribe: settings.subscribe.map(who),
        rows: rows.with_context(|| format!("rows of the namespace {:?}", settings.pattern))?,
        publish: settings.publish.map(who),
        presence: settings.presence.map(who),
        events: settings.events,
        bytes: settings.bytes,
        age: settings.age,
    })
}

fn who(settings: WhoSettings) -> Who {
    match settings {
        WhoSettings::Anyone => Who::Anyone,
        WhoSettings::Authenticated => Who::Authenticated,
        WhoSettings::Nobody => Who::Nobody,
    }
}

pub(super) fn origins(settings: &Settings) -> anyhow::Result<Origins> {
    if settings.origins.iter().any(|origin| origin == ANY_ORIGIN) {
        return Ok(Origins::Any);
    }
    let listed = settings.origins.iter().map(|origin| origin.parse::<Origin>());
    let listed = listed.collect::<Result<Vec<_>, _>>().context("origins")?;
    let is_open = !settings.auth.is_configured() && !settings.insecure;
    Ok(match listed.is_empty() {
        // Listening to this machine alone keeps others out only while pages cannot pose as ours.
        _ if is_open => Origins::Loopback(listed),
        true => Origins::Same,
        false => Origins::Listed(listed),
    })
}
