//! Which tables can be followed, how, and why not.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::{Value, json};
use tokio_postgres::{Client, Row};

use super::{Check, STATEMENT_LIMIT};
use crate::connect::{Pool, Target};
use crate::sql::ownership::trigger_function;
use crate::sql::triggers::flaw;
use crate::sql::{self, SqlError};
use crate::wal::{WalOptions, misfits, partial};

/// Every table of the application.
const SQL: &str = "\
SELECT n.nspname::text, c.relname::text, c.relkind = 'p', c.relpersistence::text,
  c.relreplident::text,
  EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AS primary_key,
  EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident) AS identity_index,
  c.relrowsecurity,
  has_table_privilege(c.oid, 'SELECT'), has_table_privilege(c.oid, 'TRIGGER'),
  pg_has_role(c.relowner, 'USAGE'),
  ARRAY(SELECT p.pubname::text FROM pg_publication p
    WHERE EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid)
      OR EXISTS (SELECT FROM pg_publication_tables t WHERE t.pubname = p.pubname
                 AND t.schemaname = n.nspname AND t.tablename = c.relname)
    ORDER BY 1) AS publications,
  c.oid
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'tidewire')
ORDER BY 1, 2";

/// What is known of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own in the catalog")]
pub struct TableReport {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Whether it has partitions, whose changes are told as its own.
    pub partitioned: bool,
    /// Whether its changes are not in the write-ahead log.
    pub unlogged: bool,
    /// `default`, `nothing`, `full` or `index`.
    pub replica_identity: &'static str,
    /// Whether rows that are updated or deleted can be named in the write-ahead log.
    pub identified: bool,
    /// Whether it has row level security.
    pub row_security: bool,
    /// Whether this role may read it, as snapshots do.
    pub may_select: bool,
    /// Whether this role may give it triggers.
    pub may_trigger: bool,
    /// Whether this role owns it, as publishing it needs.
    pub owned: bool,
    /// The publications of Tidewire that it is in.
    pub publications: Vec<String>,
    /// Whether its changes are written to the outbox.
    pub triggers: bool,
    /// Why not, where it has triggers that leave out some.
    pub flaw: Option<String>,
    /// Which of its partitions does not tell its key in the write-ahead log, with what mends it.
    pub partition: Option<String>,
    /// What the publication leaves out of it, with what mends it.
    pub partial: Option<String>,
}

impl TableReport {
    fn of(row: &Row) -> Self {
        let replica_identity = match row.get::<_, &str>(4) {
            "n" => "nothing",
            "f" => "full",
            "i" => "index",
            _ => "default",
        };
        let identified = match replica_identity {
            "default" => row.get(5),
            "index" => row.get(6),
            other => other == "full",
        };
        let publications: Vec<String> = row.get(11);
        Self {
            schema: row.get(0),
            table: row.get(1),
            partitioned: row.get(2),
            unlogged: row.get::<_, &str>(3) == "u",
            replica_identity,
            identified,
            row_security: row.get(7),
            may_select: row.get(8),
            may_trigger: row.get(9),
            owned: row.get(10),
            publications,
            triggers: false,
            flaw: None,
            partition: None,
            partial: None,
        }
    }

