//! The one connection for listening: its client, and its messages polled by hand.
//!
//! Nothing else runs on it, because a session that is busy or in a transaction holds up the
//! notification queue of the whole server until writers fail.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, Notification, SimpleQueryMessage};

use crate::connect::{ConnectError, ErrorKind, Target, Wire};

/// Notifications taken in one go; they become one call of the publisher.
const BURST: usize = 1024;

/// The answer to statements sent with [`Link::send`].
pub(super) type Reply = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;

/// The connection for listening.
pub(super) struct Link {
    client: Arc<Client>,
    wire: Wire,
    /// Where it leads, for messages.
    place: String,
    /// How long an answer may take.
    patience: Duration,
    /// An end that was met after some notifications, which come first.
    ended: Option<ConnectError>,
}

impl Link {
    /// Connects to a server that can be listened to.
    pub(super) async fn open(target: &Target, patience: Duration) -> Result<Self, ConnectError> {
        let (client, wire) = target.connect().await?;
        let place = target.to_string();
        Ok(Self { client: Arc::new(client), wire, place, patience, ended: None })
    }

    /// Carries out statements and waits for the answer. Notifications that come meanwhile are
    /// lost, so this is for the time before listening.
    pub(super) async fn ask(&mut self, sql: &str) -> Result<Vec<SimpleQueryMessage>, ConnectError> {
        let (client, patience) = (Arc::clone(&self.client), self.patience);
        let mut reply = pin!(client.simple_query(sql));
        let asked = std::future::poll_fn(|cx| {
            if let Poll::Ready(outcome) = reply.as_mut().poll(cx) {
                return Poll::Ready(outcome.map_err(|e| ConnectError::explain(e, &self.place)));
            }
            while let Poll::Ready(message) = self.poll_message(cx) {
                message?;
            }
            reply.as_mut().poll(cx).map_err(|e| ConnectError::explain(e, &self.place))
        });
        timeout(patience, asked).await.unwrap_or_else(|_| Err(self.silence()))
    }

    /// Sends statements; the answer comes while [`Link::notifications`] is polled.
    pub(super) fn send(&self, sql: String) -> Reply {
        let client = Arc::clone(&self.client);
        Box::pin(async move { client.batch_execute(&sql).await })
    }

    /// Waits for notifications and takes all that are there, in order. Cancel safe.
    pub(super) async fn notifications(&mut self) -> Result<Vec<Notification>, ConnectError> {
        if let Some(error) = self.ended.take() {
            return Err(error);
        }
        std::future::poll_fn(|cx| self.poll_notifications(cx)).await
    }

    fn poll_notifications(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Vec<Notification>, ConnectError>> {
        let mut taken = Vec::new();
        while taken.len() < BURST {
            match self.poll_message(cx) {
                Poll::Ready(Ok(message)) => taken.extend(message),
                Poll::Ready(Err(error)) if taken.is_empty() => return Poll::Ready(Err(error)),
                Poll::Ready(Err(error)) => {
                    self.ended = Some(error);
                    break;
                }
                Poll::Pending if taken.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(taken))
    }

    /// The next message; `None` for one that is no notification.
    fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Notification>, ConnectError>> {
        Poll::Ready(match ready!(self.wire.poll_message(cx)) {
            Some(Ok(AsyncMessage::Notification(notification))) => Ok(Some(notification)),
            Some(Ok(AsyncMessage::Notice(notice))) => {
                tracing::debug!(notice = notice.message(), "PostgreSQL says");
                Ok(None)
            }
            Some(Ok(_)) => Ok(None),
            Some(Err(error)) => Err(ConnectError::explain(error, &self.place)),
            None => Err(ConnectError::new(
                ErrorKind::Unreachable,
                format!("PostgreSQL at {}: the connection was closed", self.place),
            )),
        })
    }

    /// What is wrong when an answer does not come.
    pub(super) fn silence(&self) -> ConnectError {
        let Self { place, patience, .. } = self;
        ConnectError::new(
            ErrorKind::Unreachable,
            format!(
                "PostgreSQL at {place}: no answer on the listening connection within {patience:?} \
                 (it is given up and opened anew)"
            ),
        )
    }

    /// What is wrong when the server answers a statement with an error.
    pub(super) fn explain(&self, error: tokio_postgres::Error) -> ConnectError {
        ConnectError::explain(error, &self.place)
    }

    /// Says good-bye, so that the server does not log a lost connection.
    pub(super) async fn close(mut self) {
        /// Good manners are worth a moment, not more.
        const MOMENT: Duration = Duration::from_millis(500);
        drop(self.client);
        let _ = timeout(MOMENT, std::future::poll_fn(|cx| self.wire.poll_message(cx))).await;
    }
}
