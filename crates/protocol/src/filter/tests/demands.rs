//! What is demanded of one column, against the judge of rows.

use proptest::prelude::*;

use super::judging::{abc, change_of, filter, json, predicate, types, value};
use crate::change::{Operation, Row};
use crate::filter::{Demand, Extent, Filter, Interval, Predicate, Scale};

/// The column, and which of some values may be admitted.
fn demanded(filter: &str, values: &[&str]) -> Option<(String, String)> {
    let predicate = predicate(filter);
    let demand = predicate.demand()?;
    let admitted = values.iter().copied().filter(|json| demand.may_admit(json));
    Some((demand.column.to_string(), admitted.collect::<Vec<_>>().join(" ")))
}

#[test]
fn the_demand_is_of_the_column_that_fewest_rows_satisfy() {
    let numbers = ["null", "0", "1", "2", "3", "4", "5", "6", "7"];
    for (filter, column, admitted) in [
        ("a=eq.1", "a", "1"),
        ("a=in.(3,1,3),id=eq.7", "id", "7"),
        ("a=gt.1,id=eq.7", "id", "7"),
        ("a=gt.1,a=lte.3", "a", "2 3"),
        ("a=gt.1,b=gt.0,b=lt.2", "b", "1"),
        ("a=gte.2", "a", "2 3 4 5 6 7"),
        ("a=lt.2", "a", "0 1"),
        ("a=not.lt.6", "a", "6 7"),
        ("a=not.neq.6", "a", "6"),
        ("a=not.isdistinct.6", "a", "6"),
        ("and=(a.eq.1,b.gt.2)", "a", "1"),
        ("or=(id.eq.1,id.eq.2)", "id", "1 2"),
        ("or=(id.eq.1,id.in.(2,3)),a=gt.0", "id", "1 2 3"),
        ("not.and=(id.neq.1,id.neq.2)", "id", "1 2"),
        ("or=(a.lt.1,a.gt.6)", "a", "0 7"),
        ("or=(and(a.gt.1,a.lt.3),a.eq.5)", "a", "2 5"),
        ("a=gt.3,a=lt.2", "a", ""),
        ("a=eq.1,a=eq.2", "a", ""),
        ("a=gt.3,a=in.(1,2,4,6)", "a", "4 6"),
        ("a=neq.3,a=gt.5", "a", "6 7"),
    ] {
        let expected = Some((column.to_owned(), admitted.to_owned()));
        assert_eq!(demanded(filter, &numbers), expected, "{filter}");
    }
    for filter in [
        "or=(a.eq.1,b.gt.2)",
        "a=neq.1",
        "a=not.eq.1",
        "a=not.in.(1,2)",
        "a=is.null",
        "a=isdistinct.1",
        "or=(a.eq.1,a.is.null)",
        "or=(a.lt.3,a.gte.3)",
        "name=like.x*",
    ] {
        assert_eq!(demanded(filter, &numbers), None, "{filter}");
    }
}

#[test]
fn a_boolean_is_preferred_to_a_range_with_one_end_only() {
    let column = |filter: &str| predicate(filter).demand().unwrap().column.to_string();
    assert_eq!(column("open=eq.true,a=in.(2,1)"), "a");
    assert_eq!(column("open=is.true,a=gt.1"), "open");
    assert_eq!(column("open=is.true,a=gt.1,a=lt.9"), "a");
}

