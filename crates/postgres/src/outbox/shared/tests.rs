use super::*;

fn orders() -> Topic {
    Topic::table("public.orders").unwrap()
}

fn naming(oid: u32, table: &str, stamp: &str) -> Naming {
    let (schema, table, stamp) = ("public".to_owned(), table.to_owned(), stamp.to_owned());
    Naming { oid, schema, table, stamp }
}

/// A poll sees these.
fn sees(shared: &Shared, namings: &[Naming]) -> usize {
    let found = namings.iter().map(|naming| (naming.oid, naming.clone())).collect();
    shared.observe(&shared.begin_round().followed, &found).len()
}

/// A poll sees that the table is there.
fn is_there(shared: &Shared, oid: u32) {
    assert_eq!(sees(shared, &[naming(oid, "orders", "1")]), 0);
}

#[test]
fn a_table_is_silent_until_its_gap_was_said() {
    let shared = Shared::new();
    shared.follow(&orders(), 1);
    assert_eq!(shared.owed(), [], "no poll knows whose rows would come after it");
    is_there(&shared, 1);
    assert!(shared.begin_round().tables.is_empty());
    let (naming, reason) = (Some(naming(1, "orders", "1")), GapReason::NotListening);
    assert_eq!(shared.owed(), [Owed { topic: orders(), oid: 1, naming, reason }]);
    shared.paid(&orders(), 1);
    let round = shared.begin_round();
    assert_eq!(round.tables, [(1, orders())]);
    assert!(!shared.want(&orders()));
    shared.end_round(&round);
    assert!(shared.want(&orders()));
}

#[test]
fn following_again_changes_nothing_unless_it_is_another_table() {
    let shared = Shared::new();
    shared.follow(&orders(), 1);
    is_there(&shared, 1);
    shared.paid(&orders(), 1);
    shared.end_round(&shared.begin_round());
    shared.follow(&orders(), 1);
    assert!(shared.want(&orders()));
    shared.follow(&orders(), 2);
    is_there(&shared, 2);
    assert_eq!(shared.owed().len(), 1);
}

#[test]
fn a_table_is_followed_for_a_while_after_the_last_listener_and_before_the_first() {
    let (shared, now) = (Shared::new(), Instant::now());
    let while_ = |seconds| now + std::time::Duration::from_secs(seconds);
    shared.inherit(&orders(), &naming(1, "orders", "1"), while_(2));
    assert_eq!(shared.begin_round().tables, [(1, orders())], "it flows at once");
    shared.expire(while_(1));
    shared.follow(&orders(), 1);
    shared.expire(while_(3));
    assert_eq!(shared.owed(), []);
    shared.release(&orders(), while_(4));
    shared.release(&orders(), while_(9));
    shared.expire(while_(4));
    assert_eq!(shared.followed(), []);
}

#[test]
fn who_was_quicker_than_the_inheritance_is_told_no_gap_of_the_same_table() {
    let shared = Shared::new();
    for (oid, owed) in [(1, 0), (2, 1)] {
        shared.follow(&orders(), oid);
        shared.inherit(&orders(), &naming(1, "orders", "1"), Instant::now());
        assert_eq!(shared.owing().len(), owed);
    }
}

#[test]
fn triggers_that_go_and_come_are_gaps() {
    let shared = Shared::new();
    shared.follow(&orders(), 1);
    is_there(&shared, 1);
    shared.paid(&orders(), 1);
    for flows in [false, true] {
        assert!(shared.set_flows(&orders(), 1, flows));
        assert!(!shared.set_flows(&orders(), 1, flows));
        assert_eq!(shared.owed().len(), 1, "{flows}");
        shared.paid(&orders(), 1);
    }
}

#[tokio::test]
async fn a_round_answers_only_who_asked_before_it_began() {
    let shared = Shared::new();
    let early = shared.begin_round();
    let waiting = shared.next_round();
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    shared.end_round(&early);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    shared.end_round(&shared.begin_round());
    waiting.await;
}

#[test]
fn a_table_that_was_renamed_is_silent_until_it_has_the_name_again_and_the_gap_was_said() {
    let shared = Shared::new();
    shared.follow(&orders(), 1);
    is_there(&shared, 1);
    shared.paid(&orders(), 1);
    assert_eq!(sees(&shared, &[naming(1, "secret", "2")]), 1);
    let owed = || shared.owed().into_iter().map(|owed| owed.naming).collect::<Vec<_>>();
    assert_eq!(owed(), [None], "a gap, and nothing after it");
    shared.paid(&orders(), 1);
    assert_eq!(shared.begin_round().tables, []);
    assert_eq!(shared.unnamed(), [orders()]);
    assert_eq!(sees(&shared, &[naming(1, "orders", "3")]), 1);
    assert_eq!(shared.begin_round().tables, []);
    assert_eq!(owed(), [Some(naming(1, "orders", "3"))]);
    shared.paid(&orders(), 1);
    assert_eq!(shared.begin_round().tables, [(1, orders())]);
    // Renamed there and back between two polls.
    assert_eq!(sees(&shared, &[naming(1, "orders", "4")]), 1);
    assert_eq!(shared.begin_round().tables, []);
}

#[test]
fn a_topic_follows_the_table_that_took_its_name_and_a_poll_of_before_says_nothing_of_that() {
    let shared = Shared::new();
    shared.follow(&orders(), 1);
    is_there(&shared, 1);
    shared.paid(&orders(), 1);
    let before = shared.begin_round().followed;
    assert_eq!(sees(&shared, &[]), 1, "it was dropped");
    shared.follow_renamed(&orders(), 2);
    shared.paid(&orders(), 1);
    assert_eq!(shared.owing().len(), 1, "the gap that was said was that of the table before");
    assert!(shared.observe(&before, &HashMap::new()).is_empty());
    assert_eq!(shared.owed(), []);
    is_there(&shared, 2);
    assert_eq!(shared.owed().len(), 1);
}
