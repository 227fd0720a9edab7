//! A table as filters and snapshots see it.

use std::sync::Arc;

use tidewire_protocol::change::{Column, Relation};
use tidewire_protocol::filter::{ColumnType, Fold, Kind};
use tidewire_protocol::{Code, Refusal};

use tokio_postgres::types::Type;

use super::collation::Case;

/// Objects with oids below this one came with PostgreSQL and are the superuser's.
pub(crate) const FIRST_NORMAL_OID: u32 = 16_384;

/// A table as the catalog describes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// What changes and rows of it refer to.
    pub(crate) relation: Arc<Relation>,
    /// Whether rows are in its partitions.
    pub(crate) partitioned: bool,
    /// Its columns in order, generated ones too.
    pub(crate) columns: Vec<TableColumn>,
}

/// A column as the catalog describes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TableColumn {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Its type.
    pub(crate) type_oid: u32,
    /// Its type's name, for people.
    pub(crate) type_name: Arc<str>,
    /// The type itself, or what is under a domain.
    pub(crate) base_oid: u32,
    /// The same, as SQL names it.
    pub(crate) base_sql: String,
    /// Its place in the key by which rows are told apart.
    pub(crate) key_place: Option<i32>,
    /// Whether it is generated, and so not part of changes.
    pub(crate) generated: bool,
    /// How its values compare; texts as if capitals were unknown.
    pub(super) kind: Kind,
    /// How capitals of its texts become small.
    pub(super) case: Case,
}

impl Table {
    /// A column that changes tell.
    ///
    /// # Errors
    /// [`Code::BadField`], with the nearest name.
    pub(crate) fn told_column(&self, name: &str) -> Result<&TableColumn, Refusal> {
        let Some(column) = self.columns.iter().find(|column| &*column.name == name) else {
            return Err(Refusal::new(Code::BadField, self.unknown_column(name)));
        };
        if column.generated {
            let message = format!(
                "column {name:?} is generated, and PostgreSQL does not tell generated columns in \
                 changes: use the columns that it is made of"
            );
            return Err(Refusal::new(Code::BadField, message));
        }
        Ok(column)
    }

    /// Its name for SQL.
    pub(crate) fn sql(&self) -> String {
        format!("{}.{}", quoted(&self.relation.schema), quoted(&self.relation.table))
    }

    /// Columns of its key in their order there.
    pub(crate) fn key(&self) -> Vec<&TableColumn> {
        let mut key: Vec<_> = self.columns.iter().filter(|c| c.key_place.is_some()).collect();
        key.sort_by_key(|column| column.key_place);
        key
    }

    fn unknown_column(&self, name: &str) -> String {
        let table = format!("{}.{}", self.relation.schema, self.relation.table);
        let distance = |column: &&TableColumn| strsim::damerau_levenshtein(&column.name, name);
        let near = self.columns.iter().min_by_key(distance);
        let shown: String = name.chars().take(63).collect();
        match near.filter(|column| distance(column) <= 1 + name.chars().count() / 4) {
            Some(column) => {
                let near = &column.name;
                format!("table {table} has no column {shown:?}; did you mean {near:?}?")
            }
            None => format!("table {table} has no column {shown:?}"),
        }
    }
}

impl TableColumn {
    /// The column as changes have it.
    pub(super) fn told(&self) -> Column {
        Column {
            name: Arc::clone(&self.name),
            type_oid: self.type_oid,
            type_name: Arc::clone(&self.type_name),
            key: self.key_place.is_some(),
        }
    }

    /// Whether a constant is certainly of the type and just as PostgreSQL would print it.
    pub(super) fn prints(&self, text: &str) -> bool {
        match (&self.kind, Type::from_oid(self.base_oid)) {
            (Kind::Integer, Some(Type::INT2)) => is_plain_number(text, 4),
            (Kind::Integer, Some(Type::INT4 | Type::OID)) => is_plain_number(text, 9),
            (Kind::Integer, Some(Type::INT8)) => is_plain_number(text, 18),
            (Kind::Label { .. }, Some(Type::UUID)) => is_plain_uuid(text),
            (Kind::Bool, _) => matches!(text, "true" | "false"),
            (Kind::Enum(labels), _) => labels.iter().any(|label| **label == *text),
            // Other encodings lack characters, and a name is cut to its length.
            (Kind::Text(known), Some(Type::TEXT | Type::VARCHAR)) => known.patterns,
            _ => false,
        }
    }

    /// A constant of the column's type, as SQL; `parameter` makes one of a text.
    ///
    /// A cast from text to a type that somebody made may run a function of theirs; what is written
    /// as a literal is read by the type itself.
    pub(crate) fn constant(&self, text: &str, parameter: impl FnOnce(&str) -> String) -> String {
        match self.base_oid < FIRST_NORMAL_OID {
            true => format!("{}::{}", parameter(text), self.base_sql),
            false => format!("'{}'::{}", text.replace('\'', "''"), self.base_sql),
        }
    }

    /// Why a constant cannot be one of the column's type, where that is known without asking.
    pub(super) fn refuses(&self, text: &str) -> Option<&'static str> {
        match &self.kind {
            Kind::Enum(labels) => {
                let is_label = labels.iter().any(|label| **label == *text);
                (!is_label).then_some("it is none of the labels")
            }
            _ if self.base_oid >= FIRST_NORMAL_OID => Some("the type is not one of PostgreSQL's"),
            _ => None,
        }
    }

    /// What a filter must know of it, now that capitals are known.
    pub(super) fn known(&self, (fold, ascii_case): (Fold, bool)) -> ColumnType {
        let mut kind = self.kind.clone();
        if let Kind::Text(text) | Kind::Padded(text) = &mut kind {
            text.fold = fold;
            text.ascii_case = ascii_case;
        }
        let type_oids = [self.type_oid, self.base_oid];
        ColumnType { kind, type_oids, type_name: Arc::clone(&self.type_name) }
    }
}

/// Up to so many digits, which any value of the type may have.
fn is_plain_number(text: &str, most: usize) -> bool {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits && (1..=most).contains(&text.len()) && (text == "0" || !text.starts_with('0'))
}

fn is_plain_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

/// An identifier in quotes, so that it can be nothing else.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
