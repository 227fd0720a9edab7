//! What subscriptions take beside their own memory, counted for who asked for them: filters that
//! take much, and NOTIFY channels, of which one connection follows so many.

use std::sync::Arc;

use tidewire_protocol::Refusal;
use tidewire_protocol::change::Change;
use tidewire_protocol::dialect::Movement;
use tidewire_protocol::filter::Demand;

use super::Inner;
use crate::budget::{Allowance, Budget, Full, Principal, Share};
use crate::upstream::{Prepared, RowFilter};

/// Bytes of a filter that is not counted: as much as a subscription takes anyway, of which a
/// session may have so many.
const SMALL: usize = 4 << 10;

/// A filter that is counted as long as it is held.
struct Counted {
    rows: Arc<dyn RowFilter>,
    _share: Share,
}

impl RowFilter for Counted {
    fn admits(&self, change: &Change) -> Result<Option<Movement>, String> {
        self.rows.admits(change)
    }

    fn demand(&self) -> Option<&Demand> {
        self.rows.demand()
    }

    fn weight(&self) -> usize {
        self.rows.weight()
    }
}

impl Inner {
    /// Counts a subscription to a NOTIFY channel for who asked for it.
    ///
    /// # Errors
    /// `OverBudget` when it has as many as one may.
    pub(crate) fn channel(&self, principal: &Principal) -> Result<Share, Refusal> {
        let each = self.limits.load().budgets.channels;
        let allowance = Allowance { each, all: usize::MAX, unauthenticated: usize::MAX };
        self.admission.channels.take(principal, 1, &allowance).map_err(|_| {
            let message = format!("a client has at most {each} subscriptions to channels");
            self.over(Budget::Channels, principal, &message)
        })
    }

    /// Counts a filter for who asked for it.
    ///
    /// # Errors
    /// `OverBudget` when its filters, or those of all, take too much memory.
    pub(crate) fn counted(
        &self,
        prepared: Prepared,
        principal: &Principal,
    ) -> Result<Prepared, Refusal> {
        let Some(rows) = prepared.rows.clone().filter(|rows| rows.weight() > SMALL) else {
            return Ok(prepared);
        };
        let limits = self.limits.load();
        let budgets = &limits.budgets;
        let allowance = Allowance {
            each: budgets.filter_bytes,
            all: budgets.all_filter_bytes,
            unauthenticated: budgets.all_filter_bytes / 2,
        };
        let share = self.admission.filters.take(principal, rows.weight(), &allowance);
        let share = share.map_err(|full| {
            let message = match full {
                Full::Principal => "the filters of this client take too much memory",
                Full::All => "the filters of all clients take too much memory",
            };
            self.over(Budget::Filters, principal, message)
        })?;
        Ok(Prepared { rows: Some(Arc::new(Counted { rows, _share: share })), ..prepared })
    }
}
