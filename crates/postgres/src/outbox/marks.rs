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
use crate::naming::Naming;

/// What begins the names of all marks; alone, it is that of the place.
pub(crate) const OUTBOX: &str = "outbox";

const TABLE: &str = "outbox/table:";
const VOICE: &str = "outbox/topic:";

/// A table that was being told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Which one, and how it was named when it began to be told.
    pub(super) naming: Naming,
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
                let told = Topic::table(topic)
                    .ok()
                    .and_then(|t| Some((t.clone(), Told::take(&t, &place)?)));
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
        format!("2 {} {} {}", self.naming.oid, self.naming.stamp, self.triggers).into()
    }

    /// What such a text says of the table with this topic. One that an older version wrote does not
    /// say how the table was named, so it says nothing.
    fn take(topic: &Topic, text: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.splitn(4, ' ');
        if words.next()? != "2" {
            return None;
        }
        let (oid, stamp) = (words.next()?.parse().ok()?, words.next()?.to_owned());
        let triggers = words.next()?.to_owned();
        let (schema, table) = topic.name().split_once('.')?;
        let (schema, table) = (schema.to_owned(), table.to_owned());
        Some(Self { naming: Naming { oid, schema, table, stamp }, triggers })
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
        let orders = Topic::table("public.orders").unwrap();
        for triggers in ["", "1:2 3:4"] {
            let (schema, table) = ("public".to_owned(), "orders".to_owned());
            let naming = Naming { oid: 7, schema, table, stamp: "1.2.3.f".to_owned() };
            let told = Told { naming, triggers: triggers.to_owned() };
            assert_eq!(Told::take(&orders, &told.put()), Some(told));
        }
        for senseless in ["", "7", "x y", "7 1:2 3:4", "2 x s t", "2 7 s"] {
            assert_eq!(Told::take(&orders, senseless.as_bytes()), None, "{senseless}");
        }
    }
}
