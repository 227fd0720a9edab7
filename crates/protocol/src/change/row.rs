//! The values of a row, in one text.
//!
//! A row is what there is most of: a backlog has millions, and the history holds as many as it may.
//! So its values are not texts of their own but parts of one, and a row of few columns is one
//! allocation. A [`RowBuilder`] lets a source write its values straight into it.

use smallvec::SmallVec;
use thiserror::Error;

/// Columns whose ends are kept in the row itself; a table with more costs an allocation more.
///
/// With eight a row is as large as seven pointers, and most tables have no more columns.
const FEW: usize = 8;

/// Bytes that the values of one row may have together: what PostgreSQL can print of one.
const MOST: usize = (1 << 30) - 1;

/// What a row that is not read from anywhere must be.
const SMALL: &str = "a row in the program's own words is of less than a gibibyte";

/// Room that a builder keeps after a large row.
const LARGEST_SCRATCH: usize = 64 * 1024;

/// A value of one column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// JSON text: `null`, `17`, `"text"`, `[1,2]`.
    Json(&'a str),
    /// A large value that the statement did not change, so PostgreSQL did not log it.
    Unchanged,
    /// Not told: in an old row of which only the key is known.
    Absent,
}

impl<'a> Value<'a> {
    /// The JSON text, where there is one.
    pub fn json(self) -> Option<&'a str> {
        match self {
            Self::Json(text) => Some(text),
            Self::Unchanged | Self::Absent => None,
        }
    }
}

/// Values in the order of the relation's columns.
///
/// ```
/// use tidewire_protocol::change::{Row, Value};
///
/// let row: Row = [Value::Json("17"), Value::Unchanged].into_iter().collect();
/// assert_eq!(row.value(0), Some(Value::Json("17")));
/// assert_eq!(row.json(1), None);
/// assert_eq!(row.value(2), None);
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    text: Box<str>,
    ends: SmallVec<[End; FEW]>,
}

/// Where a value ends in the text, and in the two bits above [`MOST`] what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End(u32);

const UNCHANGED: u32 = 1 << 30;
const ABSENT: u32 = 1 << 31;

impl End {
    fn place(self) -> usize {
        (self.0 & !(UNCHANGED | ABSENT)) as usize
    }

    fn mark(self) -> u32 {
        self.0 & (UNCHANGED | ABSENT)
    }
}

impl Row {
    /// A row of JSON texts.
    ///
    /// # Panics
    /// When they are more than [`RowBuilder`] takes.
    pub fn of_json(texts: impl IntoIterator<Item: AsRef<str>>) -> Self {
        let mut row = RowBuilder::default();
        texts.into_iter().for_each(|text| row.json(text.as_ref()));
        row.finish().expect(SMALL)
    }

    /// How many values it has.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The value at a place; `None` behind the last.
    pub fn value(&self, place: usize) -> Option<Value<'_>> {
        let end = *self.ends.get(place)?;
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before].place());
        Some(self.read(start, end))
    }

    /// The JSON text at a place, where there is one.
    pub fn json(&self, place: usize) -> Option<&str> {
        self.value(place)?.json()
    }

    /// All values, in order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = Value<'_>> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let from = std::mem::replace(&mut start, end.place());
            self.read(from, end)
        })
    }

    /// Bytes of content, for limits: those of the texts, and one for each value.
    pub fn bytes(&self) -> usize {
        self.text.len() + self.ends.len()
    }

    fn read(&self, start: usize, end: End) -> Value<'_> {
        match end.mark() {
            0 => Value::Json(&self.text[start..end.place()]),
            UNCHANGED => Value::Unchanged,
            _ => Value::Absent,
        }
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.values()).finish()
    }
}

impl<'a> FromIterator<Value<'a>> for Row {
    /// A row of these values.
    ///
    /// # Panics
    /// When they are more than [`RowBuilder`] takes.
    fn from_iter<I: IntoIterator<Item = Value<'a>>>(values: I) -> Self {
        let mut row = RowBuilder::default();
        values.into_iter().for_each(|value| row.push(value));
        row.finish().expect(SMALL)
    }
}

/// Puts rows together, one after the other, and keeps its room from one to the next.
///
/// ```
/// use tidewire_protocol::change::{RowBuilder, Value};
///
/// let mut builder = RowBuilder::default();
/// builder.json("17");
/// builder.write(|text| text.push_str("[1,2]"));
/// let row = builder.finish().unwrap();
/// assert_eq!(row.values().collect::<Vec<_>>(), [Value::Json("17"), Value::Json("[1,2]")]);
/// ```
#[derive(Debug)]
pub struct RowBuilder {
    text: String,
    ends: SmallVec<[End; FEW]>,
    most: usize,
    too_large: bool,
}

/// The values of a row are of more bytes together than its builder takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a row is larger than {0} bytes")]
pub struct RowTooLarge(usize);

impl Default for RowBuilder {
    /// Takes rows of less than 1 GiB, which is what PostgreSQL can print of one.
    fn default() -> Self {
        Self::at_most(MOST)
    }
}

impl RowBuilder {
    /// Takes rows of at most so many bytes, and never of 1 GiB or more.
    pub fn at_most(bytes: usize) -> Self {
        let most = bytes.min(MOST);
        Self { text: String::new(), ends: SmallVec::new(), most, too_large: false }
    }

