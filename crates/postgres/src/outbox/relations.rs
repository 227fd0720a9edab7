//! What the catalog says about the tables that are followed, and rows put in order by it.
//!
//! The outbox keeps rows as JSON objects by column name. A row whose names are not those of its
//! relation was written before or after the table was altered, so the catalog is asked again. Where
//! it was altered more than once meanwhile, the row is told in the [`Shape`] it was written in.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, DefaultHasher};
use std::sync::Arc;

use serde_json::value::RawValue;
use tidewire::sparing::Sparing;
use tidewire_protocol::Topic;
use tidewire_protocol::change::{Column, Relation, Row, RowBuilder, Value};
use tokio_postgres::{Client, Row as SqlRow};

use crate::connect::fails_again;
use crate::key::key_columns;
use crate::naming;
use crate::sql::ownership::trigger_function;
use crate::sql::triggers::{flaw, ordinary};

/// PostgreSQL's type `unknown`.
const UNKNOWN: u32 = 705;

/// One row for each table asked for that exists, its columns in arrays.
///
/// `flaw` is why not all its changes are recorded, `mendable` whether what it has could be better and
/// this role may mend it. `triggers` names ours, each with the transaction that last altered it, and those
/// of partitions that were altered after they came with their partition or with that of their table.
const RELATIONS: &str = concat!(
    "WITH ours AS MATERIALIZED (SELECT ",
    trigger_function!(),
    " AS oid)
SELECT c.oid, n.nspname::text, c.relname::text,
  ",
    flaw!("ours.oid"),
    " AS flaw,
  pg_catalog.pg_has_role(c.relowner, 'USAGE') AND ",
    ordinary!("ours.oid"),
    " AS mendable,
  coalesce((
    SELECT string_agg(t.oid::text || ':' || t.xmin::text, ' ' ORDER BY t.oid)
    FROM pg_catalog.pg_trigger t
    WHERE t.tgfoid = ours.oid AND (t.tgrelid = c.oid
      OR t.tgrelid IN (SELECT y.relid FROM pg_catalog.pg_partition_tree(c.oid) y)
        AND EXISTS (
          SELECT FROM pg_catalog.pg_inherits i
          JOIN pg_catalog.pg_trigger u ON u.oid = t.tgparentid
          WHERE i.inhrelid = t.tgrelid AND i.xmin::text <> t.xmin::text
            AND u.xmin::text <> t.xmin::text))), '') AS triggers,
  array_agg(a.attnum ORDER BY a.attnum) AS numbers,
  array_agg(a.attname::text ORDER BY a.attnum) AS names,
  array_agg(a.atttypid ORDER BY a.attnum) AS types,
  array_agg(pg_catalog.format_type(a.atttypid, NULL) ORDER BY a.attnum) AS type_names,
  array_agg(coalesce(a.attnum = ANY (",
    key_columns!("c.oid"),
    "), false) ORDER BY a.attnum) AS keys,
  array_agg(a.attgenerated <> '' ORDER BY a.attnum) AS generated
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
CROSS JOIN ours
WHERE c.oid = ANY ($1)
GROUP BY c.oid, n.nspname, c.relname, ours.oid"
);

/// Shapes remembered for one table: rows wait for milliseconds, and few statements fit in them.
const SHAPES: usize = 16;

/// Columns remembered that a table has no more: as many as it can have.
const FORMER: usize = 1_600;

/// What the catalog says about one table.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) relation: Arc<Relation>,
    /// Whether its changes are recorded.
    pub(super) flows: bool,
    /// Why not, where they are not.
    pub(super) flaw: Option<String>,
    /// Its triggers leave out rows that are written in replica mode, and this role may mend that.
    pub(super) mendable: bool,
    /// Its triggers as they are: another text once one was made anew, or switched off and on.
    pub(super) triggers: String,
    /// Places of the columns, and of generated ones, which are not told, none.
    places: HashMap<Arc<str>, Option<usize>>,
    /// PostgreSQL's numbers of the columns, which they keep when they are renamed.
    numbers: Vec<i16>,
    /// Columns that the table had before it was altered, the newest last.
    former: Vec<(i16, Column)>,
    /// How rows were that the catalog does not know, even when asked again.
    shapes: Vec<Shape>,
}

/// A table as it was between two alterations.
#[derive(Debug)]
struct Shape {
    names: u64,
    relation: Arc<Relation>,
}

/// Asks the catalog about tables; those that are gone are not in the answer, nor those of which the
/// catalog cannot be read, such as one with a name that has no Unicode form.
pub(super) async fn load(
    client: &Client,
    oids: &[u32],
) -> Result<Vec<(u32, Known)>, tokio_postgres::Error> {
    match load_all(client, oids).await {
        Err(error) if fails_again(&error) => load_each(client, oids).await,
        loaded => loaded,
    }
}

/// Whether the name of a table, and of its schema, has a Unicode form; that of one that is gone has.
pub(super) async fn has_readable_name(
    client: &Client,
    oid: u32,
) -> Result<bool, tokio_postgres::Error> {
    const NAME: &str = "\
SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = $1";
    match client.query(NAME, &[&oid]).await {
        Err(error) if fails_again(&error) => Ok(false),
        named => named.map(|_| true),
    }
}

async fn load_each(
    client: &Client,
    oids: &[u32],
) -> Result<Vec<(u32, Known)>, tokio_postgres::Error> {
    /// It is looked at again every few seconds.
    static UNREADABLE: Sparing = Sparing::new();
    let mut loaded = Vec::new();
    for oid in oids {
        match load_all(client, &[*oid]).await {
            Err(error) if fails_again(&error) => {
                if let Some(unsaid) = UNREADABLE.due() {
                    tracing::warn!(oid, %error, unsaid, "what a table is like cannot be read");
                }
            }
            found => loaded.extend(found?),
        }
    }
    Ok(loaded)
}

async fn load_all(
    client: &Client,
    oids: &[u32],
) -> Result<Vec<(u32, Known)>, tokio_postgres::Error> {
    if oids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = client.query(RELATIONS, &[&oids]).await?;
    Ok(rows.iter().map(|row| (row.get(0), Known::of(row))).collect())
}

/// Of these topics those for which there is a table of their own, which is no partition.
pub(super) async fn existing(
    client: &Client,
    topics: &[Topic],
) -> Result<Vec<Topic>, tokio_postgres::Error> {
    const SQL: &str = "\
SELECT n.nspname::text, c.relname::text
FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) wanted (schema, name)
JOIN pg_catalog.pg_namespace n ON n.nspname = wanted.schema::name
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name::name
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND n.nspname::text = wanted.schema AND c.relname::text = wanted.name";
    let names = topics.iter().filter_map(|topic| topic.name().split_once('.'));
    let (schemas, tables): (Vec<&str>, Vec<&str>) = names.unzip();
    let rows = client.query(SQL, &[&schemas, &tables]).await?;
    Ok(rows.iter().filter_map(|row| naming::topic(row.get(0), row.get(1))).collect())
}

/// A row has columns that its relation has not, or the other way round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// The text is no JSON object, or larger than PostgreSQL can print; `jsonb` never gives such a
    /// one for a row.
    NoObject,
    /// The names are these.
    Names(Vec<String>),
}

