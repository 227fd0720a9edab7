//! TRUNCATE of tables, of partitioned ones, and of partitions alone.
//!
//! Where partitions are sent as their own, the log names each one that was emptied and never the
//! table. One statement that emptied all of them emptied the table; less than that no change can
//! tell, since nobody knows which rows were in it, so it is a gap of the table at this place.

use std::collections::BTreeSet;

use tidewire_protocol::change::Operation;
use tidewire_protocol::{Body, Draft, GapReason};

use super::{Assembly, Need, Trouble, need};

impl Assembly {
    /// These relations were emptied by one statement.
    pub(super) fn truncate(&mut self, relations: &[u32]) -> Result<(), Trouble> {
        if let Some(outdated) = relations.iter().find_map(|relation| self.outdated(*relation)) {
            return need(Need::Again(outdated.clone()));
        }
        let parts = self.parts.take();
        let asked = self.partitioned(relations);
        if parts.is_none() && !asked.is_empty() {
            return need(Need::Parts(asked));
        }
        let (parts, emptied) = (parts.unwrap_or_default(), relations.iter().copied());
        let emptied: BTreeSet<u32> = emptied.collect();
        let mut seen = BTreeSet::new();
        for relation in relations {
            let whole = self.whole(*relation);
            let Some(table) = whole else {
                self.change(Operation::Truncate, *relation, None, None, false)?;
                continue;
            };
            if !seen.insert(table) {
                continue;
            }
            match parts.get(&table).is_some_and(|parts| parts.is_subset(&emptied)) {
                true => self.change(Operation::Truncate, *relation, None, None, false)?,
                false => self.lose(*relation, GapReason::ConnectionLost),
            }
        }
        Ok(())
    }

    /// The tables of which partitions are among these, if their changes are told.
    fn partitioned(&self, relations: &[u32]) -> Vec<u32> {
        let known = relations.iter().filter_map(|relation| self.relations.get(relation));
        let commit = self.commit_place();
        let told = known.filter(|known| known.is_part() && known.flow.tells(commit));
        let tables: BTreeSet<u32> = told.map(|known| known.relation.oid).collect();
        tables.into_iter().collect()
    }

    /// The table that a relation is a partition of.
    fn whole(&self, relation: u32) -> Option<u32> {
        let known = self.relations.get(&relation)?;
        known.is_part().then_some(known.relation.oid)
    }

