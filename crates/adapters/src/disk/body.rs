//! What was said, to bytes and back; pure.
//!
//! Changes of one batch mostly share their relation and their transaction, so those are told once,
//! in the batch's [`Shared`] tables.

use std::sync::Arc;

use tidewire_protocol::change::{
    Change, Column, Operation, Relation, Row, RowBuilder, Transaction, Value,
};
use tidewire_protocol::presence::{Member, PresenceDiff};
use tidewire_protocol::{Audience, Body, Event, GapReason, Payload, SessionId};

use super::codec::{Put, Take};

/// What the changes of a batch share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    relations: Vec<Arc<Relation>>,
    transactions: Vec<Arc<Transaction>>,
}

impl Shared {
    fn relation(&mut self, relation: &Arc<Relation>) -> u64 {
        place(&mut self.relations, relation)
    }

    fn transaction(&mut self, transaction: &Arc<Transaction>) -> u64 {
        place(&mut self.transactions, transaction)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.put_number(self.relations.len() as u64);
        for relation in &self.relations {
            put_relation(out, relation);
        }
        out.put_number(self.transactions.len() as u64);
        for transaction in &self.transactions {
            out.put_number(transaction.id);
            out.put_number(transaction.lsn.map_or(0, |lsn| lsn.saturating_add(1)));
            out.extend_from_slice(&transaction.committed_at.to_le_bytes());
        }
    }

    pub(super) fn take(bytes: &mut Take<'_>) -> Option<Self> {
        let count = bytes.count()?;
        let relations = (0..count).map(|_| take_relation(bytes).map(Arc::new));
        let relations = relations.collect::<Option<_>>()?;
        let count = bytes.count()?;
        let transactions = (0..count).map(|_| {
            Some(Arc::new(Transaction {
                id: bytes.number()?,
                lsn: bytes.number()?.checked_sub(1),
                committed_at: i64::from_le_bytes(bytes.array()?),
            }))
        });
        let transactions = transactions.collect::<Option<_>>()?;
        Some(Self { relations, transactions })
    }
}

/// The place of something in a list to which it is added if it is not there. Neighbours are mostly
/// the same, and a batch touches few tables, so a look from the end is quick; what is not found
/// among the last sixteen is told twice, which is no harm.
fn place<T>(list: &mut Vec<Arc<T>>, wanted: &Arc<T>) -> u64 {
    let found = list.iter().enumerate().rev().take(16).find(|(_, it)| Arc::ptr_eq(it, wanted));
    let place = match found {
        Some((place, _)) => place,
        None => {
            list.push(Arc::clone(wanted));
            list.len() - 1
        }
    };
    place as u64
}

fn put_relation(out: &mut Vec<u8>, relation: &Relation) {
    out.put_number(relation.oid.into());
    out.put_text(Some(&relation.schema));
    out.put_text(Some(&relation.table));
    out.put_number(relation.columns().len() as u64);
    for column in relation.columns() {
        out.put_text(Some(&column.name));
        out.put_number(column.type_oid.into());
        out.put_text(Some(&column.type_name));
        out.push(column.key.into());
    }
}

fn take_relation(bytes: &mut Take<'_>) -> Option<Relation> {
    let (oid, schema, table) = (bytes.small()?, bytes.some_text()?, bytes.some_text()?);
    let count = bytes.count()?;
    let columns = (0..count).map(|_| take_column(bytes)).collect::<Option<_>>()?;
    Some(Relation::new(oid, schema, table, columns))
}

fn take_column(bytes: &mut Take<'_>) -> Option<Column> {
    Some(Column {
        name: bytes.some_text()?.into(),
        type_oid: bytes.small()?,
        type_name: bytes.some_text()?.into(),
        key: bytes.byte()? != 0,
    })
}

/// Everything of an event but its topic, its place and its time.
pub(super) fn put(out: &mut Vec<u8>, event: &Event, shared: &mut Shared) {
    out.put_text(event.name.as_deref());
    match event.audience {
        Audience::Everyone => out.push(0),
        Audience::Except(session) => {
            out.push(1);
            out.extend_from_slice(&session.0.to_le_bytes());
        }
    }
    match &event.body {
        Body::Message(Payload::Json(text)) => put_tagged(out, b'j', text.as_bytes()),
        Body::Message(Payload::Text(text)) => put_tagged(out, b't', text.as_bytes()),
        Body::Message(Payload::Binary(bytes)) => put_tagged(out, b'b', bytes),
        Body::Gap(reason) => put_tagged(out, b'g', reason.word().as_bytes()),
        Body::Presence(diff) => {
            out.push(b'P');
            put_members(out, &diff.joins);
            put_members(out, &diff.leaves);
        }
        Body::Change(change) => {
            out.push(b'c');
            put_change(out, change, shared);
        }
    }
}

