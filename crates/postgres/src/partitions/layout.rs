//! Which partitions a table has, compared with what it had before, and as a text that is kept; pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// Partitions of which a layout is kept in full. Of more only a sum is kept, since each segment of a
/// history on disk repeats what is kept: of so many it is some 15 kB.
const KEPT_IN_FULL: usize = 500;

/// A partition of any level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The transaction that attached it.
    pub(crate) joined: i64,
    /// The number of its file. TRUNCATE gives a new one, and so do VACUUM FULL, CLUSTER, an ALTER
    /// TABLE that rewrites, and TRUNCATE of the whole table, which is told: nothing else tells them
    /// apart.
    pub(crate) file: u32,
    /// Whether a TRUNCATE of it alone is told, so that the file does not matter.
    pub(crate) told: bool,
}

/// The partitions of a table.
pub(crate) type Parts = BTreeMap<u32, Part>;

/// A partitioned table as it was at one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) table: u32,
    parts: Content,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Full(Parts),
    /// All that was kept of many.
    Sum(String),
}

/// What became of a table's partitions since the last look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing.
    Same,
    /// Only new ones came, which may have had rows before.
    Grown(Vec<u32>),
    /// Rows came or went untold.
    Changed,
}

impl Layout {
    pub(crate) fn new(table: u32, parts: Parts) -> Self {
        Self { table, parts: Content::Full(parts) }
    }

    /// Whether this is one of them, as far as is known.
    pub(crate) fn has(&self, part: u32) -> bool {
        matches!(&self.parts, Content::Full(parts) if parts.contains_key(&part))
    }

    /// Those of which a TRUNCATE alone would not be told.
    pub(crate) fn untold(&self) -> Vec<u32> {
        let Content::Full(parts) = &self.parts else { return Vec::new() };
        parts.iter().filter(|(_, part)| !part.told).map(|(oid, _)| *oid).collect()
    }

    /// Whether one of these, of those that count, has not the file that it was made with, so that a
    /// TRUNCATE may have been before anybody saw it. PostgreSQL gives a new table the file with its
    /// own number.
    pub(crate) fn has_other_files(&self, parts: &[u32], counts: impl Fn(&Part) -> bool) -> bool {
        let Content::Full(known) = &self.parts else { return true };
        let known = parts.iter().filter_map(|oid| Some((*oid, known.get(oid)?)));
        let mut counting = known.filter(|(_, part)| counts(part));
        // One that itself has partitions, or is foreign, has no file.
        counting.any(|(oid, part)| part.file != 0 && part.file != oid)
    }

    /// What became of the table since it was like this.
    pub(crate) fn fate(&self, now: &Self) -> Fate {
        if self.table != now.table {
            return Fate::Changed;
        }
        match (&self.parts, &now.parts) {
            (Content::Full(before), Content::Full(now)) => fate(before, now),
            _ if self.sum() == now.sum() => Fate::Same,
            _ => Fate::Changed,
        }
    }

    fn sum(&self) -> String {
        match &self.parts {
            Content::Sum(sum) => sum.clone(),
            Content::Full(parts) => {
                let sum = Sha256::digest(text(parts));
                sum[..16].iter().map(|byte| format!("{byte:02x}")).collect()
            }
        }
    }

    /// As a text to be kept.
    pub(crate) fn put(&self) -> Bytes {
        let table = self.table;
        match &self.parts {
            Content::Full(parts) if parts.len() <= KEPT_IN_FULL => {
                format!("1 {table}{}", text(parts)).into()
            }
            _ => format!("1 {table} sum {}", self.sum()).into(),
        }
    }

    /// What such a text says.
    pub(crate) fn take(text: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        if words.next()? != "1" {
            return None;
        }
        let table = words.next()?.parse().ok()?;
        let mut words = words.peekable();
        if words.next_if_eq(&"sum").is_some() {
            return Some(Self { table, parts: Content::Sum(words.next()?.to_owned()) });
        }
        let part = |word: &str| {
            let mut numbers = word.split(':');
            let oid = numbers.next()?.parse().ok()?;
            let joined = numbers.next()?.parse().ok()?;
            let (told, file) = match numbers.next() {
                None => (true, 0),
                Some(file) => (false, file.parse().ok()?),
            };
            Some((oid, Part { joined, file, told }))
        };
        Some(Self::new(table, words.map(part).collect::<Option<_>>()?))
    }
}

