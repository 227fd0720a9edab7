//! A table looked up in the catalog.

use std::sync::Arc;

use serde_json::Value;
use tidewire_protocol::change::Relation;
use tidewire_protocol::filter::{Kind, Text};
use tidewire_protocol::{Code, Refusal, Topic};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::collation::{Case, Collation};
use super::table::{Table, TableColumn};
use super::transaction::Asked;
use crate::key::key_columns;

/// One row for each column. Domains are followed down to what they are made of. Rows of
/// `pg_collation` and `pg_database` come as JSON, since their columns differ between versions.
const SQL: &str = concat!(
    "
WITH RECURSIVE relation AS (
    SELECT c.oid, c.relkind::pg_catalog.text AS kind
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1::pg_catalog.text AND c.relname = $2::pg_catalog.text
), typed (attnum, type) AS (
    SELECT a.attnum, a.atttypid
    FROM pg_catalog.pg_attribute a JOIN relation r ON r.oid = a.attrelid
    WHERE a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
    SELECT x.attnum, t.typbasetype
    FROM typed x JOIN pg_catalog.pg_type t ON t.oid = x.type
    WHERE t.typtype = 'd'
)
SELECT r.oid AS relation, r.kind, a.attname::pg_catalog.text AS name, a.atttypid AS type,
       pg_catalog.format_type(a.atttypid, NULL) AS type_name,
       t.oid AS base, t.typtype::pg_catalog.text AS base_kind,
       pg_catalog.quote_ident(tn.nspname) || '.' || pg_catalog.quote_ident(t.typname) AS base_sql,
       a.attgenerated <> '' AS generated,
       pg_catalog.array_position(",
    key_columns!("r.oid"),
    ", a.attnum) AS key_place,
       a.attcollation AS collation,
       pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname)
           AS collation_sql,
       pg_catalog.to_jsonb(co)::pg_catalog.text AS collation_row,
       (SELECT pg_catalog.to_jsonb(d)::pg_catalog.text FROM pg_catalog.pg_database d
        WHERE d.datname = pg_catalog.current_database()) AS database_row,
       pg_catalog.current_setting('server_encoding') AS encoding,
       ARRAY(SELECT e.enumlabel::pg_catalog.text FROM pg_catalog.pg_enum e
             WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder) AS labels,
       EXISTS (SELECT FROM pg_catalog.pg_cast k
               WHERE k.castsource = t.oid AND k.casttarget = 'pg_catalog.json'::pg_catalog.regtype
              ) AS casts_to_json
FROM relation r
JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid
JOIN typed x ON x.attnum = a.attnum
JOIN pg_catalog.pg_type t ON t.oid = x.type AND t.typtype <> 'd'
JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation
LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
ORDER BY a.attnum"
);

/// Looks a table up; `Ok(Err(…))` when there is none of that name.
pub(crate) async fn describe(client: &Client, topic: &Topic) -> Asked<Table> {
    let Some((schema, table)) = topic.name().split_once('.') else {
        return Ok(Err(Refusal::new(Code::BadTopic, "a table is named schema.table")));
    };
    let rows = client.query_typed(SQL, &[(&schema, Type::TEXT), (&table, Type::TEXT)]).await?;
    let Some(first) = rows.first() else {
        let message = format!("there is no table {schema}.{table}, or it has no columns");
        return Ok(Err(Refusal::new(Code::NotFound, message)));
    };
    let partitioned = match first.get("kind") {
        "r" => false,
        "p" => true,
        _ => {
            let message = format!(
                "{schema}.{table} is not a table: only tables have changes; subscribe to those \
                 that it is made of"
            );
            return Ok(Err(Refusal::new(Code::BadField, message)));
        }
    };
    let columns: Vec<TableColumn> = rows.iter().map(column).collect();
    let told = columns.iter().filter(|c| !c.generated).map(TableColumn::told).collect();
    let relation = Relation::new(first.get("relation"), schema, table, told);
    Ok(Ok(Table { relation: Arc::new(relation), partitioned, columns }))
}

fn column(row: &Row) -> TableColumn {
    let text = |name: &str| row.get::<_, String>(name);
    let collation = collation(row);
    TableColumn {
        name: text("name").into(),
        type_oid: row.get("type"),
        type_name: text("type_name").into(),
        base_oid: row.get("base"),
        base_sql: text("base_sql"),
        key_place: row.get("key_place"),
        generated: row.get("generated"),
        kind: kind(row, collation.as_ref()),
        case: collation.map_or(Case::Ascii, |collation| collation.case),
    }
}

fn collation(row: &Row) -> Option<Collation> {
    let json = |name: &str| -> Option<Value> {
        let text: Option<&str> = row.get(name);
        serde_json::from_str(text?).ok()
    };
    let (collation, database) = (json("collation_row")?, json("database_row")?);
    let sql: Option<&str> = row.get("collation_sql");
    Some(Collation::read(row.get("collation"), sql?, &collation, &database))
}

/// How values of a column compare, by the built-in type that it is of.
fn kind(row: &Row, collation: Option<&Collation>) -> Kind {
    let base: u32 = row.get("base");
    if row.get::<_, &str>("base_kind") == "e" {
        let labels: Vec<String> = row.get("labels");
        return Kind::Enum(labels.into_iter().map(Arc::from).collect());
    }
    match Type::from_oid(base).unwrap_or(Type::UNKNOWN) {
        Type::BOOL => Kind::Bool,
        Type::INT2 | Type::INT4 | Type::INT8 | Type::OID => Kind::Integer,
        Type::NUMERIC => Kind::Decimal,
        Type::FLOAT4 => Kind::Single,
        Type::FLOAT8 => Kind::Double,
        Type::DATE => Kind::Date,
        Type::TIMESTAMP | Type::TIMESTAMPTZ => Kind::Timestamp,
        Type::UUID | Type::BYTEA | Type::TIME => Kind::Label { ordered: true },
        Type::CHAR | Type::INET | Type::CIDR | Type::MACADDR | Type::MACADDR8 | Type::PG_LSN => {
            Kind::Label { ordered: false }
        }
        Type::TEXT | Type::VARCHAR | Type::NAME => text(row, collation).map_or(OTHER, Kind::Text),
        Type::BPCHAR => text(row, collation).map_or(OTHER, Kind::Padded),
        Type::JSON | Type::JSONB => Kind::Other { null_is_null: false },
        // A row of NULLs is NULL to SQL and an object to JSON.
        _ => Kind::Other {
            null_is_null: row.get::<_, &str>("base_kind") != "c"
                && !row.get::<_, bool>("casts_to_json"),
        },
    }
}

/// A text of which equal ones may differ, as a collation that is not deterministic has it.
const OTHER: Kind = Kind::Other { null_is_null: true };

fn text(row: &Row, collation: Option<&Collation>) -> Option<Text> {
    let collation = collation.filter(|collation| collation.deterministic)?;
    // Values come to us in UTF-8, whose order and characters are not those of other encodings.
    let patterns = row.get::<_, &str>("encoding") == "UTF8";
    let (fold, ascii_case) = collation.case.without_asking();
    Some(Text { ordered: collation.by_bytes && patterns, patterns, fold, ascii_case })
}
