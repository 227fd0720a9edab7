//! Takes numbers and names off the front of a message, remembering where it is.

use super::{Lsn, Moment};

/// The bytes are not a message of pgoutput.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pgoutput message {message}: {problem} at byte {offset}")]
pub struct DecodeError {
    /// The name of the message.
    message: &'static str,
    /// The place in it, from its first byte.
    offset: usize,
    problem: &'static str,
}

/// The rest of a message.
pub(super) struct Reader<'a> {
    message: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { message: "without a name", bytes, at: 0 }
    }

    /// The letter that a message begins with.
    pub(super) fn tag(&mut self) -> Result<u8, DecodeError> {
        let tag = self.u8()?;
        self.message = match tag {
            b'B' => "Begin",
            b'C' => "Commit",
            b'O' => "Origin",
            b'R' => "Relation",
            b'Y' => "Type",
            b'I' => "Insert",
            b'U' => "Update",
            b'D' => "Delete",
            b'T' => "Truncate",
            b'M' => "Message",
            b'S' => "Stream Start",
            b'E' => "Stream Stop",
            b'c' => "Stream Commit",
            b'A' => "Stream Abort",
            _ => "of an unknown kind",
        };
        Ok(tag)
    }

    fn error(&self, problem: &'static str) -> DecodeError {
        DecodeError { message: self.message, offset: self.at, problem }
    }

    /// A letter that has no meaning here; it was the last byte read.
    pub(super) fn unknown(&self) -> DecodeError {
        let offset = self.at.saturating_sub(1);
        DecodeError { message: self.message, offset, problem: "an unknown letter" }
    }

    pub(super) fn end(&self) -> Result<(), DecodeError> {
        match self.at == self.bytes.len() {
            true => Ok(()),
            false => Err(self.error("more bytes than the message has")),
        }
    }

    /// What was not taken yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Whether there is nothing left.
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..count).ok_or_else(|| self.error("the message is too short"))?;
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        Ok(self.take(N)?.try_into().expect("as many bytes were taken"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(super) fn lsn(&mut self) -> Result<Lsn, DecodeError> {
        Ok(Lsn(u64::from_be_bytes(self.array()?)))
    }

    pub(super) fn moment(&mut self) -> Result<Moment, DecodeError> {
        Ok(Moment(i64::from_be_bytes(self.array()?)))
    }

    /// What ends with a zero byte: text in the encoding of the database, or any bytes that a role
    /// may choose.
    pub(super) fn name(&mut self) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.at..];
        let length = rest
            .iter()
            .position(|&byte| byte == 0)
            .ok_or_else(|| self.error("a name without an end"))?;
        self.at += length + 1;
        Ok(&rest[..length])
    }

    /// A list whose items take at least `least` bytes each, so that a count which cannot be true
    /// reserves no memory.
    pub(super) fn list<T>(
        &mut self,
        count: usize,
        least: usize,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        if count.saturating_mul(least) > self.bytes.len() - self.at {
            return Err(self.error("a list longer than the message"));
        }
        let mut list = Vec::with_capacity(count);
        for _ in 0..count {
            list.push(item(self)?);
        }
        Ok(list)
    }
}
