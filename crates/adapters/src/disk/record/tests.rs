use proptest::prelude::*;
use tidewire_protocol::change::{Change, Column, Operation, Relation, Row, Transaction, Value};
use tidewire_protocol::{Audience, Body, Draft, GapReason, Payload, SessionId};

use super::*;

fn change(relation: &Arc<Relation>, transaction: &Arc<Transaction>, index: u32) -> Body {
    let id = index.to_string();
    let row: Row = [Value::Json(&id), Value::Unchanged, Value::Absent].into_iter().collect();
    Body::Change(Arc::new(Change {
        operation: Operation::ALL[index as usize % 4],
        relation: Arc::clone(relation),
        record: Some(row.clone()),
        old: index.is_multiple_of(2).then_some(row),
        transaction: Arc::clone(transaction),
        index,
        last: index.is_multiple_of(3),
    }))
}

fn events() -> Vec<Arc<Event>> {
    let column = |name: &str| Column {
        name: name.into(),
        type_oid: 20,
        type_name: "int8".into(),
        key: name == "id",
    };
    let columns = ["id", "a", "b"].map(column).to_vec();
    let relation = Relation::new(7, "public", "t", columns);
    let transaction = Transaction { id: 9, lsn: Some(0), committed_at: -5 };
    let (relation, transaction) = (Arc::new(relation), Arc::new(transaction));
    let bodies = [
        Body::Message(Payload::Json("{\"a\":1}".into())),
        Body::Message(Payload::Binary(vec![0, 255].into())),
        Body::Gap(GapReason::NotListening),
    ];
    let bodies = bodies.into_iter().chain((0..9).map(|at| change(&relation, &transaction, at)));
    let event = |(at, body)| {
        let topic = Topic::application(&format!("room:{}", at % 12)).expect("a topic's name");
        let audience = match at {
            1 => Audience::Except(SessionId(4)),
            _ => Audience::Everyone,
        };
        let draft = Draft { topic, name: (at == 0).then(|| "said".into()), body, audience };
        let position = Position { epoch: Epoch(3), seq: at as u64 + 1 };
        Arc::new(Event::new(draft, position, 1_000 + at as u64))
    };
    bodies.enumerate().map(event).collect()
}

fn marks() -> Vec<Mark> {
    vec![Mark { source: "wal".into(), place: vec![1, 2].into() }]
}

#[test]
fn a_batch_comes_back_as_it_was_put() {
    let (mut bytes, events) = (vec![1, 2, 3], events());
    let costs = put_batch(&mut bytes, &events, &marks());
    let (content, length) = unframe(&bytes[3..]).unwrap();
    assert_eq!(length, bytes.len() - 3);
    let Some(Record::Batch(batch)) = Record::take(content) else { panic!("it is a batch") };
    assert_eq!(batch.marks, marks());
    let shared = batch.shared().unwrap();
    let entries: Vec<_> = batch.entries().map(Option::unwrap).collect();
    let read: Vec<_> =
        entries.iter().map(|entry| batch.event(entry, &shared, Epoch(3)).unwrap()).collect();
    assert_eq!(format!("{read:?}"), format!("{events:?}"));
    assert_eq!(entries.iter().map(|entry| batch.cost(entry)).collect::<Vec<_>>(), costs);
}

#[test]
fn the_other_records_come_back_as_they_were_put() {
    let first = First { segment: 7, epoch: Epoch(u64::MAX), floor: 5, marks: marks() };
    let heads = vec![(Topic::notify("a").unwrap(), 3), (Topic::table("a.b").unwrap(), u64::MAX)];
    let notes = Notes { floor: 9, heads };
    let mut bytes = Vec::new();
    first.put(&mut bytes);
    notes.put(&mut bytes);
    let (content, length) = unframe(&bytes).unwrap();
    assert!(matches!(Record::take(content), Some(Record::First(it)) if it == first));
    let (content, _) = unframe(&bytes[length..]).unwrap();
    assert!(matches!(Record::take(content), Some(Record::Notes(it)) if it == notes));
}

#[test]
fn a_record_that_was_cut_or_altered_anywhere_is_none() {
    let mut bytes = Vec::new();
    put_batch(&mut bytes, &events(), &marks());
    for end in 0..bytes.len() {
        assert_eq!(unframe(&bytes[..end]).err(), Some(Torn::Short), "cut at {end}");
    }
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 0x10;
        assert!(unframe(&altered).is_err(), "altered at {at}");
    }
}

proptest! {
    #[test]
    fn any_content_is_read_or_refused(kind in prop::sample::select(vec![b'S', b'B', b'N']), mut content: Vec<u8>) {
        content.insert(0, kind);
        if let Some(Record::Batch(batch)) = Record::take(&content)
            && let Some(shared) = batch.shared()
        {
            for entry in batch.entries().flatten() {
                let _ = batch.event(&entry, &shared, Epoch(0));
            }
        }
    }
}
