//! The index against asking everyone, with real filters on a table of four columns; and how many
//! members are asked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::sample::select;
use tidewire_protocol::change::{Change, Column, Operation, Relation, Row, Transaction, Value};
use tidewire_protocol::dialect::{Movement, Native};
use tidewire_protocol::filter::{ColumnType, Demand, Filter, Fold, Kind, Predicate, Text};
use tidewire_protocol::{Draft, Epoch, Event, Position, SessionId, Shape, Topic, Wire};

use super::super::live_topic::{Delivered, Member, MemberId};
use super::Selective;
use crate::delivery::{Batch, Form};
use crate::mailbox::{Mailbox, SubscriptionKey};
use crate::upstream::{Prepared, RowFilter};

const LIMIT: usize = 1 << 20;

/// A filter that counts how often it is asked.
struct Counting {
    predicate: Predicate,
    asked: Arc<AtomicUsize>,
}

impl RowFilter for Counting {
    fn admits(&self, change: &Change) -> Result<Option<Movement>, String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.predicate.admits(change).map_err(|altered| altered.to_string())
    }

    fn demand(&self) -> Option<&Demand> {
        self.predicate.demand()
    }
}

const COLUMNS: [(&str, u32); 4] = [("id", 23), ("price", 1700), ("weight", 701), ("name", 25)];

fn types(column: &str) -> ColumnType {
    let text = Text { ordered: true, patterns: true, fold: Fold::Ascii, ascii_case: true };
    let kind = match column {
        "id" => Kind::Integer,
        "price" => Kind::Decimal,
        "weight" => Kind::Double,
        _ => Kind::Text(text),
    };
    let (_, oid) = COLUMNS.into_iter().find(|(name, _)| *name == column).expect("a column");
    ColumnType { kind, type_oids: [oid; 2], type_name: "a type".into() }
}

fn relation(columns: &[(&str, u32)]) -> Arc<Relation> {
    let column = |(name, type_oid): &(&str, u32)| Column {
        name: (*name).into(),
        type_oid: *type_oid,
        type_name: "a type".into(),
        key: *name == "id",
    };
    let columns = columns.iter().map(column).collect();
    Arc::new(Relation::new(1, "public", "t", columns))
}

fn row(values: [&str; 4]) -> Row {
    let value = |text| match text {
        "?" => Value::Absent,
        "~" => Value::Unchanged,
        json => Value::Json(json),
    };
    values.map(value).into_iter().collect()
}

fn change(operation: Operation, old: Option<[&str; 4]>, new: Option<[&str; 4]>) -> Change {
    Change {
        operation,
        relation: relation(&COLUMNS),
        record: new.map(row),
        old: old.map(row),
        transaction: Arc::new(Transaction { id: 1, lsn: None, committed_at: 0 }),
        index: 0,
        last: true,
    }
}

/// Members by number, and what waits for each.
#[derive(Default)]
struct Table {
    selective: Selective,
    members: BTreeMap<u64, (Arc<Mailbox>, Arc<Prepared>)>,
    asked: Arc<AtomicUsize>,
    at: u64,
}

impl Table {
    fn id(number: u64) -> MemberId {
        (SessionId(number), SubscriptionKey(0))
    }

    fn add(&mut self, number: u64, filter: &str) {
        let predicate = Predicate::new(&Filter::parse(filter).unwrap(), types).unwrap();
        let counting = Counting { predicate, asked: Arc::clone(&self.asked) };
        let rows = Some(Arc::new(counting) as Arc<dyn RowFilter>);
        let wants = Arc::new(Prepared { operations: Arc::default(), columns: None, rows });
        let mailbox = Arc::new(Mailbox::new(Wire::Lines, None, 0));
        let member = Member {
            session: SessionId(number),
            key: SubscriptionKey(0),
            mailbox: Arc::clone(&mailbox),
            wants: Some(Arc::clone(&wants)),
        };
        let shape = Shape { dialect: Arc::new(Native), wire: Wire::Lines, tag: None };
        let form = Form { shape, marked: true, composite: false, columns: None, everyone: None };
        self.selective.insert(member, form, Arc::clone(&wants));
        self.members.insert(number, (mailbox, wants));
    }

    fn remove(&mut self, number: u64) {
        assert!(self.selective.remove(Self::id(number)));
        self.members.remove(&number);
    }

    /// Hands a change over; gives who was told, and how often anyone was asked.
    fn say(&mut self, change: Change) -> (Vec<u64>, usize) {
        self.at += 1;
        let position = Position { epoch: Epoch(1), seq: self.at };
        let draft = Draft::change(Topic::table("public.t").unwrap(), change);
        let batch = Batch::new(vec![Arc::new(Event::new(draft, position, 0))]);
        let asked = self.asked.load(Ordering::Relaxed);
        let mut delivered = Delivered::default();
        self.selective.hand_over(&batch, position.before(), LIMIT, &mut delivered);
        let asked = self.asked.load(Ordering::Relaxed) - asked;
        let waiting = |mailbox: &Mailbox| match mailbox.take().len() {
            count @ 0..=1 => count == 1,
            count => panic!("told {count} times"),
        };
        let told = self.members.iter().filter(|(_, (mailbox, _))| waiting(mailbox));
        (told.map(|(number, _)| *number).collect(), asked)
    }

