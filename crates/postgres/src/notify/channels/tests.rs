//! Examples, and random lives of channels against a model of the server.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn connected() -> Channels {
    let mut channels = Channels::new(100, []);
    channels.connected();
    channels
}

/// Carries out batches until there is none.
fn settle(channels: &mut Channels) -> Vec<String> {
    let mut said = Vec::new();
    while let Some(batch) = channels.next_batch() {
        said.push(sql(&batch));
        channels.batch_done();
    }
    said
}

/// What is said to the server.
fn sql(batch: &Batch) -> String {
    let mut sql = Vec::new();
    for (verb, channel) in batch.statements() {
        sql.extend_from_slice(verb.as_bytes());
        sql.push(b' ');
        quote(channel.as_bytes(), &mut sql);
        sql.push(b';');
    }
    String::from_utf8(sql).expect("channels are UTF-8")
}

fn attach(channels: &mut Channels, channel: &str) {
    channels.want(channel).unwrap();
    settle(channels);
    channels.settled(channel, true);
}

fn pay(channels: &mut Channels) -> Vec<(String, GapReason)> {
    let owed = channels.owed();
    for (topic, _) in &owed {
        channels.paid(topic.name());
    }
    owed.into_iter().map(|(topic, reason)| (topic.name().to_owned(), reason)).collect()
}

#[test]
fn names_keep_their_case_and_their_quotes() {
    let mut channels = connected();
    channels.want("Or\"ders; DROP 🦀").unwrap();
    assert_eq!(settle(&mut channels), ["LISTEN \"Or\"\"ders; DROP 🦀\";"]);
}

#[test]
fn a_channel_is_listened_to_only_once_the_server_has_answered() {
    let mut channels = connected();
    channels.want("a").unwrap();
    let batch = channels.next_batch().unwrap();
    assert_eq!(batch.listen_count(), 1);
    assert!(!channels.is_listening("a"));
    assert_eq!(channels.fate("a"), Fate::Hold);
    channels.batch_done();
    assert!(channels.is_listening("a"));
}

#[test]
fn a_second_wish_says_nothing_and_the_last_release_unlistens() {
    let mut channels = connected();
    attach(&mut channels, "a");
    channels.want("a").unwrap();
    assert_eq!(settle(&mut channels), [""; 0]);
    channels.settled("a", true);
    channels.release("a");
    assert_eq!(settle(&mut channels), ["UNLISTEN \"a\";"]);
    assert_eq!(channels.fate("a"), Fate::Drop);
}

#[test]
fn a_channel_wanted_again_while_it_is_left_is_listened_to_again_with_a_gap() {
    let mut channels = connected();
    attach(&mut channels, "a");
    pay(&mut channels);
    channels.release("a");
    channels.next_batch().unwrap();
    channels.want("a").unwrap();
    assert!(!channels.is_listening("a"), "its UNLISTEN is on the way");
    channels.batch_done();
    assert_eq!(settle(&mut channels), ["LISTEN \"a\";"]);
    assert_eq!(pay(&mut channels), [("a".to_owned(), GapReason::NotListening)]);
}

#[test]
fn a_channel_wanted_again_before_it_is_left_has_no_gap() {
    let mut channels = connected();
    attach(&mut channels, "a");
    pay(&mut channels);
    channels.release("a");
    channels.want("a").unwrap();
    assert_eq!(settle(&mut channels), [""; 0]);
    assert!(channels.is_listening("a"));
    assert_eq!(pay(&mut channels), []);
}

#[test]
fn a_gap_not_said_yet_is_kept_when_the_channel_is_wanted_again_before_it_is_left() {
    let mut channels = connected();
    attach(&mut channels, "a");
    channels.release("a");
    channels.want("a").unwrap();
    assert_eq!(channels.fate("a"), Fate::Drop);
    assert_eq!(pay(&mut channels), [("a".to_owned(), GapReason::NotListening)]);
}

#[test]
fn a_channel_whose_notification_was_not_published_is_silent_until_its_gap_is_said() {
    let mut channels = connected();
    attach(&mut channels, "a");
    pay(&mut channels);
    channels.owe("a");
    assert_eq!(channels.fate("a"), Fate::Drop);
    assert!(!channels.is_ready("a"));
    assert_eq!(pay(&mut channels), [("a".to_owned(), GapReason::ConnectionLost)]);
    assert!(channels.is_ready("a"));
}

#[test]
fn after_a_lost_connection_the_gap_comes_before_the_next_notification() {
    let mut channels = connected();
    attach(&mut channels, "a");
    pay(&mut channels);
    channels.disconnected();
    assert!(!channels.is_listening("a"));
    channels.connected();
    channels.next_batch().unwrap();
    assert_eq!(channels.owed(), [], "not while something can still be missed");
    channels.batch_done();
    assert_eq!(channels.fate("a"), Fate::Drop, "not before the gap is said");
    assert_eq!(pay(&mut channels), [("a".to_owned(), GapReason::ConnectionLost)]);
    assert!(matches!(channels.fate("a"), Fate::Publish(_)));
}

#[test]
fn an_attach_that_gives_up_leaves_nothing_behind() {
    let mut channels = Channels::new(1, []);
    channels.want("a").unwrap();
    assert_eq!(channels.want("b"), Err(Full));
    channels.settled("a", false);
    assert_eq!(channels.len(), 0);
    channels.want("b").unwrap();
}

