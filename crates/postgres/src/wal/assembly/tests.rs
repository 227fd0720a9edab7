use std::sync::Arc;

use proptest::prelude::*;
use tidewire_protocol::Body;
use tidewire_protocol::change::{Column, Relation, Value};

use super::*;
use crate::values::Shape;
use crate::wal::pgoutput::encoder::encode;
use crate::wal::pgoutput::{
    Attribute, Datum, Delete, Identity, Insert, Moment, Origin, Relation as Wire, Truncate, Update,
};

/// An assembly that knows tables 1 and 2, and the switch of both.
fn assembly() -> (Assembly, Flow) {
    let mut assembly = Assembly::default();
    assembly.allow_unsigned();
    assembly.begin(Lsn(10), false);
    let flow = Flow::default();
    flow.begin(Lsn(0));
    teach(&mut assembly, &flow, &Shape::Text);
    (assembly, flow)
}

fn teach(assembly: &mut Assembly, flow: &Flow, second: &Shape) {
    for oid in [1, 2] {
        let name = format!("t{oid}");
        let wire = Wire {
            oid,
            schema: b"public",
            table: name.as_bytes(),
            identity: Identity::Default,
            columns: vec![
                Attribute { identity: true, name: b"id", type_oid: 23, modifier: -1 },
                Attribute { identity: false, name: b"v", type_oid: 25, modifier: -1 },
            ],
        };
        let taken = assembly.take(&encode(&Message::Relation(wire)), false);
        let Err(Trouble::Need(need)) = taken else { panic!("{taken:?}") };
        let Need::Relation(description) = *need else { panic!("{need:?}") };
        let column = |name: &str, key| Column {
            name: name.into(),
            type_oid: 23,
            type_name: "any".into(),
            key,
        };
        let columns = vec![column("id", true), column("v", false)];
        let relation = Relation::new(oid, "public", name.as_str(), columns);
        let shapes = vec![Arc::new(Shape::Number), Arc::new(second.clone())];
        assembly.know(Known::new(description, relation, flow.clone(), shapes));
    }
}

fn take(assembly: &mut Assembly, message: &Message<'_>) {
    assembly.take(&encode(message), false).unwrap();
}

fn begin(lsn: u64) -> Message<'static> {
    Message::Begin(Begin { commit_lsn: Lsn(lsn), committed_at: Moment(0), xid: 7 })
}

fn commit(lsn: u64) -> Message<'static> {
    let (commit_lsn, end_lsn) = (Lsn(lsn), Lsn(lsn + 5));
    Message::Commit(Commit { commit_lsn, end_lsn, committed_at: Moment(0) })
}

fn row<'v>(id: &'v str, v: &'v str) -> Tuple<'v> {
    [Datum::Text(id.as_bytes()), Datum::Text(v.as_bytes())].into_iter().collect()
}

fn insert<'v>(relation: u32, id: &'v str) -> Message<'v> {
    Message::Insert(Insert { relation, new: row(id, "x") })
}

/// Table, id, index, and whether it is the last.
fn told(assembly: &mut Assembly) -> Vec<(String, String, u32, bool)> {
    let change = |draft: Draft| match draft.body {
        Body::Change(change) => {
            let row = change.record.as_ref().or(change.old.as_ref());
            let id = row.and_then(|row| row.json(0)).unwrap_or_default().to_owned();
            (change.relation.table.to_string(), id, change.index, change.last)
        }
        other => panic!("{other:?}"),
    };
    assembly.harvest().into_iter().map(change).collect()
}

fn tell(table: u32, id: &str, index: u32, last: bool) -> (String, String, u32, bool) {
    (format!("t{table}"), id.to_owned(), index, last)
}

