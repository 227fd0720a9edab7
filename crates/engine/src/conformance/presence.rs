//! What presence promises.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tidewire_protocol::presence::{Member, PresenceDiff};
use tidewire_protocol::{Body, Code, Position, Topic};
use tokio::task::JoinSet;

use super::{eventually, new_topic};
use crate::broker::LocalBroker;
use crate::history::{History, MemoryHistory, MemorySettings, Page};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::presence::Presence;
use crate::publisher::Publisher;

/// The presence that is checked admits so many members on one topic.
pub const MEMBERS: usize = 20;

/// A presence under test, and what it publishes.
struct Watched {
    presence: Arc<dyn Presence>,
    history: Arc<dyn History>,
}

/// Checks every promise of [`Presence`] against what `make` gives.
///
/// It must admit [`MEMBERS`] members on a topic, and publish changes through the publisher that
/// `make` is given, in the background if need be.
///
/// # Panics
/// When a promise is broken.
pub async fn presence(make: impl AsyncFn(Publisher) -> Arc<dyn Presence>) {
    the_list_is_as_the_last_call_left_it(watched(&make).await).await;
    a_list_is_ordered_by_key_and_reference(watched(&make).await).await;
    topics_do_not_touch_each_other(watched(&make).await).await;
    there_is_room_for_so_many_and_no_more(watched(&make).await).await;
    changes_lead_from_any_list_to_the_present_one(watched(&make).await).await;
    concurrent_changes_are_all_told(watched(&make).await).await;
}

async fn watched(make: impl AsyncFn(Publisher) -> Arc<dyn Presence>) -> Watched {
    let memory = MemoryHistory::new(MemorySettings::default(), Arc::default());
    let history: Arc<dyn History> = Arc::new(memory);
    let publisher = Publisher::new(
        Arc::clone(&history),
        Arc::new(LocalBroker::default()),
        Arc::new(ArcSwap::from_pointee(Limits::default())),
        Metrics::default(),
    );
    Watched { presence: make(publisher).await, history }
}

async fn the_list_is_as_the_last_call_left_it(watched: Watched) {
    let topic = new_topic();
    assert!(watched.members(&topic).await.is_empty(), "nobody should be on an unused topic");
    watched.presence.untrack(&topic, "nobody").await;
    watched.track(&topic, member("a", "key", 1)).await;
    assert_eq!(
        watched.members(&topic).await,
        [member("a", "key", 1)],
        "a member should be in the list when track has returned"
    );
    watched.track(&topic, member("a", "other", 2)).await;
    assert_eq!(
        watched.members(&topic).await,
        [member("a", "other", 2)],
        "a member should replace the one with the same reference"
    );
    watched.presence.untrack(&topic, "b").await;
    assert_eq!(watched.members(&topic).await.len(), 1, "untracking someone unknown is nothing");
    watched.presence.untrack(&topic, "a").await;
    assert!(
        watched.members(&topic).await.is_empty(),
        "a member should not be in the list when untrack has returned"
    );
}

async fn a_list_is_ordered_by_key_and_reference(watched: Watched) {
    let topic = new_topic();
    for (reference, key) in [("4", "b"), ("1", "c"), ("3", "a"), ("2", "a")] {
        watched.track(&topic, member(reference, key, 0)).await;
    }
    let members = watched.members(&topic).await;
    let references: Vec<_> = members.iter().map(|member| &*member.reference).collect();
    assert_eq!(references, ["2", "3", "4", "1"], "a list should be in order of key and reference");
}

async fn topics_do_not_touch_each_other(watched: Watched) {
    let topic = new_topic();
    let name = &topic.name()[..topic.name().len().min(60)];
    let topics = [
        Topic::application(name).expect("a topic's name"),
        Topic::private(name).expect("a topic's name"),
        Topic::notify(name).expect("a topic's name"),
    ];
    for topic in &topics {
        watched.track(topic, member("a", &topic.to_string(), 0)).await;
    }
    watched.presence.untrack(&topics[0], "a").await;
    for topic in &topics[1..] {
        assert_eq!(
            watched.members(topic).await,
            [member("a", &topic.to_string(), 0)],
            "{topic} should have its own member whoever leaves elsewhere"
        );
    }
}

