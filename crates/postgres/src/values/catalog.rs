//! What PostgreSQL's catalog says about types, read when a type is first met.
//!
//! A type is read together with all it is made of. What is read stays until [`Catalog::forget`]:
//! only composites change after they were made.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_postgres::{Client, Row};

use super::{Attribute, Shape};

/// Deepest composition that is followed: PostgreSQL allows no type to contain itself, so only a
/// catalog that changes while it is read could be deeper.
const DEEPEST: usize = 64;

/// The types asked for and all they are made of.
const TYPES: &str = "\
WITH RECURSIVE wanted(oid) AS (
    SELECT pg_catalog.unnest($1::pg_catalog.oid[])
  UNION
    SELECT part.oid
    FROM wanted JOIN pg_catalog.pg_type t USING (oid) CROSS JOIN LATERAL (
        SELECT t.typbasetype WHERE t.typtype = 'd'
      UNION ALL
        SELECT t.typelem
        WHERE t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc
      UNION ALL
        SELECT a.atttypid FROM pg_catalog.pg_attribute a
        WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) part(oid)
)
SELECT t.oid,
       pg_catalog.format_type(t.oid, NULL) AS name,
       t.typtype::text AS type,
       t.typbasetype AS base,
       CASE WHEN t.typsubscript = 'pg_catalog.array_subscript_handler'::pg_catalog.regproc
            THEN t.typelem ELSE 0 END AS element,
       e.typdelim::text AS delimiter,
       t.typname = 'hstore' AND EXISTS (
            SELECT FROM pg_catalog.pg_cast c
            WHERE c.castsource = t.oid AND c.casttarget = 'pg_catalog.json'::pg_catalog.regtype
       ) AS hstore,
       (SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS names,
       (SELECT pg_catalog.array_agg(a.atttypid ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) AS types
FROM wanted JOIN pg_catalog.pg_type t USING (oid)
     LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem";

/// A type that columns have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypeInfo {
    /// Its name as `format_type` prints it without modifiers.
    pub(crate) name: Arc<str>,
    /// How its values are turned to JSON.
    pub(crate) shape: Arc<Shape>,
}

/// The types met so far.
#[derive(Default)]
pub(crate) struct Catalog {
    types: Mutex<HashMap<u32, TypeInfo>>,
}

impl Catalog {
    /// The type, if it was read.
    pub(crate) fn get(&self, oid: u32) -> Option<TypeInfo> {
        self.types.lock().get(&oid).cloned()
    }

    /// Forgets types that may have changed; they are read again when met.
    pub(crate) fn forget(&self, oids: &[u32]) {
        let mut types = self.types.lock();
        for oid in oids {
            types.remove(oid);
        }
    }

    /// Those of the types that were not read yet.
    pub(crate) fn unknown(&self, oids: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let types = self.types.lock();
        oids.into_iter().filter(|oid| !types.contains_key(oid)).collect()
    }

    /// Reads types. One that is not there any more is known as text from now on.
    ///
    /// # Errors
    /// When PostgreSQL cannot be asked.
    pub(crate) async fn load(
        &self,
        client: &Client,
        oids: &[u32],
    ) -> Result<(), tokio_postgres::Error> {
        let rows = client.query(TYPES, &[&oids]).await?;
        let found = rows.iter().map(Found::read).collect::<Result<Vec<_>, _>>()?;
        let found: HashMap<u32, Found> = found.into_iter().map(|f| (f.oid, f)).collect();
        let mut types = self.types.lock();
        for &oid in oids {
            let name = found.get(&oid).map_or_else(|| "???".into(), |f| Arc::clone(&f.name));
            types.insert(oid, TypeInfo { name, shape: shape(oid, &found, 0) });
        }
        Ok(())
    }
}

/// One row of the catalog.
struct Found {
    oid: u32,
    name: Arc<str>,
    base: u32,
    element: u32,
    delimiter: u8,
    is_domain: bool,
    is_composite: bool,
    is_hstore: bool,
    attributes: Vec<(String, u32)>,
}

impl Found {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let kind: String = row.try_get("type")?;
        let delimiter: Option<String> = row.try_get("delimiter")?;
        let names: Option<Vec<String>> = row.try_get("names")?;
        let types: Option<Vec<u32>> = row.try_get("types")?;
        Ok(Self {
            oid: row.try_get("oid")?,
            name: row.try_get::<_, String>("name")?.into(),
            base: row.try_get("base")?,
            element: row.try_get("element")?,
            delimiter: delimiter.and_then(|d| d.bytes().next()).unwrap_or(b','),
            is_domain: kind == "d",
            is_composite: kind == "c",
            is_hstore: row.try_get("hstore")?,
            attributes: names.into_iter().flatten().zip(types.into_iter().flatten()).collect(),
        })
    }
}

/// The shape of a type, put together from what was found.
fn shape(oid: u32, found: &HashMap<u32, Found>, depth: usize) -> Arc<Shape> {
    if let Some(shape) = built_in(oid) {
        return Arc::new(shape);
    }
    let Some(this) = found.get(&oid).filter(|_| depth < DEEPEST) else {
        return Arc::new(Shape::Text);
    };
    let part = |oid| shape(oid, found, depth + 1);
    if this.is_domain {
        return part(this.base);
    }
    Arc::new(if this.element != 0 {
        Shape::Array(part(this.element), this.delimiter)
    } else if this.is_composite {
        let attributes = this.attributes.iter();
        let named = |(name, oid): &(String, u32)| Attribute {
            name: name.as_str().into(),
            shape: part(*oid),
        };
        Shape::Composite(attributes.map(named).collect())
    } else if this.is_hstore {
        Shape::Hstore
    } else {
        Shape::Text
    })
}

/// Types whose oids are the same in every PostgreSQL and which are no plain text.
fn built_in(oid: u32) -> Option<Shape> {
    Some(match oid {
        16 => Shape::Bool,
        20 | 21 | 23 | 1700 => Shape::Number,
        700 | 701 => Shape::Float,
        1082 | 1114 | 1184 => Shape::Time,
        114 => Shape::Json,
        3802 => Shape::Jsonb,
        22 => Shape::Vector(Arc::new(Shape::Number)),
        30 => Shape::Vector(Arc::new(Shape::Text)),
        _ => return None,
    })
}
