//! What several wishes of one listener want together: a change that any of them wants.

use std::sync::Arc;

use tidewire_protocol::change::{Change, Operation};
use tidewire_protocol::dialect::Movement;
use tidewire_protocol::filter::Demand;

use super::{Prepared, RowFilter};

impl Prepared {
    /// What any of `wishes` wants; all of them tell the same columns. `None` stands for
    /// everything, in what is given and in what comes back.
    pub(crate) fn any_of(wishes: Vec<Option<Arc<Prepared>>>) -> Option<Arc<Prepared>> {
        let mut wishes = wishes.into_iter().collect::<Option<Vec<_>>>()?;
        if wishes.len() < 2 {
            return wishes.pop();
        }
        let columns = wishes[0].columns.clone();
        let operations = operations_of_any(&wishes);
        let rows = match wishes.iter().all(|wish| wish.rows.is_none()) {
            true => None,
            false => Some(Arc::new(AnyOf::new(wishes)) as Arc<dyn RowFilter>),
        };
        Some(Arc::new(Prepared { operations, columns, rows }))
    }
}

/// Empty for all, which one wish for all makes it.
fn operations_of_any(wishes: &[Arc<Prepared>]) -> Arc<[Operation]> {
    if wishes.iter().any(|wish| wish.operations.is_empty()) {
        return Arc::default();
    }
    let wanted =
        |operation: &Operation| wishes.iter().any(|wish| wish.operations.contains(operation));
    Operation::ALL.into_iter().filter(wanted).collect()
}

/// Rows that any of several wishes wants, each with its own operations.
struct AnyOf {
    wishes: Vec<Arc<Prepared>>,
    /// What a row must have to be admitted by any of them.
    demand: Option<Demand>,
}

impl AnyOf {
    fn new(wishes: Vec<Arc<Prepared>>) -> Self {
        let demand = demand_of_any(&wishes);
        Self { wishes, demand }
    }
}

/// `None` where the wishes are not all found by one column.
fn demand_of_any(wishes: &[Arc<Prepared>]) -> Option<Demand> {
    let mut demands = wishes.iter().map(|wish| wish.rows.as_ref()?.demand());
    let first = demands.next()??.clone();
    demands.try_fold(first, |all, demand| all.or(demand?))
}

impl RowFilter for AnyOf {
    fn admits(&self, change: &Change) -> Result<Option<Movement>, String> {
        let mut found = None;
        for wish in &self.wishes {
            found = together(found, wish.admits_change(change)?);
        }
        Ok(found)
    }

    fn demand(&self) -> Option<&Demand> {
        self.demand.as_ref()
    }
}

/// What a change means to someone with two wishes: a row that leaves one and enters the other was
/// there and still is.
fn together(one: Option<Movement>, other: Option<Movement>) -> Option<Movement> {
    match (one, other) {
        (None, only) | (only, None) => only,
        (Some(one), Some(other)) if one == other => Some(one),
        // Rights are the same for all of a client's wishes: what one may not show, none may.
        (Some(hiding @ (Movement::Appears | Movement::Disappears)), _)
        | (_, Some(hiding @ (Movement::Appears | Movement::Disappears))) => Some(hiding),
        (Some(_), Some(_)) => Some(Movement::Within),
    }
}
