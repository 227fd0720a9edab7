//! How far the outbox was told, and whether reading can go on from there; pure.
//!
//! A [`Place`] is good while everything that it has not seen is still in the outbox: that of then,
//! not one that a crash has emptied, and nothing removed but what this place has seen. Where the
//! history outlives the process it is kept there, together with what was told, see `marks`.

use tidewire_protocol::GapReason;
use tidewire_protocol::change::Snapshot;

use super::window::Spot;

/// How far the outbox was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// In which outbox.
    pub(super) outbox: Outbox,
    /// Everything that this snapshot sees was told.
    pub(super) since: String,
    /// What was told of the rows after it.
    pub(super) part: Option<Part>,
}

/// Which outbox, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outbox {
    /// Its epoch, which a crash ends, with the database and the cluster it is in.
    pub(super) epoch: String,
    /// Its file, which changes when somebody empties it by hand.
    pub(super) file: u32,
    /// Moves when writers removed changes that nobody had told.
    pub(super) losses: i64,
}

/// Part of the rows after a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// The snapshot up to which they were read.
    pub(super) seen: String,
    /// How far they were told.
    pub(super) spot: Spot,
}

/// What is there when a reader takes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scene {
    /// The outbox.
    pub(super) outbox: Outbox,
    /// What is visible now.
    pub(super) snapshot: String,
    /// What readers have told, and may have removed.
    pub(super) told: Option<String>,
    /// A reader of the first version was here, which removes and does not say what.
    pub(super) secretive: bool,
    /// Writers can notify: no transaction of theirs may be prepared, which excludes it.
    pub(super) may_sleep: bool,
}

impl Scene {
    /// Where to begin when nothing is known.
    pub(super) fn place(&self) -> Place {
        Place { outbox: self.outbox.clone(), since: self.snapshot.clone(), part: None }
    }
}

impl Place {
    /// Why reading cannot go on from here, if it cannot.
    pub(super) fn judge(&self, scene: &Scene) -> Option<GapReason> {
        let Outbox { epoch, file, losses } = &scene.outbox;
        if (&self.outbox.epoch, self.outbox.file) != (epoch, *file) {
            return Some(GapReason::EpochChanged);
        }
        let parsed = |text: &str| text.parse::<Snapshot>().ok();
        let (Some(since), Some(now)) = (parsed(&self.since), parsed(&scene.snapshot)) else {
            return Some(GapReason::EpochChanged);
        };
        // A cluster that was put back to an earlier time.
        if since.xmax > now.xmax {
            return Some(GapReason::EpochChanged);
        }
        let was_seen = |told: &String| parsed(told).is_some_and(|told| includes(&since, &told));
        let all_seen = scene.told.as_ref().is_none_or(was_seen);
        let whole = *losses == self.outbox.losses && !scene.secretive && all_seen;
        (!whole).then_some(GapReason::ConnectionLost)
    }

    /// The place as a text.
    pub(super) fn put(&self) -> String {
        let Outbox { epoch, file, losses } = &self.outbox;
        let mut text = format!("1 {epoch} {file} {losses} {}", self.since);
        if let Some(Part { seen, spot: Spot { xid, upto, held } }) = &self.part {
            let held: Vec<String> = held.iter().map(i64::to_string).collect();
            text += &format!(" {seen} {xid} {upto} {}", held.join(","));
        }
        text
    }

    /// The place that was put so.
    pub(super) fn take(text: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        if words.next()? != "1" {
            return None;
        }
        let epoch = words.next()?.to_owned();
        let (file, losses) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let since = words.next()?.to_owned();
        let part = match words.next() {
            None => None,
            Some(seen) => Some(Part { seen: seen.to_owned(), spot: take_spot(&mut words)? }),
        };
        Some(Self { outbox: Outbox { epoch, file, losses }, since, part })
    }
}

fn take_spot<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Spot> {
    let (xid, upto) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let held = words.next()?.split(',').filter(|id| !id.is_empty());
    Some(Spot { xid, upto, held: held.map(|id| id.parse().ok()).collect::<Option<_>>()? })
}

