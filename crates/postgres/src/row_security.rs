//! Tables with row level security, which is not enforced for clients: they are refused to all but
//! those who are configured to bypass it.
//!
//! PostgreSQL applies policies to queries, and neither the write-ahead log nor the outbox is one: a
//! client would see rows that its policies hide. A table counts as having it when it, a partition of
//! it or a table that it is a partition of has it switched on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tidewire::{Action, Allowed, Authorizer, Identity};
use tidewire_protocol::{Code, Refusal, Topic, TopicKind};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::types::Type;

use crate::connect::{Pool, Target};
use crate::prepare::Flights;

/// Connections that ask; equal questions are asked together.
const POOL_SIZE: usize = 2;

/// How long a client waits for an answer, which takes the database about a millisecond.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an answer may take while a session waits for it and does nothing else.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Pause before a database that could not be asked is asked again.
const PAUSE: Duration = Duration::from_millis(200);

/// Tables whose answers are kept for while the database is down.
const KEPT: usize = 4_096;

/// Whether table `c` has it.
macro_rules! has_row_security {
    () => {
        "(c.relrowsecurity OR EXISTS (
    SELECT FROM pg_catalog.pg_class p
    WHERE p.relrowsecurity AND p.oid IN (
        SELECT relid FROM pg_catalog.pg_partition_tree(c.oid)
        UNION ALL SELECT relid FROM pg_catalog.pg_partition_ancestors(c.oid))))"
    };
}

pub(crate) use has_row_security;

/// Of tables, by schema and name, those that have it.
const SECURED: &str = concat!(
    "\
SELECT w.place::pg_catalog.int4
FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[]))
     WITH ORDINALITY w (schema, name, place)
JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
WHERE ",
    has_row_security!()
);

/// Who bypasses row level security, and which tables have it; cheap to clone.
#[derive(Clone)]
pub struct RowSecurity(Arc<Inner>);

struct Inner {
    pool: Pool,
    bypass: Vec<Arc<str>>,
    asking: Flights<Topic, bool>,
    /// What was answered last.
    known: Mutex<HashMap<Topic, bool>>,
}

impl RowSecurity {
    /// Will ask the database at `target`; does not connect before it must.
    ///
    /// `bypass` names the roles of tokens whose clients may see tables with row level security as if
    /// they had none; `*` stands for every client, also one without a token. Nobody when empty.
    pub fn new(target: &Target, bypass: impl IntoIterator<Item = impl Into<Arc<str>>>) -> Self {
        Self(Arc::new(Inner {
            pool: Pool::new(target, POOL_SIZE, PATIENCE, PATIENCE),
            bypass: bypass.into_iter().map(Into::into).collect(),
            asking: Flights::default(),
            known: Mutex::default(),
        }))
    }

    /// Whether this client may see tables with row level security.
    pub fn is_bypassed_by(&self, identity: &Identity) -> bool {
        let role = identity.role.as_deref();
        self.0.bypass.iter().any(|name| &**name == "*" || Some(&**name) == role)
    }

    /// Whether anybody may.
    pub(crate) fn is_bypassed(&self) -> bool {
        !self.0.bypass.is_empty()
    }

    /// Returns when the client may see the table, or when there is no such table.
    ///
    /// The answer is never older than the question, unless the database does not answer at once:
    /// then what was answered last counts, since a table tells nothing new meanwhile.
    ///
    /// # Errors
    /// [`Code::Forbidden`] when it has row level security and the client does not bypass it;
    /// [`Code::Unavailable`] when the database does not answer at once and never did.
    pub async fn check(&self, identity: &Identity, topic: &Topic) -> Result<(), Refusal> {
        if self.is_bypassed_by(identity) {
            return Ok(());
        }
        let answered = timeout(AT_ONCE, self.is_on(topic)).await;
        let is_on = match answered.unwrap_or_else(|_| Err(unavailable())) {
            Ok(is_on) => is_on,
            Err(refusal) => self.0.known.lock().get(topic).copied().ok_or(refusal)?,
        };
        match is_on {
            false => Ok(()),
            true => Err(self.refusal(topic)),
        }
    }