impl Known {
    fn of(row: &SqlRow) -> Self {
        let numbers: Vec<i16> = row.get("numbers");
        let names: Vec<String> = row.get("names");
        let types: Vec<u32> = row.get("types");
        let type_names: Vec<String> = row.get("type_names");
        let keys: Vec<bool> = row.get("keys");
        let generated: Vec<bool> = row.get("generated");
        let (mut columns, mut places) = (Vec::new(), HashMap::new());
        let mut told = Vec::new();
        let described = names.into_iter().zip(types).zip(type_names).zip(keys).zip(generated);
        for (((((name, type_oid), type_name), key), generated), number) in described.zip(numbers) {
            let name: Arc<str> = name.into();
            places.insert(Arc::clone(&name), (!generated).then_some(columns.len()));
            if !generated {
                columns.push(Column { name, type_oid, type_name: type_name.into(), key });
                told.push(number);
            }
        }
        let (schema, table): (String, String) = (row.get(1), row.get(2));
        let relation = Arc::new(Relation::new(row.get(0), schema, table, columns));
        let (former, shapes) = (Vec::new(), Vec::new());
        let (flaw, mendable): (Option<String>, bool) = (row.get("flaw"), row.get("mendable"));
        let (flows, triggers) = (flaw.is_none(), row.get("triggers"));
        let numbers = told;
        Self { relation, flows, flaw, mendable, triggers, places, numbers, former, shapes }
    }

