use proptest::prelude::*;

use super::*;
use crate::wal::pgoutput::encoder::{encode, encode_in};
use crate::wal::pgoutput::{
    Begin, Commit, Datum, Insert, Logical, Lsn, Moment, Origin, StreamAbort, StreamStart,
};

fn start(xid: u32, first: bool) -> Vec<u8> {
    encode(&Message::StreamStart(StreamStart { xid, first }))
}

fn stop() -> Vec<u8> {
    encode(&Message::StreamStop)
}

fn committed(xid: u32) -> StreamCommit {
    let at = u64::from(xid) * 100;
    StreamCommit { xid, commit_lsn: Lsn(at), end_lsn: Lsn(at + 5), committed_at: Moment(0) }
}

fn commit(xid: u32) -> Vec<u8> {
    encode(&Message::StreamCommit(committed(xid)))
}

fn abort(xid: u32, subxid: u32) -> Vec<u8> {
    encode(&Message::StreamAbort(StreamAbort { xid, subxid, at: None }))
}

/// A row that names itself.
fn insert(subxid: u32, id: &str) -> Vec<u8> {
    let new = [Datum::Text(id.as_bytes())].into_iter().collect();
    encode_in(&Message::Insert(Insert { relation: 1, new }), Some(subxid))
}

#[test]
fn what_belongs_to_a_subtransaction_that_was_rolled_back_is_known_by_its_id() {
    let mut running = Running::default();
    assert_eq!(running.course(&start(7, true)).unwrap(), Course::Ignore);
    for subxid in [7, 8, 9] {
        assert_eq!(running.course(&insert(subxid, "1")).unwrap(), Course::Keep(7));
    }
    assert_eq!(running.course(&stop()).unwrap(), Course::Complete(7));
    assert_eq!(running.course(&abort(7, 8)).unwrap(), Course::Ignore);
    assert_eq!(running.course(&abort(7, 8)).unwrap(), Course::Ignore, "said twice");
    assert_eq!(running.bytes(), ABORTED_BYTES);
    let Course::Tell(told, aborted) = running.course(&commit(7)).unwrap() else { panic!() };
    assert_eq!(told, committed(7));
    let has = [7, 8, 9].map(|subxid| aborted.has(&insert(subxid, "1")));
    assert_eq!(has, [false, true, false]);
    assert_eq!(running.bytes(), 0);
}

#[test]
fn what_is_not_about_a_running_transaction_passes_at_once() {
    let mut running = Running::default();
    let moment = Moment(0);
    let begin = encode(&Message::Begin(Begin { commit_lsn: Lsn(1), committed_at: moment, xid: 3 }));
    assert_eq!(running.course(&begin).unwrap(), Course::Now);
    let plain = encode(&Message::Insert(Insert { relation: 1, new: [].into_iter().collect() }));
    assert_eq!(running.course(&plain).unwrap(), Course::Now);
    running.course(&start(7, true)).unwrap();
    let origin = encode(&Message::Origin(Origin { commit_lsn: Lsn(1), name: b"far" }));
    assert_eq!(running.course(&origin).unwrap(), Course::Ignore);
    assert!(running.course(&begin).is_err(), "a transaction in the middle of a part");
}

#[test]
fn what_sql_said_before_a_savepoint_is_rolled_back_cannot_be_placed() {
    let say = |prefix: &str| {
        let prefix = prefix.as_bytes();
        let (transactional, lsn, content) = (true, Lsn(1), &b"{}"[..]);
        encode_in(&Message::Logical(Logical { transactional, lsn, prefix, content }), Some(7))
    };
    for (prefix, fine) in [("tidewire", false), ("tidewires", true), ("other", true)] {
        let mut running = Running::default();
        running.course(&start(7, true)).unwrap();
        running.course(&stop()).unwrap();
        assert!(running.course(&abort(7, 8)).is_ok(), "before anything was said");
        running.course(&start(7, false)).unwrap();
        assert_eq!(running.course(&say(prefix)).unwrap(), Course::Keep(7));
        running.course(&stop()).unwrap();
        match running.course(&abort(7, 9)) {
            Ok(_) => assert!(fine, "{prefix}"),
            Err(error) => {
                assert!(!fine, "{prefix}");
                assert_eq!(error.kind(), WalErrorKind::Unstreamable);
            }
        }
    }
}

