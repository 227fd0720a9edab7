use std::time::Duration;

use super::*;

fn topic(name: &str) -> Topic {
    Topic::table(&format!("public.{name}")).unwrap()
}

/// The table of this oid, which came to the name so.
fn admitted(topic: &Topic, oid: u32, stamp: &str) -> Admitted {
    Admitted::of(topic, oid, stamp)
}

/// The table that is found under its name.
fn found(topic: &Topic) -> HashMap<Topic, Admitted> {
    HashMap::from([(topic.clone(), admitted(topic, 1, "1"))])
}

/// What a look finds.
fn look(topic: &Topic, oid: u32, stamp: &str) -> HashMap<Topic, Standing> {
    HashMap::from([(topic.clone(), admitted(topic, oid, stamp).standing)])
}

/// A table that flows.
fn flowing(name: &str) -> (Tables, Topic, Run) {
    let (mut tables, topic) = (Tables::default(), topic(name));
    assert!(matches!(tables.want(&topic), Want::Admit(_)));
    tables.connected(false, &HashMap::new());
    tables.admitted(&topic, admitted(&topic, 1, "1"));
    let (run, owed) = tables.debt(&topic).unwrap();
    assert_eq!(owed, Some(GapReason::NotListening));
    assert!(tables.paid(&topic, run));
    (tables, topic, run)
}

#[tokio::test]
async fn a_table_flows_after_its_gap_was_said() {
    let (mut tables, topic, _) = flowing("a");
    assert!(tables.flow(&topic, 1).is_on());
    assert!(matches!(tables.want(&topic), Want::Flowing));
    assert_eq!(tables.len(), 1);
    assert!(tables.debtors().is_empty());
}

#[tokio::test]
async fn a_lost_stream_is_owed_to_every_table_and_a_gap_of_before_does_not_pay_it() {
    let (mut tables, topic, run) = flowing("a");
    tables.disconnected(false);
    assert!(!tables.flow(&topic, 1).is_on());
    assert_eq!(tables.debt(&topic), None);
    assert!(tables.debtors().is_empty(), "nothing can be paid without a stream");
    tables.connected(false, &found(&topic));
    assert_eq!(tables.debtors(), std::slice::from_ref(&topic));
    assert!(!tables.paid(&topic, run), "said on the stream of before");
    let (run, owed) = tables.debt(&topic).unwrap();
    assert_eq!(owed, Some(GapReason::ConnectionLost));
    assert!(tables.paid(&topic, run));
}

#[tokio::test]
async fn a_stream_that_goes_on_where_it_was_owes_nothing() {
    let (mut tables, topic, _) = flowing("a");
    tables.disconnected(true);
    assert!(matches!(tables.want(&topic), Want::Admit(_)), "nothing flows without a stream");
    tables.connected(true, &found(&topic));
    assert!(matches!(tables.want(&topic), Want::Flowing));
}

#[tokio::test]
async fn a_table_missing_from_the_publication_stops_and_is_a_stranger() {
    let (mut tables, topic, _) = flowing("a");
    let (all, none) = (tables.members(), HashMap::new());
    assert_eq!(all, look(&topic, 1, "1"));
    assert!(tables.compare(&all, &all).is_empty());
    assert!(tables.compare(&none, &none).is_empty(), "it was admitted while we looked");
    assert_eq!(tables.compare(&none, &all), std::slice::from_ref(&topic));
    assert!(tables.compare(&none, &all).is_empty(), "told once");
    assert!(!tables.flow(&topic, 1).is_on());
    assert_eq!(tables.strangers(), [topic]);
}

#[tokio::test]
async fn a_table_expires_after_nobody_listened_for_a_while() {
    let (mut tables, topic, _) = flowing("a");
    let until = Instant::now() + Duration::from_secs(60);
    tables.release(&topic, until);
    assert_eq!(tables.len(), 0);
    assert!(tables.flow(&topic, 1).is_on(), "it flows while it lingers");
    assert!(!tables.expire(&topic, Instant::now()));
    tables.want(&topic);
    assert!(tables.expired(until).is_empty(), "somebody came back");
    tables.release(&topic, until);
    assert_eq!(tables.expired(until).len(), 1);
    assert!(tables.expire(&topic, until));
    assert!(!tables.flow(&topic, 1).is_on());
    assert!(!tables.contains(&topic));
}

#[tokio::test]
async fn a_want_that_came_to_nothing_is_forgotten_unless_others_wait() {
    let (mut tables, flowed, _) = flowing("a");
    let refused = topic("b");
    tables.want(&refused);
    tables.forget(&refused);
    assert!(!tables.contains(&refused));
    let members = tables.members();
    tables.compare(&HashMap::new(), &members);
    tables.forget(&flowed);
    assert!(tables.contains(&flowed));
}

#[tokio::test]
async fn tables_published_before_this_process_began_flow_at_once() {
    let (mut tables, topic) = (Tables::default(), topic("a"));
    tables.want(&topic);
    tables.inherit(&found(&topic), Instant::now());
    tables.connected(true, &found(&topic));
    assert!(matches!(tables.want(&topic), Want::Flowing));
}

#[tokio::test]
async fn a_table_that_is_not_what_it_was_admitted_as_stops_and_its_switch_never_turns_on_again() {
    for (oid, stamp) in [(1, "2"), (2, "1")] {
        let (mut tables, topic, run) = flowing("a");
        let (switch, before) = (tables.flow(&topic, 1), tables.members());
        assert_eq!(tables.compare(&look(&topic, 1, "1"), &before), []);
        assert_eq!(
            tables.compare(&look(&topic, oid, stamp), &before),
            std::slice::from_ref(&topic)
        );
        assert_eq!(tables.untold(), std::slice::from_ref(&topic));
        tables.told(&topic);
        assert_eq!(tables.untold(), []);
        tables.admitted(&topic, admitted(&topic, oid, stamp));
        assert!(tables.paid(&topic, run));
        assert!(switch.has_ended() && tables.tells(&topic, oid));
        let switch = tables.flow(&topic, oid);
        assert!(switch.tells(Some(7)) && !switch.tells(Some(6)), "only what commits from there on");
    }
}

#[tokio::test]
async fn what_the_log_says_of_names_stops_the_topics_that_it_is_about() {
    let (other, at) = (topic("b"), Lsn(7));
    for (oid, named, place, stops) in [
        (1, "a", at, false),
        (2, "b", at, false),
        // It has another name, another has its name, or it has none that can be a topic.
        (1, "b", at, true),
        (2, "a", at, true),
        (1, "", at, true),
        // Before the table was admitted it may have had any name.
        (1, "b", Lsn(6), false),
        (2, "a", Lsn(6), false),
    ] {
        let (mut tables, topic, _) = flowing("a");
        let met = [&topic, &other].into_iter().find(|it| it.name().ends_with(&format!(".{named}")));
        tables.meet(oid, met, place);
        assert_eq!(!tables.is_flowing(&topic), stops, "{oid} {named} {place}");
        assert_eq!(tables.untold().len(), usize::from(stops));
    }
}

#[test]
fn what_was_asked_for_in_vain_leaves_nothing_behind() {
    let mut tables = Tables::default();
    for at in 0..5_000 {
        let topic = topic(&format!("no{at}"));
        tables.want(&topic);
        tables.forget(&topic);
        tables.flow(&topic, at);
    }
    assert_eq!(tables.entries.len(), 0);
    assert!(tables.flows.len() <= 2 * FLOWS);
}