#[test]
fn the_last_change_of_each_table_is_marked() {
    let (mut assembly, _) = assembly();
    take(&mut assembly, &begin(100));
    take(&mut assembly, &Message::Origin(Origin { commit_lsn: Lsn(1), name: b"far" }));
    for (table, id) in [(1, "1"), (2, "2"), (1, "3")] {
        take(&mut assembly, &insert(table, id));
    }
    assert!(told(&mut assembly).is_empty());
    take(&mut assembly, &commit(100));
    assert_eq!(
        told(&mut assembly),
        [tell(1, "1", 0, false), tell(2, "2", 1, true), tell(1, "3", 2, true)]
    );
    assert_eq!(assembly.processed(), Lsn(105));
    let counts = assembly.counts();
    assert_eq!((counts.transactions, counts.changes), (1, 3));
    assert_eq!(assembly.counts(), Counts::default());
}

#[test]
fn a_place_is_processed_only_between_transactions() {
    let (mut assembly, _) = assembly();
    assert_eq!(assembly.processed(), Lsn(10));
    assembly.sent(Lsn(50)).unwrap();
    assert_eq!(assembly.processed(), Lsn(50));
    take(&mut assembly, &begin(100));
    assembly.sent(Lsn(99)).unwrap();
    assert_eq!(assembly.processed(), Lsn(50));
}

#[test]
fn a_table_that_does_not_flow_counts_but_is_not_told() {
    let (mut assembly, flow) = assembly();
    take(&mut assembly, &begin(100));
    flow.begin(Lsn(101));
    take(&mut assembly, &insert(1, "1"));
    flow.begin(Lsn(0));
    take(&mut assembly, &insert(1, "2"));
    take(&mut assembly, &commit(100));
    assert_eq!(told(&mut assembly), [tell(1, "2", 1, true)]);
}

#[test]
fn updates_deletes_and_truncates_tell_what_they_know_of_the_old_row() {
    let (mut assembly, _) = assembly();
    take(&mut assembly, &begin(100));
    let key = || Old::Key([Datum::Text(b"1"), Datum::Null].into_iter().collect());
    let unchanged: Tuple<'_> = [Datum::Text(b"1"), Datum::Unchanged].into_iter().collect();
    let whole = Some(Old::Whole(row("1", "before")));
    for old in [None, Some(key()), whole] {
        let new = unchanged.clone();
        take(&mut assembly, &Message::Update(Update { relation: 1, old, new }));
    }
    take(&mut assembly, &Message::Delete(Delete { relation: 1, old: key() }));
    let truncate = Truncate { cascade: false, restart_identity: false, relations: vec![1, 2] };
    take(&mut assembly, &Message::Truncate(truncate));
    take(&mut assembly, &commit(100));
    let changes: Vec<_> = assembly
        .harvest()
        .into_iter()
        .map(|draft| match draft.body {
            Body::Change(change) => change,
            other => panic!("{other:?}"),
        })
        .collect();
    fn second(row: &Option<Row>) -> Option<Value<'_>> {
        row.as_ref().and_then(|row| row.value(1))
    }
    let seen: Vec<_> = changes.iter().map(|c| (second(&c.record), second(&c.old))).collect();
    let before = Some(Value::Json("\"before\""));
    assert_eq!(
        seen,
        [
            (Some(Value::Unchanged), None),
            (Some(Value::Unchanged), Some(Value::Absent)),
            (before, before),
            (None, Some(Value::Absent)),
            (None, None),
            (None, None),
        ]
    );
    assert_eq!((changes[4].operation, changes[4].index), (Operation::Truncate, 4));
    assert!(changes[4].last && changes[5].last);
}

#[test]
fn a_value_that_does_not_fit_asks_for_its_type_and_is_a_string_if_that_does_not_help() {
    let (mut assembly, flow) = assembly();
    teach(&mut assembly, &flow, &Shape::Bool);
    take(&mut assembly, &begin(100));
    let bytes = encode(&insert(1, "1"));
    let Err(Trouble::Need(need)) = assembly.take(&bytes, false) else { panic!("no need") };
    assert!(matches!(*need, Need::Shapes(_)));
    assembly.take(&bytes, true).unwrap();
    take(&mut assembly, &commit(100));
    assert_eq!(told(&mut assembly), [tell(1, "1", 0, true)]);
    assert_eq!(assembly.counts().misshapen, 1);
}

