//! A few connections for statements, beside the one for listening.
//!
//! They are opened when needed and by the rules of the [`Target`]. Each statement has a limit of
//! time on both sides: the server ends it, and if the server does not answer, the connection is
//! thrown away.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool::managed::{self, Metrics, PoolError, RecycleError, RecycleResult, Timeouts};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::{ConnectError, ErrorKind, Target};

/// Time the server has to end a statement by itself before we stop waiting for its answer.
const GRACE: Duration = Duration::from_secs(2);

/// Connections for statements, at most a fixed number at a time.
#[derive(Clone)]
pub(crate) struct Pool {
    pool: managed::Pool<Opener>,
    statement: Duration,
}

/// One of the pool's connections; it goes back when dropped. One that is dropped in the middle of
/// its work is closed instead, and what runs on it is cancelled.
pub(crate) struct Pooled {
    object: managed::Object<Opener>,
    statement: Duration,
}

/// A client and the task that polls its connection, which ends with it.
struct Polled {
    client: Client,
    task: JoinHandle<()>,
    /// Some work was begun and not ended.
    is_at_work: AtomicBool,
}

struct Opener {
    target: Target,
    statement: Duration,
    /// What a session is told after its limit of time.
    then: &'static str,
}

/// A role or a database may be set to refuse writes unless a session says otherwise.
const WRITES: &str = "; SET default_transaction_read_only = off";

impl Pool {
    /// A pool of at most `size` connections to `target`.
    ///
    /// Waiting for a free one, or for a new one, ends after `wait`; a statement that runs longer
    /// than `statement` is ended by the server.
    pub(crate) fn new(target: &Target, size: usize, wait: Duration, statement: Duration) -> Self {
        Self::with(target, size, wait, statement, "")
    }

    /// The same for statements that change the database, also where the role's or the database's
    /// `default_transaction_read_only` is on.
    pub(crate) fn writing(
        target: &Target,
        size: usize,
        wait: Duration,
        statement: Duration,
    ) -> Self {
        Self::with(target, size, wait, statement, WRITES)
    }

    fn with(
        target: &Target,
        size: usize,
        wait: Duration,
        statement: Duration,
        then: &'static str,
    ) -> Self {
        let opener = Opener { target: target.clone(), statement, then };
        let timeouts = Timeouts { wait: Some(wait), create: Some(wait), recycle: Some(wait) };
        let pool = managed::Pool::builder(opener)
            .max_size(size)
            .timeouts(timeouts)
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .expect("a runtime is given, which is all that timeouts need");
        Self { pool, statement }
    }

    /// A connection, as soon as one is free.
    ///
    /// # Errors
    /// As [`Target::connect`], and [`ErrorKind::Unreachable`] when none was free in time.
    pub(crate) async fn get(&self) -> Result<Pooled, ConnectError> {
        match self.pool.get().await {
            Ok(object) => Ok(Pooled { object, statement: self.statement }),
            Err(PoolError::Backend(error)) => Err(error),
            Err(PoolError::Timeout(managed::TimeoutType::Wait)) => Err(ConnectError::new(
                ErrorKind::TooManyConnections,
                "all of our connections to PostgreSQL are busy",
            )),
            Err(_) => {
                Err(ConnectError::new(ErrorKind::Unreachable, "PostgreSQL does not answer in time"))
            }
        }
    }
}

impl Pooled {
    /// Does something with the connection within the time for a statement.
    ///
    /// # Errors
    /// `None` when no answer came in time; the connection is closed then, since its answer may
    /// still come.
    pub(crate) async fn run<'c, T, F>(
        &'c self,
        work: impl FnOnce(&'c Client) -> F,
    ) -> Option<Result<T, tokio_postgres::Error>>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>> + 'c,
    {
        self.object.is_at_work.store(true, Ordering::Relaxed);
        let outcome = timeout(self.statement + GRACE, work(&self.object.client)).await;
        if outcome.is_ok() {
            self.object.is_at_work.store(false, Ordering::Relaxed);
        }
        outcome.ok()
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if !self.object.is_at_work.load(Ordering::Relaxed) {
            return;
        }
        let statement = self.object.client.cancel_token();
        self.object.task.abort();
        let target = managed::Object::pool(&self.object).map(|pool| pool.manager().target.clone());
        // Outside of a runtime there is nothing left that could wait for it.
        if let (Some(target), Ok(runtime)) = (target, Handle::try_current()) {
            runtime.spawn(async move { target.cancel(statement).await });
        }
    }
}

impl managed::Manager for Opener {
    type Type = Polled;
    type Error = ConnectError;

    async fn create(&self) -> Result<Polled, ConnectError> {
        let (client, connection) = self.target.connect().await?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a pooled connection to PostgreSQL ended");
            }
        });
        let polled = Polled { client, task, is_at_work: AtomicBool::new(false) };
        let limit = self.statement.as_millis();
        // To compile a question to the catalog takes far longer than to answer it.
        let limit = format!("SET jit = off; SET statement_timeout = {limit}{}", self.then);
        match polled.client.batch_execute(&limit).await {
            Ok(()) => Ok(polled),
            Err(error) => Err(ConnectError::explain(error, &self.target.to_string())),
        }
    }

    async fn recycle(&self, polled: &mut Polled, _: &Metrics) -> RecycleResult<ConnectError> {
        match polled.client.is_closed() || *polled.is_at_work.get_mut() {
            true => Err(RecycleError::message("the connection is closed, or soon will be")),
            false => Ok(()),
        }
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        self.task.abort();
    }
}
