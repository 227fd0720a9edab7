//! Random calls, limits and kills: whatever happens, what is read is what was said.

use std::collections::HashMap;

use proptest::prelude::*;
use proptest::test_runner::Config;
use tidewire::history::History;

use super::*;

#[derive(Clone, Debug)]
enum Act {
    /// Events on topics, in one call.
    Say(Vec<u8>),
    /// The same many times, so that segments come and go.
    Fill(u8),
    Kill,
    Stop,
    Tick,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => prop::collection::vec(0..5_u8, 1..20).prop_map(Act::Say),
        3 => (0..5_u8).prop_map(Act::Fill),
        2 => Just(Act::Kill),
        1 => Just(Act::Stop),
        1 => Just(Act::Tick),
    ]
}

/// What was said, by topic, from number 1 on.
type Said = HashMap<Topic, Vec<String>>;

async fn say_all(history: &DiskHistory, said: &mut Said, topics: &[u8], padding: usize) {
    let mut drafts = Vec::new();
    for number in topics {
        let topic = topic(&format!("topic:{number}"));
        let texts = said.entry(topic.clone()).or_default();
        texts.push(format!("{topic} {} {}", texts.len() + 1, "x".repeat(padding)));
        drafts.push(message(&topic, texts.last().expect("it was pushed")));
    }
    for event in history.append(drafts).await {
        let event = event.expect("a history that works");
        assert_eq!(text(&event), said[&event.topic][event.position.seq as usize - 1]);
    }
}

async fn check(history: &DiskHistory, said: &Said, quota: usize) {
    for (topic, texts) in said {
        let (from, head) = (earliest(history, topic).await, head(history, topic).await);
        assert_eq!(head.seq as usize, texts.len(), "{topic} has its head");
        let kept = read(history, topic, from).await;
        assert_eq!(kept, texts[from.seq as usize..], "{topic} is whole after {from}");
        assert!(kept.len() >= quota.min(texts.len()), "{topic} keeps what it may");
    }
}

async fn play(acts: Vec<Act>, memory_bytes: usize) {
    let mut place = Place::new();
    place.settings.total_bytes = 1 << 20;
    place.settings.memory_bytes = memory_bytes;
    place.limits.events = 20;
    let mut history = place.history();
    let mut said = Said::new();
    for act in acts {
        match act {
            Act::Say(topics) => say_all(&history, &mut said, &topics, 10).await,
            Act::Fill(topic) => {
                for _ in 0..20 {
                    say_all(&history, &mut said, &[topic; 10], 2_000).await;
                }
            }
            Act::Kill => {
                let next = place.killed();
                history = next.history();
                place = next;
            }
            Act::Stop => {
                history.close().await.expect("a disk that works");
                drop(history);
                history = place.history();
            }
            Act::Tick => history.tick(),
        }
        assert!(place.bytes() <= place.settings.total_bytes);
        // Five topics of twenty events of two kilobytes are a fifth of the limit, so none has to go.
        check(&history, &said, 20).await;
    }
}

proptest! {
    #![proptest_config(Config { cases: 24, failure_persistence: None, ..Config::default() })]
    #[test]
    fn what_is_read_is_what_was_said(
        acts in prop::collection::vec(act(), 1..30),
        memory in prop::sample::select(vec![0, 4_096, 256 << 20]),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        runtime.expect("a runtime").block_on(play(acts, memory));
    }
}