fn text(parts: &Parts) -> String {
    let mut text = String::new();
    for (oid, Part { joined, file, told }) in parts {
        let written = match told {
            true => write!(text, " {oid}:{joined}"),
            false => write!(text, " {oid}:{joined}:{file}"),
        };
        written.expect("a string takes all");
    }
    text
}

fn fate(before: &Parts, now: &Parts) -> Fate {
    let is_same = |before: &Part, now: &Part| {
        before.joined == now.joined && (before.told || before.file == now.file)
    };
    if before.iter().any(|(oid, part)| !now.get(oid).is_some_and(|now| is_same(part, now))) {
        return Fate::Changed;
    }
    let new: Vec<u32> = now.keys().filter(|oid| !before.contains_key(oid)).copied().collect();
    if new.is_empty() { Fate::Same } else { Fate::Grown(new) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(parts: &[(u32, i64, u32)]) -> Layout {
        let part = |(oid, joined, file): &(u32, i64, u32)| {
            (*oid, Part { joined: *joined, file: *file, told: *file == 0 })
        };
        Layout::new(1, parts.iter().map(part).collect())
    }

    #[test]
    fn a_partition_that_is_gone_or_came_anew_or_has_another_file_has_changed_the_table() {
        let before = layout(&[(2, 7, 20), (3, 7, 30)]);
        for (now, expected) in [
            (layout(&[(2, 7, 20), (3, 7, 30)]), Fate::Same),
            (layout(&[(2, 7, 20), (3, 7, 31)]), Fate::Changed),
            (layout(&[(2, 7, 20), (3, 8, 30)]), Fate::Changed),
            (layout(&[(2, 7, 20)]), Fate::Changed),
            (layout(&[(2, 7, 20), (3, 7, 30), (4, 9, 40)]), Fate::Grown(vec![4])),
            (layout(&[(2, 7, 20), (3, 7, 31), (4, 9, 40)]), Fate::Changed),
            (layout(&[(2, 7, 20), (3, 7, 0)]), Fate::Changed),
            (Layout { table: 9, ..before.clone() }, Fate::Changed),
        ] {
            assert_eq!(before.fate(&now), expected, "{now:?}");
        }
        let told = layout(&[(2, 7, 0), (3, 7, 0)]);
        assert_eq!(told.fate(&before), Fate::Same, "new files that were told of");
    }

    #[test]
    fn a_partition_has_the_file_it_was_made_with_until_it_is_rewritten() {
        let now = layout(&[(2, 7, 2), (3, 7, 30), (4, 7, 0)]);
        let has_other = |parts: &[u32]| now.has_other_files(parts, |_| true);
        assert_eq!((has_other(&[2, 4]), has_other(&[2, 3]), has_other(&[])), (false, true, false));
        assert!(!now.has_other_files(&[3], |part| part.told));
    }

    #[test]
    fn a_layout_is_read_as_it_was_written() {
        for layout in [layout(&[]), layout(&[(2, 7, 0)]), layout(&[(2, 7, 20), (3, 8, 0)])] {
            assert_eq!(Layout::take(&layout.put()), Some(layout));
        }
        for senseless in
            ["", "1", "2 5", "1 a", "1 5 6", "1 5 6:", "1 5 a:7:0", "1 5 6:7:x", "1 5 sum"]
        {
            assert_eq!(Layout::take(senseless.as_bytes()), None, "{senseless}");
        }
    }

    #[test]
    fn of_very_many_partitions_it_is_remembered_whether_they_are_the_same() {
        let many: Vec<(u32, i64, u32)> = (0..5_000).map(|oid| (oid, 7, 0)).collect();
        let (all, fewer) = (layout(&many), layout(&many[1..]));
        assert!(all.put().len() < 100);
        let kept = Layout::take(&all.put()).unwrap();
        assert_eq!((kept.fate(&all), kept.fate(&fewer)), (Fate::Same, Fate::Changed));
        assert_eq!(kept.put(), all.put());
    }
}
