//! Threads that serve connections, each with a runtime of its own.
//!
//! On a runtime that shares its tasks among all threads, each burst of ready sockets wakes a second
//! thread to help, which costs more than most requests do. A connection needs no help: it stays on
//! the thread that it was given to, and threads are given connections in turn. What is shared, such
//! as the relay of the engine, stays on the runtime of the caller.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

/// Time for blocking work, such as reading a file, when a thread ends.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Threads that serve connections; they end, with all that runs on them, when the last clone is
/// dropped.
#[derive(Clone, Debug)]
pub struct Threads(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    handles: Vec<Handle>,
    threads: Vec<thread::JoinHandle<()>>,
    /// Whose turn it is.
    turn: AtomicUsize,
    stop: CancellationToken,
}

impl Threads {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// When the system gives no more threads or file descriptors.
    pub fn start(count: usize) -> io::Result<Self> {
        let mut inner = Inner {
            handles: Vec::new(),
            threads: Vec::new(),
            turn: AtomicUsize::new(0),
            stop: CancellationToken::new(),
        };
        for index in 0..count.max(1) {
            inner.add(index)?;
        }
        Ok(Self(Arc::new(inner)))
    }

    /// The thread that accepts.
    pub(super) fn first(&self) -> &Handle {
        self.0.handles.first().expect("at least one thread is started")
    }

    /// The thread that the next connection belongs to; `None` where that is the first.
    pub(super) fn next(&self) -> Option<&Handle> {
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed) % self.0.handles.len();
        (turn > 0).then(|| &self.0.handles[turn])
    }
}

impl Inner {
    fn add(&mut self, index: usize) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        self.handles.push(runtime.handle().clone());
        let stop = self.stop.clone();
        let thread = thread::Builder::new().name(format!("connections-{index}"));
        self.threads.push(thread.spawn(move || run(runtime, &stop))?);
        Ok(())
    }
}

fn run(runtime: Runtime, stop: &CancellationToken) {
    runtime.block_on(stop.cancelled());
    runtime.shutdown_timeout(LAST_WORK);
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            // The last clone may be dropped by a task of one of them, which cannot wait for itself.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn threads_are_given_connections_in_turn_and_end_with_their_owner() {
        let threads = Threads::start(3).unwrap();
        let firsts = (0..6).filter(|_| threads.next().is_none()).count();
        assert_eq!(firsts, 2);
        let (held, dropped) = oneshot::channel::<()>();
        threads.first().spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        drop(threads);
        assert!(dropped.blocking_recv().is_err(), "what ran on them is gone");
    }

    #[test]
    fn the_last_clone_may_be_dropped_on_one_of_the_threads() {
        let threads = Threads::start(1).unwrap();
        let first = threads.first().clone();
        let (done, ended) = oneshot::channel();
        first.spawn(async move {
            drop(threads);
            let _ = done.send(());
        });
        assert!(ended.blocking_recv().is_ok());
    }
}