    /// Whether the topic is that of this table: the catalog is asked a moment after the rows were
    /// written, and the table may have been renamed in between.
    pub(super) fn is_of(&self, topic: &Topic) -> bool {
        topic.name().split_once('.') == Some((&*self.relation.schema, &*self.relation.table))
    }

    /// Takes over what a newer look at the catalog says; an equal relation stays the same one.
    pub(super) fn renew(&mut self, newer: Self) {
        self.flows = newer.flows;
        self.flaw.clone_from(&newer.flaw);
        self.mendable = newer.mendable;
        self.triggers.clone_from(&newer.triggers);
        if *self.relation != *newer.relation || self.places.len() != newer.places.len() {
            let mut former = std::mem::take(&mut self.former);
            former.extend(self.columns().map(|(number, column)| (number, column.clone())));
            former.drain(..former.len().saturating_sub(FORMER));
            *self = Self { former, ..newer };
        }
    }

    fn columns(&self) -> impl Iterator<Item = (i16, &Column)> {
        self.numbers.iter().copied().zip(self.relation.columns())
    }

    /// The catalog has no better answer for rows with these names.
    pub(super) fn accept(&mut self, misfit: &Misfit) {
        let Misfit::Names(names) = misfit else { return };
        let shape = Shape { names: fingerprint(names), relation: Arc::new(self.of_names(names)) };
        if self.shapes.len() == SHAPES {
            self.shapes.remove(0);
        }
        self.shapes.push(shape);
    }

    /// The table when its columns had these names, in the order of their numbers.
    fn of_names(&self, names: &[String]) -> Relation {
        let is_told = |name: &&String| self.places.get(name.as_str()) != Some(&None);
        let mut columns: Vec<_> =
            names.iter().filter(is_told).map(|name| self.find(name)).collect();
        columns.sort_by(|(a, one), (b, other)| (a, &one.name).cmp(&(b, &other.name)));
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        let Relation { oid, schema, table, .. } = &*self.relation;
        Relation::new(*oid, Arc::clone(schema), Arc::clone(table), columns)
    }

    /// A column that the table has or had; what is known of one that came and went is its name.
    fn find(&self, name: &str) -> (i16, Column) {
        let former = self.former.iter().rev().map(|(number, column)| (*number, column));
        let mut all = self.columns().chain(former);
        let found = all.find(|(_, column)| *column.name == *name);
        found.map_or_else(
            || {
                let type_name = "unknown".into();
                (i16::MAX, Column { name: name.into(), type_oid: UNKNOWN, type_name, key: false })
            },
            |(number, column)| (number, column.clone()),
        )
    }

    /// A row from its JSON text; each value is the very text that PostgreSQL printed.
    ///
    /// # Errors
    /// [`Misfit`] when the catalog should be asked again; once accepted, the row comes with the
    /// relation it was written in.
    pub(super) fn row(&self, text: &str) -> Result<(Arc<Relation>, Row), Misfit> {
        let members: HashMap<String, &RawValue> =
            serde_json::from_str(text).map_err(|_| Misfit::NoObject)?;
        let mut values = vec![Value::Absent; self.relation.columns().len()];
        let mut fits = members.len() == self.places.len();
        for (name, value) in &members {
            match self.places.get(name.as_str()) {
                Some(Some(place)) => values[*place] = Value::Json(value.get()),
                Some(None) => {}
                None => fits = false,
            }
        }
        if fits {
            return Ok((Arc::clone(&self.relation), made_of(values)?));
        }
        let names = fingerprint(members.keys());
        match self.shapes.iter().rev().find(|shape| shape.names == names) {
            Some(Shape { relation, .. }) => {
                Ok((Arc::clone(relation), in_order(relation, &members)?))
            }
            None => Err(Misfit::Names(members.into_keys().collect())),
        }
    }
}

/// Values in the order of the columns; what a row had not is absent.
fn in_order(relation: &Relation, members: &HashMap<String, &RawValue>) -> Result<Row, Misfit> {
    let value = |column: &Column| {
        let value = members.get(&*column.name);
        value.map_or(Value::Absent, |value| Value::Json(value.get()))
    };
    made_of(relation.columns().iter().map(value))
}

fn made_of<'v>(values: impl IntoIterator<Item = Value<'v>>) -> Result<Row, Misfit> {
    let mut row = RowBuilder::default();
    values.into_iter().for_each(|value| row.push(value));
    row.finish().map_err(|_| Misfit::NoObject)
}