/// Name, audience and body of an event.
pub(super) fn take(
    bytes: &mut Take<'_>,
    shared: &Shared,
) -> Option<(Option<Arc<str>>, Audience, Body)> {
    let name = bytes.text()?.map(Into::into);
    let audience = match bytes.byte()? {
        0 => Audience::Everyone,
        1 => Audience::Except(SessionId(u64::from_le_bytes(bytes.array()?))),
        _ => return None,
    };
    let body = match bytes.byte()? {
        b'j' => Body::Message(Payload::Json(take_text(bytes)?.into())),
        b't' => Body::Message(Payload::Text(take_text(bytes)?.into())),
        b'b' => Body::Message(Payload::Binary(bytes.bytes()?.to_vec().into())),
        b'g' => {
            let word = take_text(bytes)?;
            Body::Gap(GapReason::ALL.into_iter().find(|reason| reason.word() == word)?)
        }
        // Without subjects, as older versions of the server wrote them.
        b'p' => {
            let (joins, leaves) = (take_members(bytes, false)?, take_members(bytes, false)?);
            Body::Presence(Arc::new(PresenceDiff { joins, leaves }))
        }
        b'P' => {
            let (joins, leaves) = (take_members(bytes, true)?, take_members(bytes, true)?);
            Body::Presence(Arc::new(PresenceDiff { joins, leaves }))
        }
        b'c' => Body::Change(Arc::new(take_change(bytes, shared)?)),
        _ => return None,
    };
    Some((name, audience, body))
}

fn put_tagged(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    out.put_bytes(content);
}

fn take_text<'b>(bytes: &mut Take<'b>) -> Option<&'b str> {
    std::str::from_utf8(bytes.bytes()?).ok()
}

fn put_members(out: &mut Vec<u8>, members: &[Member]) {
    out.put_number(members.len() as u64);
    for Member { reference, key, subject, meta } in members {
        for text in [reference, key, meta] {
            out.put_text(Some(text));
        }
        out.put_text(subject.as_deref());
    }
}

fn take_members(bytes: &mut Take<'_>, with_subjects: bool) -> Option<Vec<Member>> {
    let count = bytes.count()?;
    (0..count).map(|_| take_member(bytes, with_subjects)).collect()
}

fn take_member(bytes: &mut Take<'_>, with_subject: bool) -> Option<Member> {
    let mut text = || bytes.some_text().map(Arc::<str>::from);
    let (reference, key, meta) = (text()?, text()?, text()?);
    let subject = if with_subject { bytes.text()?.map(Into::into) } else { None };
    Some(Member { reference, key, subject, meta })
}

fn put_change(out: &mut Vec<u8>, change: &Change, shared: &mut Shared) {
    out.push(change.operation.word().as_bytes()[0]);
    out.put_number(shared.relation(&change.relation));
    out.put_number(shared.transaction(&change.transaction));
    out.put_number(change.index.into());
    out.push(change.last.into());
    put_row(out, change.record.as_ref());
    put_row(out, change.old.as_ref());
}

fn take_change(bytes: &mut Take<'_>, shared: &Shared) -> Option<Change> {
    let letter = bytes.byte()?;
    let operation = Operation::ALL.into_iter().find(|it| it.word().as_bytes()[0] == letter)?;
    Some(Change {
        operation,
        relation: Arc::clone(shared.relations.get(bytes.small::<usize>()?)?),
        transaction: Arc::clone(shared.transactions.get(bytes.small::<usize>()?)?),
        index: bytes.small()?,
        last: bytes.byte()? != 0,
        record: take_row(bytes)?,
        old: take_row(bytes)?,
    })
}

fn put_row(out: &mut Vec<u8>, row: Option<&Row>) {
    let Some(row) = row else { return out.put_number(0) };
    out.put_number(row.len() as u64 + 1);
    for value in row.values() {
        match value {
            Value::Json(text) => put_tagged(out, b'j', text.as_bytes()),
            Value::Unchanged => out.push(b'u'),
            Value::Absent => out.push(b'a'),
        }
    }
}

fn take_row(bytes: &mut Take<'_>) -> Option<Option<Row>> {
    let Some(count) = bytes.number()?.checked_sub(1) else { return Some(None) };
    if count > bytes.0.len() as u64 {
        return None;
    }
    let mut row = RowBuilder::default();
    for _ in 0..count {
        row.push(match bytes.byte()? {
            b'j' => Value::Json(take_text(bytes)?),
            b'u' => Value::Unchanged,
            b'a' => Value::Absent,
            _ => return None,
        });
    }
    row.finish().ok().map(Some)
}
