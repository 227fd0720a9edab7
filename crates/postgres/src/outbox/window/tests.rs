//! The window against random transactions and interruptions.

use proptest::prelude::*;

use super::*;

/// Rows of transactions, those of one together, as a poll orders them.
fn rows() -> impl Strategy<Value = Vec<Stored>> {
    let what = prop_oneof![
        4 => (1u32..4).prop_map(|rel| What::Change {
            rel, operation: Operation::Insert, record: Some("{}".to_owned()), old: None }),
        1 => Just(What::Unwanted),
        1 => (1u32..4).prop_map(|rel| What::Unrecorded { rel, why: "why".to_owned() }),
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
    window.begin();
    rows.iter().for_each(|row| window.take(row.clone(), &mut out));
    window.finish(&mut out);
    out
}

/// Rows as a poll gives them when a transaction was told in part.
fn as_polled(rows: &[Stored], torn: u64) -> Vec<Stored> {
    let mut rows = rows.to_vec();
    rows.sort_by_key(|row| row.xid != torn);
    rows
}

/// Of a topic: a table, or 0 for messages.
fn of(items: &[Item], topic: u32) -> Vec<Item> {
    let is = |item: &&Item| match item {
        Item::Change { rel, .. } | Item::Unrecorded { rel, .. } => *rel == topic,
        Item::Message { .. } => topic == 0,
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
                What::Message { .. } => topic == 0,
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
        later in 0usize..6,
    ) {
        let (mut window, mut out) = (Window::default(), Vec::new());
        // Some transactions become visible only in the second poll, among the others.
        let late = 100 + later as u64;
        for end in breaks {
            let seen: Vec<_> = rows.iter().filter(|row| row.xid != late).cloned().collect();
            window.begin();
            for row in as_polled(&seen, window.torn()).into_iter().take(end) {
                window.take(row, &mut out);
            }
        }
        window.begin();
        for row in as_polled(&rows, window.torn()) {
            window.take(row, &mut out);
        }
        window.finish(&mut out);
        let order = out.iter().filter_map(|item| match item {
            Item::Change { transaction, .. } => Some(transaction.id),
            _ => None,
        });
        let mut order: Vec<u64> = order.collect();
        order.dedup();
        let distinct: HashSet<u64> = order.iter().copied().collect();
        prop_assert_eq!(distinct.len(), order.len(), "a transaction was torn apart");
        let whole = told(&rows);
        let sorted = |items: &[Item], topic| {
            let mut found = of(items, topic).iter().map(|i| format!("{i:?}")).collect::<Vec<_>>();
            found.sort_unstable();
            found
        };
        for topic in 0..4 {
            // The late transaction may come after others it stands before in one poll.
            prop_assert_eq!(sorted(&out, topic), sorted(&whole, topic));
        }
        prop_assert!(window.done.is_empty() && window.told.is_empty());
    }
}

#[test]
fn rows_of_tables_nobody_follows_have_their_place() {
    let change = What::Change { rel: 1, operation: Operation::Delete, record: None, old: None };
    let row = |id, what| Stored { id, xid: 7, at: 5, what };
    let items = told(&[row(1, What::Unwanted), row(2, change)]);
    assert!(matches!(&items[..], [Item::Change { index: 1, last: true, .. }]), "{items:?}");
}
