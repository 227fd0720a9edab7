//! What a change means to a listener.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;

use crate::change::{Change, Column, Operation, Relation, Row, Transaction, Value};
use crate::dialect::Movement;
use crate::filter::{
    Altered, ColumnType, Comparison, Condition, Filter, Fold, Is, Kind, Node, Predicate, Test, Text,
};

const INT: u32 = 23;
const TEXT: u32 = 25;
const MOOD: u32 = 70_000;

pub(super) fn types(column: &str) -> ColumnType {
    let text = Text { ordered: true, patterns: true, fold: Fold::Ascii, ascii_case: true };
    let (kind, oid) = match column {
        "name" => (Kind::Text(text), TEXT),
        "mood" => (Kind::Enum(["sad", "ok", "happy"].map(Arc::from).into()), MOOD),
        "tags" => (Kind::Other { null_is_null: true }, 1009),
        "price" => (Kind::Decimal, 1700),
        "open" => (Kind::Bool, 16),
        "weight" => (Kind::Double, 701),
        "day" => (Kind::Date, 1082),
        "at" => (Kind::Timestamp, 1114),
        "code" => (Kind::Label { ordered: true }, 17),
        "plain" => (Kind::Text(Text { patterns: false, ..text }), TEXT),
        _ => (Kind::Integer, INT),
    };
    ColumnType { kind, type_oids: [oid; 2], type_name: "a type".into() }
}

pub(super) fn predicate(filter: &str) -> Predicate {
    Predicate::new(&Filter::parse(filter).unwrap(), types).unwrap()
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

/// `id`, `a`, `name`, `mood`: JSON texts, `?` for absent, `~` for unchanged.
fn row(values: &str) -> Row {
    fn value(text: &str) -> Value<'_> {
        match text {
            "?" => Value::Absent,
            "~" => Value::Unchanged,
            json => Value::Json(json),
        }
    }
    values.split(' ').map(value).collect()
}

fn change(operation: Operation, old: Option<&str>, new: Option<&str>) -> Change {
    Change {
        operation,
        relation: relation(&[("id", INT), ("a", INT), ("name", TEXT), ("mood", MOOD)]),
        record: new.map(row),
        old: old.map(row),
        transaction: Arc::new(Transaction { id: 1, lsn: None, committed_at: 0 }),
        index: 0,
        last: true,
    }
}

fn check(filter: &str, operation: Operation, old: &str, new: &str, expected: Option<Movement>) {
    let known = |values: &'static str| (!values.is_empty()).then_some(values);
    let (old, new) = (old.to_owned().leak(), new.to_owned().leak());
    let change = change(operation, known(old), known(new));
    let got = predicate(filter).admits(&change);
    assert_eq!(got, Ok(expected), "{filter}: {operation:?} {old} -> {new}");
}

#[test]
fn a_change_means_what_the_rows_say() {
    use Movement::{Enters, Leaves, Within};
    use Operation::{Delete, Insert, Truncate, Update};
    let (one, two, null) = ("7 1 \"x\" \"ok\"", "7 2 \"x\" \"ok\"", "7 null \"x\" \"ok\"");
    for (operation, old, new, expected) in [
        (Insert, "", one, Some(Within)),
        (Insert, "", two, None),
        (Insert, "", null, None),
        (Update, one, one, Some(Within)),
        (Update, two, one, Some(Enters)),
        (Update, null, one, Some(Enters)),
        (Update, one, two, Some(Leaves)),
        (Update, one, null, Some(Leaves)),
        (Update, two, two, None),
        // The old row is not told, or only its key.
        (Update, "", one, Some(Within)),
        (Update, "", two, None),
        (Update, "6 ? ? ?", one, Some(Within)),
        (Update, "6 ? ? ?", two, None),
        // A large value that the statement did not change is where the old row has it.
        (Update, one, "7 ~ \"x\" \"ok\"", Some(Within)),
        (Update, two, "7 ~ \"x\" \"ok\"", None),
        (Update, "", "7 ~ \"x\" \"ok\"", Some(Within)),
        (Delete, one, "", Some(Within)),
        (Delete, two, "", None),
        (Delete, null, "", None),
        (Delete, "7 ? ? ?", "", Some(Within)),
        (Delete, "", "", Some(Within)),
        (Truncate, "", "", Some(Within)),
    ] {
        check("a=eq.1", operation, old, new, expected);
    }
    // What is known excludes a delete.
    check("a=eq.1,id=eq.7", Delete, "8 ? ? ?", "", None);
    check("a=eq.1,id=eq.7", Delete, "7 ? ? ?", "", Some(Within));
    check("or=(a.eq.1,id.eq.7)", Delete, "8 ? ? ?", "", Some(Within));
    check("name=is.null", Update, one, "7 1 null \"ok\"", Some(Enters));
}

