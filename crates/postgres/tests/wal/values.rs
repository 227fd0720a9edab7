//! The oracle for values: what the log tells is what PostgreSQL's own `to_jsonb` gives.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use tidewire_postgres::private_cluster::PrivateCluster;

use super::Rig;
use super::basics::changes;
use crate::support::changes::object;
use crate::support::{cluster, newer_cluster, sql};

const TYPES: &str = r#"
CREATE SCHEMA vals;
SET search_path = vals, public;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'very "happy"');
CREATE DOMAIN cents AS bigint CHECK (VALUE >= 0);
CREATE DOMAIN tags AS text[];
CREATE DOMAIN doc AS jsonb;
CREATE TYPE point3 AS (x float8, y numeric(10,3), "long name" text);
CREATE TYPE shape AS (name text, corners point3[], at timestamptz, feeling mood, price cents);
CREATE TYPE span AS RANGE (subtype = float8);
CREATE TABLE inner_table (id int, extra jsonb, at date);
CREATE TABLE public.elsewhere (id int);
CREATE FUNCTION shout(mood) RETURNS mood LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION same(mood, mood) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR !!! (LEFTARG = mood, RIGHTARG = mood, FUNCTION = same);
CREATE TEXT SEARCH CONFIGURATION ours (COPY = pg_catalog.simple);
"#;

/// The types, and hstore where it is installed; elsewhere text stands for it.
async fn types(cluster: &PrivateCluster) -> String {
    let installed = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'hstore')";
    let hstore: bool = sql(cluster).await.query_one(installed, &[]).await.unwrap().get(0);
    match hstore {
        true => format!("{TYPES} CREATE EXTENSION hstore SCHEMA vals;"),
        false => format!("{TYPES} CREATE DOMAIN hstore AS text;"),
    }
}

