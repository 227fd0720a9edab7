//! What PostgreSQL's output plugin `pgoutput` says, message by message; pure.
//!
//! Bytes in, values out: [`decode`] borrows from the message and copies nothing but lists. One file
//! per message, named after it. Text stays bytes in the encoding of the database, of which nothing
//! here knows. It knows the forms of protocol 1 and 2 (14 to 18); nothing here
//! knows about connections or about what a change means.
//!
//! No bytes make it panic or reserve more memory than a small multiple of their length.

mod begin;
mod commit;
mod delete;
mod insert;
mod logical;
mod origin;
mod reader;
mod relation;
mod stream;
mod truncate;
mod tuple;
mod type_name;
mod update;

pub use begin::Begin;
pub use commit::Commit;
pub use delete::Delete;
pub use insert::Insert;
pub use logical::Logical;
pub use origin::Origin;
pub use reader::DecodeError;
use reader::Reader;
pub use relation::{Attribute, Identity, Relation};
pub use stream::{StreamAbort, StreamCommit, StreamStart};
pub use truncate::Truncate;
pub use tuple::{Datum, Old, Tuple};
pub use type_name::Type;
pub use update::Update;

/// A place in the write-ahead log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl std::fmt::Display for Lsn {
    /// As PostgreSQL prints it: `16/B374D848`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl std::str::FromStr for Lsn {
    type Err = LsnError;

    /// Reads `16/B374D848`.
    fn from_str(text: &str) -> Result<Self, LsnError> {
        let (high, low) = text.split_once('/').ok_or(LsnError)?;
        let part = |part| u32::from_str_radix(part, 16).map_err(|_| LsnError);
        Ok(Self(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

/// The text is not a place in the write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a place in the write-ahead log as PostgreSQL prints it")]
pub struct LsnError;

/// A moment as PostgreSQL sends it: microseconds since 2000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub i64);

/// Microseconds from 1970 to 2000.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

impl Moment {
    /// Microseconds since 1970.
    pub fn unix_micros(self) -> i64 {
        self.0.saturating_add(EPOCH_MICROS)
    }

    /// The moment that many microseconds after 1970.
    pub fn from_unix_micros(micros: i64) -> Self {
        Self(micros.saturating_sub(EPOCH_MICROS))
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message<'a> {
    /// A transaction begins; all its changes follow, then its [`Commit`].
    Begin(Begin),
    /// The transaction is complete.
    Commit(Commit),
    /// The transaction came to this server by replication.
    Origin(Origin<'a>),
    /// How a table looks from here on.
    Relation(Relation<'a>),
    /// The name of a type that is not built in.
    Type(Type<'a>),
    /// A new row.
    Insert(Insert<'a>),
    /// A changed row.
    Update(Update<'a>),
    /// A row that is gone.
    Delete(Delete<'a>),
    /// Tables that were emptied.
    Truncate(Truncate),
    /// Something said with `pg_logical_emit_message`.
    Logical(Logical<'a>),
    /// Protocol 2: part of a transaction that is still running.
    StreamStart(StreamStart),
    /// Protocol 2: the end of such a part.
    StreamStop,
    /// Protocol 2: the transaction sent in parts has committed.
    StreamCommit(StreamCommit),
    /// Protocol 2: it, or a part of it, was rolled back.
    StreamAbort(StreamAbort),
}

/// Reads one message of protocol 1, or one of protocol 2 outside of a streamed part.
///
/// # Errors
/// [`DecodeError`] when the bytes are not one whole message.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let tag = reader.tag()?;
    body(tag, &mut reader)
}

/// Reads one message between [`StreamStart`] and the stop, and the id of the transaction or
/// subtransaction it belongs to; the stop itself belongs to none.
///
/// # Errors
/// [`DecodeError`] when the bytes are not one whole message.
pub fn decode_streamed(bytes: &[u8]) -> Result<(Option<u32>, Message<'_>), DecodeError> {
    let mut reader = Reader::new(bytes);
    let tag = reader.tag()?;
    let xid = match tag {
        b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M' => Some(reader.u32()?),
        _ => None,
    };
    Ok((xid, body(tag, &mut reader)?))
}

fn body<'a>(tag: u8, reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let message = match tag {
        b'B' => Message::Begin(Begin::read(reader)?),
        b'C' => Message::Commit(Commit::read(reader)?),
        b'O' => Message::Origin(Origin::read(reader)?),
        b'R' => Message::Relation(Relation::read(reader)?),
        b'Y' => Message::Type(Type::read(reader)?),
        b'I' => Message::Insert(Insert::read(reader)?),
        b'U' => Message::Update(Update::read(reader)?),
        b'D' => Message::Delete(Delete::read(reader)?),
        b'T' => Message::Truncate(Truncate::read(reader)?),
        b'M' => Message::Logical(Logical::read(reader)?),
        b'S' => Message::StreamStart(StreamStart::read(reader)?),
        b'E' => Message::StreamStop,
        b'c' => Message::StreamCommit(StreamCommit::read(reader)?),
        b'A' => Message::StreamAbort(StreamAbort::read(reader)?),
        _ => return Err(reader.unknown()),
    };
    reader.end()?;
    Ok(message)
}

#[cfg(any(test, feature = "bench"))]
pub(in crate::wal) mod encoder;
#[cfg(test)]
mod tests;
