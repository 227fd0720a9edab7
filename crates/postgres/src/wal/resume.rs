//! Where to begin after an end of the process or of the connection: exactly behind what the history
//! holds.
//!
//! Where the history outlives the process, how far the log was told is kept in it, together with
//! what was told: a [`Told`] in a mark of the slot. A transaction may be told in parts, so this names
//! the part. Beside it each table whose changes flow has a mark of its own, and so has each topic
//! that SQL spoke on, so that after a restart nobody is served a hole as if it were none: a table
//! that is published but has no mark was never told its gap. A partitioned table has one more, of
//! which partitions it had when that was last looked at.
//!
//! Rules that make it exact: a mark is kept with its drafts or not at all, nothing is confirmed to
//! PostgreSQL that is not in a mark, and a slot that is ahead of the mark is not gone on with. Of a
//! mark that was given out and not reported kept, nobody knows whether its drafts are: there is no
//! other until reading began again behind what the history says.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidewire::Publisher;
use tidewire::history::Mark;
use tidewire_protocol::Topic;
use tokio::time::Instant;

use super::WalOptions;
use super::error::{WalError, WalErrorKind};
use super::pgoutput::Lsn;
use super::slot::SlotKind;
use crate::partitions::Layout;

/// What stands between a slot and the name of a table whose partitions are remembered.
const PARTS: &str = "/parts:";

/// How far the log was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The commit of the newest transaction that was told whole.
    pub(super) done: Lsn,
    /// Which transaction that was: a log that was put back to an earlier time has others at the
    /// same places.
    pub(super) last: Option<Last>,
    /// The place before which everything was told.
    pub(super) processed: Lsn,
    /// What was told of the transaction after it.
    pub(super) part: Option<Part>,
}

/// A transaction, beside the place of its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    /// Its short id.
    pub(super) xid: u32,
    /// When it was committed, in microseconds since 1970.
    pub(super) at: i64,
}

/// Part of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Its commit.
    pub(super) commit: Lsn,
    /// Deeds that were read.
    pub(super) seen: usize,
    /// The indexes of the changes among them that were kept back, in order.
    pub(super) kept_back: Vec<u32>,
}

/// What the mark of a slot says: how far, and in which log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotMark {
    pub(super) system: String,
    pub(super) timeline: u32,
    pub(super) told: Told,
}

/// The marks of one slot; for a source whose slot or history ends with it, none.
pub(super) struct Marks {
    /// What begins the names of all marks, if any are kept.
    slot: Option<Arc<str>>,
    /// In which log.
    system: String,
    timeline: u32,
    /// The newest that was kept.
    kept: Told,
    kept_at: Instant,
    /// How often one is kept that comes with nothing.
    interval: Duration,
    /// One was given out and not reported kept, so what came with it may be lost.
    in_doubt: bool,
}

impl Marks {
    pub(super) fn new(options: &WalOptions, publisher: &Publisher) -> Self {
        let slot = match &options.slot {
            SlotKind::Persistent { name, .. } if publisher.keeps_marks() => {
                Some(format!("wal:{name}").into())
            }
            _ => None,
        };
        Self {
            slot,
            system: String::new(),
            timeline: 0,
            kept: Told::default(),
            kept_at: Instant::now(),
            interval: options.mark_interval,
            in_doubt: false,
        }
    }

    /// Whether any are kept.
    pub(super) fn are_kept(&self) -> bool {
        self.slot.is_some()
    }

    /// What the history says of the slot.
    pub(super) async fn read(&self, publisher: &Publisher) -> Result<Option<SlotMark>, WalError> {
        let Some(slot) = &self.slot else { return Ok(None) };
        let place = publisher.mark(slot).await.map_err(failed)?;
        Ok(place.and_then(|place| SlotMark::take(&place)))
    }

    /// Reading begins again: this is the log, and this is what was told of it and no more.
    pub(super) fn begin(&mut self, system: &str, timeline: u32, told: Told) {
        (self.system, self.timeline) = (system.to_owned(), timeline);
        (self.kept, self.in_doubt) = (told, false);
    }