    /// Adds a value.
    pub fn push(&mut self, value: Value<'_>) {
        match value {
            Value::Json(text) => self.json(text),
            Value::Unchanged => self.mark(UNCHANGED),
            Value::Absent => self.mark(ABSENT),
        }
    }

    /// Adds a value of JSON text.
    pub fn json(&mut self, text: &str) {
        self.write(|out| out.push_str(text));
    }

    /// Adds a value whose JSON text `write` appends to that of the values before, which it must
    /// leave alone. Gives what `write` gives.
    ///
    /// # Panics
    /// When `write` took something away of the values before.
    pub fn write<T>(&mut self, write: impl FnOnce(&mut String) -> T) -> T {
        let start = self.text.len();
        let given = write(&mut self.text);
        assert!(self.text.len() >= start, "what writes a value leaves those before alone");
        if self.text.len() > self.most {
            self.too_large = true;
            self.text.truncate(start);
        }
        self.mark(0);
        given
    }

    /// The row of the values that were added; the next one begins without any.
    ///
    /// # Errors
    /// [`RowTooLarge`] when they are of more bytes together than the builder takes.
    pub fn finish(&mut self) -> Result<Row, RowTooLarge> {
        let ends = std::mem::take(&mut self.ends);
        let row = match std::mem::take(&mut self.too_large) {
            false => Ok(Row { text: self.text.as_str().into(), ends }),
            true => Err(RowTooLarge(self.most)),
        };
        self.clear();
        row
    }

    /// Forgets the values that were added.
    pub fn clear(&mut self) {
        self.text.clear();
        self.text.shrink_to(LARGEST_SCRATCH);
        self.ends.clear();
        self.too_large = false;
    }

    fn mark(&mut self, mark: u32) {
        let end = u32::try_from(self.text.len()).expect("more than a gibibyte is cut off");
        self.ends.push(End(end | mark));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Option<Result<String, ()>>> {
        prop_oneof!["\\PC{0,8}".prop_map(|text| Some(Ok(text))), Just(Some(Err(()))), Just(None),]
    }

    fn read(value: &Option<Result<String, ()>>) -> Value<'_> {
        match value {
            Some(Ok(text)) => Value::Json(text),
            Some(Err(())) => Value::Unchanged,
            None => Value::Absent,
        }
    }

    proptest! {
        #[test]
        fn a_row_has_the_values_that_it_was_made_of(
            values in prop::collection::vec(value(), 0..20),
        ) {
            let values: Vec<Value<'_>> = values.iter().map(read).collect();
            let row: Row = values.iter().copied().collect();
            prop_assert_eq!(row.values().collect::<Vec<_>>(), values.clone());
            prop_assert_eq!(row.len(), values.len());
            prop_assert_eq!(row.is_empty(), values.is_empty());
            let singly: Vec<_> = (0..values.len()).map(|place| row.value(place).unwrap()).collect();
            prop_assert_eq!(singly, values.clone());
            prop_assert_eq!(row.value(values.len()), None);
            let texts: usize = values.iter().filter_map(|value| value.json()).map(str::len).sum();
            prop_assert_eq!(row.bytes(), texts + values.len());
        }
    }

    #[test]
    fn equal_texts_that_are_parted_elsewhere_are_other_rows() {
        let row = |values: &[&str]| values.iter().map(|text| Value::Json(text)).collect::<Row>();
        assert_eq!(row(&["1", "23"]), row(&["1", "23"]));
        assert_ne!(row(&["1", "23"]), row(&["12", "3"]));
        assert_ne!(row(&["1"]), row(&["1", ""]));
        let marked = |mark| [Value::Json("1"), mark].into_iter().collect::<Row>();
        assert_ne!(marked(Value::Unchanged), marked(Value::Absent));
    }

    #[test]
    fn a_builder_begins_anew_after_each_row() {
        let mut builder = RowBuilder::default();
        builder.json("1");
        builder.push(Value::Absent);
        let first = builder.finish().unwrap();
        assert_eq!(format!("{first:?}"), "[Json(\"1\"), Absent]");
        builder.json("half");
        builder.clear();
        let failed: Result<(), &str> = builder.write(|text| {
            text.push('2');
            Err("given back")
        });
        assert_eq!(failed, Err("given back"));
        let second = builder.finish().unwrap();
        assert_eq!(second.values().collect::<Vec<_>>(), [Value::Json("2")]);
        assert!(builder.finish().unwrap().is_empty());
    }

    #[test]
    fn a_row_that_is_too_large_is_refused_and_the_next_is_not() {
        let mut builder = RowBuilder::at_most(4);
        builder.json("12");
        builder.json("345");
        builder.json("6");
        assert_eq!(builder.finish().unwrap_err().to_string(), "a row is larger than 4 bytes");
        builder.json("1234");
        assert_eq!(builder.finish().unwrap().json(0), Some("1234"));
    }

    #[test]
    fn a_large_row_does_not_leave_its_room_behind() {
        let mut builder = RowBuilder::default();
        builder.json(&"1".repeat(2 * LARGEST_SCRATCH));
        assert_eq!(builder.finish().unwrap().json(0).map(str::len), Some(2 * LARGEST_SCRATCH));
        assert!(builder.text.capacity() <= LARGEST_SCRATCH);
    }
}
