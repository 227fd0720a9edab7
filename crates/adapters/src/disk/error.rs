//! Why the history on disk cannot be opened or written.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A failure of the history on disk; names the path and what to do.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DiskError {
    /// Another process has the folder.
    #[error(
        "another server keeps its history in {}: stop it, or give this one a history.path of its \
         own", .0.display()
    )]
    Taken(PathBuf),
    /// The folder was written by a program with another format.
    #[error(
        "the history in {} was written by another version of the server: use that one, or let it \
         begin anew by emptying the folder", .0.display()
    )]
    Version(PathBuf),
    /// The operating system refused to do something with a file or folder.
    #[error(
        "the history on disk cannot {doing} {}: see that there is room on its disk and that the \
         server may write there, or name another history.path", .path.display()
    )]
    Path {
        /// A verb: what was tried.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Arc<io::Error>,
    },
    /// Somebody deleted the files of the history under the running server.
    #[error(
        "the files of the history in {} were deleted while the server ran: restart it, and it \
         begins anew, or put them back before", .0.display()
    )]
    Deleted(PathBuf),
    /// What is to be kept at once is larger than the limit of bytes on disk allows.
    #[error("{bytes} bytes at once are too many for the history in {}: raise history.disk_bytes", .path.display())]
    TooLarge {
        /// The folder.
        path: PathBuf,
        /// How much it would have been.
        bytes: usize,
    },
    /// There are as many topics as there may be, and all are in use.
    #[error("all {0} topics that may be kept are in use: raise history.topics")]
    Topics(usize),
    /// Sources keep more marks than each segment of the log can repeat.
    #[error(
        "sources of events keep too many marks in the history in {}: raise history.disk_bytes, or \
         have fewer tables listened to", .0.display()
    )]
    Marks(PathBuf),
    /// It was closed, because the server stops.
    #[error("the history in {} is closed, because the server stops", .0.display())]
    Closed(PathBuf),
}

impl DiskError {
    /// For `map_err`: what was tried with which path.
    pub(super) fn of(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Path { doing, path: path.to_owned(), source: Arc::new(source) }
    }
}
