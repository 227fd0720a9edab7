//! The first line of the log: what is started, so that a log tells by itself which server it is of.

use crate::config::Settings;
use crate::open_files;

/// Logs what is started, with what holds the process to less than its settings say.
pub(in crate::commands) fn log(settings: &Settings, open_files: u64) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        database = database(settings),
        tables = tables(settings),
        authentication = authentication(settings),
        history = history(settings),
        connections = settings.limits.connections,
        open_files,
        threads = settings.threads,
        "starting tidewire"
    );
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(warning) = open_files::warning(open_files, settings.limits.connections) {
        tracing::warn!("{warning}");
    }
}

/// Host, port and name, never the password.
fn database(settings: &Settings) -> String {
    let target = settings.postgres.as_ref().map(|postgres| postgres.url.expose());
    match target.map(str::parse::<tidewire_postgres::Target>) {
        Some(Ok(target)) => target.to_string(),
        Some(Err(_)) => "unusable".to_owned(),
        None => "none".to_owned(),
    }
}

/// By what row changes are followed; `auto` becomes one of the others once PostgreSQL was asked.
fn tables(settings: &Settings) -> String {
    let tables = &settings.tables;
    match (&settings.postgres, &tables.slot) {
        (None, _) => "none".to_owned(),
        (_, Some(slot)) if tables.source != "outbox" => {
            format!("{}, slot {slot}", tables.source)
        }
        _ => tables.source.clone(),
    }
}

/// Every way to tell clients apart that is configured.
fn authentication(settings: &Settings) -> String {
    let auth = &settings.auth;
    let ways = [
        (auth.jwt.is_some(), "jwt"),
        (!auth.keys.is_empty(), "keys"),
        (auth.function.is_some(), "function"),
    ];
    let mut found: Vec<&str> =
        ways.iter().filter(|(is_there, _)| *is_there).map(|(_, way)| *way).collect();
    if found.is_empty() {
        return "none".to_owned();
    }
    if auth.anonymous {
        found.push("anonymous");
    }
    found.join(", ")
}

fn history(settings: &Settings) -> String {
    let history = &settings.history;
    match &history.path {
        Some(path) => format!("{}, {} MiB", path.display(), history.disk_bytes >> 20),
        None => format!("memory, {} MiB", history.total_bytes >> 20),
    }
}