#[test]
fn values_are_ordered_as_postgresql_orders_them() {
    for (filter, values, admitted) in [
        ("price=gt.1.50", vec!["1.5", "1.500", "1.51", "\"NaN\"", "-2"], "1.51 \"NaN\""),
        ("price=eq.1.5", vec!["1.50", "15"], "1.50"),
        ("price=lt.0", vec!["\"-Infinity\"", "-0.0", "-0.1"], "\"-Infinity\" -0.1"),
        ("weight=gt.Infinity", vec!["\"NaN\"", "\"Infinity\"", "1e300"], "\"NaN\""),
        ("weight=eq.-0", vec!["0", "-0", "1"], "0 -0"),
        ("mood=gte.ok", vec!["\"happy\"", "\"ok\"", "\"sad\""], "\"happy\" \"ok\""),
        ("name=gte.B", vec!["\"A\"", "\"B\"", "\"a\"", "\"\\u00e9\""], "\"B\" \"a\" \"\\u00e9\""),
        ("day=lt.0044-03-15 BC", vec!["\"0045-01-01 BC\"", "\"2024-01-01\""], "\"0045-01-01 BC\""),
        (
            "day=gt.2024-01-01",
            vec!["\"infinity\"", "\"10000-01-01\""],
            "\"infinity\" \"10000-01-01\"",
        ),
        (
            "at=eq.2024-01-01T10:00:00",
            vec!["\"2024-01-01T10:00:00\"", "\"2024-01-01T10:00:01\""],
            "\"2024-01-01T10:00:00\"",
        ),
        ("code=gt.0a", vec!["\"0b\"", "\"09\""], "\"0b\""),
    ] {
        let got = demanded(filter, &values).map(|(_, admitted)| admitted);
        assert_eq!(got.as_deref(), Some(admitted), "{filter}");
    }
}

#[test]
fn a_value_that_cannot_be_read_may_be_anybodys() {
    assert!(predicate("mood=gt.ok").demand().unwrap().may_admit("\"meh\""));
    assert!(predicate("a=gt.1").demand().unwrap().may_admit("\"text\""));
}

#[test]
fn either_of_two_demands_is_one_if_they_are_of_one_column() {
    let demand = |filter: &str| predicate(filter).demand().unwrap().clone();
    let both = demand("a=eq.1").or(&demand("a=gt.5,a=lt.7")).unwrap();
    let admitted = |both: &Demand| (0..9).filter(|n| both.may_admit(&n.to_string())).collect();
    let admitted: Vec<i32> = admitted(&both);
    assert_eq!(admitted, [1, 6]);
    assert!(matches!(demand("a=eq.1").or(&demand("a=eq.2")).unwrap().extent, Extent::Values(_)));
    assert_eq!(demand("a=eq.1").or(&demand("b=eq.1")), None);
    assert_eq!(demand("a=lte.1").or(&demand("a=gt.1")), None);
}

#[test]
fn columns_that_differ_only_in_their_patterns_share_a_scale() {
    let kind = |column: &str| types(column).kind;
    assert_eq!(Scale::of(&kind("name")), Scale::of(&kind("plain")));
    assert_ne!(Scale::of(&kind("name")), Scale::of(&kind("a")));
    assert_eq!(Scale::of(&kind("tags")), None);
}

proptest! {
    #[test]
    fn whoever_is_concerned_is_found_by_the_demand(
        filter in filter(),
        old in [value(), value(), value()],
        new in [value(), value(), value()],
    ) {
        let predicate = Predicate::new(&filter, types).unwrap();
        let Some(demand) = predicate.demand() else { return Ok(()) };
        let place = abc().column(&demand.column).unwrap();
        let row = |values: [Option<i64>; 3]| Row::of_json(values.map(json));
        let update = change_of(Operation::Update, Some(row(new)), Some(row(old)));
        if predicate.admits(&update).unwrap().is_some() {
            let found = [row(old), row(new)]
                .iter()
                .any(|row| demand.may_admit(row.json(place).unwrap()));
            prop_assert!(found);
        }
    }

    #[test]
    fn a_filter_on_one_column_demands_just_what_it_admits(
        filter in "(not\\.)?(or|and)=\\(a\\.(not\\.)?(eq|lt|lte|gt|gte)\\.[0-5],a\\.(eq|lt|gt)\\.[0-5]\\)",
        value in 0_i64..6,
    ) {
        let filter = Filter::parse(&filter).unwrap();
        let predicate = Predicate::new(&filter, types).unwrap();
        let record = Row::of_json([json(Some(value)), json(None), json(None)]);
        let insert = change_of(Operation::Insert, Some(record), None);
        let admitted = predicate.admits(&insert).unwrap().is_some();
        if let Some(demand) = predicate.demand() {
            prop_assert!(demand.may_admit(&value.to_string()) || !admitted);
            let ends = |list: &[Interval]| list.windows(2).all(|pair| pair[0].to < pair[1].from);
            if let Extent::Within(list) = &demand.extent {
                prop_assert!(ends(list), "in order and apart: {list:?}");
            }
        }
    }
}
