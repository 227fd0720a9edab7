//! What a listener wants of a table, checked against the table and made ready.
//!
//! The table's columns, types and collations come from the catalog; each constant of a filter is
//! read by PostgreSQL itself and comes back in the one form that row changes have, so comparing
//! needs no guess. The result judges changes without asking the database again; when the table is
//! altered so that it cannot, it says so.

mod cache;
mod collation;
mod constants;
mod describe;
mod flight;
mod fold;
mod limit;
mod table;
mod transaction;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewire::{Prepared, RowFilter};
use tidewire_protocol::change::Change;
use tidewire_protocol::dialect::Movement;
use tidewire_protocol::filter::{Demand, Filter, Predicate};
use tidewire_protocol::{Code, Interest, Refusal, Topic};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use cache::Generations;
use collation::Case;
pub(crate) use describe::describe;
pub(crate) use flight::Flights;
use fold::Folds;
pub(crate) use table::{FIRST_NORMAL_OID, Table, TableColumn, quoted};
pub(crate) use transaction::transaction;

use crate::connect::{Pool, Target};

/// Connections that prepare; a filter takes about a millisecond of one.
const POOL_SIZE: usize = 4;

/// How long a subscriber waits for a connection, and how long a statement of ours may run.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a description of a table is believed.
///
/// A thousand subscribers that arrive together ask for it once. One that was altered meanwhile is
/// found out by the first change of it, so nothing is judged by an old description.
const FRESH: Duration = Duration::from_secs(2);

/// Filters that are kept ready; a listener that comes back, or many with the same filter, cost
/// nothing then. A filter is about a kilobyte, but for its regular expressions.
const KEPT: usize = 4_096;

/// Bytes of the filters that are kept ready: as many as listeners of one subject may use.
const KEPT_BYTES: usize = 64 << 20;

/// Makes ready what listeners want of tables; cheap to clone.
#[derive(Clone)]
pub struct Preparer(Arc<Inner>);

struct Inner {
    pool: Pool,
    tables: Mutex<HashMap<Topic, (Instant, Arc<Table>)>>,
    plans: Mutex<Generations<PlanKey, Arc<Plan>>>,
    folds: Folds,
    describing: Flights<Topic, Arc<Table>>,
    making: Flights<PlanKey, Arc<Plan>>,
}

/// Which rows of a table a listener wants, and which it may see.
#[derive(Clone, PartialEq, Eq, Hash)]
struct PlanKey {
    topic: Topic,
    filter: Option<Arc<str>>,
    limit: Option<Arc<Filter>>,
}

/// A filter held against a table.
pub(crate) struct Plan {
    /// The table as it was described.
    pub(crate) table: Arc<Table>,
    /// The filter, its constants as PostgreSQL prints them; `None` for all rows.
    pub(crate) filter: Option<Filter>,
    rows: Option<Arc<dyn RowFilter>>,
}

impl Preparer {
    /// Will ask the database at `target`; does not connect before it must.
    pub fn new(target: &Target) -> Self {
        Self(Arc::new(Inner {
            pool: Pool::new(target, POOL_SIZE, PATIENCE, PATIENCE),
            tables: Mutex::new(HashMap::new()),
            plans: Mutex::new(Generations::new(KEPT, KEPT_BYTES)),
            folds: Folds::default(),
            describing: Flights::default(),
            making: Flights::default(),
        }))
    }

    /// Checks what a listener wants and makes it ready to be applied to changes.
    ///
    /// Dropping the future gives up waiting; the last who does ends the work.
    ///
    /// # Errors
    /// [`Code::BadField`] for an unknown column, a filter that is not one, a constant that is not
    /// of its column's type, an operator that cannot be decided exactly; [`Code::NotFound`] for an
    /// unknown table; [`Code::Unavailable`] when the database is down.
    pub async fn prepare(&self, topic: &Topic, interest: &Interest) -> Result<Prepared, Refusal> {
        let plan = self.plan(topic, interest).await?;
        let columns = (!interest.columns.is_empty()).then(|| interest.columns.as_slice().into());
        let operations = interest.operations.as_slice().into();
        Ok(Prepared { operations, columns, rows: plan.rows.clone() })
    }

    /// Forgets what is known of a table; for when it was altered.
    pub fn forget(&self, topic: &Topic) {
        self.0.tables.lock().remove(topic);
    }

    /// The filter held against the table; the columns wanted are checked.
    pub(crate) async fn plan(
        &self,
        topic: &Topic,
        interest: &Interest,
    ) -> Result<Arc<Plan>, Refusal> {
        let plan = self.plan_rows(topic, interest).await;
        let plan = plan.map_err(|refusal| refusal.about(topic))?;
        for name in &interest.columns {
            plan.table.told_column(name).map_err(|refusal| refusal.about(topic))?;
        }
        Ok(plan)
    }

