//! How many files this process may open: each client takes one, and what the system gives at first
//! is often 1,024.
//!
//! A process may raise its *soft* limit to the *hard* one without any right. The program does so
//! before it serves; a server inside another program leaves its limits alone.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Open files beside those of clients: listening sockets, connections to PostgreSQL, the files of
/// the history, the threads' own. Some 60 in a server with all of its parts.
const RESERVED: u64 = 128;

/// Raises the soft limit to the hard one; gives the limit that holds then.
///
/// # Errors
/// When the system does not allow even that.
pub(crate) fn raise() -> Result<u64, Errno> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// How many sockets of clients the limit that holds leaves room for.
pub(crate) fn for_clients() -> usize {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let clients = limit - (limit / 2).min(RESERVED);
    usize::try_from(clients).unwrap_or(usize::MAX)
}

/// The limit that holds, as a metric.
pub(crate) fn register(registry: &mut Registry) {
    let limit = Gauge::<i64>::default();
    if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        limit.set(soft.try_into().unwrap_or(i64::MAX));
    }
    let help = "Files this process may open; each client takes one";
    registry.register("open_files_limit", help, limit);
}

/// What to warn about where so many connections cannot be had.
pub(crate) fn warning(limit: u64, connections: usize) -> Option<String> {
    let clients = limit.saturating_sub(RESERVED);
    (u64::try_from(connections).unwrap_or(u64::MAX) > clients).then(|| {
        format!(
            "limits.connections is {connections}, but this process may open {limit} files, which \
             is enough for about {clients} clients: raise the limit (LimitNOFILE= in a systemd \
             unit, ulimit -Hn in a shell), or lower limits.connections"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_on_connections_that_cannot_be_reached_is_warned_of() {
        assert_eq!(warning(100_128, 100_000), None);
        let text = warning(20_000, 100_000).expect("too few");
        for part in ["100000", "20000", "19872", "LimitNOFILE"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(warning(64, 1).expect("none at all").contains("about 0 clients"));
    }
}
