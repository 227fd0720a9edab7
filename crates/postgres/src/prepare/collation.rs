//! What a collation means for filters.

use serde_json::Value;
use tidewire_protocol::filter::Fold;

/// Why the capitals of a collation cannot be followed.
const BY_LANGUAGE: &str = "depends on the language of the collation: use like, or give the \
                           column COLLATE \"C\"";

/// How capitals of a collation become small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// Only those of ASCII.
    Ascii,
    /// Character by character; PostgreSQL knows which.
    ByTable {
        /// The collation's oid.
        collation: u32,
        /// Its name for SQL.
        sql: String,
    },
    /// By rules for whole words or for a language.
    ByLanguage,
}

impl Case {
    /// As far as it is known without asking, and whether ASCII has its own capitals.
    pub(super) fn without_asking(&self) -> (Fold, bool) {
        match self {
            Self::Ascii => (Fold::Ascii, true),
            // ICU's regular expressions go by single characters, which no language changes.
            Self::ByLanguage => (Fold::Unknown(BY_LANGUAGE), true),
            Self::ByTable { .. } => (Fold::Unknown(BY_LANGUAGE), false),
        }
    }
}

/// A collation as the catalog has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Collation {
    /// Whether values that are equal are the same bytes.
    pub(super) deterministic: bool,
    /// Whether it sorts by bytes.
    pub(super) by_bytes: bool,
    pub(super) case: Case,
}

/// The oid of the collation that stands for the database's own.
const DEFAULT: u32 = 100;

impl Collation {
    /// Reads rows of `pg_collation` and `pg_database`, whose columns differ between versions.
    pub(super) fn read(oid: u32, sql: &str, collation: &Value, database: &Value) -> Self {
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        // Before version 15 every database is of the C library.
        let (provider, collate, ctype, locale) = match oid {
            DEFAULT => (
                text(database, "datlocprovider"),
                text(database, "datcollate"),
                text(database, "datctype"),
                text(database, "datlocale"),
            ),
            _ => (
                text(collation, "collprovider"),
                text(collation, "collcollate"),
                text(collation, "collctype"),
                text(collation, "colllocale"),
            ),
        };
        let by_table = || Case::ByTable { collation: oid, sql: sql.to_owned() };
        let (by_bytes, case) = match provider.as_str() {
            "i" => (false, Case::ByLanguage),
            // The builtin provider always sorts by bytes; one of its locales has full case rules.
            "b" if locale == "C" => (true, Case::Ascii),
            "b" if locale == "C.UTF-8" => (true, by_table()),
            "b" => (true, Case::ByLanguage),
            _ => {
                let ascii = matches!(ctype.as_str(), "C" | "POSIX");
                (sorts_by_bytes(&collate), if ascii { Case::Ascii } else { by_table() })
            }
        };
        let deterministic = collation["collisdeterministic"].as_bool().unwrap_or(true);
        Self { deterministic, by_bytes, case }
    }
}

fn sorts_by_bytes(locale: &str) -> bool {
    matches!(locale, "C" | "POSIX" | "C.UTF-8" | "C.utf8")
}