#[test]
fn an_enum_has_its_own_order() {
    check("mood=gt.ok", Operation::Insert, "", "7 1 \"x\" \"happy\"", Some(Movement::Within));
    check("mood=gt.ok", Operation::Insert, "", "7 1 \"x\" \"sad\"", None);
    let new_label = change(Operation::Insert, None, Some("7 1 \"x\" \"meh\""));
    let error = predicate("mood=eq.ok").admits(&new_label).unwrap_err();
    assert_eq!(error, Altered::UnknownValue("mood".into()));
}

#[test]
fn a_filter_on_an_altered_table_says_so() {
    let mut change = change(Operation::Insert, None, Some("7 1"));
    let predicate = predicate("a=eq.1");
    // Columns may move.
    change.relation = relation(&[("a", INT), ("id", INT)]);
    change.record = Some(row("1 7"));
    assert_eq!(predicate.admits(&change), Ok(Some(Movement::Within)));
    change.relation = relation(&[("id", INT), ("b", INT)]);
    assert_eq!(predicate.admits(&change), Err(Altered::MissingColumn("a".into())));
    change.relation = relation(&[("id", INT), ("a", TEXT)]);
    assert_eq!(predicate.admits(&change), Err(Altered::OtherType("a".into())));
}

#[test]
fn what_cannot_be_decided_is_refused() {
    for (filter, why) in [
        ("tags=eq.x", "only is.null can"),
        ("a=like.x", "it is for text"),
        ("a=is.true", "the other words are for booleans"),
    ] {
        let filter = Filter::parse(filter).unwrap();
        let error = Predicate::new(&filter, types).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(Predicate::new(&Filter::parse("tags=is.null").unwrap(), types).is_ok());
}

/// A judge that knows three truth values only, for rows that are known.
fn naive(node: &Node, row: &HashMap<&str, Option<i64>>) -> Option<bool> {
    match node {
        Node::Not(inner) => naive(inner, row).map(|truth| !truth),
        Node::All(list) => join(list.iter().map(|node| naive(node, row)), false),
        Node::Any(list) => join(list.iter().map(|node| naive(node, row)), true),
        Node::Condition(Condition { column, test }) => {
            let value = row[&**column];
            let number = |text: &Arc<str>| text.parse::<i64>().unwrap();
            match test {
                Test::Is(Is::Null) => Some(value.is_none()),
                Test::Distinct(constant) => Some(value != Some(number(constant))),
                Test::OneOf(list) => value.map(|value| list.iter().any(|c| number(c) == value)),
                Test::Compare(Comparison::Equal, c) => value.map(|value| value == number(c)),
                Test::Compare(Comparison::NotEqual, c) => value.map(|value| value != number(c)),
                Test::Compare(Comparison::Less, c) => value.map(|value| value < number(c)),
                Test::Compare(Comparison::AtMost, c) => value.map(|value| value <= number(c)),
                Test::Compare(Comparison::Greater, c) => value.map(|value| value > number(c)),
                Test::Compare(Comparison::AtLeast, c) => value.map(|value| value >= number(c)),
                other => panic!("{other:?} is not made here"),
            }
        }
    }
}

/// AND for `decisive` false, OR for true.
fn join(verdicts: impl Iterator<Item = Option<bool>>, decisive: bool) -> Option<bool> {
    let verdicts: Vec<_> = verdicts.collect();
    if verdicts.contains(&Some(decisive)) {
        return Some(decisive);
    }
    if verdicts.contains(&None) { None } else { Some(!decisive) }
}

fn condition() -> impl Strategy<Value = String> {
    let words = vec!["eq", "neq", "lt", "lte", "gt", "gte", "isdistinct"];
    let compare = (select(words), 0..4).prop_map(|(word, n)| format!("{word}.{n}"));
    let list = prop::collection::vec(0..4, 1..3).prop_map(|list| {
        let list: Vec<_> = list.iter().map(ToString::to_string).collect();
        format!("in.({})", list.join(","))
    });
    let test = prop_oneof![4 => compare, 1 => list, 1 => Just("is.null".to_owned())];
    (select(vec!["a", "b", "c"]), any::<bool>(), test).prop_map(|(column, negated, test)| {
        format!("{column}.{}{test}", if negated { "not." } else { "" })
    })
}

pub(super) fn filter() -> impl Strategy<Value = Filter> {
    let group = |inner: BoxedStrategy<String>| {
        let word = select(vec!["or", "and", "not.or", "not.and"]);
        (word, prop::collection::vec(inner, 1..4))
            .prop_map(|(word, list)| format!("{word}({})", list.join(",")))
    };
    let inner = prop_oneof![condition(), group(condition().boxed())].boxed();
    prop_oneof![group(condition().boxed()), group(inner)]
        .prop_map(|text| Filter::parse(&text).unwrap())
}

pub(super) fn value() -> impl Strategy<Value = Option<i64>> {
    prop::option::weighted(0.8, 0_i64..4)
}

pub(super) fn json(value: Option<i64>) -> String {
    value.map_or("null".to_owned(), |value| value.to_string())
}

pub(super) fn abc() -> Arc<Relation> {
    relation(&[("a", INT), ("b", INT), ("c", INT)])
}

pub(super) fn change_of(operation: Operation, record: Option<Row>, old: Option<Row>) -> Change {
    let relation = abc();
    Change { relation, record, old, ..change(operation, None, None) }
}

proptest! {
    #[test]
    fn known_rows_are_judged_as_sql_does(filter in filter(), values in [value(), value(), value()]) {
        let predicate = Predicate::new(&filter, types).unwrap();
        let row: HashMap<_, _> = ["a", "b", "c"].into_iter().zip(values).collect();
        let expected = naive(&filter.root, &row) == Some(true);
        let record = Some(Row::of_json(values.map(json)));
        let insert = change_of(Operation::Insert, record, None);
        prop_assert_eq!(predicate.admits(&insert).unwrap().is_some(), expected);
    }

    #[test]
    fn what_is_not_known_never_hides_a_row(
        filter in filter(),
        values in [value(), value(), value()],
        hidden in [any::<bool>(), any::<bool>(), any::<bool>()],
    ) {
        let predicate = Predicate::new(&filter, types).unwrap();
        let row: HashMap<_, _> = ["a", "b", "c"].into_iter().zip(values).collect();
        let texts = values.map(json);
        let told = texts.iter().zip(hidden);
        let told = told.map(|(text, hidden)| if hidden { Value::Absent } else { Value::Json(text) });
        let delete = change_of(Operation::Delete, None, Some(told.collect()));
        let delivered = predicate.admits(&delete).unwrap().is_some();
        if naive(&filter.root, &row) == Some(true) {
            prop_assert!(delivered);
        }
        if hidden == [false; 3] {
            prop_assert_eq!(delivered, naive(&filter.root, &row) == Some(true));
        }
    }

    #[test]
    fn an_update_says_where_the_row_moved(
        filter in filter(),
        old in [value(), value(), value()],
        new in [value(), value(), value()],
    ) {
        let predicate = Predicate::new(&filter, types).unwrap();
        let holds = |values: [Option<i64>; 3]| {
            naive(&filter.root, &["a", "b", "c"].into_iter().zip(values).collect()) == Some(true)
        };
        let row = |values: [Option<i64>; 3]| Some(Row::of_json(values.map(json)));
        let update = change_of(Operation::Update, row(new), row(old));
        let expected = match (holds(old), holds(new)) {
            (true, true) => Some(Movement::Within),
            (false, true) => Some(Movement::Enters),
            (true, false) => Some(Movement::Leaves),
            (false, false) => None,
        };
        prop_assert_eq!(predicate.admits(&update).unwrap(), expected);
    }
}

/// `cargo test -p tidewire-protocol --release -- --ignored --nocapture ten_thousand`
#[test]
#[ignore = "prints how long a check takes"]
fn ten_thousand_filters_cost_some_nanoseconds_each() {
    let filters: Vec<Predicate> = (0..10_000).map(|n| predicate(&format!("id=eq.{n}"))).collect();
    let update =
        change(Operation::Update, Some("5000 1 \"x\" \"ok\""), Some("5000 2 \"x\" \"ok\""));
    let rounds = 200;
    let start = clock();
    for _ in 0..rounds {
        for filter in &filters {
            let _ = black_box(filter.admits(black_box(&update)));
        }
    }
    let each = start.elapsed().unwrap().as_nanos() / (rounds * filters.len() as u128);
    println!("a check of id=eq.N on an update with both rows: {each} ns");
    let demand = filters[0].demand().unwrap();
    let start = clock();
    for _ in 0..1_000_000 {
        black_box(demand.scale.read(black_box("5000")));
    }
    let each = start.elapsed().unwrap().as_nanos() / 1_000_000;
    println!("reading an integer: {each} ns");
}

fn clock() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// A limit is a right: nothing is shown that is not certain to be within it.
#[test]
fn a_limit_shows_only_what_is_certain_to_be_within_it() {
    use Movement::{Appears, Disappears, Enters, Leaves, Within};
    use Operation::{Delete, Insert, Truncate, Update};
    // Rows of 1 may be seen; of those, the ones named x are wanted.
    let mine = "7 1 \"x\" \"ok\"";
    let mine_unwanted = "7 1 \"y\" \"ok\"";
    let theirs = "7 2 \"x\" \"ok\"";
    let nobodys = "7 null \"x\" \"ok\"";
    let key_alone = "7 ? ? ?";
    for (operation, old, new, expected) in [
        (Insert, "", mine, Some(Within)),
        (Insert, "", mine_unwanted, None),
        (Insert, "", theirs, None),
        (Insert, "", nobodys, None),
        (Delete, mine, "", Some(Within)),
        (Delete, mine_unwanted, "", None),
        (Delete, theirs, "", None),
        // Whose it was is not told, and a key of somebody else's is not shown.
        (Delete, key_alone, "", None),
        (Truncate, "", "", Some(Within)),
        (Update, mine, mine, Some(Within)),
        (Update, "", mine, Some(Within)),
        (Update, mine_unwanted, mine, Some(Enters)),
        (Update, mine, mine_unwanted, Some(Leaves)),
        (Update, theirs, mine, Some(Appears)),
        (Update, nobodys, mine, Some(Appears)),
        (Update, key_alone, mine, Some(Appears)),
        (Update, theirs, mine_unwanted, None),
        (Update, mine, theirs, Some(Disappears)),
        (Update, mine_unwanted, theirs, None),
        (Update, theirs, theirs, None),
        (Update, "", theirs, None),
        (Update, key_alone, theirs, None),
        // A large value that was not touched is where the old row has it, or is not known.
        (Update, mine, "7 ~ \"x\" \"ok\"", Some(Within)),
        (Update, theirs, "7 ~ \"x\" \"ok\"", None),
        (Update, "", "7 ~ \"x\" \"ok\"", None),
    ] {
        let known = |values: &'static str| (!values.is_empty()).then_some(values);
        let change = change(operation, known(old), known(new));
        let (filter, limit) = ("name=eq.x", "a=eq.1");
        let [filter, limit] = [filter, limit].map(|text| Filter::parse(text).unwrap());
        let predicate = Predicate::limited(&filter, Some(&limit), types).unwrap();
        let got = predicate.admits(&change);
        assert_eq!(got, Ok(expected), "{operation:?} {old} -> {new}");
        if let Some(movement) = expected {
            let shown = movement.shown(&change).0;
            for told in [&shown.record, &shown.old].into_iter().flatten() {
                assert!(![row(theirs), row(nobodys)].contains(told), "another's is not shown");
            }
        }
    }
}

#[test]
fn what_a_client_asks_for_widens_no_limit() {
    let theirs = change(Operation::Update, Some("7 2 \"x\" \"ok\""), Some("7 2 \"y\" \"ok\""));
    let limit = Filter::parse("a=eq.1").unwrap();
    for filter in [
        "a=eq.2",
        "or=(a.eq.2,a.neq.2)",
        "not.and=(a.eq.1,id.is.null)",
        "a=isdistinct.1",
        "id=gt.0",
        "name=like.*",
    ] {
        let filter = Filter::parse(filter).unwrap();
        let predicate = Predicate::limited(&filter, Some(&limit), types).unwrap();
        assert_eq!(predicate.admits(&theirs), Ok(None), "{filter:?}");
    }
    let everything = Predicate::limited(&Filter::everything(), Some(&limit), types).unwrap();
    assert_eq!(everything.admits(&theirs), Ok(None));
    assert!(everything.demand().is_some(), "whom it concerns is found by the value");
}
