use proptest::prelude::*;

use super::encoder::{encode, encode_in};
use super::*;

/// Owned parts that messages are borrowed from.
#[derive(Clone, Debug)]
struct Parts {
    numbers: [u32; 4],
    long: [u64; 3],
    names: [String; 3],
    values: Vec<Option<Vec<u8>>>,
    flag: bool,
}

fn parts() -> impl Strategy<Value = Parts> {
    let name = || "[a-zé🦀\"' ]{1,12}";
    let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
    (
        any::<[u32; 4]>(),
        any::<[u64; 3]>(),
        [name(), name(), name()],
        proptest::collection::vec(value, 0..12),
        any::<bool>(),
    )
        .prop_map(|(numbers, long, names, values, flag)| Parts {
            numbers,
            long,
            names,
            values,
            flag,
        })
}

fn tuple<'t>(parts: &'t Parts) -> Tuple<'t> {
    let datum = |value: &'t Option<Vec<u8>>| match value {
        Some(bytes) if bytes.len() % 3 == 0 => Datum::Binary(bytes),
        Some(bytes) => Datum::Text(bytes),
        None if parts.flag => Datum::Null,
        None => Datum::Unchanged,
    };
    parts.values.iter().map(datum).collect()
}

/// One message of every kind.
fn messages(p: &Parts) -> Vec<Message<'_>> {
    let [a, b, c] = p.long;
    let [x, y, ..] = p.numbers;
    let moment = Moment(c.cast_signed());
    let old = |whole| if whole { Old::Whole(tuple(p)) } else { Old::Key(tuple(p)) };
    let column =
        |name| Attribute { identity: p.flag, name, type_oid: y, modifier: x.cast_signed() };
    let identities = [Identity::Default, Identity::Nothing, Identity::Full, Identity::Index];
    vec![
        Message::Begin(Begin { commit_lsn: Lsn(a), committed_at: moment, xid: x }),
        Message::Commit(Commit { commit_lsn: Lsn(a), end_lsn: Lsn(b), committed_at: moment }),
        Message::Origin(Origin { commit_lsn: Lsn(a), name: p.names[0].as_bytes() }),
        Message::Relation(Relation {
            oid: x,
            schema: p.names[0].as_bytes(),
            table: p.names[1].as_bytes(),
            identity: identities[x as usize % 4],
            columns: p.names.iter().map(|name| column(name.as_bytes())).collect(),
        }),
        Message::Type(Type { oid: x, schema: p.names[0].as_bytes(), name: p.names[1].as_bytes() }),
        Message::Insert(Insert { relation: x, new: tuple(p) }),
        Message::Update(Update { relation: x, old: None, new: tuple(p) }),
        Message::Update(Update { relation: x, old: Some(old(p.flag)), new: tuple(p) }),
        Message::Delete(Delete { relation: x, old: old(!p.flag) }),
        Message::Truncate(Truncate {
            cascade: p.flag,
            restart_identity: !p.flag,
            relations: p.numbers.to_vec(),
        }),
        Message::Logical(Logical {
            transactional: p.flag,
            lsn: Lsn(b),
            prefix: p.names[2].as_bytes(),
            content: p.names[0].as_bytes(),
        }),
        Message::StreamStart(StreamStart { xid: x, first: p.flag }),
        Message::StreamStop,
        Message::StreamCommit(StreamCommit {
            xid: x,
            commit_lsn: Lsn(a),
            end_lsn: Lsn(b),
            committed_at: moment,
        }),
        Message::StreamAbort(StreamAbort { xid: x, subxid: y, at: None }),
        Message::StreamAbort(StreamAbort { xid: x, subxid: y, at: Some((Lsn(a), moment)) }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(parts in parts()) {
        for message in messages(&parts) {
            let bytes = encode(&message);
            prop_assert_eq!(decode(&bytes).unwrap(), message);
        }
    }

    #[test]
    fn a_streamed_message_names_its_subtransaction(parts in parts(), xid: u32) {
        for message in messages(&parts) {
            let named = matches!(
                message,
                Message::Relation(_) | Message::Type(_) | Message::Insert(_) | Message::Update(_)
                    | Message::Delete(_) | Message::Truncate(_) | Message::Logical(_)
            );
            let xid = named.then_some(xid);
            let bytes = encode_in(&message, xid);
            prop_assert_eq!(decode_streamed(&bytes).unwrap(), (xid, message));
        }
    }

    #[test]
    fn a_message_cut_short_or_with_more_behind_it_is_an_error(parts in parts(), cut: usize) {
        for message in messages(&parts) {
            let mut bytes = encode(&message);
            bytes.push(0);
            // Sixteen more bytes after an abort would have a meaning, one has none.
            prop_assert!(decode(&bytes).is_err(), "{message:?}");
            bytes.pop();
            bytes.truncate(cut % bytes.len());
            let is_shorter_form = matches!(decode(&bytes), Ok(Message::StreamAbort(_)));
            prop_assert!(is_shorter_form || decode(&bytes).is_err(), "{message:?}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let _ = decode_streamed(&bytes);
    }

    #[test]
    fn no_bytes_after_a_known_letter_make_it_panic(
        tag in prop::sample::select(&b"BCORYIUDTMSEcA"[..]),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let bytes: Vec<u8> = std::iter::once(tag).chain(bytes).collect();
        let _ = decode(&bytes);
        let _ = decode_streamed(&bytes);
    }
}

/// Recorded from PostgreSQL 15: `INSERT INTO t VALUES (1, NULL, 'x')`.
#[test]
fn an_insert_as_postgresql_sends_it() {
    let bytes = b"I\x00\x00\x40\x0bN\x00\x03t\x00\x00\x00\x011nt\x00\x00\x00\x01x";
    let expected = Insert {
        relation: 0x400b,
        new: [Datum::Text(b"1"), Datum::Null, Datum::Text(b"x")].into_iter().collect(),
    };
    assert_eq!(decode(bytes).unwrap(), Message::Insert(expected));
}

#[test]
fn a_relation_as_postgresql_sends_it() {
    let bytes = b"R\x00\x00\x40\x0bpublic\0t\0d\x00\x02\x01id\0\x00\x00\x00\x17\xff\xff\xff\xff\
                  \x00name\0\x00\x00\x04\x13\x00\x00\x00\x0e";
    let column = |identity, name: &'static [u8], type_oid, modifier| Attribute {
        identity,
        name,
        type_oid,
        modifier,
    };
    let expected = Relation {
        oid: 0x400b,
        schema: b"public",
        table: b"t",
        identity: Identity::Default,
        columns: vec![column(true, b"id", 23, -1), column(false, b"name", 1043, 14)],
    };
    assert_eq!(decode(bytes).unwrap(), Message::Relation(expected));
}

#[test]
fn a_begin_tells_commit_time_and_id() {
    let bytes =
        b"B\x00\x00\x00\x00\x01\x5a\x3c\x58\x00\x02\xa0\x00\x00\x00\x00\x00\x00\x00\x02\xe1";
    let Message::Begin(begin) = decode(bytes).unwrap() else { panic!("not a Begin") };
    assert_eq!((begin.commit_lsn.to_string().as_str(), begin.xid), ("0/15A3C58", 0x2e1));
    assert_eq!(begin.committed_at.unix_micros(), 946_684_800_000_000 + (0x2a0_u64 << 40) as i64);
}

#[test]
fn errors_name_the_message_and_the_place() {
    let told = |bytes| decode(bytes).unwrap_err().to_string();
    assert_eq!(told(b""), "pgoutput message without a name: the message is too short at byte 0");
    assert_eq!(told(b"I\0\0\0\x01X"), "pgoutput message Insert: an unknown letter at byte 5");
    assert_eq!(told(b"?"), "pgoutput message of an unknown kind: an unknown letter at byte 0");
    assert_eq!(
        told(b"T\xff\xff\xff\xff\0"),
        "pgoutput message Truncate: a list longer than the message at byte 6"
    );
}

#[test]
fn places_are_printed_and_read_as_postgresql_does() {
    let lsn = Lsn(0x16_B374_D848);
    assert_eq!(lsn.to_string(), "16/B374D848");
    assert_eq!("16/B374D848".parse(), Ok(lsn));
    assert!("16".parse::<Lsn>().is_err());
    assert!("1/1FFFFFFFF".parse::<Lsn>().is_err());
}