#[test]
fn nonsense_is_an_error_and_no_panic() {
    let (mut assembly, _) = assembly();
    let refused = |assembly: &mut Assembly, message| {
        let taken = assembly.take(&encode(&message), false);
        assert!(matches!(taken, Err(Trouble::Senseless(_))), "{message:?}");
    };
    refused(&mut assembly, commit(1));
    refused(&mut assembly, insert(1, "1"));
    take(&mut assembly, &begin(100));
    refused(&mut assembly, begin(100));
    refused(&mut assembly, insert(9, "1"));
    refused(&mut assembly, Message::StreamStop);
    let short = Insert { relation: 1, new: [Datum::Null].into_iter().collect() };
    refused(&mut assembly, Message::Insert(short));
}

#[test]
fn a_row_too_large_to_read_names_its_table() {
    let (mut assembly, flow) = assembly();
    take(&mut assembly, &begin(100));
    let head = encode(&insert(2, "1"))[..12].to_vec();
    assert_eq!(assembly.oversized(&head).unwrap().name(), "public.t2");
    flow.begin(Lsn(101));
    assert_eq!(assembly.oversized(&head), None);
    flow.begin(Lsn(0));
    take(&mut assembly, &insert(1, "3"));
    take(&mut assembly, &commit(100));
    let drafts = assembly.harvest();
    assert_eq!(drafts[0].topic.name(), "public.t2");
    assert!(matches!(drafts[0].body, Body::Gap(GapReason::HistoryTrimmed)), "{drafts:?}");
    assert!(matches!(&drafts[1].body, Body::Change(change) if change.index == 2 && change.last));
    assert_eq!(drafts.len(), 2);
}

#[test]
fn a_row_too_large_to_be_told_is_a_gap_in_its_table() {
    let (mut assembly, _flow) = assembly();
    assembly.builder = RowBuilder::at_most(20);
    take(&mut assembly, &begin(100));
    take(&mut assembly, &insert(1, "123456789012345678901"));
    take(&mut assembly, &insert(1, "2"));
    take(&mut assembly, &commit(100));
    let drafts = assembly.harvest();
    assert_eq!(drafts[0].topic.name(), "public.t1");
    assert!(matches!(drafts[0].body, Body::Gap(GapReason::HistoryTrimmed)), "{drafts:?}");
    assert!(matches!(&drafts[1].body, Body::Change(change) if change.index == 1 && change.last));
    assert_eq!((drafts.len(), assembly.counts().oversized), (2, 1));
}

/// A workload: for each transaction the tables it inserts into.
fn feed(assembly: &mut Assembly, workload: &[Vec<u32>], upto: usize) {
    let ids: Vec<String> = (1..=100).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut sent = 0;
    let mut send = |assembly: &mut Assembly, message| {
        sent += 1;
        if sent <= upto {
            take(assembly, &message);
        }
    };
    let mut id = 0;
    for (at, tables) in workload.iter().enumerate() {
        let lsn = 100 * (at as u64 + 1);
        send(assembly, begin(lsn));
        for table in tables {
            id += 1;
            send(assembly, insert(*table, ids[id - 1]));
        }
        send(assembly, commit(lsn));
    }
}