#[test]
fn nonsense_is_an_error_and_no_panic() {
    let fresh = Running::default;
    assert!(fresh().course(&stop()).is_err());
    assert!(fresh().course(&commit(7)).is_err());
    assert!(fresh().course(&start(7, false)).is_err(), "its beginning was not sent");
    assert_eq!(fresh().course(&abort(7, 7)).unwrap(), Course::Ignore);
    assert_eq!(fresh().course(&abort(7, 8)).unwrap(), Course::Ignore);
    assert_eq!(fresh().course(b"").unwrap(), Course::Now, "the assembly says what is wrong");
    let mut running = fresh();
    running.course(&start(7, true)).unwrap();
    assert!(running.course(&start(8, true)).is_err(), "a part within a part");
    assert!(running.course(b"").is_err());
    running.course(&stop()).unwrap();
    assert!(running.course(&start(7, true)).is_err(), "a beginning in the middle");
    let ended = Commit { commit_lsn: Lsn(1), end_lsn: Lsn(2), committed_at: Moment(0) };
    assert_eq!(running.course(&encode(&Message::Commit(ended))).unwrap(), Course::Now);
}

/// One transaction of a workload: parts, each of rows by subtransaction, the subtransactions that
/// are rolled back after that part, and how it ends.
#[derive(Clone, Debug)]
struct Planned {
    parts: Vec<(Vec<u32>, Vec<u32>)>,
    commits: bool,
}

fn planned() -> impl Strategy<Value = Planned> {
    let subtransactions = || proptest::collection::vec(0_u32..4, 0..5);
    let parts = proptest::collection::vec((subtransactions(), subtransactions()), 1..4);
    (parts, any::<bool>()).prop_map(|(parts, commits)| Planned { parts, commits })
}

proptest! {
    /// However transactions are interleaved, each tells the rows that were not rolled back, in
    /// order, when it commits, and one that does not commit tells nothing.
    #[test]
    fn each_transaction_tells_what_was_not_rolled_back(
        plans in proptest::collection::vec(planned(), 1..4),
        choices in proptest::collection::vec(any::<prop::sample::Index>(), 40),
    ) {
        let mut running = Running::default();
        let mut kept: HashMap<u32, Vec<Vec<u8>>> = HashMap::new();
        let (mut told, mut expected) = (Vec::new(), Vec::new());
        let mut at = vec![0; plans.len()];
        let mut rows = vec![Vec::<(u32, String)>::new(); plans.len()];
        let mut open: Vec<usize> = (0..plans.len()).collect();
        let mut choices = choices.iter().cycle();
        while !open.is_empty() {
            let place = choices.next().unwrap().index(open.len());
            let one = open[place];
            let (plan, xid) = (&plans[one], 1_000 * (one as u32 + 1));
            if let Some((written, aborted)) = plan.parts.get(at[one]) {
                running.course(&start(xid, at[one] == 0)).unwrap();
                for sub in written {
                    let id = format!("{one}.{}", rows[one].len());
                    let message = insert(xid + sub, &id);
                    prop_assert_eq!(running.course(&message).unwrap(), Course::Keep(xid));
                    kept.entry(xid).or_default().push(message);
                    rows[one].push((*sub, id));
                }
                prop_assert_eq!(running.course(&stop()).unwrap(), Course::Complete(xid));
                for sub in aborted.iter().filter(|sub| **sub > 0) {
                    running.course(&abort(xid, xid + sub)).unwrap();
                }
                at[one] += 1;
                continue;
            }
            open.remove(place);
            if !plan.commits {
                prop_assert_eq!(running.course(&abort(xid, xid)).unwrap(), Course::Forget(xid));
                continue;
            }
            let Course::Tell(_, aborted) = running.course(&commit(xid)).unwrap() else { panic!() };
            let all = kept.remove(&xid).unwrap_or_default();
            told.extend(all.into_iter().filter(|message| !aborted.has(message)));
            let gone = |sub: u32| plan.parts.iter().any(|(_, subs)| sub > 0 && subs.contains(&sub));
            let left = rows[one].iter().filter(|(sub, _)| !gone(*sub));
            expected.extend(left.map(|(sub, id)| insert(xid + sub, id)));
        }
        prop_assert_eq!(told, expected);
        prop_assert_eq!(running.bytes(), 0);
    }

    #[test]
    fn no_bytes_make_it_panic(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..8),
    ) {
        let mut running = Running::default();
        running.course(&start(7, true)).unwrap();
        for message in messages {
            let _ = running.course(&message);
        }
    }
}
