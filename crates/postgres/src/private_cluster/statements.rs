//! SQL on a private cluster, for what fills it with data to try.

use std::time::Duration;

use super::PrivateCluster;
use crate::connect::{Pool, Target};
use crate::sql::{SqlError, explain};

/// Time to connect, and for a statement: the cluster is on this machine and has little to do.
const LIMIT: Duration = Duration::from_secs(10);

/// A connection for statements that an application would run, opened again when it was lost.
#[derive(Clone)]
pub struct Statements {
    pool: Pool,
}

impl Statements {
    /// Statements as the superuser of `cluster`. Nothing is connected yet.
    ///
    /// # Errors
    /// [`SqlError::Connect`] when the cluster's address cannot be read.
    pub fn of(cluster: &PrivateCluster) -> Result<Self, SqlError> {
        let target: Target = cluster.url().parse()?;
        Ok(Self { pool: Pool::new(&target, 1, LIMIT, LIMIT) })
    }

    /// Runs statements, separated by semicolons, as one transaction.
    ///
    /// # Errors
    /// [`SqlError`]; nothing was changed then, except that an answer that did not come in time
    /// may have been lost.
    pub async fn run(&self, statements: &str) -> Result<(), SqlError> {
        let connection = self.pool.get().await?;
        let done = connection.run(async |client| client.batch_execute(statements).await).await;
        done.ok_or(SqlError::Silence)?.map_err(|source| explain(source, "public"))
    }
}