    /// Who is concerned, found by asking everyone; and who could not say and so must leave.
    fn concerned(&self, change: &Change) -> (Vec<u64>, Vec<u64>) {
        let (mut concerned, mut unable) = (Vec::new(), Vec::new());
        for (number, (_, wants)) in &self.members {
            match wants.rows.as_ref().unwrap().admits(change) {
                Ok(Some(_)) => concerned.push(*number),
                Ok(None) => {}
                Err(_) => unable.push(*number),
            }
        }
        (concerned, unable)
    }
}

fn condition() -> impl Strategy<Value = String> {
    let word = || select(vec!["eq", "neq", "lt", "lte", "gt", "gte", "isdistinct"]);
    prop_oneof![
        4 => (word(), 0..6).prop_map(|(word, n)| format!("id.{word}.{n}")),
        1 => (0..6, 0..6).prop_map(|(a, b)| format!("id.in.({a},{b})")),
        1 => Just("id.is.null".to_owned()),
        3 => (word(), select(vec!["-1", "0", "1.5", "NaN", "Infinity", "20"]))
            .prop_map(|(word, n)| format!("price.{word}.{n}")),
        3 => (word(), select(vec!["-0", "0.5", "NaN", "-Infinity"]))
            .prop_map(|(word, n)| format!("weight.{word}.{n}")),
        2 => (word(), select(vec!["A", "B", "a", "é"])).prop_map(|(word, n)| format!("name.{word}.{n}")),
        1 => Just("name.like.a*".to_owned()),
    ]
}

fn filter() -> impl Strategy<Value = String> {
    let group = select(vec!["and", "or", "not.or", "not.and", "and", "and"]);
    (group, prop::collection::vec(condition(), 1..4))
        .prop_map(|(word, list)| format!("{word}=({})", list.join(",")))
}

