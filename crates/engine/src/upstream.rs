//! Worlds outside whose topics must be asked for, such as NOTIFY channels.
//!
//! The hub attaches a topic when its first local listener arrives and detaches it some seconds
//! after the last one left, so a page reload does not flap. What the upstream hears it hands to
//! the [`Publisher`](crate::Publisher) like any other source.

mod any_of;

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use tidewire_protocol::change::{Change, Operation, Relation, Row, Snapshot};
use tidewire_protocol::dialect::Movement;
use tidewire_protocol::filter::Demand;
use tidewire_protocol::{Body, Code, Event, Interest, Payload, Refusal, Topic};

/// A world outside whose topics must be asked for.
#[async_trait]
pub trait Upstream: Send + Sync + 'static {
    /// Returns once everything said on the topic from now on is sure to reach the publisher.
    ///
    /// Called again for a topic that is attached already; that must be cheap and harmless.
    ///
    /// # Errors
    /// A refusal for the client that asked, for example that the database is down.
    async fn attach(&self, topic: &Topic) -> Result<(), Refusal>;

    /// Nobody on this node listens to the topic any more.
    fn detach(&self, topic: &Topic);

    /// Says something there; it comes back as an event through the publisher.
    ///
    /// # Errors
    /// A refusal for the client that asked, for example that the payload is too large there.
    async fn emit(&self, topic: &Topic, payload: &Payload) -> Result<(), Refusal>;

    /// Checks what a listener wants of a table and makes it ready to be applied to changes.
    ///
    /// # Errors
    /// A refusal for the client that asked: an unknown column, a constant that is not of the
    /// column's type, an operator that cannot be decided exactly.
    async fn prepare(&self, topic: &Topic, interest: &Interest) -> Result<Prepared, Refusal> {
        let _ = interest;
        Err(Refusal::new(Code::BadField, "only tables have columns and filters").about(topic))
    }

    /// The rows of a table as they are now, of those that `interest` admits.
    ///
    /// Returns only when every change that the rows already contain was handed to the publisher,
    /// so that whatever is said after the topic's head is not in the rows.
    ///
    /// # Errors
    /// A refusal for the client that asked: more rows than a snapshot may have, a database that
    /// is down.
    async fn snapshot(&self, topic: &Topic, interest: &Interest) -> Result<TableRows, Refusal> {
        let _ = interest;
        Err(Refusal::new(Code::BadField, "only tables have rows").about(topic))
    }
}

/// What a listener wants of a table, ready to be applied.
#[derive(Clone)]
pub struct Prepared {
    /// Which operations; empty for all.
    pub operations: Arc<[Operation]>,
    /// The columns that are told; `None` for all.
    pub columns: Option<Arc<[Arc<str>]>>,
    /// Which rows; `None` for all.
    pub rows: Option<Arc<dyn RowFilter>>,
}

impl Prepared {
    /// Whether every change is wanted.
    pub(crate) fn is_everything(&self) -> bool {
        self.operations.is_empty() && self.rows.is_none()
    }

    /// An event as it may be shown to the listener; `None` when it may not, or is not concerned.
    ///
    /// # Errors
    /// When the filter cannot be applied to it, why.
    pub fn show(&self, event: &Arc<Event>) -> Result<Option<Arc<Event>>, String> {
        let Some(movement) = self.admits(event)? else { return Ok(None) };
        let Body::Change(change) = &event.body else { return Ok(Some(Arc::clone(event))) };
        Ok(Some(match movement.shown(change).0 {
            Cow::Borrowed(_) => Arc::clone(event),
            Cow::Owned(change) => {
                Arc::new(Event { body: Body::Change(Arc::new(change)), ..(**event).clone() })
            }
        }))
    }

    /// What an event means to the listener; `None` when it is not concerned.
    ///
    /// # Errors
    /// When the filter cannot be applied any more, why.
    pub(crate) fn admits(&self, event: &Event) -> Result<Option<Movement>, String> {
        match &event.body {
            Body::Change(change) => self.admits_change(change),
            _ => Ok(Some(Movement::Within)),
        }
    }

    fn admits_change(&self, change: &Change) -> Result<Option<Movement>, String> {
        if !self.operations.is_empty() && !self.operations.contains(&change.operation) {
            return Ok(None);
        }
        match &self.rows {
            Some(rows) => rows.admits(change),
            None => Ok(Some(Movement::Within)),
        }
    }
}

/// Which rows of a table a listener wants; pure.
pub trait RowFilter: Send + Sync + 'static {
    /// What the change means to the listener; `None` when it is not concerned.
    ///
    /// # Errors
    /// When the table was altered so that the filter cannot be applied any more, why.
    fn admits(&self, change: &Change) -> Result<Option<Movement>, String>;

    /// What a row must have in one column to be admitted, if the filter demands such a thing of
    /// one: listeners are then found by the value and the others cost nothing.
    ///
    /// A row in which the column is NULL is not admitted then, and an update does not move a row
    /// out of which the value before is not told.
    fn demand(&self) -> Option<&Demand> {
        None
    }

    /// Bytes of memory that it takes, roughly: counted for who asked for it.
    fn weight(&self) -> usize {
        0
    }
}

/// The rows of a table as a query saw them.
#[derive(Clone)]
pub struct TableRows {
    /// The table's columns.
    pub relation: Arc<Relation>,
    /// The rows; shared by listeners that asked the same at the same time.
    pub rows: Arc<Vec<Row>>,
    /// Which transactions the rows contain.
    pub seen: Snapshot,
}