    async fn plan_rows(&self, topic: &Topic, interest: &Interest) -> Result<Arc<Plan>, Refusal> {
        let table = self.table(topic).await?;
        let (filter, limit) = (interest.filter.clone(), interest.limit.clone());
        if filter.is_none() && limit.is_none() {
            return Ok(Arc::new(Plan { table, filter: None, rows: None }));
        }
        let key = PlanKey { topic: topic.clone(), filter, limit };
        let held = self.0.plans.lock().get(&key).filter(|plan| Arc::ptr_eq(&plan.table, &table));
        if let Some(plan) = held {
            return Ok(plan);
        }
        let inner = Arc::clone(&self.0);
        let work = |key: PlanKey| async move { inner.make(key, table).await };
        self.0.making.join(key, work).await
    }

    /// What is known of a table, or else what the catalog says.
    async fn table(&self, topic: &Topic) -> Result<Arc<Table>, Refusal> {
        let held = self.0.tables.lock().get(topic).cloned();
        if let Some((at, table)) = held
            && at.elapsed() < FRESH
        {
            return Ok(table);
        }
        let inner = Arc::clone(&self.0);
        let work = |topic: Topic| async move { inner.describe(&topic).await };
        self.0.describing.join(topic.clone(), work).await.inspect_err(|_| self.forget(topic))
    }
}

impl Inner {
    /// Asks the catalog for a table.
    async fn describe(&self, topic: &Topic) -> Result<Arc<Table>, Refusal> {
        let fresh = transaction(&self.pool, "BEGIN READ ONLY", async |client| {
            describe(client, topic).await
        })
        .await?;
        let mut tables = self.tables.lock();
        // The same table stays the same object, by which filters held against it are known.
        let table = match tables.get(topic) {
            Some((_, known)) if **known == fresh => Arc::clone(known),
            _ => Arc::new(fresh),
        };
        if tables.len() >= KEPT {
            tables.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        tables.insert(topic.clone(), (Instant::now(), Arc::clone(&table)));
        Ok(table)
    }

    /// Holds a filter against a table, and keeps it.
    async fn make(&self, key: PlanKey, table: Arc<Table>) -> Result<Arc<Plan>, Refusal> {
        let wanted = key.filter.as_deref().map(Filter::parse).transpose();
        let wanted = wanted.map_err(|e| Refusal::new(Code::BadField, e.to_string()))?;
        let limit = key.limit.as_deref();
        let mut all = match (&wanted, limit) {
            (Some(wanted), Some(limit)) => wanted.clone().and(limit.clone()),
            (Some(only), None) | (None, Some(only)) => only.clone(),
            (None, None) => Filter::everything(),
        };
        let mut kinds = HashMap::new();
        for condition in all.conditions() {
            let column = table.told_column(&condition.column)?;
            let cased = constants::needs_case(&condition.test);
            let fold = match &column.case {
                Case::ByTable { collation, sql } if cased => {
                    self.folds.get(&self.pool, *collation, sql.clone()).await?
                }
                case => case.without_asking(),
            };
            let known = column.known(fold);
            known
                .supports(condition)
                .map_err(|error| Refusal::new(Code::BadField, error.to_string()))?;
            // A table of capitals, once asked for, is of use to all conditions on the column.
            if cased || !kinds.contains_key(&condition.column) {
                kinds.insert(Arc::clone(&condition.column), known);
            }
        }
        constants::canonicalise(&self.pool, &table, &mut all).await?;
        let (wanted, limit) = match (wanted, limit) {
            (Some(_), None) => (all.clone(), None),
            (None, Some(asked)) => (Filter::everything(), Some((asked, all.clone()))),
            (Some(_), Some(asked)) => {
                let (wanted, limit) = all.clone().into_both().expect("the two were joined above");
                (wanted, Some((asked, limit)))
            }
            (None, None) => (Filter::everything(), None),
        };
        if let Some((asked, limit)) = &limit {
            limit::check(asked, limit, |column| &kinds[column].kind)?;
        }
        let limit = limit.as_ref().map(|(_, limit)| limit);
        let predicate = Predicate::limited(&wanted, limit, |column| kinds[column].clone())
            .map_err(|error| Refusal::new(Code::BadField, error.to_string()))?;
        let weight = all.weight() + 2 * key.filter.as_ref().map_or(0, |text| text.len());
        let rows: Arc<dyn RowFilter> = Arc::new(TableFilter { predicate, weight });
        let plan = Arc::new(Plan { table, filter: Some(all), rows: Some(rows) });
        self.plans.lock().insert(key, Arc::clone(&plan), weight);
        Ok(plan)
    }
}

/// Does the work in a task of its own, which ends with the last who waits for it.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Refusal> {
    AbortOnDropHandle::new(tokio::spawn(work)).await.unwrap_or_else(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "asking PostgreSQL panicked");
        Err(Refusal::new(Code::Internal, "the server failed to ask PostgreSQL"))
    })
}

/// A predicate as the engine applies it.
struct TableFilter {
    predicate: Predicate,
    weight: usize,
}

impl RowFilter for TableFilter {
    fn admits(&self, change: &Change) -> Result<Option<Movement>, String> {
        self.predicate.admits(change).map_err(|altered| altered.to_string())
    }

    fn demand(&self) -> Option<&Demand> {
        self.predicate.demand()
    }

    fn weight(&self) -> usize {
        self.weight
    }
}
