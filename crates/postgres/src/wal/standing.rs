//! As what a table is in the stream: its name and its membership of the publication.
//!
//! A table is remembered with the [`Standing`] in which its changes began to be delivered. Where a
//! later look finds another, something happened between the two that the stream does not tell: the
//! table was renamed, perhaps only for a while, another has its name, or it left the publication and
//! came back. What was written meanwhile was not sent, or not as this table's, so a gap is due.

use std::collections::HashMap;

use bytes::Bytes;
use tidewire_protocol::Topic;
use tokio_postgres::Client;

use super::pgoutput::Lsn;
use super::publication::MARK;
use crate::naming::{Naming, naming_stamp};

/// As what a table is in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) naming: Naming,
    /// Another text once it left the publication and came back, or the publication was altered.
    published: String,
}

/// A table that is in the stream, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) standing: Standing,
    /// What committed before this place is not delivered: the table may have had another name.
    pub(super) from: Lsn,
}

/// The tables $2 as they are in publication $1, and a place in the log before which everything
/// committed that this look sees.
///
/// Our own publication is written anew by ourselves, and only its tables come and go. Of another the
/// operations that are sent may be altered, and altered back.
const STANDINGS: &str = concat!(
    "\
SELECT c.oid, n.nspname::text, c.relname::text, ",
    naming_stamp!(),
    ",
  pg_catalog.concat_ws(',', p.oid::text,
    CASE WHEN pg_catalog.obj_description(p.oid, 'pg_publication') IS DISTINCT FROM $3
         THEN p.xmin::text END,
    (SELECT pg_catalog.string_agg(r.oid::text || ':' || r.xmin::text, ',' ORDER BY r.oid)
     FROM pg_catalog.pg_publication_rel r
     WHERE r.prpubid = p.oid AND (r.prrelid = c.oid OR r.prrelid IN (
       SELECT a.relid::oid FROM pg_catalog.pg_partition_ancestors(c.oid) a))),
    (SELECT pg_catalog.string_agg(d.objid::text, ',' ORDER BY d.objid)
     FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_depend s ON s.classid = d.classid
       AND s.objid = d.objid AND s.refobjid = n.oid
       AND s.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
     WHERE d.classid = pg_catalog.to_regclass('pg_catalog.pg_publication_namespace')::oid
       AND d.refclassid = 'pg_catalog.pg_publication'::pg_catalog.regclass AND d.refobjid = p.oid)),
  (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
        ELSE pg_catalog.pg_current_wal_insert_lsn() END)::text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_type t ON t.oid = c.reltype
JOIN pg_catalog.pg_publication p ON p.pubname = $1
WHERE c.oid = ANY ($2)"
);

/// As what these tables are in the stream now, and from where on; those that are gone are left out.
/// Whether they are in the publication at all is for others to know.
pub(super) async fn standings(
    client: &Client,
    publication: &str,
    tables: &[u32],
) -> Result<HashMap<u32, Admitted>, tokio_postgres::Error> {
    if tables.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = client.query(STANDINGS, &[&publication, &tables, &MARK]).await?;
    let admitted = |row: &tokio_postgres::Row| {
        let (oid, schema, table, stamp) = (row.get(0), row.get(1), row.get(2), row.get(3));
        let naming = Naming { oid, schema, table, stamp };
        let standing = Standing { naming, published: row.get(4) };
        let from = row.get::<_, Option<String>>(5).and_then(|lsn| lsn.parse().ok());
        (oid, Admitted { standing, from: from.unwrap_or_default() })
    };
    Ok(rows.iter().map(admitted).collect())
}

impl Admitted {
    /// As a text to be kept beside the topic.
    pub(super) fn put(&self) -> Bytes {
        let Standing { naming, published } = &self.standing;
        format!("2 {} {} {published} {}", naming.oid, naming.stamp, self.from).into()
    }

    /// What such a text says of the table with this topic. One that an older version wrote does not
    /// say which table it was, so it says nothing.
    pub(super) fn take(topic: &Topic, text: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        if words.next()? != "2" {
            return None;
        }
        let (oid, stamp) = (words.next()?.parse().ok()?, words.next()?.to_owned());
        let (published, from) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
        let (schema, table) = topic.name().split_once('.')?;
        let (schema, table) = (schema.to_owned(), table.to_owned());
        let naming = Naming { oid, schema, table, stamp };
        Some(Self { standing: Standing { naming, published }, from })
    }
}

#[cfg(test)]
impl Admitted {
    /// One for tests: the table of this oid and topic, which came to its name so.
    pub(super) fn of(topic: &Topic, oid: u32, stamp: &str) -> Self {
        let (schema, table) = topic.name().split_once('.').unwrap();
        let (schema, table) = (schema.to_owned(), table.to_owned());
        let naming = Naming { oid, schema, table, stamp: stamp.to_owned() };
        let standing = Standing { naming, published: "1".to_owned() };
        Self { standing, from: Lsn(7) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_admitted_is_read_as_it_was_written() {
        let orders = Topic::table("public.orders").unwrap();
        let admitted = Admitted::of(&orders, 7, "1.2.3.f");
        assert_eq!(Admitted::take(&orders, &admitted.put()), Some(admitted));
        for senseless in ["", "1", "2 7 s p", "2 x s p 0/1", "2 7 s p x", "1 7 s p 0/1"] {
            assert_eq!(Admitted::take(&orders, senseless.as_bytes()), None, "{senseless}");
        }
    }
}
