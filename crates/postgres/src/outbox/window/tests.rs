//! The window against random transactions and interruptions.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Rows of transactions, those of one together, as a poll orders them.
fn rows() -> impl Strategy<Value = Vec<Stored>> {
    let what = prop_oneof![
        4 => (1u32..4).prop_map(|rel| What::Change {
            rel, operation: Operation::Insert, record: Some("{}".to_owned()), old: None }),
        1 => Just(What::Unwanted),
        1 => (1u32..4).prop_map(|rel| What::Unrecorded {
            rel, why: "why".to_owned(), reason: GapReason::ConnectionLost }),
        1 => Just(What::Message {
            topic: "t".to_owned(), name: None, payload: "p".to_owned(), json: false }),
    ];
    let transaction = prop::collection::vec(what, 1..6);
    prop::collection::vec(transaction, 0..6).prop_map(|transactions| {
        let mut rows = Vec::new();
        for (xid, whats) in (100u64..).zip(transactions) {
            for what in whats {
                rows.push(Stored { id: rows.len() as i64 + 1, xid, at: 0, what });
            }
        }
        rows
    })
}

/// What is told of the rows in one go.
fn told(rows: &[Stored]) -> Vec<Item> {
    let (mut window, mut out) = (Window::default(), Vec::new());
    window.begin(None);
    rows.iter().for_each(|row| window.take(row.clone(), &mut out));
    assert!(window.finish(&mut out));
    out
}

/// Of a topic: a table, or 0 for messages.
fn of(items: &[Item], topic: u32) -> Vec<Item> {
    let is = |item: &&Item| match item {
        Item::Change { rel, .. } | Item::Unrecorded { rel, .. } => *rel == topic,
        Item::Message { .. } | Item::Lost { .. } => topic == 0,
    };
    items.iter().filter(is).cloned().collect()
}

proptest! {
    #[test]
    fn everything_is_told_once_in_order(rows in rows()) {
        let items = told(&rows);
        for topic in 0..4 {
            let expected = rows.iter().filter(|row| match row.what {
                What::Change { rel, .. } | What::Unrecorded { rel, .. } => rel == topic,
                What::Message { .. } | What::Lost { .. } => topic == 0,
                What::Unwanted => false,
            });
            prop_assert_eq!(of(&items, topic).len(), expected.count());
        }
    }

    #[test]
    fn the_last_change_of_a_transaction_on_a_table_is_marked(rows in rows()) {
        let mut last = HashMap::new();
        for item in told(&rows) {
            if let Item::Change { rel, transaction, last: is_last, index, .. } = item {
                let before = last.insert((transaction.id, rel), (is_last, index));
                prop_assert!(before.is_none_or(|(was_last, at)| !was_last && at < index));
            }
        }
        // A table whose last row could not be recorded ends with a gap in place of a mark.
        for ((xid, rel), (is_last, _)) in last {
            let ends = rows.iter().rev().find(|row| row.xid == xid && match row.what {
                What::Change { rel: of, .. } | What::Unrecorded { rel: of, .. } => of == rel,
                _ => false,
            });
            let ends_with_change = matches!(ends.unwrap().what, What::Change { .. });
            prop_assert_eq!(is_last, ends_with_change);
        }
    }

    #[test]
    fn a_poll_that_breaks_off_changes_nothing(
        rows in rows(),
        breaks in prop::collection::vec(0usize..30, 0..4),
    ) {
        let (mut window, mut out, mut spot) = (Window::default(), Vec::new(), None);
        for end in breaks {
            window.begin(spot.as_ref());
            rows.iter().take(end).for_each(|row| window.take(row.clone(), &mut out));
            spot = window.spot();
        }
        window.begin(spot.as_ref());
        rows.iter().for_each(|row| window.take(row.clone(), &mut out));
        prop_assert!(window.finish(&mut out), "the place where it broke off was met");
        prop_assert_eq!(out, told(&rows));
    }

    #[test]
    fn rows_that_are_gone_are_noticed(rows in rows(), end in 1usize..30) {
        let (mut window, mut out) = (Window::default(), Vec::new());
        window.begin(None);
        rows.iter().take(end).for_each(|row| window.take(row.clone(), &mut out));
        let Some(spot) = window.spot() else { return Ok(()) };
        window.begin(Some(&spot));
        let left: Vec<_> = rows.iter().filter(|row| row.xid != spot.xid).collect();
        out.clear();
        left.into_iter().for_each(|row| window.take(row.clone(), &mut out));
        prop_assert!(!window.finish(&mut out));
        prop_assert_eq!(out, []);
    }
}

#[test]
fn rows_of_tables_nobody_follows_have_their_place() {
    let change = What::Change { rel: 1, operation: Operation::Delete, record: None, old: None };
    let row = |id, what| Stored { id, xid: 7, at: 5, what };
    let items = told(&[row(1, What::Unwanted), row(2, change)]);
    assert!(matches!(&items[..], [Item::Change { index: 1, last: true, .. }]), "{items:?}");
}
