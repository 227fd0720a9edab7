//! What a listener wants of a table: which operations, which columns, which rows.

use std::sync::Arc;

use crate::change::Operation;

/// What a listener wants of a table, as asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Interest {
    /// Which operations; empty for all.
    pub operations: Vec<Operation>,
    /// Which columns are told, by name; empty for all. Key columns are always told.
    pub columns: Vec<Arc<str>>,
    /// Which rows, as `column=op.value`, several joined by commas; `None` for all.
    pub filter: Option<Arc<str>>,
}

impl Interest {
    /// Whether everything is wanted.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}
