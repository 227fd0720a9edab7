//! Bodies in chunks (RFC 9112, section 7.1), handed on as they come.

use super::Broken;

/// How far into its chunks a body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// In the line that says a chunk's size.
    #[default]
    Start,
    /// Some digits of it were read.
    Size(usize),
    /// Past the digits, up to the end of the line.
    SizeLine(usize),
    /// In a chunk, with so many bytes to come.
    Data(usize),
    /// Between a chunk and the next line's beginning.
    AfterData,
    /// In the lines after the last chunk: how many bytes of the present one were read.
    Trailer(usize),
    /// The body is over.
    Done,
}

impl Chunks {
    /// Hands on what is data; how many bytes were taken, fewer than given when the body ended.
    ///
    /// # Errors
    /// When these are no chunks.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        mut tell: impl FnMut(&[u8]),
    ) -> Result<usize, Broken> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let Self::Data(left) = *self {
                let data = &bytes[at..bytes.len().min(at + left)];
                tell(data);
                at += data.len();
                *self = if data.len() == left {
                    Self::AfterData
                } else {
                    Self::Data(left - data.len())
                };
                continue;
            }
            if *self == Self::Done {
                break;
            }
            *self = self.step(byte)?;
            at += 1;
        }
        Ok(at)
    }

    fn step(self, byte: u8) -> Result<Self, Broken> {
        Ok(match (self, byte) {
            (Self::AfterData, b'\r') => self,
            (Self::AfterData, b'\n') => Self::Start,
            (Self::Size(0) | Self::SizeLine(0), b'\n') => Self::Trailer(0),
            (Self::Size(size) | Self::SizeLine(size), b'\n') => Self::Data(size),
            (Self::Size(size), b'\r' | b';') => Self::SizeLine(size),
            (Self::SizeLine(_), _) => self,
            (Self::Start, _) => Self::Size(digit(byte)?),
            (Self::Size(size), _) => {
                let size = size.checked_mul(16).ok_or(Broken("a chunk beyond all measure"))?;
                Self::Size(size + digit(byte)?)
            }
            (Self::Trailer(_), b'\r') => self,
            (Self::Trailer(0), b'\n') => Self::Done,
            (Self::Trailer(_), b'\n') => Self::Trailer(0),
            (Self::Trailer(read), _) => Self::Trailer(read + 1),
            _ => return Err(Broken("bytes where a chunk should begin")),
        })
    }
}

fn digit(byte: u8) -> Result<usize, Broken> {
    let digit = char::from(byte).to_digit(16).ok_or(Broken("a chunk without a size"))?;
    Ok(digit as usize)
}