/// The same for the same names in any order.
fn fingerprint<'a>(names: impl IntoIterator<Item = &'a String>) -> u64 {
    let hasher = std::hash::BuildHasherDefault::<DefaultHasher>::default();
    names.into_iter().map(|name| hasher.hash_one(name)).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known(names: &[&str], generated: &[&str]) -> Known {
        let column = |name: &&str| Column {
            name: (*name).into(),
            type_oid: 25,
            type_name: "text".into(),
            key: false,
        };
        let columns: Vec<Column> = names.iter().map(column).collect();
        let mut places: HashMap<Arc<str>, Option<usize>> =
            columns.iter().enumerate().map(|(at, c)| (Arc::clone(&c.name), Some(at))).collect();
        places.extend(generated.iter().map(|name| (Arc::from(*name), None)));
        let numbers = (1..).take(columns.len()).collect();
        let relation = Relation::new(1, "s", "t", columns);
        let (former, shapes) = (Vec::new(), Vec::new());
        let (relation, triggers) = (Arc::new(relation), String::new());
        let (flows, flaw, mendable) = (true, None, false);
        Known { relation, flows, flaw, mendable, triggers, places, numbers, former, shapes }
    }

    #[test]
    fn values_keep_their_text_and_stand_in_the_order_of_the_columns() {
        let known = known(&["a", "b \"c\"", "d"], &["sum"]);
        let text = r#"{"d": 1234567890.123456789012345678901234567890, "a": null, "sum": 3,
            "b \"c\"": {"x": [1, 2.50]}}"#;
        let expected = ["null", r#"{"x": [1, 2.50]}"#, "1234567890.123456789012345678901234567890"];
        assert_eq!(known.row(text).unwrap().1, Row::of_json(expected));
    }

    #[test]
    fn a_row_of_another_shape_asks_for_the_catalog_once() {
        let mut known = known(&["a", "b"], &[]);
        let misfit = known.row(r#"{"a": 1, "old": 2}"#).unwrap_err();
        known.accept(&misfit);
        let (relation, row) = known.row(r#"{"old": 2, "a": 1}"#).unwrap();
        let names: Vec<_> = relation.columns().iter().map(|column| &*column.name).collect();
        assert_eq!((names, row), (vec!["a", "old"], Row::of_json(["1", "2"])));
        assert!(matches!(known.row(r#"{"a": 1}"#), Err(Misfit::Names(_))));
        assert_eq!(known.row("[1]"), Err(Misfit::NoObject));
    }

    #[test]
    fn a_row_between_two_alterations_has_all_that_was_written_in_the_order_of_then() {
        let mut known = known(&["id", "title", "body"], &[]);
        // One was renamed, one dropped, one added.
        let mut newer = self::known(&["id", "headline", "stars"], &["sum"]);
        newer.numbers = vec![1, 2, 4];
        known.renew(newer);
        let text = r#"{"stars": 4, "body": "b", "title": "t", "id": 1, "sum": 9}"#;
        let misfit = known.row(text).unwrap_err();
        known.accept(&misfit);
        let (relation, row) = known.row(text).unwrap();
        let columns = relation.columns().iter().map(|column| &*column.name).zip(row.values());
        let expected = [("id", "1"), ("title", "\"t\""), ("body", "\"b\""), ("stars", "4")]
            .map(|(name, text)| (name, Value::Json(text)));
        assert_eq!(columns.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn no_more_shapes_are_remembered_than_allowed() {
        let mut known = known(&["a"], &[]);
        for at in 0..3 * SHAPES {
            let text = format!("{{\"a{at}\": 1}}");
            let misfit = known.row(&text).unwrap_err();
            known.accept(&misfit);
            assert!(known.row(&text).is_ok());
        }
        assert_eq!(known.shapes.len(), SHAPES);
    }

    proptest! {
        #[test]
        fn any_text_is_a_row_or_a_misfit(text in "\\PC{0,40}") {
            let _ = known(&["a"], &[]).row(&text);
        }

        #[test]
        fn numbers_are_never_read(digits in "-?[1-9][0-9]{0,400}(\\.[0-9]{1,400})?") {
            let (_, row) = known(&["n"], &[]).row(&format!("{{\"n\": {digits}}}")).unwrap();
            prop_assert_eq!(row, Row::of_json([digits]));
        }
    }
}