    /// The same for whoever bypasses it, if anybody does; waits for a database that is down.
    pub(crate) async fn check_for_any(&self, topic: &Topic) -> Result<(), Refusal> {
        if self.is_bypassed() {
            return Ok(());
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.is_on(topic).await {
                Ok(false) => return Ok(()),
                Ok(true) => return Err(self.refusal(topic)),
                Err(refusal) if Instant::now() >= deadline => return Err(refusal.about(topic)),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn is_on(&self, topic: &Topic) -> Result<bool, Refusal> {
        let inner = Arc::clone(&self.0);
        let work = |topic: Topic| async move {
            let found = secured(&inner.pool, std::slice::from_ref(&topic)).await;
            let is_on = found.map(|found| !found.is_empty()).ok_or_else(unavailable)?;
            inner.keep(topic, is_on);
            Ok(is_on)
        };
        self.0.asking.join(topic.clone(), work).await
    }

    /// Of these tables those that have it; `None` when the database cannot be asked.
    pub(crate) async fn of(&self, topics: &[Topic]) -> Option<Vec<Topic>> {
        secured(&self.0.pool, topics).await
    }

    fn refusal(&self, topic: &Topic) -> Refusal {
        let words = "has row level security, which is not enforced for what clients are told, so it \
                     is refused to all whose token's role is not in row_security.bypass_roles";
        Refusal::new(Code::Forbidden, format!("table {} {words}", topic.name())).about(topic)
    }
}

impl Inner {
    fn keep(&self, topic: Topic, is_on: bool) {
        let mut known = self.known.lock();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(topic, is_on);
    }
}

fn unavailable() -> Refusal {
    Refusal::new(Code::Unavailable, "PostgreSQL cannot be asked at the moment")
}

async fn secured(pool: &Pool, topics: &[Topic]) -> Option<Vec<Topic>> {
    let named: Vec<_> =
        topics.iter().filter_map(|topic| Some((topic, topic.name().split_once('.')?))).collect();
    let schemas: Vec<&str> = named.iter().map(|(_, (schema, _))| *schema).collect();
    let tables: Vec<&str> = named.iter().map(|(_, (_, table))| *table).collect();
    let connection = match pool.get().await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::warn!(%error, "no connection to ask for row level security");
            return None;
        }
    };
    let asked = connection.run(async |client| {
        let parameters = [(&schemas as _, Type::TEXT_ARRAY), (&tables as _, Type::TEXT_ARRAY)];
        client.query_typed(SECURED, &parameters).await
    });
    match asked.await {
        Some(Ok(rows)) => {
            let places = rows.iter().map(|row| row.get::<_, i32>(0));
            let topic = |place| named.get(usize::try_from(place).ok()?.checked_sub(1)?);
            Some(places.filter_map(topic).map(|(topic, _)| (*topic).clone()).collect())
        }
        Some(Err(error)) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "asking for row level security"
            );
            None
        }
        None => None,
    }
}

/// An authorizer that lets nobody see a table with row level security who does not bypass it,
/// whatever the other one allows.
pub struct SecuredTables {
    allowed: Arc<dyn Authorizer>,
    rule: RowSecurity,
}

impl SecuredTables {
    /// Asks `allowed` first.
    pub fn new(allowed: Arc<dyn Authorizer>, rule: RowSecurity) -> Self {
        Self { allowed, rule }
    }
}

#[async_trait]
impl Authorizer for SecuredTables {
    async fn authorize(
        &self,
        identity: &Identity,
        action: Action,
        topic: &Topic,
    ) -> Result<Allowed, Refusal> {
        let allowed = self.allowed.authorize(identity, action, topic).await?;
        let reads = matches!(action, Action::Subscribe | Action::History);
        if !reads || topic.kind() != TopicKind::Table {
            return Ok(allowed);
        }
        match self.rule.check(identity, topic).await {
            // Whoever subscribes waits for the source, beside the other requests of the session; the
            // source asks again, and refuses everybody where nobody bypasses it.
            Err(refusal)
                if refusal.code == Code::Unavailable
                    && action == Action::Subscribe
                    && !self.rule.is_bypassed() => {}
            outcome => outcome?,
        }
        Ok(allowed)
    }
}
