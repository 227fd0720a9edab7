//! The folder: one server at a time, errors that say what to do, presence elsewhere.

use tidewire::history::History;
use tidewire_adapters::disk::Sync;
use tidewire_protocol::GapReason;

use super::*;

#[tokio::test]
async fn two_servers_cannot_share_a_folder() {
    let place = Place::new();
    let history = place.history();
    let refused = place.open().err().expect("it is taken");
    assert!(matches!(refused, DiskError::Taken(_)));
    let told = refused.to_string();
    assert!(told.contains(&place.folder.path().display().to_string()), "{told}");
    assert!(told.contains("history.path"), "{told}");
    history.close().await.expect("a disk that works");
    place.open().expect("it is free again");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let place = Place::new();
    std::fs::write(place.folder.path().join("file"), "").expect("a disk");
    let mut other = place.killed();
    other.settings.path = place.folder.path().join("file/history");
    let told = other.open().err().expect("a file is no folder").to_string();
    assert!(told.contains("file/history") && told.contains("history.path"), "{told}");
}

#[tokio::test]
async fn appends_after_the_end_say_so() {
    let place = Place::new();
    let history = place.history();
    history.close().await.expect("a disk that works");
    let refused = history.append(vec![message(&topic("a"), 1)]).await.remove(0).unwrap_err();
    let cause = std::error::Error::source(&refused).expect("a cause").to_string();
    assert!(cause.contains("is closed"), "{cause}");
}

#[tokio::test]
async fn what_waits_for_the_disk_itself_is_kept_as_well() {
    let mut place = Place::new();
    place.settings.sync = Sync::Batch;
    let history = place.history();
    let topic = topic("a");
    let first = head(&history, &topic).await;
    say(&history, &topic, "said").await;
    assert_eq!(read(&place.killed().history(), &topic, first).await, ["said"]);
}

#[tokio::test]
async fn events_of_presence_do_not_survive() {
    let place = Place::new();
    let history = place.history();
    let (plain, presence) = (topic("a"), topic("a").presence());
    let drafts = vec![message(&presence, 1), message(&plain, 2), message(&presence, 3)];
    let said = history.append(drafts).await;
    let said: Vec<_> = said.into_iter().map(|event| event.expect("a history that works")).collect();
    assert_eq!(said.iter().map(|event| text(event)).collect::<Vec<_>>(), ["1", "2", "3"]);
    let before = said[0].position.before();
    assert_eq!(read(&history, &presence, before).await, ["1", "3"]);
    let killed = place.killed();
    let next = killed.history();
    assert_eq!(read(&next, &plain, said[1].position.before()).await, ["2"]);
    let page = next.read(&presence, before, 10).await.expect("a history that works");
    assert!(matches!(page, Page::Lost { reason: GapReason::EpochChanged, .. }), "{page:?}");
}

#[tokio::test]
async fn too_much_at_once_is_refused_and_leaves_no_trace() {
    let mut place = Place::new();
    place.settings.total_bytes = 1 << 20;
    let history = place.history();
    let topic = topic("a");
    let first = say(&history, &topic, "before").await;
    let large = "x".repeat(300 << 10);
    let refused = history.append(vec![message(&topic, large)]).await.remove(0).unwrap_err();
    let cause = std::error::Error::source(&refused).expect("a cause").to_string();
    assert!(cause.contains("history.disk_bytes"), "{cause}");
    assert_eq!(say(&history, &topic, "after").await, first.next());
}

#[tokio::test]
async fn a_disk_that_fails_is_an_error_that_names_it_and_no_end() {
    let mut place = Place::new();
    place.settings.total_bytes = 1 << 20;
    let history = place.history();
    let topic = topic("a");
    // The next segment cannot be made.
    let next = place.folder.path().join("0000000002.log");
    std::fs::create_dir(&next).expect("a disk");
    let (mut said, text) = (0, "x".repeat(1_000));
    let refused = loop {
        match history.append(vec![message(&topic, &text)]).await.remove(0) {
            Ok(_) => said += 1,
            Err(refused) => break refused,
        }
    };
    assert!(said > 10, "it worked until then");
    let cause = std::error::Error::source(&refused).expect("a cause").to_string();
    assert!(cause.contains("0000000002.log") && cause.contains("room on its disk"), "{cause}");
    assert!(place.metrics.failures.get() > 0, "it is counted");
    assert_eq!(head(&history, &topic).await.seq, said, "nothing was given a number");
    std::fs::remove_dir(&next).expect("a disk");
    let after = say(&history, &topic, "after").await;
    assert_eq!(after.seq, said + 1, "and the next one is given the next");
    let killed = place.killed();
    assert_eq!(read(&killed.history(), &topic, after.before()).await, ["after"]);
}

#[tokio::test]
async fn no_more_topics_are_kept_than_may_be() {
    let mut place = Place::new();
    place.settings.topics = 10;
    let history = place.history();
    for number in 0..10 {
        say(&history, &topic(&format!("topic:{number}")), number).await;
    }
    let refused = history.append(vec![message(&topic("more"), 1)]).await.remove(0).unwrap_err();
    assert_eq!(refused.kind(), tidewire::error::Kind::Full);
    assert!(history.head(&topic("more")).await.is_err());
    say(&history, &topic("topic:3"), "on").await;
    history.head(&Topic::table("public.orders").unwrap()).await.expect("tables are few");
}
