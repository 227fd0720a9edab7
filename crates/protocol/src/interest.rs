//! What a listener wants of a table: which operations, which columns, which rows.

use std::sync::Arc;

use crate::change::Operation;
use crate::filter::Filter;

/// What a listener wants of a table, as asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Interest {
    /// Which operations; empty for all.
    pub operations: Vec<Operation>,
    /// Which columns are told, by name; empty for all. Key columns are always told.
    pub columns: Vec<Arc<str>>,
    /// Which rows, as `column=op.value`, several joined by commas; `None` for all.
    pub filter: Option<Arc<str>>,
    /// Rows beyond which nothing is shown, whatever is asked; `None` for no such limit.
    ///
    /// Put there by who judges what a client may do, never by a client.
    pub limit: Option<Arc<Filter>>,
}

impl Interest {
    /// The operations with these words, each once and in one order; none for `*` among them.
    ///
    /// # Errors
    /// What to write instead, for a list that is empty or has another word.
    pub fn operations_of<T: AsRef<str>>(words: &[T]) -> Result<Vec<Operation>, String> {
        const ADVICE: &str = "events are INSERT, UPDATE, DELETE and TRUNCATE, or * for all";
        let known = |word: &T| {
            let word = word.as_ref();
            word == "*" || Operation::ALL.into_iter().any(|operation| operation.word() == word)
        };
        if words.is_empty() || !words.iter().all(known) {
            return Err(ADVICE.to_owned());
        }
        let named = |wanted: &str| words.iter().any(|word| word.as_ref() == wanted);
        if named("*") {
            return Ok(Vec::new());
        }
        let wanted = Operation::ALL.into_iter().filter(|operation| named(operation.word()));
        Ok(wanted.collect())
    }

    /// The columns with these names, each once and in one order.
    ///
    /// # Errors
    /// What to write instead, for a list that is empty or has an empty name.
    pub fn columns_of<T: AsRef<str>>(names: &[T]) -> Result<Vec<Arc<str>>, String> {
        if names.is_empty() || names.iter().any(|name| name.as_ref().is_empty()) {
            return Err("name at least one column, or leave columns out for all".to_owned());
        }
        let mut columns: Vec<Arc<str>> = names.iter().map(|name| name.as_ref().into()).collect();
        columns.sort();
        columns.dedup();
        Ok(columns)
    }

    /// Whether everything is wanted.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}
