//! Which columns are the key of a table's rows, as the catalog tells it.
//!
//! The primary key, unless the replica identity is an index that lacks one of its columns: then the
//! write-ahead log does not tell the primary key of a row that was deleted, and the columns of that
//! index are the key. Changes and snapshots take the same columns, so that they fit together. The
//! log itself says what its identity was when a row was written; for it the rule is in
//! [`wal`](crate::wal).

/// SQL for the numbers of the key's columns, in their order, of the table with this oid; NULL where
/// there is none. Columns that an index only includes tell no rows apart.
macro_rules! key_columns {
    ($table:literal) => {
        concat!(
            "(SELECT (k.indkey::pg_catalog.int2[])[0:k.indnkeyatts - 1]
              FROM pg_catalog.pg_index k
              LEFT JOIN pg_catalog.pg_index ri
                   ON ri.indrelid = k.indrelid AND ri.indisreplident AND NOT k.indisreplident
              WHERE k.indrelid = ",
            $table,
            " AND (k.indisprimary OR k.indisreplident)
              ORDER BY k.indisprimary AND (ri.indexrelid IS NULL
                       OR (k.indkey::pg_catalog.int2[])[0:k.indnkeyatts - 1]
                          OPERATOR(pg_catalog.<@) (ri.indkey::pg_catalog.int2[])[0:ri.indnkeyatts - 1]) DESC,
                       k.indisreplident DESC
              LIMIT 1)::pg_catalog.int2[]"
        )
    };
}

pub(crate) use key_columns;
