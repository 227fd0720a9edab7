//! Patterns, numbers and times against slower judges.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use crate::filter::{Fold, Like, Regular, decimal, moment, scalar};

/// `LIKE` as its definition reads.
fn looks_like(pattern: &[char], value: &[char]) -> bool {
    match pattern {
        [] => value.is_empty(),
        ['%' | '*', rest @ ..] => {
            (0..=value.len()).any(|skipped| looks_like(rest, &value[skipped..]))
        }
        ['_', rest @ ..] => !value.is_empty() && looks_like(rest, &value[1..]),
        ['\\', c, rest @ ..] | [c, rest @ ..] => {
            value.first() == Some(c) && looks_like(rest, &value[1..])
        }
    }
}

proptest! {
    #[test]
    fn a_pattern_matches_as_its_definition_reads(
        pattern in "[ab%*_é]{0,8}(\\\\[%*_a])?[ab%_]{0,3}",
        value in "[ab%*é]{0,10}",
    ) {
        let like = Like::new(&pattern, false).unwrap();
        let characters = |text: &str| text.chars().collect::<Vec<_>>();
        let expected = looks_like(&characters(&pattern), &characters(&value));
        prop_assert_eq!(like.matcher(&Fold::Ascii).matches(&value), expected);
    }

    #[test]
    fn numbers_compare_as_numbers(a in -30_000_i64..30_000, b in -30_000_i64..30_000, scale in 0..4) {
        let text = |n: i64| {
            let unit = 10_i64.pow(scale as u32);
            let sign = if n < 0 { "-" } else { "" };
            let (whole, rest) = (n.abs() / unit, n.abs() % unit);
            match scale {
                0 => format!("{sign}{whole}"),
                _ => format!("{sign}{whole}.{rest:0width$}", width = scale as usize),
            }
        };
        let (x, y) = (text(a), text(b));
        prop_assert_eq!(decimal::compare(&x, &y), a.cmp(&b), "{} {}", x, y);
        prop_assert_eq!(decimal::canonical(&x) == decimal::canonical(&y), a == b);
        prop_assert_eq!(decimal::compare(&x, &format!("{y}0")), if scale == 0 {
            a.cmp(&(b * 10))
        } else {
            a.cmp(&b)
        });
    }

    #[test]
    fn days_count_as_a_calendar_does(day in -1_700_000_i64..3_000_000) {
        // From one day to the next, by the rules of leap years alone.
        let (text, next) = (civil(day), civil(day + 1));
        prop_assert_eq!(moment::date(&text), Some(day), "{}", text);
        prop_assert_eq!(moment::date(&next), Some(day + 1), "{}", next);
    }
}

/// The date of a day counted from 2000-01-01, found by counting years and months.
fn civil(day: i64) -> String {
    let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    // Whole cycles of 400 years first, so that counting ends soon.
    let (mut year, mut left) = (2000 + 400 * day.div_euclid(146_097), day.rem_euclid(146_097));
    while left >= if leap(year) { 366 } else { 365 } {
        left -= if leap(year) { 366 } else { 365 };
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < days {
            break;
        }
        left -= days;
        month += 1;
    }
    let (shown, era) = if year < 1 { (1 - year, " BC") } else { (year, "") };
    format!("{shown:04}-{month:02}-{:02}{era}", left + 1)
}

#[test]
fn odd_numbers_have_their_place() {
    let order =
        ["-Infinity", "-10", "-9.5", "-0.1", "0", "0.05", "0.5", "9", "10", "Infinity", "NaN"];
    for (i, a) in order.iter().enumerate() {
        assert!(decimal::is_number(a));
        for (j, b) in order.iter().enumerate() {
            assert_eq!(decimal::compare(a, b), i.cmp(&j), "{a} {b}");
        }
    }
    assert_eq!(decimal::compare("1.000", "1"), Ordering::Equal);
    for odd in ["", "-", "1e5", ".5", "5.", "x"] {
        assert!(!decimal::is_number(odd), "{odd}");
    }
}

#[test]
fn odd_times_have_their_place() {
    let order = [
        "-infinity",
        "4713-01-01T00:00:00 BC",
        "0001-12-31T23:59:59.999999 BC",
        "0001-01-01T00:00:00",
        "1999-12-31T23:59:59.999999",
        "2000-01-01T00:00:00",
        "2000-01-01T00:00:00.5",
        "2000-02-29T10:00:00+05:30",
        "2000-02-29T05:00:00+00:00",
        "2000-02-29T00:00:00-05:30",
        "294276-12-31T23:59:59.999999",
        "infinity",
    ];
    let times: Vec<i64> = order.iter().map(|text| moment::timestamp(text).unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(moment::timestamp("2000-01-01T00:00:00"), Some(0));
    assert_eq!(moment::timestamp("2000-01-01T00:00:00+00:00:30"), Some(-30_000_000));
    for odd in ["", "2000-01-01", "T", "2000-13-01T00:00:00", "2000-01-01T00:00", "x-1-1T1:1:1"] {
        assert_eq!(moment::timestamp(odd), None, "{odd}");
    }
}

#[test]
fn capitals_become_small_by_the_table() {
    let table = HashMap::from([('A', 'a'), ('É', 'é')]);
    let like = Like::new("*ÉA", true).unwrap();
    assert!(like.matcher(&Fold::Table(Arc::new(table))).matches("xéa"));
    assert!(!like.matcher(&Fold::Ascii).matches("xéa"));
    assert!(like.matcher(&Fold::Ascii).matches("xÉa"));
}

#[test]
fn an_expression_is_found_anywhere_and_anchors_mean_the_whole_value() {
    for (expression, value, any_case, expected) in [
        ("b", "abc", false, true),
        ("^b", "a\nb", false, false),
        ("a$", "a\n", false, false),
        ("a.c", "a\nc", false, true),
        ("^(ab|cd){2}$", "abcd", false, true),
        ("K", "k", true, true),
        ("k", "\u{212A}", true, false),
        ("[a-f]+", "XFX", true, true),
        ("^[^k]$", "K", true, false),
        ("^[-x]$", "-", false, true),
        ("a\\.b", "a.b", false, true),
        ("a]}", "a]}", false, true),
    ] {
        let regular = Regular::new(expression, any_case).unwrap();
        assert_eq!(regular.compiled().is_match(value), expected, "{expression} {value:?}");
    }
}

#[test]
fn a_json_text_becomes_the_text_of_its_value() {
    for (json, text) in [
        ("17", "17"),
        ("\"a\"", "a"),
        ("\"\"", ""),
        (r#""a\"b\\\nc\u0001""#, "a\"b\\\nc\u{1}"),
        ("true", "true"),
        ("\"", "\""),
    ] {
        assert_eq!(scalar(json), text);
    }
}
