//! Whether the triggers of a table record all its changes: they are looked at whole, with events,
//! columns, condition and state, and so are those of its partitions.

/// Why changes of the table of `c` (a row of `pg_class`) would be lost, null when none would. The oid
/// of the trigger function is the SQL expression that is given.
///
/// A trigger of type 29 fires after each row that is inserted, updated or deleted, one of type 32 after
/// TRUNCATE. Only a leaf of a partitioned table has rows; PostgreSQL gives it the trigger of its table.
macro_rules! flaw {
    ($function:expr) => {
        concat!(
            "coalesce((
    SELECT CASE
      WHEN pg_catalog.count(*) = 0 THEN 'it has no trigger of Tidewire'
      WHEN pg_catalog.count(*) FILTER (WHERE k.awake AND NOT k.whole) > 0 THEN
        'its trigger ' || pg_catalog.min(k.tgname) FILTER (WHERE k.awake AND NOT k.whole)
          || ' does not fire for all changes'
      WHEN pg_catalog.count(*) FILTER (WHERE k.whole AND k.tgtype = 29) = 0 THEN
        'it has no trigger for its rows'
      WHEN pg_catalog.count(*) FILTER (WHERE k.whole AND k.tgtype = 32) = 0 THEN
        'it has no trigger for TRUNCATE'
      WHEN pg_catalog.count(*) FILTER (WHERE k.awake AND k.tgtype = 29) > 1 THEN
        'more than one trigger records its rows'
      WHEN pg_catalog.count(*) FILTER (WHERE k.awake AND k.tgtype = 29) = 0
        OR pg_catalog.count(*) FILTER (WHERE k.awake AND k.tgtype = 32) = 0 THEN
        'its trigger ' || pg_catalog.min(k.tgname) FILTER (WHERE NOT k.awake) || ' is switched off'
    END
    FROM (SELECT t.tgname::pg_catalog.text, t.tgtype, t.tgenabled IN ('O', 'A') AS awake,
        t.tgtype IN (29, 32) AND t.tgqual IS NULL AND t.tgconstraint = 0
          AND pg_catalog.cardinality(t.tgattr::pg_catalog.int2[]) = 0 AS whole
      FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgfoid = ",
            $function,
            ") k
  ), (
    SELECT 'its partition ' || pg_catalog.min(b.name) || ' does not record its rows, or twice'
    FROM (SELECT y.relid::pg_catalog.text AS name FROM pg_catalog.pg_partition_tree(c.oid) y
      WHERE y.isleaf AND y.relid <> c.oid AND (
        SELECT pg_catalog.count(*) FILTER (WHERE t.tgtype = 29 AND t.tgqual IS NULL) <> 1
          OR pg_catalog.count(*) FILTER (WHERE t.tgtype NOT IN (29, 32)) > 0
        FROM pg_catalog.pg_trigger t WHERE t.tgrelid = y.relid AND t.tgenabled IN ('O', 'A')
          AND t.tgfoid = ",
            $function,
            ")) b
    HAVING pg_catalog.count(*) > 0
  ))"
        )
    };
}

/// Whether a trigger of the table of `c`, or of a partition of it, is an ordinary one, which does not
/// fire for rows that are written with `session_replication_role = replica`.
macro_rules! ordinary {
    ($function:expr) => {
        concat!(
            "EXISTS (SELECT FROM pg_catalog.pg_trigger t
    WHERE t.tgfoid = ",
            $function,
            " AND t.tgenabled = 'O' AND (t.tgrelid = c.oid OR t.tgrelid IN (
      SELECT y.relid FROM pg_catalog.pg_partition_tree(c.oid) y)))"
        )
    };
}

/// Why TRUNCATE of a partition of the table of `c` alone would not be recorded, null when it would.
/// PostgreSQL gives that trigger to no partition, so one that came later has none.
macro_rules! untruncated {
    ($function:expr) => {
        concat!(
            "(SELECT 'its partition ' || pg_catalog.min(y.relid::pg_catalog.text)
      || ' has no trigger for TRUNCATE'
    FROM pg_catalog.pg_partition_tree(c.oid) y
    JOIN pg_catalog.pg_class z ON z.oid = y.relid AND z.relkind IN ('r', 'p')
    WHERE y.relid <> c.oid AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t
      WHERE t.tgrelid = y.relid AND t.tgtype = 32 AND t.tgqual IS NULL
        AND t.tgenabled IN ('O', 'A') AND t.tgfoid = ",
            $function,
            ") HAVING pg_catalog.count(*) > 0)"
        )
    };
}

pub(crate) use {flaw, ordinary, untruncated};

/// Fills the fragments into a script whose trigger function is in the variable `ours`.
pub(super) fn fill(script: &str) -> String {
    script.replace("@flaw@", flaw!("ours")).replace("@ordinary@", ordinary!("ours"))
}
