//! A row, or the part of it that is told.
//!
//! Rows are what there is most of, so a row is read where it is: once to see that it is whole, and
//! again, value by value, by whoever wants them.

use std::borrow::Cow;

use super::{DecodeError, Reader};

/// The values of a row in the order of the relation's columns.
#[derive(Clone, PartialEq, Eq)]
pub struct Tuple<'a> {
    count: u16,
    /// The values as they were sent; nothing else.
    bytes: Cow<'a, [u8]>,
}

/// One value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datum<'a> {
    /// SQL's NULL; in an old row of which only the key is told, also what is not told.
    Null,
    /// A large value that the statement did not change, and so is not in the log.
    Unchanged,
    /// The value as PostgreSQL prints it.
    Text(&'a [u8]),
    /// The value in its type's binary form; only when asked for.
    Binary(&'a [u8]),
}

/// The old values of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Old<'a> {
    /// Only those of the replica identity; the others are null whatever they were.
    Key(Tuple<'a>),
    /// All of them.
    Whole(Tuple<'a>),
}

impl<'a> Tuple<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.u16()?;
        let start = reader.rest();
        for _ in 0..count {
            Datum::read(reader)?;
        }
        let length = start.len() - reader.rest().len();
        Ok(Self { count, bytes: Cow::Borrowed(&start[..length]) })
    }

    /// How many values there are.
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// The values, in order.
    pub fn data(&self) -> impl Iterator<Item = Datum<'_>> {
        let mut reader = Reader::new(&self.bytes);
        let datum = move |_| Datum::read(&mut reader);
        let data = (0..self.count).map(datum);
        data.map(|datum| datum.expect("the values were read once, and are as many"))
    }
}

impl std::fmt::Debug for Tuple<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.data()).finish()
    }
}

impl<'d> FromIterator<Datum<'d>> for Tuple<'_> {
    /// A row of these values.
    ///
    /// # Panics
    /// When they are more than a table can have columns, or one is of 4 GiB or more.
    fn from_iter<I: IntoIterator<Item = Datum<'d>>>(data: I) -> Self {
        let (mut count, mut bytes) = (0_u16, Vec::new());
        for datum in data {
            count = count.checked_add(1).expect("a table has 1,600 columns at most");
            datum.put(&mut bytes);
        }
        Self { count, bytes: Cow::Owned(bytes) }
    }
}

impl<'a> Datum<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            b'n' => Ok(Self::Null),
            b'u' => Ok(Self::Unchanged),
            b't' => Ok(Self::Text(counted(reader)?)),
            b'b' => Ok(Self::Binary(counted(reader)?)),
            _ => Err(reader.unknown()),
        }
    }

    pub(super) fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.push(b'n'),
            Self::Unchanged => out.push(b'u'),
            Self::Text(bytes) => put_counted(b't', bytes, out),
            Self::Binary(bytes) => put_counted(b'b', bytes, out),
        }
    }
}

/// Bytes after their number.
pub(super) fn counted<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let length = reader.u32()?;
    reader.take(usize::try_from(length).unwrap_or(usize::MAX))
}

fn put_counted(letter: u8, bytes: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(bytes.len()).expect("PostgreSQL has no value of 4 GiB");
    out.push(letter);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}