    /// The sources that tell its changes now: `wal`, `outbox`.
    pub fn live(&self) -> Vec<&'static str> {
        let is_whole = self.partial.is_none() && !self.publications.is_empty();
        let wal = is_whole.then_some("wal");
        wal.into_iter().chain(self.triggers.then_some("outbox")).collect()
    }

    /// Whether its changes are told, or can be as soon as somebody wants them.
    fn is_followable(&self) -> bool {
        let could_be_published = self.owned && self.identified && !self.unlogged;
        !self.live().is_empty() || could_be_published || self.may_trigger
    }

    /// Why it cannot be followed, or only in part, each with its fix.
    pub fn obstacles(&self) -> Vec<String> {
        let name = self.quoted();
        let mut found = Vec::new();
        if !self.identified {
            found.push(format!(
                "wal: its replica identity is {} and names no rows, so publishing it would make \
                 UPDATE fail: add a primary key, or ALTER TABLE {name} REPLICA IDENTITY FULL",
                self.replica_identity
            ));
        }
        if let Some(words) = &self.partition {
            found.push(format!("wal: {words}"));
        }
        if let Some(words) = &self.partial {
            found.push(format!("wal: {words}"));
        }
        if self.unlogged {
            found.push(format!("wal: it is unlogged: ALTER TABLE {name} SET LOGGED"));
        }
        if !self.owned && self.publications.is_empty() {
            found.push("wal: this role does not own it, so it cannot publish it".to_owned());
        }
        if let Some(flaw) = &self.flaw {
            found.push(format!("outbox: {flaw}: SELECT enable_realtime for it, as its owner"));
        }
        if !self.may_trigger && !self.triggers {
            found.push(format!("outbox: GRANT TRIGGER ON {name} to this role"));
        }
        if !self.may_select {
            found.push(format!("snapshots: GRANT SELECT ON {name} to this role"));
        }
        if self.row_security {
            found.push(
                "it has row level security, which is not enforced for clients: refused to all whose \
                 token's role is not in row_security.bypass_roles"
                    .to_owned(),
            );
        }
        found
    }

    /// For people.
    pub fn text(&self) -> String {
        let live = self.live();
        let live = if live.is_empty() { "not followed".to_owned() } else { live.join(", ") };
        let mut out = format!("{}.{}  {live}\n", self.schema, self.table);
        for obstacle in self.obstacles() {
            let _ = writeln!(out, "    {obstacle}");
        }
        out
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "schema": self.schema, "table": self.table, "live": self.live(),
            "replica_identity": self.replica_identity, "row_security": self.row_security,
            "partitioned": self.partitioned, "publications": self.publications,
            "triggers": self.triggers, "obstacles": self.obstacles(),
        })
    }

    fn quoted(&self) -> String {
        let quote = |part: &str| format!("\"{}\"", part.replace('"', "\"\""));
        format!("{}.{}", quote(&self.schema), quote(&self.table))
    }
}

/// Every table of the application that this role can see, by name; `options` say with which
/// publication the log is read.
///
/// # Errors
/// [`SqlError`] when the database cannot be asked.
pub async fn tables(target: &Target, options: &WalOptions) -> Result<Vec<TableReport>, SqlError> {
    let pool = Pool::new(target, 1, STATEMENT_LIMIT, STATEMENT_LIMIT);
    let connection = pool.get().await?;
    let listed = connection.run(async |client| list(client, options).await).await;
    let listed = listed.ok_or(SqlError::Silence)?;
    listed.map_err(|source| crate::sql::explain(source, "public"))
}

async fn list(
    client: &Client,
    options: &WalOptions,
) -> Result<Vec<TableReport>, tokio_postgres::Error> {
    let (publication, _) = options.publication_name();
    let rows = client.query(SQL, &[]).await?;
    let oids: Vec<u32> = rows.iter().map(|row| row.get(12)).collect();
    let misfits = misfits(client, &publication, &oids).await?;
    let partial = partial(client, &publication, &oids).await?;
    let mut triggers = triggers(client).await?;
    let mut report = |row: &Row| {
        let oid: u32 = row.get(12);
        let partition = misfits.iter().find(|misfit| misfit.table == oid);
        let partial = partial.iter().find(|partial| partial.table == oid);
        let (triggers, flaw) = match triggers.remove(&oid) {
            None => (false, None),
            Some(flaw) => (flaw.is_none(), flaw),
        };
        let mut report = TableReport::of(row);
        // Ours have names that begin so, whichever run of ours made them.
        report.publications.retain(|name| name.starts_with("tidewire") || *name == publication);
        TableReport {
            triggers,
            flaw,
            partition: partition.map(|misfit| misfit.words.clone()),
            partial: partial.map(|partial| partial.words.clone()),
            ..report
        }
    };
    Ok(rows.iter().map(&mut report).collect())
}