proptest! {
    /// However often the connection of a persistent slot is lost, everything is told once and in
    /// order, even the parts of a transaction that was let go of in pieces.
    #[test]
    fn what_is_sent_again_is_told_once(
        workload in proptest::collection::vec(proptest::collection::vec(1_u32..=2, 0..6), 1..5),
        cuts in proptest::collection::vec(0_usize..40, 0..4),
    ) {
        let (mut assembly, flow) = assembly();
        for cut in cuts {
            feed(&mut assembly, &workload, cut);
            assembly.begin(Lsn(10), true);
            teach(&mut assembly, &flow, &Shape::Text);
        }
        feed(&mut assembly, &workload, usize::MAX);
        let total: usize = workload.iter().map(Vec::len).sum();
        let ids: Vec<String> = told(&mut assembly).into_iter().map(|(_, id, ..)| id).collect();
        let expected: Vec<String> = (1..=total).map(|id| id.to_string()).collect();
        prop_assert_eq!(ids, expected);
        prop_assert_eq!(assembly.processed(), Lsn(100 * workload.len() as u64 + 5));
    }
}

#[test]
fn a_large_transaction_is_let_go_of_in_pieces_but_for_the_newest_change_of_each_table() {
    let (mut assembly, flow) = assembly();
    take(&mut assembly, &begin(100));
    take(&mut assembly, &insert(2, "1"));
    for _ in 0..SPILL_ITEMS {
        take(&mut assembly, &insert(1, "2"));
    }
    assert!(
        assembly.drafts.len() >= SPILL_ITEMS - 2 && assembly.open.as_ref().unwrap().deeds.len() < 4
    );
    let first = told(&mut assembly);
    assert!(first.iter().all(|(.., last)| !last));
    // Lost, and sent again from the beginning.
    assembly.begin(Lsn(10), true);
    teach(&mut assembly, &flow, &Shape::Text);
    assembly.sent(Lsn(99)).unwrap();
    assert_eq!(assembly.processed(), Lsn(10), "it is still to be told");
    take(&mut assembly, &begin(100));
    take(&mut assembly, &insert(2, "1"));
    for _ in 0..SPILL_ITEMS {
        take(&mut assembly, &insert(1, "2"));
    }
    take(&mut assembly, &insert(1, "3"));
    take(&mut assembly, &commit(100));
    let rest = told(&mut assembly);
    assert_eq!(first.len() + rest.len(), SPILL_ITEMS + 2);
    assert_eq!(rest.iter().filter(|(.., last)| *last).count(), 2);
    assert_eq!(rest.last().unwrap(), &tell(1, "3", SPILL_ITEMS as u32 + 1, true));
}

/// What SQL says.
fn said(text: &str) -> Message<'_> {
    Message::Logical(Logical {
        transactional: true,
        lsn: Lsn(1),
        prefix: b"tidewire",
        content: text.as_bytes(),
    })
}