    /// A change of the relation cannot be told: a gap stands in its place.
    pub(super) fn lose(&mut self, relation: u32, reason: GapReason) {
        let commit = self.commit_place();
        let known = self.relations.get(&relation).filter(|known| known.flow.tells(commit));
        let topic = known.and_then(|known| known.topic.clone());
        let Some(open) = self.open.as_mut() else { return };
        // It has an index, so it counts like a change.
        let told = open.is_told(None);
        open.seen += 1;
        open.index = open.index.saturating_add(1);
        if let Some(topic) = topic.filter(|_| !told) {
            // Each row of a statement may be one, and the first gap tells of them all.
            let is_gap = |deed: &Draft| deed.topic == topic && matches!(deed.body, Body::Gap(_));
            if !open.deeds.last().is_some_and(is_gap) {
                open.deeds.push(Draft::gap(topic, reason));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use tidewire_protocol::Body;
    use tidewire_protocol::change::{Column, Relation};

    use super::super::{Described, Description, Flow, Known, Need, Trouble};
    use super::*;
    use crate::values::Shape;
    use crate::wal::pgoutput::encoder::encode;
    use crate::wal::pgoutput::{
        Begin, Commit, Datum, Delete, Identity, Insert, Lsn, Message, Moment, Old, Truncate,
    };

    /// The table and two partitions of it, the second with its columns the other way round.
    const TABLE: u32 = 1;
    const PARTS: [u32; 2] = [10, 11];

    fn known(oid: u32, turned: bool) -> Known {
        let (sent, order) = if turned { (["n", "id"], [1, 0]) } else { (["id", "n"], [0, 1]) };
        let described = |name: &&str| Described {
            name: (*name).to_owned(),
            type_oid: 23,
            identity: *name == "id",
        };
        let description = Description {
            oid,
            schema: "public".to_owned(),
            table: format!("t{oid}"),
            identity: Identity::Default,
            is_readable: true,
            columns: sent.iter().map(described).collect(),
        };
        let column = |name: &str| Column {
            name: name.into(),
            type_oid: 23,
            type_name: "integer".into(),
            key: name == "id",
        };
        let columns = vec![column("id"), column("n")];
        let relation = Relation::new(TABLE, "public", "t", columns);
        let flow = Flow::default();
        flow.begin(Lsn(0));
        let shapes = std::iter::repeat_with(|| Arc::new(Shape::Number)).take(2).collect();
        Known::new(description, relation, flow, shapes).reordered(&order)
    }

    fn assembly() -> Assembly {
        let mut assembly = Assembly::default();
        assembly.begin(Lsn(10), false);
        assembly.know(known(PARTS[0], false));
        assembly.know(known(PARTS[1], true));
        assembly
    }

    /// What a transaction of these messages tells, where the table has these partitions.
    fn told(messages: &[Message<'_>], parts: &[u32]) -> Vec<String> {
        let mut assembly = assembly();
        let committed_at = Moment(0);
        let begin = Begin { commit_lsn: Lsn(20), committed_at, xid: 7 };
        let commit = Commit { commit_lsn: Lsn(20), end_lsn: Lsn(28), committed_at };
        assembly.begin_transaction(begin).unwrap();
        for message in messages {
            let bytes = encode(message);
            if let Err(Trouble::Need(need)) = assembly.take(&bytes, false) {
                assert!(matches!(&*need, Need::Parts(tables) if *tables == [TABLE]), "{need:?}");
                let parts: BTreeSet<u32> = parts.iter().copied().collect();
                assembly.know_parts([(TABLE, parts)].into());
                assembly.take(&bytes, false).unwrap();
            }
        }
        assembly.commit(commit).unwrap();
        assembly.harvest().iter().map(word).collect()
    }

    fn word(draft: &Draft) -> String {
        let Body::Change(change) = &draft.body else { return "gap".to_owned() };
        let row = change.record.as_ref().or(change.old.as_ref());
        let id = row.and_then(|row| row.json(0)).unwrap_or_default();
        format!("{}{id} at {}", change.operation.word(), change.index)
    }

    fn truncate(relations: &[u32]) -> Message<'static> {
        let relations = relations.to_vec();
        Message::Truncate(Truncate { cascade: false, restart_identity: false, relations })
    }

    fn insert(relation: u32, values: [&'static str; 2]) -> Message<'static> {
        let new = values.iter().map(|value| Datum::Text(value.as_bytes())).collect();
        Message::Insert(Insert { relation, new })
    }

    #[test]
    fn a_statement_that_empties_all_partitions_empties_the_table() {
        let after = || insert(PARTS[0], ["5", "6"]);
        assert_eq!(told(&[truncate(&PARTS), after()], &PARTS), ["TRUNCATE at 0", "INSERT5 at 1"]);
        // One that is gone since does not matter, and one that came since may have had rows.
        assert_eq!(told(&[truncate(&PARTS)], &PARTS[..1]), ["TRUNCATE at 0"]);
        assert_eq!(told(&[truncate(&PARTS), after()], &[10, 11, 12]), ["gap", "INSERT5 at 1"]);
    }

    #[test]
    fn a_partition_emptied_alone_is_a_gap_of_its_table() {
        let after = || insert(PARTS[0], ["5", "6"]);
        assert_eq!(told(&[truncate(&PARTS[1..]), after()], &PARTS), ["gap", "INSERT5 at 1"]);
        let twice = [truncate(&PARTS[1..]), truncate(&PARTS[..1]), after()];
        assert_eq!(told(&twice, &PARTS), ["gap", "INSERT5 at 2"], "one gap tells of both");
    }

    #[test]
    fn columns_of_a_partition_are_told_in_the_order_of_the_table() {
        assert_eq!(told(&[insert(PARTS[1], ["6", "5"])], &PARTS), ["INSERT5 at 0"]);
    }

    #[test]
    fn a_key_with_a_null_is_a_gap() {
        let delete = |id| {
            let old = Old::Key([id, Datum::Null].into_iter().collect());
            Message::Delete(Delete { relation: PARTS[0], old })
        };
        let whole = delete(Datum::Text(b"5"));
        let messages = [delete(Datum::Null), delete(Datum::Null), whole];
        assert_eq!(told(&messages, &PARTS), ["gap", "DELETE5 at 2"]);
    }
}