/// Whether one snapshot sees every transaction that the other sees.
fn includes(one: &Snapshot, other: &Snapshot) -> bool {
    other.xmax <= one.xmax && one.running.iter().all(|running| !other.contains(*running))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scene() -> Scene {
        Scene {
            outbox: Outbox { epoch: "e/1/2".to_owned(), file: 3, losses: 4 },
            snapshot: "20:30:22".to_owned(),
            told: Some("10:20:12".to_owned()),
            secretive: false,
            may_sleep: true,
        }
    }

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let part = |held| Part { seen: "9:12:".to_owned(), spot: Spot { xid: 11, upto: 7, held } };
        for part in [None, Some(part(vec![])), Some(part(vec![3])), Some(part(vec![3, 6]))] {
            let place = Place { part, ..scene().place() };
            assert_eq!(Place::take(place.put().as_bytes()), Some(place));
        }
        for senseless in [
            "",
            "1 e 3 4",
            "2 e 3 4 9:9:",
            "1 e x 4 9:9:",
            "1 e 3 4 9:9: 9:12: 1",
            "1 e 3 4 9:9: 9:12: 1 2 x",
        ] {
            assert_eq!(Place::take(senseless.as_bytes()), None, "{senseless}");
        }
    }

    #[test]
    fn reading_goes_on_while_nothing_is_missing_and_else_says_why() {
        let scene = scene();
        let place = |since: &str| Place { since: since.to_owned(), ..scene.place() };
        // The reader of then has removed what it had told, and no more.
        assert_eq!(place("10:20:12").judge(&scene), None);
        assert_eq!(place("13:25:").judge(&scene), None);
        // Others told and removed more.
        for since in ["10:19:12", "10:20:12,15", "9:20:9,12"] {
            assert_eq!(place(since).judge(&scene), Some(GapReason::ConnectionLost), "{since}");
        }
        let lost = Some(GapReason::ConnectionLost);
        let outbox = |losses| Outbox { losses, ..scene.outbox.clone() };
        let unread = Scene { outbox: outbox(5), ..scene.clone() };
        assert_eq!(place("20:20:").judge(&unread), lost);
        assert_eq!(place("20:20:").judge(&Scene { secretive: true, ..scene.clone() }), lost);
        // Emptied, another one, or one from before.
        let changed = Some(GapReason::EpochChanged);
        let emptied = Outbox { file: 9, ..scene.outbox.clone() };
        assert_eq!(place("20:20:").judge(&Scene { outbox: emptied, ..scene.clone() }), changed);
        let crashed = Outbox { epoch: "f/1/2".to_owned(), ..scene.outbox.clone() };
        assert_eq!(place("20:20:").judge(&Scene { outbox: crashed, ..scene.clone() }), changed);
        assert_eq!(place("20:31:").judge(&scene), changed);
    }

    fn snapshot() -> impl Strategy<Value = Snapshot> {
        (1u64..20, prop::collection::btree_set(1u64..20, 0..5)).prop_map(|(xmax, running)| {
            let running: Vec<u64> = running.into_iter().filter(|xid| *xid < xmax).collect();
            Snapshot { xmin: running.first().copied().unwrap_or(xmax), xmax, running }
        })
    }

    proptest! {
        #[test]
        fn a_snapshot_that_includes_another_sees_all_that_it_sees(
            one in snapshot(),
            other in snapshot(),
        ) {
            let sees_all = (1..20).all(|xid| one.contains(xid) || !other.contains(xid));
            // A snapshot ends behind a transaction that has ended, so none ends with running ones.
            let is_real = |it: &Snapshot| it.xmax == 1 || it.contains(it.xmax - 1);
            if is_real(&one) && is_real(&other) {
                prop_assert_eq!(includes(&one, &other), sees_all);
            } else {
                prop_assert!(!includes(&one, &other) || sees_all);
            }
        }
    }
}
