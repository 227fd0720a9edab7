use std::time::Duration;

use super::*;

fn topic(name: &str) -> Topic {
    Topic::table(&format!("public.{name}")).unwrap()
}

/// A table that flows.
fn flowing(name: &str) -> (Tables, Topic, Run) {
    let (mut tables, topic) = (Tables::default(), topic(name));
    assert!(matches!(tables.want(&topic), Want::Admit(_)));
    tables.connected(false, &HashSet::new());
    tables.admitted(&topic);
    let (run, owed) = tables.debt(&topic).unwrap();
    assert_eq!(owed, Some(GapReason::NotListening));
    assert!(tables.paid(&topic, run));
    (tables, topic, run)
}

#[tokio::test]
async fn a_table_flows_after_its_gap_was_said() {
    let (mut tables, topic, _) = flowing("a");
    assert!(tables.flow(&topic).is_on());
    assert!(matches!(tables.want(&topic), Want::Flowing));
    assert_eq!(tables.len(), 1);
    assert!(tables.debtors().is_empty());
}

#[tokio::test]
async fn a_lost_stream_is_owed_to_every_table_and_a_gap_of_before_does_not_pay_it() {
    let (mut tables, topic, run) = flowing("a");
    tables.disconnected(false);
    assert!(!tables.flow(&topic).is_on());
    assert_eq!(tables.debt(&topic), None);
    assert!(tables.debtors().is_empty(), "nothing can be paid without a stream");
    tables.connected(false, &HashSet::from([topic.clone()]));
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
    tables.connected(true, &HashSet::from([topic.clone()]));
    assert!(matches!(tables.want(&topic), Want::Flowing));
}

#[tokio::test]
async fn a_table_missing_from_the_publication_stops_and_is_a_stranger() {
    let (mut tables, topic, _) = flowing("a");
    let (all, none) = (tables.members(), HashSet::new());
    assert_eq!(all, HashSet::from([topic.clone()]));
    assert!(tables.compare(&all, &all).is_empty());
    assert!(tables.compare(&none, &none).is_empty(), "it was admitted while we looked");
    assert_eq!(tables.compare(&none, &all), std::slice::from_ref(&topic));
    assert!(tables.compare(&none, &all).is_empty(), "told once");
    assert!(!tables.flow(&topic).is_on());
    assert_eq!(tables.strangers(), [topic]);
}

#[tokio::test]
async fn a_table_expires_after_nobody_listened_for_a_while() {
    let (mut tables, topic, _) = flowing("a");
    let until = Instant::now() + Duration::from_secs(60);
    tables.release(&topic, until);
    assert_eq!(tables.len(), 0);
    assert!(tables.flow(&topic).is_on(), "it flows while it lingers");
    assert!(!tables.expire(&topic, Instant::now()));
    tables.want(&topic);
    assert!(tables.expired(until).is_empty(), "somebody came back");
    tables.release(&topic, until);
    assert_eq!(tables.expired(until).len(), 1);
    assert!(tables.expire(&topic, until));
    assert!(!tables.flow(&topic).is_on());
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
    tables.compare(&HashSet::new(), &members);
    tables.forget(&flowed);
    assert!(tables.contains(&flowed));
}

#[tokio::test]
async fn tables_published_before_this_process_began_flow_at_once() {
    let (mut tables, topic) = (Tables::default(), topic("a"));
    tables.want(&topic);
    let members = HashSet::from([topic.clone()]);
    tables.inherit(&members, Instant::now());
    tables.connected(true, &members);
    assert!(matches!(tables.want(&topic), Want::Flowing));
}