/// The tables that have triggers of ours, each with why these do not record all its changes. None where
/// nothing is installed, or nothing that may be used.
async fn triggers(client: &Client) -> Result<HashMap<u32, Option<String>>, tokio_postgres::Error> {
    const SQL: &str = concat!(
        "WITH ours AS MATERIALIZED (SELECT ",
        trigger_function!(),
        " AS oid) SELECT c.oid, ",
        flaw!("ours.oid"),
        " FROM ours, pg_catalog.pg_class c WHERE c.oid IN (
          SELECT coalesce(pg_catalog.pg_partition_root(t.tgrelid)::pg_catalog.oid, t.tgrelid)
          FROM pg_catalog.pg_trigger t WHERE t.tgfoid = ours.oid)"
    );
    let installed = match sql::found(client).await {
        Err(error) if sql::is_denied(&error) => None,
        found => found?,
    };
    if sql::usable(installed).is_err() {
        return Ok(HashMap::new());
    }
    Ok(client.query(SQL, &[]).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
}

pub(super) async fn examine(
    client: &Client,
    options: &WalOptions,
    checks: &mut Vec<Check>,
) -> Result<(), tokio_postgres::Error> {
    let tables = list(client, options).await?;
    checks.push(followable(&tables));
    checks.push(identities(&tables));
    checks.extend(parts_only(&tables));
    checks.push(row_security(&tables));
    Ok(())
}

/// Whether this role can follow any table at all; who uses NOTIFY alone needs none.
fn followable(tables: &[TableReport]) -> Check {
    let count = tables.iter().filter(|table| table.is_followable()).count();
    let found = format!("{count} of {} can be followed by this role", tables.len());
    if count > 0 || tables.is_empty() {
        return Check::ok("tables", found);
    }
    Check::warn(
        "tables",
        found,
        "`tidewire tables` says of each what is missing: make a publication of them as their owner \
         and name it in wal.publication, or GRANT TRIGGER on them to this role",
    )
}

fn identities(tables: &[TableReport]) -> Check {
    let without = names(tables, |table| !table.identified);
    if without.is_empty() {
        return Check::ok("replica identity", format!("{} tables have one", tables.len()));
    }
    Check::warn(
        "replica identity",
        format!("none: {without}"),
        "give each a primary key, or run `tidewire tables` for the statement; until then they \
         cannot be followed by the write-ahead log",
    )
}

/// Tables of which the publication sends a part.
fn parts_only(tables: &[TableReport]) -> Option<Check> {
    let partial = tables.iter().find_map(|table| table.partial.as_ref())?;
    let named = names(tables, |table| table.partial.is_some());
    Some(Check::warn(
        "whole tables",
        format!("only a part of {named} is published, so the write-ahead log does not follow them"),
        partial.clone(),
    ))
}

fn row_security(tables: &[TableReport]) -> Check {
    let with = names(tables, |table| table.row_security);
    if with.is_empty() {
        return Check::ok("row security", "no table has it");
    }
    Check::warn(
        "row security",
        format!("on {with}"),
        "it is not enforced for clients, so these tables are refused to all whose token's role is \
         not in row_security.bypass_roles",
    )
}

/// The first few names, and how many more there are.
fn names(tables: &[TableReport], which: impl Fn(&&TableReport) -> bool) -> String {
    const SHOWN: usize = 5;
    let found: Vec<String> =
        tables.iter().filter(which).map(|t| format!("{}.{}", t.schema, t.table)).collect();
    let mut text = found.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if found.len() > SHOWN {
        let _ = write!(text, " and {} more", found.len() - SHOWN);
    }
    text
}