/// A type and SQL expressions of it.
const VALUES: &[(&str, &[&str])] = &[
    ("boolean", &["true", "false", "NULL"]),
    ("smallint", &["0", "-32768", "32767"]),
    ("integer", &["0", "-2147483648", "2147483647"]),
    ("bigint", &["0", "-9223372036854775808", "9223372036854775807"]),
    ("oid", &["0", "4294967295"]),
    (
        "real",
        &[
            "0",
            "'-0'",
            "1.5",
            "-1e-10",
            "1e20",
            "3.4e38",
            "1.17549435e-38",
            "1e-45",
            "0.1",
            "16777216",
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "123456.789",
        ],
    ),
    (
        "double precision",
        &[
            "0",
            "'-0'",
            "1.5",
            "-1e-10",
            "1e20",
            "1.7976931348623157e308",
            "5e-324",
            "0.1",
            "9007199254740993",
            "1e15",
            "1e16",
            "123456789012345680",
            "1.234e-5",
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
        ],
    ),
    (
        "numeric",
        &[
            "0",
            "0.00",
            "-1.50",
            "1e30",
            "1e-30",
            "12345678901234567890.123456789012345678901234567890",
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
        ],
    ),
    ("numeric(12,4)", &["1", "-99999999.9999", "0.0001"]),
    ("money", &["12.34", "-1000000"]),
    (
        "text",
        &[
            "''",
            "'plain'",
            r#"'q"u\o/te'"#,
            r"E'tab\tnew\nline\r\b\f'",
            r"E'\x01\x1f\x7f'",
            "'é🦀漢'",
            "'NULL'",
            "repeat('x', 3000)",
            "repeat('é\"', 2000)",
        ],
    ),
    ("varchar(20)", &["'short'", "'with \"quotes\"'"]),
    ("char(6)", &["'ab'", "''"]),
    ("\"char\"", &["'a'", "''"]),
    ("name", &["'a name'"]),
    ("bytea", &["''", r"'\x00ff10'", "convert_to('text', 'UTF8')"]),
    (
        "json",
        &[
            "'1'",
            "'null'",
            r#"' { "b" : 1 , "a" : [ 1 , 2.50 , -0.0 , 1e3 , 1E-2 ] , "b" : 2 } '"#,
            r#"'"\u00e9\ud83e\udd80\/\n"'"#,
            "'[]'",
            "'{}'",
            r#"'{"aa":1,"b":{"z":1,"y":[{}]},"":null}'"#,
            "'-0'",
            "'12345678901234567890.10'",
            "'[true,false,null]'",
        ],
    ),
    (
        "jsonb",
        &["'1'", "'null'", r#"'{"b":1,"a":[1,2.50,1e3],"é":"\u0001"}'"#, "'\"text\"'", "'[[],{}]'"],
    ),
    (
        "date",
        &[
            "'2020-01-02'",
            "'infinity'",
            "'-infinity'",
            "'0044-03-15 BC'",
            "'12345-06-07'",
            "'5874897-12-31'",
            "'4713-01-01 BC'",
        ],
    ),
    (
        "timestamp",
        &[
            "'2020-01-02 03:04:05'",
            "'2020-01-02 03:04:05.6'",
            "'2020-01-02 03:04:05.000001'",
            "'infinity'",
            "'-infinity'",
            "'0044-03-15 12:00:00 BC'",
            "'12345-06-07 08:09:10'",
            "'1999-12-31 24:00:00'",
        ],
    ),
    (
        "timestamptz",
        &[
            "'2020-01-02 03:04:05+00'",
            "'2020-01-02 03:04:05.25+05:30'",
            "'infinity'",
            "'-infinity'",
            "'0044-03-15 12:00:00+00 BC'",
            "'12345-06-07 08:09:10-12'",
        ],
    ),
    ("time", &["'03:04:05'", "'24:00:00'", "'03:04:05.123456'"]),
    ("timetz", &["'03:04:05+02'", "'03:04:05.5-05:30'"]),
    ("interval", &["'1 year 2 mons 3 days 04:05:06.7'", "'-1 day'", "'0'", "'1 day -00:00:01'"]),
    ("uuid", &["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
    ("inet", &["'10.0.0.1'", "'10.0.0.0/8'", "'::1'"]),
    ("cidr", &["'10.0.0.0/8'"]),
    ("macaddr", &["'08:00:2b:01:02:03'"]),
    ("bit(5)", &["B'10101'"]),
    ("varbit", &["B''", "B'101'"]),
    ("point", &["'(1.5,-2)'"]),
    ("box", &["'(1,1),(0,0)'"]),
    ("polygon", &["'((0,0),(1,1),(1,0))'"]),
    ("circle", &["'<(1,2),3>'"]),
    ("xml", &["'<a b=\"1\">t</a>'"]),
    ("tsvector", &["'a fat cat'"]),
    ("tsquery", &["'fat & cat'"]),
    ("pg_lsn", &["'16/B374D848'"]),
    ("xid8", &["'12345678901'"]),
    ("int4range", &["'[1,5)'", "'empty'", "'(,)'"]),
    ("numrange", &["'[1.0,2.50]'"]),
    ("tstzrange", &["'[2020-01-01 00:00+00,infinity)'"]),
    ("int4multirange", &["'{}'", "'{[1,3),[5,8)}'"]),
    ("span", &["'[1.5,1e20)'"]),
    ("mood", &["'sad'", "'very \"happy\"'", "NULL"]),
    ("cents", &["0", "12345678901"]),
    ("tags", &["'{}'", "'{a,NULL,\"b c\"}'", "NULL"]),
    ("doc", &["'{\"a\": 1.0}'"]),
    ("hstore", &["''", "'a=>1, bb=>NULL, \"q\\\"u\"=>\"x=>y, z\"'"]),
    (
        "int[]",
        &[
            "'{}'",
            "'{1,NULL,3}'",
            "'{{1,2},{3,4}}'",
            "'[0:1]={5,6}'",
            "'[-1:0][2:3]={{1,2},{3,4}}'",
            "NULL",
        ],
    ),
    ("float8[]", &["'{1e20,NaN,-Infinity,-0,0.1}'"]),
    ("numeric[]", &["'{1.50,NaN,12345678901234567890.1}'"]),
    ("bool[]", &["'{t,f,NULL}'"]),
    (
        "text[]",
        &[
            r#"ARRAY['', NULL, 'NULL', 'a,b', 'c"d', 'e\f', '{x}', ' sp ', 'é🦀', E'\n']"#,
            "ARRAY[['a','b'],['c','d']]",
        ],
    ),
    ("bytea[]", &[r"ARRAY['\x00ff'::bytea, '']"]),
    ("json[]", &[r#"ARRAY['{"b":1,"a":1e2}', NULL, '"x"']::json[]"#]),
    ("jsonb[]", &[r#"ARRAY['{"b":1,"a":[2]}', 'null', '"x"']::jsonb[]"#]),
    ("date[]", &["'{2020-01-01,infinity,\"0044-03-15 BC\"}'"]),
    ("timestamp[]", &["'{\"2020-01-01 00:00:00\",infinity}'"]),
    ("timestamptz[]", &["'{\"2020-01-01 00:00:00+00\",\"0044-03-15 12:00:00+00 BC\"}'"]),
    ("uuid[]", &["'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'"]),
    ("box[]", &["'{(1,1),(0,0);(3,3),(2,2)}'"]),
    ("mood[]", &["ARRAY['sad','very \"happy\"']::mood[]"]),
    ("cents[]", &["'{1,2}'"]),
    ("int4range[]", &["ARRAY['[1,2)'::int4range, 'empty']"]),
    ("int2vector", &["'1 2 3'"]),
    ("oidvector", &["'1 2 3'", "''"]),
    // Names of what is not in pg_catalog are told with their schema, as in snapshots.
    ("regclass", &["'inner_table'", "'public.elsewhere'", "'pg_class'", "0"]),
    ("regtype", &["'mood'", "'integer'", "'vals.mood[]'"]),
    ("regproc", &["'shout'", "'now'"]),
    ("regprocedure", &["'shout(mood)'", "'lower(text)'"]),
    ("regoper", &["'!!!'"]),
    ("regoperator", &["'!!!(mood,mood)'", "'+(integer,integer)'"]),
    ("regconfig", &["'simple'", "'ours'"]),
    ("regclass[]", &["'{inner_table,pg_class}'"]),
    (
        "point3",
        &[
            "ROW(1e20, 2.5, 'a \"b\", (c) \\d')",
            "ROW(NULL, NULL, NULL)",
            "ROW('NaN', 'NaN', '')",
            "NULL",
        ],
    ),
    (
        "shape",
        &[
            "ROW('s', ARRAY[ROW(1,2,'x,y'), ROW('-0',NULL,'é\"')]::point3[], '2020-01-01 00:00+00', 'ok', 5)",
            "ROW('', '{}', 'infinity', NULL, NULL)",
        ],
    ),
    ("point3[]", &["ARRAY[ROW(1,2,'a'), NULL, ROW(NULL,NULL,'b\"c')]::point3[]"]),
    ("inner_table", &["ROW(1, '{\"z\":1,\"a\":2}', '2020-01-01')"]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_value_is_told_as_to_jsonb_gives_it() {
    tell_every_value(&cluster()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_value_is_told_as_a_newer_postgresql_gives_it() {
    if let Some(cluster) = newer_cluster() {
        tell_every_value(&cluster).await;
    }
}

async fn tell_every_value(cluster: &PrivateCluster) {
    let mut rig = Rig::new(cluster, &types(cluster).await).await;
    rig.run("SET timezone = 'UTC'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1")
        .await;
    let columns: Vec<String> =
        VALUES.iter().enumerate().map(|(at, (kind, _))| format!("c{at} {kind}")).collect();
    rig.run(&format!("CREATE TABLE every (id serial PRIMARY KEY, {})", columns.join(", "))).await;
    rig.add("vals.every").await;
    let mut count = 0;
    for (at, (kind, values)) in VALUES.iter().enumerate() {
        for value in *values {
            rig.run(&format!("INSERT INTO every (c{at}) VALUES (({value})::{kind})")).await;
            count += 1;
        }
    }
    let expected: BTreeMap<String, String> = {
        // As in the outbox and in snapshots.
        rig.run("SET search_path = ''").await;
        let all = "SELECT id::text, to_jsonb(every)::text FROM vals.every";
        let rows = rig.sql.query(all, &[]).await;
        rows.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    let changes = changes(rig.caught_up().await);
    assert_eq!((changes.len(), expected.len()), (count, count));
    for change in changes {
        let told = object(&change, change.record.as_ref().unwrap());
        let wanted: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(&expected[&told["id"]]).unwrap();
        for (name, wanted) in wanted {
            assert_eq!(told[&name], wanted.get(), "{name} of row {}", told["id"]);
        }
    }
    assert_eq!(rig.source.metrics().misshapen.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_type_that_is_altered_while_it_is_read_is_followed() {
    let cluster = cluster();
    let setup =
        "CREATE TYPE grows AS (a int); CREATE TABLE growing (id serial PRIMARY KEY, g grows)";
    let mut rig = Rig::new(&cluster, setup).await;
    rig.add("public.growing").await;
    rig.run("INSERT INTO growing (g) VALUES (ROW(1))").await;
    rig.caught_up().await;
    rig.run(
        "ALTER TYPE grows ADD ATTRIBUTE b text; INSERT INTO growing (g) VALUES (ROW(2, 'two'))",
    )
    .await;
    rig.run("INSERT INTO growing (g) VALUES (ROW(3, NULL))").await;
    let told: Vec<_> = changes(rig.caught_up().await)
        .iter()
        .map(|change| object(change, change.record.as_ref().unwrap())["g"].clone())
        .collect();
    assert_eq!(told, [r#"{"a": 2, "b": "two"}"#, r#"{"a": 3, "b": null}"#]);
}
