//! NOTIFY for clients, over the pool.

use std::time::Duration;

use parking_lot::Mutex;
use tidewire_protocol::{Code, Payload, Refusal, Topic};
use tokio::time::Instant;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::connect::Pool;

/// Longest payload in bytes: PostgreSQL's 8,000 less the NUL at the end.
pub const MAX_PAYLOAD_BYTES: usize = 7_999;

/// Clients choose how often something fails, not how much is written to the log.
static LINES: Pace = Pace(Mutex::new(None));

/// At most one line a second.
struct Pace(Mutex<Option<Instant>>);

impl Pace {
    const PAUSE: Duration = Duration::from_secs(1);

    fn is_due(&self) -> bool {
        let (mut last, now) = (self.0.lock(), Instant::now());
        let due = last.is_none_or(|last| now.duration_since(last) >= Self::PAUSE);
        if due {
            *last = Some(now);
        }
        due
    }
}

/// Says `payload` on a channel.
pub(super) async fn notify(pool: &Pool, topic: &Topic, payload: &Payload) -> Result<(), Refusal> {
    let text = checked(payload)?;
    let connection = pool.get().await.map_err(|error| {
        if LINES.is_due() {
            tracing::warn!(error = &error as &dyn std::error::Error, "no connection for NOTIFY");
        }
        Refusal::new(Code::Unavailable, "PostgreSQL cannot be reached at the moment")
    })?;
    let said = connection
        .run(async |client| {
            let channel = topic.name();
            let parameters = [(&channel as _, Type::TEXT), (&text as _, Type::TEXT)];
            client.query_typed("SELECT pg_notify($1, $2)", &parameters).await
        })
        .await;
    match said {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(refusal(&error, topic)),
        None => Err(Refusal::new(Code::Unavailable, "PostgreSQL does not answer in time")),
    }
}

/// The text of a payload that a NOTIFY can carry.
fn checked(payload: &Payload) -> Result<&str, Refusal> {
    let text = match payload {
        Payload::Text(text) | Payload::Json(text) => text,
        Payload::Binary(_) => {
            let message = "a NOTIFY carries text only: send the payload as text or JSON";
            return Err(Refusal::new(Code::BadField, message));
        }
    };
    if text.len() > MAX_PAYLOAD_BYTES {
        let message = format!(
            "a NOTIFY carries at most {MAX_PAYLOAD_BYTES} bytes, this payload has {}: send a key \
             and let the receiver read the rest, or use an application topic",
            text.len()
        );
        return Err(Refusal::new(Code::TooLarge, message));
    }
    if text.contains('\0') {
        let message = "a NOTIFY cannot carry a NUL character";
        return Err(Refusal::new(Code::BadField, message));
    }
    Ok(text)
}

fn refusal(error: &tokio_postgres::Error, topic: &Topic) -> Refusal {
    if LINES.is_due() {
        tracing::warn!(%topic, error = error as &dyn std::error::Error, "NOTIFY failed");
    }
    match error.code() {
        // The queue is 8 GB; it fills when some session listens and never ends its transaction.
        Some(code) if *code == SqlState::PROGRAM_LIMIT_EXCEEDED => {
            Refusal::new(Code::Unavailable, "PostgreSQL's notification queue is full")
        }
        // Not in UTF-8 on the server: some characters do not exist in its encoding.
        Some(code) if code.code().starts_with("22") => {
            Refusal::new(Code::BadField, "PostgreSQL cannot take this channel or payload")
        }
        _ => Refusal::new(Code::Unavailable, "PostgreSQL could not send the notification"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_write_one_line_a_second() {
        let pace = Pace(Mutex::new(None));
        assert_eq!([pace.is_due(), pace.is_due(), pace.is_due()], [true, false, false]);
        tokio::time::advance(Pace::PAUSE).await;
        assert_eq!([pace.is_due(), pace.is_due()], [true, false]);
    }

    #[test]
    fn what_a_notify_cannot_carry_is_refused_before_it_is_sent() {
        let longest = "x".repeat(MAX_PAYLOAD_BYTES);
        assert!(checked(&Payload::Text(longest.clone().into())).is_ok());
        for (payload, code) in [
            (Payload::Text(format!("{longest}x").into()), Code::TooLarge),
            (Payload::Text("é".repeat(4000).into()), Code::TooLarge),
            (Payload::Text("a\0b".into()), Code::BadField),
            (Payload::Binary(vec![1].into()), Code::BadField),
        ] {
            assert_eq!(checked(&payload).unwrap_err().code, code);
        }
    }
}
