//! Brings a table into the stream: checks it, publishes it, waits for those who wrote it before.

use std::sync::Arc;
use std::time::Duration;

use tidewire_protocol::{Code, Refusal, Topic};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use super::publication::{self, Fit, Unfit};
use super::shared::Shared;
use super::sql_text::readable;
use super::standing::{Admitted, standings};
use super::tables::Want;
use crate::connect::ConnectError;
use crate::partitions;

/// The first pause between looks at transactions that still run; most end within milliseconds.
const FIRST_LOOK: Duration = Duration::from_millis(2);

/// The longest such pause.
const LAST_LOOK: Duration = Duration::from_millis(200);

/// Returns once the table's changes flow.
pub(super) async fn admit(
    shared: Arc<Shared>,
    topic: Topic,
    patience: Duration,
) -> Result<(), Refusal> {
    let outcome = admitted(&shared, &topic, Instant::now() + patience).await;
    if outcome.is_err() {
        shared.tables().forget(&topic);
    }
    outcome.map_err(|refusal| refusal.about(&topic))
}

async fn admitted(shared: &Shared, topic: &Topic, deadline: Instant) -> Result<(), Refusal> {
    let gate = match shared.tables().want(topic) {
        Want::Flowing => return Ok(()),
        Want::Admit(gate) => gate,
    };
    // What waits here is told the same as the one who is in.
    let entered = tokio::time::timeout_at(deadline, gate.lock()).await;
    let _entered = entered.map_err(|_| shared.unavailable())?;
    loop {
        if matches!(shared.tables().want(topic), Want::Flowing) {
            return Ok(());
        }
        shared.until(deadline, |progress| progress.run.is_some()).await?;
        // A stream that goes on where the last one was brings its tables with it.
        if matches!(shared.tables().want(topic), Want::Flowing) {
            return Ok(());
        }
        // One that was renamed meanwhile is looked for again.
        let Some(admitted) = publish(shared, topic, deadline).await? else {
            if Instant::now() >= deadline {
                return Err(shared.unavailable());
            }
            sleep(FIRST_LOOK).await;
            continue;
        };
        shared.tables().admitted(topic, admitted);
        if shared.pay(topic).await {
            return Ok(());
        }
        // The stream was lost meanwhile, or the history is down.
        sleep(LAST_LOOK).await;
    }
}

/// Puts the table into the publication and waits until no change of it can be missed. Gives as what
/// it is in the stream then, if it has the name still.
async fn publish(
    shared: &Shared,
    topic: &Topic,
    deadline: Instant,
) -> Result<Option<Admitted>, Refusal> {
    let (schema, table) = topic.name().split_once('.').expect("a table is named schema.table");
    let name = shared.publication.as_str();
    let pooled = shared.pool.get().await.map_err(|error| down(&error))?;
    let run = |client| add(client, name, schema, table);
    let fit = match pooled.run(run).await {
        None => return Err(shared.unavailable()),
        Some(Err(error)) => return Err(failed(shared, &error)),
        Some(Ok(Err(refusal))) => return Err(refusal),
        Some(Ok(Ok(fit))) => fit,
    };
    if fit.partitioned {
        refuse_foreign(shared, &pooled, fit.oid).await?;
        remember_partitions(shared, &pooled, topic, fit.oid).await?;
    }
    settle(shared, &pooled, fit.oid, deadline).await?;
    let admitted = match pooled.run(async |client| standings(client, name, &[fit.oid]).await).await
    {
        None => return Err(shared.unavailable()),
        Some(Err(error)) => return Err(failed(shared, &error)),
        Some(Ok(mut found)) => found.remove(&fit.oid),
    };
    Ok(admitted.filter(|admitted| admitted.standing.naming.is_of(topic)))
}

/// Remembers the partitions before changes flow, so that what becomes of them from now on is
/// noticed. Where they flow already, what is remembered is compared by the keeper.
async fn remember_partitions(
    shared: &Shared,
    pooled: &crate::connect::Pooled,
    topic: &Topic,
    oid: u32,
) -> Result<(), Refusal> {
    if shared.tables().is_flowing(topic) && shared.partitions().get(topic).is_some() {
        return Ok(());
    }
    let name = shared.publication.as_str();
    match pooled.run(async |client| partitions::published(client, name, &[oid]).await).await {
        None => Err(shared.unavailable()),
        Some(Err(error)) => Err(failed(shared, &error)),
        Some(Ok(found)) => {
            for layout in found.into_values() {
                shared.partitions().set(topic, layout);
            }
            Ok(())
        }
    }
}

