//! Reading rows one by one after a poll failed for the content of one of them.
//!
//! PostgreSQL fails a query as a whole: for a row of which the JSON is longer than a gigabyte, or,
//! in a database that is not in UTF-8, for one character without a Unicode form. Then the same poll
//! is read again without contents, and those are asked for on another connection: some at a time,
//! fewer where that fails, until what is left is the row that cannot be read. That one is a gap.

use std::collections::HashMap;
use std::time::Duration;

use tidewire_protocol::GapReason;
use tokio_postgres::error::SqlState;

use super::rows::{Content, Listed, Unreadable};
use super::{Ended, Reader};
use crate::connect::{ConnectError, fails_again};
use crate::outbox::window::Item;

/// Rows whose contents are asked for together.
const ROWS: usize = 64;

/// Bytes of them as they are stored: compressed, so what comes of it may be a hundred times more.
const BYTES: i64 = 64 * 1024;

/// How long PostgreSQL may take for them: to print a gigabyte takes some seconds.
pub(super) const CONTENT_LIMIT: Duration = Duration::from_secs(30);

const CONTENTS: &str = "\
SELECT id, CASE WHEN bytes <= $2 THEN rec END AS rec, CASE WHEN bytes <= $2 THEN old END AS old,
  topic, event, CASE WHEN bytes <= $2 THEN payload END AS payload, bytes AS size
FROM (SELECT id, rec::text, old::text, topic, event, payload FROM tidewire.outbox
  WHERE id = ANY ($1) OFFSET 0) found
CROSS JOIN LATERAL (SELECT coalesce(octet_length(rec), 0)::int8
  + coalesce(octet_length(old), 0) + coalesce(octet_length(payload), 0)) sized (bytes)";

const TOPIC: &str = "SELECT topic FROM tidewire.outbox WHERE id = $1";

/// Rows that wait for their contents.
#[derive(Default)]
pub(super) struct Waiting {
    rows: Vec<Listed>,
    bytes: i64,
}

impl Waiting {
    fn push(&mut self, row: Listed) {
        self.bytes = self.bytes.saturating_add(row.size);
        self.rows.push(row);
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= ROWS || self.bytes >= BYTES
    }
}

impl Reader {
    /// Has a row wait for its content, a large one by itself.
    pub(super) async fn wait_for(
        &mut self,
        row: Listed,
        waiting: &mut Waiting,
        items: &mut Vec<Item>,
    ) -> Result<(), Ended> {
        if row.size >= BYTES {
            self.take_waiting(waiting, items).await?;
        }
        waiting.push(row);
        match waiting.is_full() {
            true => self.take_waiting(waiting, items).await,
            false => Ok(()),
        }
    }

    /// Takes rows with their contents, in order.
    pub(super) async fn take_waiting(
        &mut self,
        waiting: &mut Waiting,
        items: &mut Vec<Item>,
    ) -> Result<(), Ended> {
        let Waiting { rows, .. } = std::mem::take(waiting);
        let wanted = rows.iter().filter(|row| row.is_wanted());
        let mut contents = self.contents(wanted.map(|row| row.id).collect()).await?;
        for row in rows {
            let content = match row.is_wanted() {
                // Somebody deleted it since it was listed.
                true => contents.remove(&row.id).ok_or(Ended::Removed)?,
                false => Ok(Content::default()),
            };
            self.window.take(row.with(content), items);
        }
        Ok(())
    }

    async fn contents(
        &self,
        ids: Vec<i64>,
    ) -> Result<HashMap<i64, Result<Content, Unreadable>>, Ended> {
        let (mut found, mut asked) = (HashMap::new(), vec![ids]);
        while let Some(mut ids) = asked.pop() {
            if ids.is_empty() {
                continue;
            }
            match self.ask_contents(&ids).await? {
                Ok(contents) => found.extend(contents),
                Err(unreadable) if ids.len() == 1 => {
                    let topic = self.topic_of(ids[0]).await;
                    found.insert(ids[0], Err(Unreadable { topic, ..unreadable }));
                }
                Err(_) => {
                    asked.push(ids.split_off(ids.len() / 2));
                    asked.push(ids);
                }
            }
        }
        Ok(found)
    }

    /// The contents of rows; the inner error is of one of them.
    async fn ask_contents(
        &self,
        ids: &[i64],
    ) -> Result<Result<Vec<(i64, Result<Content, Unreadable>)>, Unreadable>, ConnectError> {
        let most = i64::try_from(self.options.row_bytes).unwrap_or(i64::MAX);
        let pooled = self.contents.get().await?;
        let asked = pooled.run(async |client| client.query(CONTENTS, &[&ids, &most]).await).await;
        let content = |row: &tokio_postgres::Row| match row.get::<_, i64>("size") {
            size if size > most => Err(Unreadable::too_large(size, row.get("topic"))),
            _ => Content::of(row),
        };
        match asked {
            Some(Ok(rows)) => {
                Ok(Ok(rows.iter().map(|row| (row.get("id"), content(row))).collect()))
            }
            Some(Err(error)) if fails_again(&error) || is_slow(&error) => Ok(Err(why(&error))),
            Some(Err(error)) => Err(ConnectError::explain(error, &self.target.to_string())),
            None => Ok(Err(Unreadable {
                why: "PostgreSQL does not print it in time".to_owned(),
                reason: GapReason::HistoryTrimmed,
                topic: None,
            })),
        }
    }

    /// The topic of a message that cannot be read, if that can.
    async fn topic_of(&self, id: i64) -> Option<String> {
        let pooled = self.contents.get().await.ok()?;
        let asked = pooled.run(async |client| client.query_opt(TOPIC, &[&id]).await).await;
        asked?.ok()??.try_get(0).ok()?
    }
}

/// Whether PostgreSQL gave up printing.
fn is_slow(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::QUERY_CANCELED)
}

fn why(error: &tokio_postgres::Error) -> Unreadable {
    let is_of_text = error.code().is_some_and(|code| code.code().starts_with("22"));
    let reason = match is_of_text {
        true => GapReason::ConnectionLost,
        false => GapReason::HistoryTrimmed,
    };
    let why = error.as_db_error().map_or_else(|| error.to_string(), |said| said.message().into());
    Unreadable { why, reason, topic: None }
}