fn values() -> impl Strategy<Value = [&'static str; 4]> {
    let of = |list: &[&'static str]| select(list.to_vec());
    let id = prop_oneof![8 => of(&["0", "1", "2", "3", "4", "5"]), 1 => of(&["null", "?", "~"])];
    let price = of(&["-1", "0.00", "1.50", "\"NaN\"", "\"Infinity\"", "20", "null", "?"]);
    let weight = of(&["0", "-0", "0.5", "\"NaN\"", "\"-Infinity\"", "null", "?"]);
    let name = of(&["\"A\"", "\"B\"", "\"a\"", "\"\\u00e9\"", "null", "~"]);
    (id, price, weight, name).prop_map(|(a, b, c, d)| [a, b, c, d])
}

fn any_change() -> impl Strategy<Value = Change> {
    let known = || prop::option::weighted(0.8, values());
    prop_oneof![
        2 => values().prop_map(|new| change(Operation::Insert, None, Some(new))),
        4 => (known(), values())
            .prop_map(|(old, new)| change(Operation::Update, old, Some(new))),
        2 => known().prop_map(|old| change(Operation::Delete, old, None)),
        1 => Just(change(Operation::Truncate, None, None)),
    ]
}

proptest! {
    #[test]
    fn whoever_is_concerned_is_told_and_nobody_else(
        filters in prop::collection::vec(filter(), 1..30),
        changes in prop::collection::vec((any_change(), prop::option::of(filter())), 1..30),
    ) {
        let mut table = Table::default();
        for (number, filter) in (0..).zip(&filters) {
            table.add(number, filter);
        }
        for (number, (change, newcomer)) in (0..).zip(changes) {
            let (concerned, _) = table.concerned(&change);
            let (told, _) = table.say(change.clone());
            prop_assert_eq!(told, concerned, "{:?}", change);
            if let Some(filter) = newcomer {
                table.add(1_000 + number, &filter);
                let first = *table.members.keys().next().expect("there is someone");
                table.remove(first);
            }
        }
        let all: Vec<u64> = table.members.keys().copied().collect();
        all.into_iter().for_each(|number| table.remove(number));
        prop_assert!(table.selective.columns.is_empty() && table.selective.rest.is_empty());
    }
}

fn insert(id: &str) -> Change {
    change(Operation::Insert, None, Some([id, "1", "1", "\"A\""]))
}

fn update(old: &str, new: &str) -> Change {
    let row = |id| Some([id, "1", "1", "\"A\""]);
    change(Operation::Update, row(old), row(new))
}

#[test]
fn of_ten_thousand_who_want_one_row_each_one_is_asked() {
    let mut table = Table::default();
    (0..10_000).for_each(|number| table.add(number, &format!("id=eq.{number}")));
    assert_eq!(table.say(insert("7000")), (vec![7_000], 1));
    assert_eq!(table.say(update("7000", "7000")), (vec![7_000], 1));
    assert_eq!(table.say(update("7000", "8000")), (vec![7_000, 8_000], 2));
    assert_eq!(table.say(insert("10000")), (vec![], 0));
    assert_eq!(table.say(insert("null")), (vec![], 0));
}

#[test]
fn of_ten_thousand_who_want_a_range_each_one_is_asked() {
    let mut table = Table::default();
    for number in 0..10_000 {
        table.add(number, &format!("id=gte.{},id=lt.{}", 10 * number, 10 * number + 10));
    }
    assert_eq!(table.say(insert("70005")), (vec![7_000], 1));
    assert_eq!(table.say(update("70005", "70009")), (vec![7_000], 1));
    assert_eq!(table.say(update("70009", "70010")), (vec![7_000, 7_001], 2));
    assert_eq!(table.say(insert("100000")), (vec![], 0));
}

#[test]
fn of_ten_thousand_who_want_what_is_above_a_price_those_below_it_are_asked() {
    let mut table = Table::default();
    (0..10_000).for_each(|number| table.add(number, &format!("price=gt.{number}.5")));
    let priced = |price| change(Operation::Insert, None, Some(["1", price, "1", "\"A\""]));
    assert_eq!(table.say(priced("3.00")), (vec![0, 1, 2], 3));
    assert_eq!(table.say(priced("0")), (vec![], 0));
}

#[test]
fn a_column_of_another_type_is_news_to_everyone_who_filters_by_it() {
    let mut table = Table::default();
    table.add(1, "id=eq.1");
    table.add(2, "id=gt.5");
    table.add(3, "name=eq.A");
    let mut altered = insert("1.0");
    altered.relation = relation(&[("id", 1700), COLUMNS[1], COLUMNS[2], COLUMNS[3]]);
    let (told, _) = table.say(altered);
    assert_eq!(told, [3]);
    assert_eq!(table.selective.len(), 1, "the others were taken off and meet it in the history");
    for number in [1, 2] {
        assert_eq!(table.members[&number].0.take_fallen().len(), 1);
    }
}

/// A batch of inserts with these ids, after what was said before.
fn batch(ids: std::ops::Range<u64>) -> Batch {
    let events = ids.map(|id| {
        let position = Position { epoch: Epoch(1), seq: id };
        let draft = Draft::change(Topic::table("public.t").unwrap(), insert(&id.to_string()));
        Arc::new(Event::new(draft, position, 0))
    });
    Batch::new(events.collect())
}

/// A table with members of a transport that joins what it is told.
fn joining(filters: impl Iterator<Item = String>) -> Table {
    let mut table = Table::default();
    for (number, filter) in filters.enumerate() {
        table.add(number as u64, &filter);
    }
    for picky in table.selective.members.values_mut() {
        picky.form.marked = false;
    }
    table
}

/// The ids that a member was told in its one message.
fn told(table: &Table, number: u64) -> Vec<u64> {
    let (mailbox, _) = &table.members[&number];
    let taken = mailbox.take();
    assert_eq!(taken.len(), 1, "all of a batch is one message");
    let lines = taken[0].bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let id = |line| {
        let frame: serde_json::Value = serde_json::from_slice(line).unwrap();
        frame["record"]["id"].as_u64().unwrap()
    };
    lines.map(id).collect()
}

#[test]
fn what_a_member_wants_of_a_batch_is_one_message() {
    // As many different runs as are encoded at once, and more.
    let count = 40;
    let mut table = joining((0..count).map(|least| format!("id=gt.{least}")));
    let mut delivered = Delivered::default();
    let first = Position { epoch: Epoch(1), seq: 0 };
    table.selective.hand_over(&batch(1..count + 1), first, LIMIT, &mut delivered);
    assert_eq!(delivered.events, (1..=count).sum::<u64>());
    for number in 0..count {
        assert_eq!(told(&table, number), (number + 1..count + 1).collect::<Vec<_>>());
    }
}

#[test]
fn who_has_no_room_for_what_it_wants_of_a_batch_falls_behind_before_the_first_of_it() {
    let mut table = joining(std::iter::once("id=gt.3".to_owned()));
    let (mailbox, _) = &table.members[&0];
    let full = crate::mailbox::Outgoing { bytes: vec![1; LIMIT].into(), mark: None };
    assert_eq!(mailbox.offer(full, LIMIT), crate::mailbox::Offer::Taken);
    let mut delivered = Delivered::default();
    let first = Position { epoch: Epoch(1), seq: 0 };
    table.selective.hand_over(&batch(1..9), first, LIMIT, &mut delivered);
    assert_eq!(delivered, Delivered { events: 0, fallen: 1 });
    let fallen = table.members[&0].0.take_fallen();
    assert_eq!(fallen, [(SubscriptionKey(0), Position { seq: 3, ..first })]);
}