    /// The mark to be kept with what is published now, to be reported with [`Marks::kept`]; `None`
    /// where there is nothing to be kept, or nothing that could not wait.
    ///
    /// # Errors
    /// While the one before is in doubt: this one would count what may be lost as told.
    pub(super) fn due(&mut self, told: &Told, brings: bool) -> Result<Option<Mark>, WalError> {
        let Some(slot) = &self.slot else { return Ok(None) };
        if self.in_doubt {
            let words = "the history did not take what came before, so that is read again first";
            return Err(WalError::new(WalErrorKind::History, words));
        }
        let can_wait = *told == self.kept || self.kept_at.elapsed() < self.interval;
        if can_wait && !brings {
            return Ok(None);
        }
        let (system, told) = (self.system.clone(), told.clone());
        let place = SlotMark { system, timeline: self.timeline, told }.put();
        let mark = Mark { source: Arc::clone(slot), place };
        self.in_doubt = true;
        Ok(Some(mark))
    }

    /// The mark was kept, with all that came with it.
    pub(super) fn kept(&mut self, told: Told) {
        (self.kept, self.kept_at, self.in_doubt) = (told, Instant::now(), false);
    }

    /// Whether what was handed over last may be lost, so that it has to be read again.
    pub(super) fn are_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// The place before which PostgreSQL need not keep anything for us, of what was `processed`.
    pub(super) fn confirmable(&self, processed: Lsn) -> Lsn {
        match self.slot {
            Some(_) => self.kept.processed,
            None => processed,
        }
    }

    /// What says that a topic's changes, or messages, are told, and of a table as what; without a
    /// place, that they are not.
    pub(super) fn of_topic(
        slot: Option<&Arc<str>>,
        topic: &Topic,
        place: Option<Bytes>,
    ) -> Vec<Mark> {
        let place = place.unwrap_or_default();
        let mark = |slot: &Arc<str>| Mark { source: format!("{slot}/{topic}").into(), place };
        slot.map(mark).into_iter().collect()
    }

    /// What says which partitions a table had when it was last looked at; without a layout, nothing
    /// any more.
    pub(super) fn of_layout(
        slot: Option<&Arc<str>>,
        topic: &Topic,
        layout: Option<&Layout>,
    ) -> Option<Mark> {
        let place = layout.map(Layout::put).unwrap_or_default();
        slot.map(|slot| Mark { source: format!("{slot}{PARTS}{}", topic.name()).into(), place })
    }

    /// The partitioned tables whose changes were being told, and which partitions they had.
    pub(super) async fn layouts(
        &self,
        publisher: &Publisher,
    ) -> Result<Vec<(Topic, Layout)>, WalError> {
        let Some(slot) = &self.slot else { return Ok(Vec::new()) };
        let prefix = format!("{slot}{PARTS}");
        let marks = publisher.marks(&prefix).await.map_err(failed)?;
        let layout = |mark: &Mark| {
            let topic = Topic::table(mark.source.strip_prefix(&prefix)?).ok()?;
            Some((topic, Layout::take(&mark.place)?))
        };
        Ok(marks.iter().filter_map(layout).collect())
    }

    /// What begins the names of all marks.
    pub(super) fn slot(&self) -> Option<&Arc<str>> {
        self.slot.as_ref()
    }

    /// Topics whose changes, or messages, were being told, each with what was kept beside it.
    pub(super) async fn topics(
        &self,
        publisher: &Publisher,
    ) -> Result<HashMap<Topic, Bytes>, WalError> {
        let Some(slot) = &self.slot else { return Ok(HashMap::new()) };
        let prefix = format!("{slot}/");
        let marks = publisher.marks(&prefix).await.map_err(failed)?;
        let named = |mark: Mark| Some((topic(mark.source.strip_prefix(&prefix)?)?, mark.place));
        Ok(marks.into_iter().filter_map(named).collect())
    }
}

/// The topic that prints so.
fn topic(text: &str) -> Option<Topic> {
    let table = text.strip_prefix("table:").map(Topic::table);
    table.or_else(|| text.strip_prefix("topic:").map(Topic::application))?.ok()
}

/// The history does not take, or give, what has to be kept.
pub(super) fn failed(error: tidewire::Error) -> WalError {
    let words = "the history does not take what PostgreSQL's log says, so reading waits for it";
    WalError::because(WalErrorKind::History, words, error)
}

impl SlotMark {
    fn put(&self) -> Bytes {
        let Told { done, last, processed, part } = &self.told;
        let mut text = format!("2 {} {} {done} {processed}", self.system, self.timeline);
        match last {
            Some(Last { xid, at }) => text += &format!(" {xid} {at}"),
            None => text += " - -",
        }
        if let Some(Part { commit, seen, kept_back }) = part {
            let kept_back: Vec<String> = kept_back.iter().map(u32::to_string).collect();
            text += &format!(" {commit} {seen} {}", kept_back.join(","));
        }
        text.into()
    }