async fn there_is_room_for_so_many_and_no_more(watched: Watched) {
    let topic = new_topic();
    let mut tasks = JoinSet::new();
    for number in 0..2 * MEMBERS {
        let (presence, topic) = (Arc::clone(&watched.presence), topic.clone());
        tasks.spawn(
            async move { presence.track(&topic, member(&number.to_string(), "key", 0)).await },
        );
    }
    let results = tasks.join_all().await;
    let admitted = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(admitted, MEMBERS, "{MEMBERS} members should be admitted however they come");
    assert_eq!(
        watched.members(&topic).await.len(),
        MEMBERS,
        "the list should have who was admitted"
    );
    for refusal in results.into_iter().filter_map(Result::err) {
        assert_eq!(refusal.code, Code::TooManyMembers, "the others should be told why");
    }
    let known = watched.members(&topic).await.remove(0);
    let again = watched.presence.track(&topic, known.clone()).await;
    assert!(again.is_ok(), "a member may be replaced where there is no more room");
    watched.presence.untrack(&topic, &known.reference).await;
    let next = watched.presence.track(&topic, member("next", "key", 0)).await;
    assert!(next.is_ok(), "there should be room again when someone has left");
}

async fn changes_lead_from_any_list_to_the_present_one(watched: Watched) {
    let topic = new_topic();
    let mut lists = Vec::new();
    for step in 0..60_u32 {
        if step % 10 == 0 {
            // First the place, then the list, as a session does.
            let place = watched.head(&topic).await;
            lists.push((place, watched.members(&topic).await));
        }
        let reference = (step * 7 % 5).to_string();
        if step % 3 == 2 {
            watched.presence.untrack(&topic, &reference).await;
        } else {
            watched.track(&topic, member(&reference, "key", step)).await;
        }
        if step % 4 == 0 {
            // Some changes are told together and some are not.
            tokio::task::yield_now().await;
        }
    }
    for (place, list) in lists {
        watched.check_told(&topic, place, list).await;
    }
}

async fn concurrent_changes_are_all_told(watched: Watched) {
    let topic = new_topic();
    let place = watched.head(&topic).await;
    let mut tasks = JoinSet::new();
    for task in 0..MEMBERS {
        let (presence, topic) = (Arc::clone(&watched.presence), topic.clone());
        tasks.spawn(async move {
            let reference = task.to_string();
            for meta in 0..=10 {
                let tracked = presence.track(&topic, member(&reference, "key", meta)).await;
                tracked.expect("there is room for everyone");
                if meta % 3 == 0 {
                    presence.untrack(&topic, &reference).await;
                }
            }
            if task % 2 == 0 {
                presence.untrack(&topic, &reference).await;
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(watched.members(&topic).await.len(), MEMBERS / 2, "every other member has left");
    watched.check_told(&topic, place, Vec::new()).await;
}

impl Watched {
    async fn track(&self, topic: &Topic, member: Member) {
        let tracked = self.presence.track(topic, member).await;
        tracked.expect("tracking at a presence that works");
    }

    async fn members(&self, topic: &Topic) -> Vec<Member> {
        self.presence.members(topic).await.expect("asking a presence that works who is there")
    }

    async fn head(&self, topic: &Topic) -> Position {
        self.history.head(&topic.presence()).await.expect("a history in memory")
    }

    /// Waits until what was published after `place`, applied to `list`, gives the present list.
    async fn check_told(&self, topic: &Topic, place: Position, list: Vec<Member>) {
        let sentence = "what is published, applied in order to the list as it was at an earlier \
                        time, should give the list as it is";
        eventually(sentence, async || {
            let told = self.told(topic, place, list.clone()).await;
            (told == self.members(topic).await).then_some(())
        })
        .await;
    }

    async fn told(&self, topic: &Topic, place: Position, list: Vec<Member>) -> Vec<Member> {
        let mut known: HashMap<_, _> =
            list.into_iter().map(|member| (Arc::clone(&member.reference), member)).collect();
        let page = self.history.read(&topic.presence(), place, 10_000).await;
        let Page::Events(events) = page.expect("a history in memory") else {
            panic!("a check should not publish more than the history keeps");
        };
        for event in events {
            let Body::Presence(diff) = &event.body else {
                panic!("only changes of presence should be published there, not {event:?}");
            };
            apply(&mut known, diff);
        }
        let mut members: Vec<_> = known.into_values().collect();
        members.sort_by(|a, b| (&a.key, &a.reference).cmp(&(&b.key, &b.reference)));
        members
    }
}

fn apply(known: &mut HashMap<Arc<str>, Member>, diff: &PresenceDiff) {
    for member in &diff.leaves {
        known.remove(&member.reference);
    }
    for member in &diff.joins {
        known.insert(Arc::clone(&member.reference), member.clone());
    }
}

fn member(reference: &str, key: &str, meta: u32) -> Member {
    Member {
        reference: reference.into(),
        key: key.into(),
        subject: None,
        meta: format!(r#"{{"meta":{meta}}}"#).into(),
    }
}
