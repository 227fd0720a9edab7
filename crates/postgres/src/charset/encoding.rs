//! Where characters end in the encodings that a database can have.

use super::Character;

/// The first byte of a character of two in EUC, or of four in EUC_TW.
const SINGLE_SHIFT_2: u8 = 0x8e;

/// The first byte of a character of three in EUC.
const SINGLE_SHIFT_3: u8 = 0x8f;

/// An encoding, by how long its characters are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// UTF-8, or bytes of which only that is text (SQL_ASCII).
    Unicode,
    /// A byte each.
    Bytes,
    /// EUC_JP, EUC_KR, EUC_JIS_2004.
    Euc,
    /// EUC_CN, which has none of three.
    EucCn,
    /// EUC_TW, which has some of four.
    EucTw,
}

impl Encoding {
    /// The encoding that PostgreSQL calls so. All that a database can have and that are not named
    /// here have a byte for each character, but for MULE_INTERNAL: PostgreSQL converts that to
    /// UTF-8 for nobody, so no connection of ours is let in.
    pub(crate) fn named(name: &str) -> Self {
        match name {
            "UTF8" | "SQL_ASCII" => Self::Unicode,
            "EUC_JP" | "EUC_KR" | "EUC_JIS_2004" => Self::Euc,
            "EUC_CN" => Self::EucCn,
            "EUC_TW" => Self::EucTw,
            _ => Self::Bytes,
        }
    }

    /// The first character and its length; `None` at the end, and of one that is cut short.
    pub(super) fn first(self, bytes: &[u8]) -> Option<(Character, usize)> {
        let length = self.length(*bytes.first()?);
        let bytes = bytes.get(..length)?;
        let character = bytes.iter().fold(0, |value, byte| value << 8 | Character::from(*byte));
        Some((character, length))
    }

    /// The length of a character that begins so, as `pg_encoding_mblen` has it.
    fn length(self, first: u8) -> usize {
        match self {
            _ if first.is_ascii() => 1,
            Self::Unicode | Self::Bytes => 1,
            Self::Euc if first == SINGLE_SHIFT_3 => 3,
            Self::EucTw if first == SINGLE_SHIFT_2 => 4,
            Self::EucTw if first == SINGLE_SHIFT_3 => 3,
            Self::Euc | Self::EucCn | Self::EucTw => 2,
        }
    }
}
