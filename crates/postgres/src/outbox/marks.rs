//! What a history that outlives the process keeps of the outbox, each together with what was told:
//! how far it was told, which tables were being told, and on which topics SQL spoke.
//!
//! A table without a mark was not told everything, so whoever comes back is told a gap; one with a
//! mark is told from the [`Place`] on, before anybody asks for it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use tidewire::history::Mark;
use tidewire::{Error, Publisher};
use tidewire_protocol::Topic;

use super::place::Place;

/// What begins the names of all marks; alone, it is that of the place.
pub(crate) const OUTBOX: &str = "outbox";

const TABLE: &str = "outbox/table:";
const VOICE: &str = "outbox/topic:";

/// A table that was being told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Which one.
    pub(super) oid: u32,
    /// Its triggers as they were; others may have left out changes in between.
    pub(super) triggers: String,
}

/// What the history keeps.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Remembered {
    pub(super) place: Option<Place>,
    pub(super) tables: HashMap<Topic, Told>,
    pub(super) voices: HashSet<Topic>,
}

impl Remembered {
    /// Asks the history.
    pub(super) async fn read(publisher: &Publisher) -> Result<Self, Error> {
        let mut found = Self::default();
        for Mark { source, place } in publisher.marks(OUTBOX).await? {
            if let Some(topic) = source.strip_prefix(TABLE) {
                let told = Topic::table(topic).ok().zip(Told::take(&place));
                found.tables.extend(told);
            } else if let Some(topic) = source.strip_prefix(VOICE) {
                found.voices.extend(Topic::application(topic));
            } else if *source == *OUTBOX {
                found.place = Place::take(&place);
            }
        }
        Ok(found)
    }
}

impl Told {
    fn put(&self) -> Bytes {
        format!("{} {}", self.oid, self.triggers).into()
    }

    fn take(text: &[u8]) -> Option<Self> {
        let (oid, triggers) = std::str::from_utf8(text).ok()?.split_once(' ')?;
        Some(Self { oid: oid.parse().ok()?, triggers: triggers.to_owned() })
    }
}

/// Everything up to there was told.
pub(super) fn place(place: &Place) -> Mark {
    Mark { source: OUTBOX.into(), place: place.put().into() }
}

/// The table is being told from here on, or is not any more.
pub(super) fn table(topic: &Topic, told: Option<&Told>) -> Mark {
    Mark { source: name(TABLE, topic), place: told.map_or(Bytes::new(), Told::put) }
}

/// SQL speaks on the topic.
pub(super) fn voice(topic: &Topic) -> Mark {
    Mark { source: name(VOICE, topic), place: Bytes::from_static(b"1") }
}

/// The topic was told that something may be missing.
pub(super) fn no_voice(topic: &Topic) -> Mark {
    Mark { source: name(VOICE, topic), place: Bytes::new() }
}

fn name(prefix: &str, topic: &Topic) -> Arc<str> {
    format!("{prefix}{}", topic.name()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_it_was_written() {
        for triggers in ["", "1:2 3:4"] {
            let told = Told { oid: 7, triggers: triggers.to_owned() };
            assert_eq!(Told::take(&told.put()), Some(told));
        }
        assert_eq!(Told::take(b"7"), None);
        assert_eq!(Told::take(b"x y"), None);
    }
}
