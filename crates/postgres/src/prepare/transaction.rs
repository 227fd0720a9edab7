//! A short transaction for asking, and what its failures mean to a client.

use tidewire_protocol::{Code, Refusal};
use tokio_postgres::Client;

use crate::connect::{Pool, settings};

/// A table whose rows a policy keeps from our role is an error instead of a part of its rows.
const NO_POLICIES: &str = "SET LOCAL row_security = off";

/// An outcome that is PostgreSQL's failure, or ours to tell, or neither.
pub(crate) type Asked<T> = Result<Result<T, Refusal>, tokio_postgres::Error>;

/// Does some work in a transaction that begins with `begin`.
///
/// Dropping the future cancels what runs and closes the connection.
///
/// # Errors
/// What the work says, or a refusal for what PostgreSQL says.
pub(crate) async fn transaction<T>(
    pool: &Pool,
    begin: &str,
    work: impl AsyncFnOnce(&Client) -> Asked<T>,
) -> Result<T, Refusal> {
    let connection = pool.get().await.map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "no connection to ask about rows");
        unavailable("PostgreSQL cannot be asked at the moment")
    })?;
    let outcome = connection
        .run(async |client| {
            // They hold in the transaction whatever a pooler has done to the session.
            let begin = format!("{begin}; {}; {NO_POLICIES}", settings::for_transaction());
            let outcome = match client.batch_execute(&begin).await {
                Ok(()) => work(client).await,
                Err(error) => Err(error),
            };
            let end = if matches!(outcome, Ok(Ok(_))) { "COMMIT" } else { "ROLLBACK" };
            client.batch_execute(end).await?;
            outcome
        })
        .await;
    match outcome {
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Err(refusal(&error)),
        None => Err(unavailable("PostgreSQL does not answer in time")),
    }
}

/// What PostgreSQL's failure means to the client.
fn refusal(error: &tokio_postgres::Error) -> Refusal {
    let said = error.as_db_error().map_or("", |said| said.message());
    if said.contains("row-level security policy") {
        return Refusal::new(
            Code::NotConfigured,
            format!("{said}: a snapshot has all rows or none, so it takes a role with BYPASSRLS"),
        );
    }
    match error.code().map_or("", |code| code.code()) {
        "42501" => Refusal::new(
            Code::NotConfigured,
            format!("{said}: grant SELECT on the table and USAGE on its schema to our role"),
        ),
        "57014" => unavailable("PostgreSQL took too long; ask for fewer rows, or again later"),
        "42P01" => Refusal::new(Code::NotFound, "the table is gone"),
        _ => {
            tracing::warn!(error = error as &dyn std::error::Error, "asking about rows failed");
            unavailable("PostgreSQL cannot be asked at the moment")
        }
    }
}

fn unavailable(message: &str) -> Refusal {
    Refusal::new(Code::Unavailable, message)
}