#[test]
fn an_attach_that_gives_up_does_not_take_the_channel_from_others() {
    let mut channels = connected();
    channels.want("a").unwrap();
    channels.want("a").unwrap();
    channels.settled("a", false);
    settle(&mut channels);
    channels.settled("a", true);
    assert!(channels.is_listening("a"));
}

#[test]
fn channels_of_the_configuration_are_never_left() {
    let mut channels = Channels::new(10, ["a".into()]);
    channels.connected();
    assert_eq!(settle(&mut channels), ["LISTEN \"a\";"]);
    attach(&mut channels, "a");
    channels.release("a");
    assert_eq!(settle(&mut channels), [""; 0]);
}

#[test]
fn many_wishes_are_said_in_few_round_trips() {
    let mut channels = Channels::new(10_000, []);
    channels.connected();
    for n in 0..10_000 {
        channels.want(&format!("c{n}")).unwrap();
    }
    assert_eq!(channels.want("one more"), Err(Full));
    assert_eq!(settle(&mut channels).len(), 10_000 / BATCH);
}

/// What may happen, in any order.
#[derive(Clone, Debug)]
enum Step {
    Want(u8),
    Settle(u8, bool),
    Release(u8),
    Connect,
    Disconnect,
    Send,
    Answer,
    Pay,
    Notify(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let channel = 0u8..4;
    prop_oneof![
        channel.clone().prop_map(Step::Want),
        (channel.clone(), any::<bool>()).prop_map(|(c, ok)| Step::Settle(c, ok)),
        channel.clone().prop_map(Step::Release),
        Just(Step::Connect),
        Just(Step::Disconnect),
        Just(Step::Send),
        Just(Step::Answer),
        Just(Step::Pay),
        channel.prop_map(Step::Notify),
    ]
}

/// What a reader could be misled about.
#[derive(Default)]
struct Model {
    /// Channels the server listens to on this connection.
    server: BTreeSet<String>,
    batch: Option<Batch>,
    /// Channels on which something was missed and no gap was said since.
    missed: BTreeSet<String>,
    waiting: HashMap<String, usize>,
}

impl Model {
    fn lose(&mut self) {
        self.server.clear();
        self.batch = None;
    }

    fn execute(&mut self) {
        let Some(batch) = self.batch.take() else { return };
        for channel in &batch.listen {
            assert!(self.server.insert((**channel).to_owned()), "listened to twice");
        }
        for channel in &batch.unlisten {
            assert!(self.server.remove(&**channel), "left without being listened to");
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_published_after_a_miss_before_its_gap(
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut channels = Channels::new(3, ["c0".into()]);
        let mut model = Model::default();
        // Before the first LISTEN everything was missed.
        model.missed.extend((0..4).map(|n| format!("c{n}")));
        for step in steps {
            match step {
                Step::Want(n) => {
                    let channel = format!("c{n}");
                    if channels.want(&channel).is_ok() {
                        *model.waiting.entry(channel).or_default() += 1;
                    }
                }
                Step::Settle(n, told) => {
                    let channel = format!("c{n}");
                    let waiting = model.waiting.entry(channel.clone()).or_default();
                    if *waiting > 0 {
                        *waiting -= 1;
                        let told = told && channels.is_listening(&channel);
                        channels.settled(&channel, told);
                    }
                }
                Step::Release(n) => channels.release(&format!("c{n}")),
                Step::Connect => {
                    model.lose();
                    channels.connected();
                }
                Step::Disconnect => {
                    model.lose();
                    channels.disconnected();
                }
                Step::Send => {
                    if let Some(batch) = channels.next_batch() {
                        prop_assert!(model.batch.is_none(), "two batches at once");
                        model.batch = Some(batch);
                    }
                }
                Step::Answer => {
                    if model.batch.is_some() {
                        model.execute();
                        channels.batch_done();
                    }
                }
                Step::Pay => {
                    for (topic, _) in channels.owed() {
                        prop_assert!(model.server.contains(topic.name()), "a gap too early");
                        channels.paid(topic.name());
                        model.missed.remove(topic.name());
                    }
                }
                Step::Notify(n) => {
                    let channel = format!("c{n}");
                    let fate = channels.fate(&channel);
                    if !model.server.contains(&channel) {
                        model.missed.insert(channel);
                    } else if matches!(fate, Fate::Publish(_)) {
                        prop_assert!(!model.missed.contains(&channel), "published over a miss");
                    } else {
                        model.missed.insert(channel);
                    }
                }
            }
            prop_assert!(channels.len() <= 3);
            for n in 0..4 {
                let channel = format!("c{n}");
                if channels.is_listening(&channel) {
                    prop_assert!(model.server.contains(&channel));
                }
            }
        }
        // Left alone, what is listened to becomes what is wanted.
        model.execute();
        channels.batch_done();
        channels.connected();
        model.lose();
        while let Some(batch) = channels.next_batch() {
            model.batch = Some(batch);
            model.execute();
            channels.batch_done();
        }
        let wanted: BTreeSet<String> = channels.wishes.keys().map(|c| (**c).to_owned()).collect();
        prop_assert_eq!(model.server, wanted);
    }
}