/// Reads everything that a slot sends again, publishes at `harvests`, and is killed at `kills`;
/// gives what the history holds: the topic, and the number of the deed.
fn read_and_be_killed(
    sizes: &[usize],
    harvests: &[usize],
    kills: &[usize],
) -> Vec<(String, String)> {
    let (mut history, mut kept) = (Vec::new(), Told::default());
    for kill in kills.iter().copied().chain([usize::MAX]) {
        let (mut assembly, flow) = assembly();
        assembly.resume(&kept, Lsn(10));
        teach(&mut assembly, &flow, &Shape::Text);
        let mut publish = |assembly: &mut Assembly| {
            kept = assembly.told();
            history.extend(assembly.harvest().into_iter().map(|draft| {
                let number = match &draft.body {
                    Body::Change(change) => change.record.as_ref().unwrap().json(0).unwrap(),
                    Body::Message(tidewire_protocol::Payload::Json(text)) => text,
                    other => panic!("{other:?}"),
                };
                (draft.topic.name().to_owned(), number.to_owned())
            }));
        };
        let (mut at, mut number) = (0, 0);
        'life: for (transaction, size) in sizes.iter().enumerate() {
            let lsn = 100 * (transaction as u64 + 1);
            for deed in 0..size + 2 {
                let id = number.to_string();
                let text = format!("{{\"topic\":\"a\",\"json\":{id}}}");
                let message = match deed {
                    0 => begin(lsn),
                    _ if deed == size + 1 => commit(lsn),
                    _ if number % 7 == 3 => said(&text),
                    // Most are of one table, so that the other's newest is kept back for long.
                    _ => insert(if number % 500 == 1 { 2 } else { 1 }, &id),
                };
                number += usize::from(deed > 0 && deed <= *size);
                take(&mut assembly, &message);
                at += 1;
                if at == kill {
                    break 'life;
                }
                if assembly.is_ripe() || harvests.contains(&at) {
                    publish(&mut assembly);
                }
            }
        }
        if kill == usize::MAX {
            publish(&mut assembly);
        }
    }
    history
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Wherever the process is killed, and whatever it had read or published then: who begins
    /// behind the mark tells every deed once, those of each topic in order.
    #[test]
    fn who_begins_behind_a_mark_tells_every_deed_once(
        sizes in proptest::collection::vec(
            prop_oneof![0_usize..4, SPILL_ITEMS - 2..3 * SPILL_ITEMS], 1..4),
        harvests in proptest::collection::vec(0_usize..4 * SPILL_ITEMS, 0..4),
        kills in proptest::collection::vec(1_usize..4 * SPILL_ITEMS, 0..5),
    ) {
        let mut by_topic: HashMap<String, Vec<usize>> = HashMap::new();
        for (topic, number) in read_and_be_killed(&sizes, &harvests, &kills) {
            by_topic.entry(topic).or_default().push(number.parse().unwrap());
        }
        let mut all: Vec<usize> = by_topic.values().flatten().copied().collect();
        for numbers in by_topic.values() {
            prop_assert!(numbers.is_sorted_by(|a, b| a < b), "in order, and none twice");
        }
        all.sort_unstable();
        prop_assert_eq!(all, (0..sizes.iter().sum()).collect::<Vec<usize>>(), "all of them");
    }
}

#[test]
fn after_a_slot_that_does_not_go_on_what_was_half_read_is_gone() {
    let (mut assembly, flow) = assembly();
    take(&mut assembly, &begin(100));
    take(&mut assembly, &insert(1, "1"));
    assembly.begin(Lsn(500), false);
    teach(&mut assembly, &flow, &Shape::Text);
    assert_eq!(assembly.processed(), Lsn(500));
    take(&mut assembly, &begin(600));
    take(&mut assembly, &insert(1, "2"));
    take(&mut assembly, &commit(600));
    assert_eq!(told(&mut assembly), [tell(1, "2", 0, true)]);
}

/// The log is read on behind what was told up to the transaction at 100, from there.
fn read_again(last: Option<Last>) -> Assembly {
    let (mut assembly, _) = assembly();
    let told = Told { done: Lsn(100), last, processed: Lsn(150), part: None };
    assembly.resume(&told, Lsn(90));
    assembly
}

#[test]
fn a_log_in_which_the_last_transaction_comes_again_is_the_one_that_was_told() {
    let (mut first, _) = assembly();
    for message in [begin(100), insert(1, "1"), commit(100)] {
        take(&mut first, &message);
    }
    let told = first.told();
    assert!(told.last.is_some());
    let mut assembly = read_again(told.last);
    assert_eq!(assembly.processed(), Lsn(90), "nothing is confirmed before that is known");
    for message in [begin(100), commit(100)] {
        take(&mut assembly, &message);
    }
    assembly.sent(Lsn(200)).unwrap();
    assert_eq!(assembly.processed(), Lsn(200));
}

#[test]
fn a_log_in_which_it_does_not_come_is_another() {
    assert!(read_again(None).sent(Lsn(101)).is_err(), "it was passed over");
    let later = begin(101);
    assert!(read_again(None).take(&encode(&later), false).is_err());
    let other = Some(Last { xid: u32::MAX, at: 0 });
    assert!(read_again(other).take(&encode(&begin(100)), false).is_err(), "another is there");
    let mut earlier = read_again(None);
    take(&mut earlier, &begin(95));
    take(&mut earlier, &commit(95));
    earlier.sent(Lsn(99)).unwrap();
}
