//! What the bytes of a database that is not in UTF-8 mean, as PostgreSQL itself converts them.
//!
//! PostgreSQL fails a whole query, stream or notification for one character that has no Unicode
//! form, so connections on which strangers' text comes take it as the database stores it, and it is
//! converted here, value by value. The table of characters is PostgreSQL's own, asked for when a
//! character is first met: so the same value is the same text from every source.

mod ask;
mod encoding;

use std::borrow::Cow;
use std::collections::HashMap;

pub(crate) use ask::encode;
pub(crate) use encoding::Encoding;

/// Characters remembered, more than most encodings have. Bytes that only a damaged database
/// holds could be more; then all are asked for again.
const REMEMBERED: usize = 50_000;

/// One character as the database stores it: up to four bytes, the first one first.
pub(crate) type Character = u32;

/// The characters of a database, as far as they were met.
#[derive(Debug)]
pub(crate) struct Charset {
    encoding: Encoding,
    /// What each character is in Unicode; `None` for one that has no such form.
    known: HashMap<Character, Option<Box<str>>>,
}

/// Why bytes are not text yet, or never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Undecoded {
    /// They hold a character that Unicode does not have, or are none of the encoding.
    Unreadable,
    /// PostgreSQL has to be asked about these first; see [`Charset::learn`].
    Unknown(Vec<Character>),
}

impl Default for Charset {
    /// UTF-8.
    fn default() -> Self {
        Self::of(Encoding::Unicode)
    }
}

impl Charset {
    pub(crate) fn of(encoding: Encoding) -> Self {
        Self { encoding, known: HashMap::new() }
    }

    /// Whether bytes of text are UTF-8 or nothing, so that nothing is ever asked.
    pub(crate) fn is_unicode(&self) -> bool {
        self.encoding == Encoding::Unicode
    }

    /// Bytes as text. In an SQL_ASCII database, of which nobody knows what bytes mean, text is what
    /// is UTF-8.
    ///
    /// # Errors
    /// [`Undecoded`]; nothing is ever replaced or left out.
    pub(crate) fn decode<'b>(&self, bytes: &'b [u8]) -> Result<Cow<'b, str>, Undecoded> {
        if self.is_unicode() || bytes.is_ascii() {
            return str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| Undecoded::Unreadable);
        }
        self.convert(bytes).whole().map(Cow::Owned)
    }

    /// The same, with U+FFFD in place of what is unreadable or unknown: for names in messages.
    pub(crate) fn decode_lossy<'b>(&self, bytes: &'b [u8]) -> Cow<'b, str> {
        match self.decode(bytes) {
            Ok(text) => text,
            Err(_) if self.is_unicode() => String::from_utf8_lossy(bytes),
            Err(_) => Cow::Owned(self.convert(bytes).text),
        }
    }

    fn convert(&self, bytes: &[u8]) -> Converted {
        let mut converted = Converted::default();
        let mut rest = bytes;
        while let Some((character, length)) = self.encoding.first(rest) {
            let (taken, left) = rest.split_at(length);
            rest = left;
            match self.known.get(&character) {
                _ if taken[0].is_ascii() => converted.text.push(char::from(taken[0])),
                Some(Some(known)) => converted.text.push_str(known),
                Some(None) => converted.lack(),
                None => {
                    converted.text.push(char::REPLACEMENT_CHARACTER);
                    converted.unknown.push(character);
                }
            }
        }
        if !rest.is_empty() {
            converted.lack();
        }
        converted
    }

    /// What the characters are; `None` for those that have no Unicode form.
    fn know(&mut self, characters: impl IntoIterator<Item = (Character, Option<Box<str>>)>) {
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.extend(characters);
    }
}

/// What was converted of bytes.
#[derive(Default)]
struct Converted {
    /// With U+FFFD in place of the rest.
    text: String,
    lacks: bool,
    unknown: Vec<Character>,
}

impl Converted {
    /// A character has no Unicode form.
    fn lack(&mut self) {
        self.text.push(char::REPLACEMENT_CHARACTER);
        self.lacks = true;
    }

    fn whole(mut self) -> Result<String, Undecoded> {
        if self.lacks {
            return Err(Undecoded::Unreadable);
        }
        if self.unknown.is_empty() {
            return Ok(self.text);
        }
        self.unknown.sort_unstable();
        self.unknown.dedup();
        Err(Undecoded::Unknown(self.unknown))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_character_is_asked_for_once_and_one_without_a_unicode_form_is_never_replaced() {
        let mut charset = Charset::of(Encoding::named("WIN1252"));
        assert_eq!(charset.decode(b"plain").unwrap(), "plain");
        let unknown = Undecoded::Unknown(vec![0x81, 0xe9]);
        assert_eq!(charset.decode(b"caf\xe9 \x81\xe9"), Err(unknown));
        charset.know([(0xe9, Some("é".into())), (0x81, None)]);
        assert_eq!(charset.decode(b"caf\xe9").unwrap(), "café");
        assert_eq!(charset.decode(b"caf\xe9 \x81"), Err(Undecoded::Unreadable));
        assert_eq!(charset.decode_lossy(b"\x81\xe9 a"), "\u{fffd}é a");
    }

    #[test]
    fn characters_of_several_bytes_are_met_as_a_whole() {
        let mut charset = Charset::of(Encoding::named("EUC_JP"));
        let unknown = Undecoded::Unknown(vec![0x8eb1, 0xc6fc, 0x008f_b0a1]);
        assert_eq!(charset.decode(b"a\xc6\xfcb\x8e\xb1\x8f\xb0\xa1"), Err(unknown));
        charset.know([(0xc6fc, Some("日".into()))]);
        assert_eq!(charset.decode(b"\xc6\xfc!").unwrap(), "日!");
        assert_eq!(charset.decode(b"\xc6\xfc\xc6"), Err(Undecoded::Unreadable), "cut short");
    }

    #[test]
    fn without_an_encoding_text_is_what_is_utf8() {
        let charset = Charset::of(Encoding::named("SQL_ASCII"));
        assert_eq!(charset.decode("é".as_bytes()).unwrap(), "é");
        assert_eq!(charset.decode(b"\xe9"), Err(Undecoded::Unreadable));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            for name in ["UTF8", "SQL_ASCII", "WIN1252", "EUC_JP", "EUC_TW"] {
                let _ = Charset::of(Encoding::named(name)).decode(&bytes);
            }
        }
    }
}