/// What changes in a partition that is a foreign table is not in the log.
async fn refuse_foreign(
    shared: &Shared,
    pooled: &crate::connect::Pooled,
    oid: u32,
) -> Result<(), Refusal> {
    match pooled.run(|client| partitions::foreign(client, oid)).await {
        None => Err(shared.unavailable()),
        Some(Err(error)) => Err(failed(shared, &error)),
        Some(Ok(None)) => Ok(()),
        Some(Ok(Some((schema, table)))) => {
            let words = format!(
                "its partition {} is a foreign table, whose changes are not in the write-ahead log: \
                 detach it, or use the source outbox for what is written through this database",
                readable(&schema, &table)
            );
            Err(Refusal::new(Code::BadTopic, words))
        }
    }
}

type Added = Result<Fit, Refusal>;

async fn add(
    client: &Client,
    name: &str,
    schema: &str,
    table: &str,
) -> Result<Added, tokio_postgres::Error> {
    let outcome = async {
        let fit = publication::inspect(client, name, schema, table).await?;
        publication::add(client, name, schema, table, fit).await?;
        Ok(fit)
    };
    match outcome.await {
        Ok(fit) => Ok(Ok(fit)),
        Err(Unfit::Refused(refusal)) => Ok(Err(refusal)),
        Err(Unfit::Failed(error)) => Err(error),
    }
}

/// Waits for the transactions that wrote to the table before it was published: what they wrote
/// until then is not sent, though they commit later.
async fn settle(
    shared: &Shared,
    pooled: &crate::connect::Pooled,
    oid: u32,
    deadline: Instant,
) -> Result<(), Refusal> {
    let mut before: Option<Vec<(String, Option<i32>)>> = None;
    let mut pause = FIRST_LOOK;
    loop {
        let now = match pooled.run(|client| publication::writers(client, oid)).await {
            None => return Err(shared.unavailable()),
            Some(Err(error)) => return Err(failed(shared, &error)),
            Some(Ok(now)) => now,
        };
        let had_to_wait = before.is_some();
        let left: Vec<_> = match before.take() {
            None => now,
            Some(before) => before.into_iter().filter(|who| now.contains(who)).collect(),
        };
        if left.is_empty() {
            return match had_to_wait {
                true => touch(shared, pooled).await,
                false => Ok(()),
            };
        }
        if Instant::now() >= deadline {
            return Err(busy(&left));
        }
        before = Some(left);
        sleep(pause).await;
        pause = (pause * 2).min(LAST_LOOK);
    }
}

async fn touch(shared: &Shared, pooled: &crate::connect::Pooled) -> Result<(), Refusal> {
    match pooled.run(|client| publication::touch(client, &shared.publication)).await {
        None => Err(shared.unavailable()),
        // A publication that is not ours cannot be written, and most servers need it not.
        Some(Err(error)) if publication::code(&error) == Some("42501") => Ok(()),
        Some(Err(error)) => Err(failed(shared, &error)),
        Some(Ok(())) => Ok(()),
    }
}

fn busy(writers: &[(String, Option<i32>)]) -> Refusal {
    let who = match writers.iter().find_map(|(_, pid)| *pid) {
        Some(pid) => format!("process {pid}"),
        None => "a prepared transaction".to_owned(),
    };
    Refusal::new(
        Code::Unavailable,
        format!(
            "{who} has written to the table before it was listened to and its transaction still \
             runs: try again when it has ended"
        ),
    )
}

fn down(error: &ConnectError) -> Refusal {
    tracing::warn!(%error, "a table cannot be published");
    Refusal::new(Code::Unavailable, "PostgreSQL cannot be reached at the moment")
}

fn failed(shared: &Shared, error: &tokio_postgres::Error) -> Refusal {
    // A missing publication is noticed and made anew by the keeper.
    tracing::warn!(error = error as &dyn std::error::Error, "a table cannot be published");
    shared.unavailable()
}
