//! How values of a column are compared, and which operators that allows.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;

use super::{Is, Test};

/// How values of a column are compared, by its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `bool`
    Bool,
    /// `int2`, `int4`, `int8`, `oid`
    Integer,
    /// `numeric`, compared as text and so without loss
    Decimal,
    /// `float4`; NaN is above everything
    Single,
    /// `float8`; NaN is above everything
    Double,
    /// `text`, `varchar`, `name` of a deterministic collation
    Text(Text),
    /// `char(n)`, which equals without its trailing blanks
    Padded(Text),
    /// `date`
    Date,
    /// `timestamp` and `timestamptz`
    Timestamp,
    /// An enum: its labels in the order of the type
    Enum(Arc<[Arc<str>]>),
    /// A type whose equal values have equal texts, such as `uuid`
    Label {
        /// Whether the order of the texts is the order of the values.
        ordered: bool,
    },
    /// Any other type, of which only NULL can be told
    Other {
        /// Whether a JSON `null` is always SQL's NULL, which it is not for `jsonb`.
        null_is_null: bool,
    },
}

/// What may be done with texts of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Whether the collation sorts by bytes, as `C` does.
    pub ordered: bool,
    /// Whether patterns see characters as we do: the database is in UTF-8.
    pub patterns: bool,
    /// How capitals become small.
    pub fold: Fold,
    /// Whether capitals of regular expressions are those of ASCII.
    pub ascii_case: bool,
}

/// How capitals become small, as PostgreSQL's `lower` does it for a collation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fold {
    /// Only the letters of ASCII.
    Ascii,
    /// Character by character, by a table that PostgreSQL gave.
    Table(Arc<FoldTable>),
    /// In a way that we cannot follow; why.
    Unknown(&'static str),
}

/// Characters that become another one.
pub type FoldTable = HashMap<char, char>;

impl Fold {
    pub(super) fn character(&self, character: char) -> char {
        match self {
            Self::Table(table) => table.get(&character).copied().unwrap_or(character),
            Self::Ascii | Self::Unknown(_) => character.to_ascii_lowercase(),
        }
    }

    pub(super) fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if text.chars().all(|c| self.character(c) == c) {
            return Cow::Borrowed(text);
        }
        Cow::Owned(text.chars().map(|c| self.character(c)).collect())
    }
}

/// An operator that cannot be decided exactly for a column.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("column {column:?} is of type {type_name}, for which {word:?} {why}")]
pub struct Unsupported {
    /// The column's name.
    pub column: Arc<str>,
    /// Its type.
    pub type_name: Arc<str>,
    /// The operator.
    pub word: &'static str,
    /// Why not, and what would do instead.
    pub why: &'static str,
}

/// The operator means nothing for such a type.
const NOT_TEXT: &str = "does not exist: it is for text";
const NOT_BOOL: &str = "takes only null: the other words are for booleans";
const NO_EQUALITY: &str = "cannot be decided outside of PostgreSQL: only is.null can";
const NO_NULL: &str = "cannot be decided: its JSON null and NULL look the same";
const NO_ORDER: &str = "cannot be decided outside of PostgreSQL: use eq, neq, in or isdistinct";
const COLLATED: &str = "depends on the collation: use eq, neq, in or isdistinct, or give the \
                        column COLLATE \"C\"";
const ENCODED: &str = "needs a database whose encoding is UTF8";
const CASED: &str = "depends on the language of the collation: use match";

impl Kind {
    /// Checks that a test can be decided exactly.
    ///
    /// # Errors
    /// Why not.
    pub fn supports(&self, test: &Test) -> Result<(), &'static str> {
        match test {
            Test::Is(is) => self.supports_is(*is),
            Test::Compare(comparison, _) if comparison.is_ordering() => self.supports_order(),
            Test::Compare(..) | Test::OneOf(_) | Test::Distinct(_) => self.supports_equality(),
            Test::Like(like) if like.any_case() => match &self.text()?.fold {
                Fold::Unknown(why) => Err(why),
                Fold::Ascii | Fold::Table(_) => Ok(()),
            },
            Test::Match(regular) if regular.any_case() && !self.text()?.ascii_case => Err(CASED),
            Test::Like(_) | Test::Match(_) => self.text().map(drop),
        }
    }

    fn supports_is(&self, is: Is) -> Result<(), &'static str> {
        match (is, self) {
            (Is::Null, Self::Other { null_is_null: false }) => Err(NO_NULL),
            (Is::Null, _) | (_, Self::Bool) => Ok(()),
            _ => Err(NOT_BOOL),
        }
    }

    fn supports_equality(&self) -> Result<(), &'static str> {
        match self {
            Self::Other { .. } => Err(NO_EQUALITY),
            _ => Ok(()),
        }
    }

    fn supports_order(&self) -> Result<(), &'static str> {
        match self {
            Self::Text(text) | Self::Padded(text) if !text.ordered => Err(COLLATED),
            Self::Label { ordered: false } => Err(NO_ORDER),
            other => other.supports_equality(),
        }
    }

    /// The text, where patterns can be applied to it.
    fn text(&self) -> Result<&Text, &'static str> {
        match self {
            Self::Text(text) | Self::Padded(text) if text.patterns => Ok(text),
            Self::Text(_) | Self::Padded(_) => Err(ENCODED),
            _ => Err(NOT_TEXT),
        }
    }
}
