//! Members that demand something of one column, by the value.
//!
//! Single values are looked up by their hash, intervals by their order. A change is looked up by
//! the value that its row has and by the one that it had, because an update may move a row out of
//! what a member wants as well as into it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tidewire_protocol::change::{Change, Operation, Value};
use tidewire_protocol::filter::{Demand, Extent, Point, Scale};

use super::ranges::Ranges;
use crate::hub::live_topic::MemberId;

/// Members that demand something of one column.
pub(super) struct ColumnIndex {
    column: Arc<str>,
    type_oids: [u32; 2],
    scale: Scale,
    values: HashMap<Point<'static>, Vec<MemberId>>,
    ranges: Ranges,
    everyone: HashSet<MemberId>,
}

/// What is known of a column in a row before or after a change.
enum Known<'a> {
    /// It was or is this; `null` for NULL.
    Json(&'a str),
    /// There is no such row, or nobody is concerned by what it was.
    Nothing,
    /// Anything.
    Unknown,
}

impl ColumnIndex {
    pub(super) fn new(demand: &Demand) -> Self {
        Self {
            column: Arc::clone(&demand.column),
            type_oids: demand.type_oids,
            scale: demand.scale.clone(),
            values: HashMap::new(),
            ranges: Ranges::default(),
            everyone: HashSet::new(),
        }
    }

    /// Whether members with this demand belong here.
    pub(super) fn is_for(&self, demand: &Demand) -> bool {
        self.column == demand.column
            && self.type_oids == demand.type_oids
            && self.scale == demand.scale
    }

    pub(super) fn is_empty(&self) -> bool {
        self.everyone.is_empty()
    }

    pub(super) fn insert(&mut self, demand: &Demand, id: MemberId) {
        self.everyone.insert(id);
        match &demand.extent {
            Extent::Values(values) => {
                for value in values {
                    self.values.entry(value.clone()).or_default().push(id);
                }
            }
            Extent::Within(intervals) => {
                intervals.iter().for_each(|interval| self.ranges.insert(interval, id));
            }
        }
    }

    pub(super) fn remove(&mut self, demand: &Demand, id: MemberId) {
        self.everyone.remove(&id);
        match &demand.extent {
            Extent::Values(values) => values.iter().for_each(|value| self.remove_at(value, id)),
            Extent::Within(intervals) => {
                intervals.iter().for_each(|interval| self.ranges.remove(interval, id));
            }
        }
    }

    fn remove_at(&mut self, value: &Point<'static>, id: MemberId) {
        let Some(members) = self.values.get_mut(value) else { return };
        members.retain(|held| *held != id);
        if members.is_empty() {
            self.values.remove(value);
        }
    }

    /// Adds the members that may want the change, each once; all of them when that cannot be told.
    pub(super) fn find(&self, change: &Change, found: &mut Vec<MemberId>) {
        let start = found.len();
        if self.find_by_values(change, found).is_none() {
            found.truncate(start);
            found.extend(&self.everyone);
            return;
        }
        if found.len() < start + 2 {
            return;
        }
        // One that wants both what the row has and what it had was found twice.
        found[start..].sort_unstable();
        let mut unique = found.split_off(start);
        unique.dedup();
        found.append(&mut unique);
    }

    /// `None` when everyone may be concerned: nothing is known of the value; or the column is
    /// gone, of another type, or has a value that it could not have, which each member must learn.
    fn find_by_values(&self, change: &Change, found: &mut Vec<MemberId>) -> Option<()> {
        let place = change.relation.column(&self.column)?;
        if !self.type_oids.contains(&change.relation.columns()[place].type_oid) {
            return None;
        }
        let (before, after) = known(change, place);
        if let (Known::Json(before), Known::Json(after)) = (&before, &after)
            && before == after
        {
            return self.find_value(after, found);
        }
        for value in [before, after] {
            match value {
                Known::Json(json) => self.find_value(json, found)?,
                Known::Nothing => {}
                Known::Unknown => return None,
            }
        }
        Some(())
    }

    fn find_value(&self, json: &str, found: &mut Vec<MemberId>) -> Option<()> {
        if json == "null" {
            // A demand is never met by NULL.
            return Some(());
        }
        let value = self.scale.read(json)?;
        if let Some(members) = self.values.get(&value) {
            found.extend_from_slice(members);
        }
        self.ranges.find(&value, found);
        Some(())
    }
}

/// What is known of a column before and after a change.
fn known(change: &Change, place: usize) -> (Known<'_>, Known<'_>) {
    let [old, new] =
        [&change.old, &change.record].map(|row| row.as_ref().and_then(|row| row.value(place)));
    let before = match old {
        Some(Value::Json(text)) => Known::Json(text),
        // A row is not seen to leave where it is not known to have been.
        _ if matches!(change.operation, Operation::Insert | Operation::Update) => Known::Nothing,
        _ => Known::Unknown,
    };
    let after = match (new, old) {
        (Some(Value::Json(text)), _) | (Some(Value::Unchanged), Some(Value::Json(text))) => {
            Known::Json(text)
        }
        _ if change.operation == Operation::Delete => Known::Nothing,
        _ => Known::Unknown,
    };
    (before, after)
}
