//! Why a private cluster could not be had.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a private cluster could not be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No server binaries on this machine.
    #[error(
        "no PostgreSQL server binaries (initdb and postgres) found in PATH, by pg_config or in \
         /usr/lib/postgresql: install them, on Debian or Ubuntu with `apt-get install postgresql`, \
         on macOS with `brew install postgresql`"
    )]
    NotInstalled,
    /// The program is root and there is nobody to hand the work to.
    #[error(
        "PostgreSQL refuses to run as root and this machine has neither a user \"postgres\" nor \
         \"nobody\": add one, or run as another user"
    )]
    NobodyToRunAs,
    /// Another server uses the directory.
    #[error(
        "the PostgreSQL in {} is already running as process {pid}: stop the program that started \
         it, or use another directory",
        dir.display()
    )]
    Busy {
        /// The cluster's directory.
        dir: PathBuf,
        /// The process that runs there.
        pid: i32,
    },
    /// The directory was made by another version of PostgreSQL.
    #[error(
        "{} was made by PostgreSQL {made_by} and the one found here is {found}: delete the \
         directory to begin anew, or install version {made_by}",
        dir.display()
    )]
    Version {
        /// The cluster's directory.
        dir: PathBuf,
        /// The version that made it.
        made_by: String,
        /// The version of the binaries.
        found: String,
    },
    /// `initdb` failed.
    #[error("initdb failed in {}: {output}", dir.display())]
    Initdb {
        /// The cluster's directory.
        dir: PathBuf,
        /// What `initdb` said.
        output: String,
    },
    /// `postgres` ended while starting, or did not become ready.
    #[error("postgres did not start in {}, its log ends with: {log}", dir.display())]
    Start {
        /// The cluster's directory.
        dir: PathBuf,
        /// The last lines of its log.
        log: String,
    },
    /// Something of the operating system failed.
    #[error("{what}")]
    Io {
        /// What was being done.
        what: String,
        /// What went wrong.
        source: io::Error,
    },
}

/// Puts what was being done in front of an error of the operating system.
pub(super) fn while_doing(what: impl Into<String>) -> impl FnOnce(io::Error) -> ClusterError {
    let what = what.into();
    |source| ClusterError::Io { what, source }
}