    fn take(place: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(place).ok()?.split(' ');
        let version = words.next().filter(|version| matches!(*version, "1" | "2"))?;
        let (system, timeline) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        let (done, processed) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let last = match version {
            "1" => None,
            _ => match (words.next()?, words.next()?) {
                ("-", "-") => None,
                (xid, at) => Some(Last { xid: xid.parse().ok()?, at: at.parse().ok()? }),
            },
        };
        let part = match words.next() {
            None => None,
            Some(commit) => Some(Part {
                commit: commit.parse().ok()?,
                seen: words.next()?.parse().ok()?,
                kept_back: words
                    .next()?
                    .split(',')
                    .filter(|index| !index.is_empty())
                    .map(|index| index.parse().ok())
                    .collect::<Option<_>>()?,
            }),
        };
        Some(Self { system, timeline, told: Told { done, last, processed, part } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let last = Some(Last { xid: 9, at: -1 });
        let whole = Told { done: Lsn(7), last, processed: Lsn(u64::MAX), part: None };
        let part = |kept_back| Part { commit: Lsn(9), seen: 5_000, kept_back };
        for part in [None, Some(part(vec![])), Some(part(vec![3])), Some(part(vec![3, 4_999]))] {
            for last in [last, None] {
                let told = Told { part: part.clone(), last, ..whole.clone() };
                let mark = SlotMark { system: "7312".to_owned(), timeline: 2, told };
                assert_eq!(SlotMark::take(&mark.put()), Some(mark));
            }
        }
        let former = SlotMark::take(b"1 a 1 0/1 0/2").unwrap().told;
        assert_eq!((former.done, former.last), (Lsn(1), None), "of an older version");
        for senseless in [
            "",
            "3 a 1 0/1 0/2",
            "2 a 1 0/1 0/2",
            "2 a 1 0/1 0/2 1",
            "2 a 1 0/1 0/2 1 x",
            "1 a 1 0/1",
            "1 a 1 0/1 0/2 0/3",
            "1 a 1 0/1 0/2 0/3 1 x",
        ] {
            assert_eq!(SlotMark::take(senseless.as_bytes()), None, "{senseless}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_mark_that_was_not_kept_there_is_none_until_reading_began_again() {
        let (system, told) = (String::new(), |lsn| Told { processed: Lsn(lsn), ..Told::default() });
        let mut marks = Marks {
            slot: Some("wal:slot".into()),
            system,
            timeline: 1,
            kept: told(1),
            kept_at: Instant::now(),
            interval: Duration::from_secs(1),
            in_doubt: false,
        };
        assert_eq!(marks.due(&told(2), false).unwrap(), None, "it can wait");
        assert!(marks.due(&told(2), true).unwrap().is_some());
        assert!(marks.are_in_doubt());
        tokio::time::advance(2 * marks.interval).await;
        for brings in [false, true] {
            let error = marks.due(&told(3), brings).unwrap_err();
            assert_eq!(error.kind(), WalErrorKind::History);
        }
        assert_eq!(marks.confirmable(Lsn(3)), Lsn(1), "only what was kept is confirmed");
        marks.begin("", 1, told(1));
        assert!(marks.due(&told(2), false).unwrap().is_some(), "it waited long enough");
        marks.kept(told(2));
        assert!(!marks.are_in_doubt());
        assert_eq!(marks.confirmable(Lsn(3)), Lsn(2));
    }

    #[test]
    fn a_mark_names_its_topic() {
        let slot: Arc<str> = "wal:slot".into();
        for named in [Topic::table("public.orders").unwrap(), Topic::application("a/b c").unwrap()]
        {
            let place = Some(Bytes::from_static(b"1"));
            let mark = Marks::of_topic(Some(&slot), &named, place).remove(0);
            assert_eq!(topic(mark.source.strip_prefix("wal:slot/").unwrap()), Some(named));
        }
        assert_eq!(Marks::of_topic(None, &Topic::application("a").unwrap(), None), []);
        let orders = Topic::table("public.orders").unwrap();
        let mark = Marks::of_layout(Some(&slot), &orders, None).unwrap();
        assert_eq!(topic(mark.source.strip_prefix("wal:slot/").unwrap()), None);
    }
}
