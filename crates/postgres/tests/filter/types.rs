//! Columns of every type, with values and constants that are told apart only by the type's rules.

/// A column, its values and what is asked of it.
#[derive(Clone)]
pub(super) struct Column {
    pub(super) name: &'static str,
    /// Type and collation.
    pub(super) ddl: &'static str,
    /// Values in the table; NULL is always one more.
    pub(super) values: Vec<&'static str>,
    /// Constants besides the values, not all of which are of the type.
    constants: Vec<&'static str>,
    /// Operators that are supported.
    words: Vec<&'static str>,
}

const EQUALITY: [&str; 3] = ["eq", "neq", "isdistinct"];
const ORDER: [&str; 7] = ["eq", "neq", "isdistinct", "lt", "lte", "gt", "gte"];

/// What is asked of a column.
#[derive(Clone, Debug)]
pub(super) enum Test {
    Compare(&'static str, &'static str),
    In(Vec<&'static str>),
    Is(&'static str),
}

impl Column {
    pub(super) fn tests(&self) -> Vec<Test> {
        let constants: Vec<_> = self.values.iter().chain(&self.constants).copied().collect();
        let mut tests = vec![Test::Is("null")];
        if self.ddl == "bool" {
            tests.extend(["true", "false", "unknown"].map(Test::Is));
        }
        for &word in &self.words {
            tests.extend(constants.iter().map(|constant| Test::Compare(word, constant)));
        }
        if !self.words.is_empty() {
            tests.extend(constants.chunks(3).map(|list| Test::In(list.to_vec())));
        }
        tests
    }
}

fn column(
    name: &'static str,
    ddl: &'static str,
    words: &[&'static str],
    values: &[&'static str],
    constants: &[&'static str],
) -> Column {
    Column {
        name,
        ddl,
        words: words.to_vec(),
        values: values.to_vec(),
        constants: constants.to_vec(),
    }
}

/// Types that columns are made of and that are not built in.
pub(super) const SETUP: &str = "
CREATE TYPE mood AS ENUM ('sad', 'happy', 'Zen');
ALTER TYPE mood ADD VALUE 'ok' BEFORE 'happy';
CREATE TYPE pair AS (a int, b int);
CREATE DOMAIN small AS int CHECK (VALUE < 1000);
CREATE DOMAIN smaller AS small;
CREATE DOMAIN word AS varchar(10) COLLATE \"C\";
";

const TEXTS: [&str; 18] = [
    "", "a", "A", "b", "B", "ab", "aB", "é", "É", "z", "null", "\"x\"", "a\nb", "a\\b", "a%b",
    " x ", "{1,2}", "😀",
];

pub(super) fn columns() -> Vec<Column> {
    let whole = ["0", "-1", "1", "2", "10", "9", "9999", "32767", "-32768"];
    let odd = [
        "99999",
        "999999999",
        "9999999999",
        "999999999999999999",
        "9999999999999999999",
        "",
        "x",
        "1.5",
        "99999999999999999999",
        " 7 ",
        "007",
        "-0",
    ];
    let numbers = [
        "0",
        "1",
        "1.0",
        "1.00",
        "-0.5",
        "0.5",
        "0.05",
        "10",
        "9",
        "-10",
        "NaN",
        "Infinity",
        "-Infinity",
        "123456789012345678901234567890.5",
        "123456789012345678901234567890.4",
    ];
    let floats = [
        "0",
        "-0",
        "0.1",
        "1e10",
        "1e-7",
        "-1e-7",
        "NaN",
        "Infinity",
        "-Infinity",
        "3.4e38",
        "16777217",
    ];
    vec![
        column("b", "bool", &ORDER, &["true", "false"], &["t", "no", "x", ""]),
        column("i2", "int2", &ORDER, &whole, &odd),
        column("i4", "int4", &ORDER, &whole, &odd),
        column("i8", "int8", &ORDER, &[&whole[..], &["9223372036854775807"]].concat(), &odd),
        column("o", "oid", &ORDER, &["0", "1", "10", "9", "4294967295"], &["-1", "x"]),
        column("n", "numeric", &ORDER, &numbers, &["1e3", "x", "1.000000000000000000001"]),
        column("n2", "numeric(10,2)", &ORDER, &["1", "1.5", "-2.25", "NaN"], &["1.501", "1.500"]),
        column("f4", "float4", &ORDER, &floats, &["0.10000000149011612", "x", "1e39"]),
        column("f8", "float8", &ORDER, &[&floats[..], &["1e300", "5e-324"]].concat(), &["1e400"]),
        column("t", "text COLLATE \"C\"", &ORDER, &TEXTS, &["aa", "\u{7f}"]),
        column("td", "text", &ORDER, &TEXTS, &["aa"]),
        column("tu", "text COLLATE \"C.utf8\"", &ORDER, &TEXTS, &["aa"]),
        column("ti", "text COLLATE \"und-x-icu\"", &EQUALITY, &TEXTS, &["aa"]),
        column("v", "varchar(5) COLLATE \"C\"", &ORDER, &["", "a", "A", "a "], &["abcdefgh"]),
        column(
            "c",
            "char(5) COLLATE \"C\"",
            &ORDER,
            &["", "a", "a ", " a", "ab", "B", "a\nb"],
            &["a    ", "abcdefgh"],
        ),
        column("nm", "name", &ORDER, &["a", "B", "ä"], &[""]),
        column("d", "date", &ORDER, &DATES, &["today", "2024-02-30", "x", "01/02/2024"]),
        column("ts", "timestamp", &ORDER, &TIMES, &["2024-01-01", "x", "2024-01-01 10:00:00+05"]),
        column("tz", "timestamptz", &ORDER, &TIMES, &["2024-01-01 05:00:00+05", "epoch", "x"]),
        column(
            "tm",
            "time",
            &ORDER,
            &["00:00", "24:00", "10:00:00.5", "10:00", "10:00:00.05"],
            &["9:00", "25:00"],
        ),
        column("u", "uuid", &ORDER, &UUIDS, &["A0EEBC999C0B4EF8BB6D6BB9BD380A11", "x"]),
        column(
            "by",
            "bytea",
            &ORDER,
            &["\\x", "\\x00", "\\x00ff", "\\xff", "\\x7f"],
            &["abc", "\\xF", "\\000"],
        ),
        column("e", "mood", &ORDER, &["sad", "ok", "happy", "Zen"], &["meh", ""]),
        column("ch", "\"char\"", &EQUALITY, &["a", "B"], &["", "abc"]),
        column(
            "ip",
            "inet",
            &EQUALITY,
            &["10.0.0.1", "10.0.0.1/24", "::1", "1::"],
            &["10.0.0.1/32", "0:0::1", "x"],
        ),
        column("cd", "cidr", &EQUALITY, &["10.0.0.0/24", "10.0.0.1"], &["10.0.0.1/32"]),
        column("m", "macaddr", &EQUALITY, &["08:00:2b:01:02:03"], &["08002B-010203", "x"]),
        column("m8", "macaddr8", &EQUALITY, &["08:00:2b:01:02:03:04:05"], &["08:00:2b:01:02:03"]),
        column("l", "pg_lsn", &EQUALITY, &["0/0", "16/B374D848"], &["0/00", "16/b374d848"]),
        column("ds", "smaller", &ORDER, &["1", "2", "10"], &["5000", "x"]),
        column("dw", "word", &ORDER, &["a", "B", ""], &["abcdefghijklmnop"]),
        column("arr", "int[]", &[], &["{1,2}", "{}"], &[]),
        column("iv", "interval", &[], &["1 day", "24:00"], &[]),
    ]
}

const DATES: [&str; 9] = [
    "2024-01-01",
    "2023-12-31",
    "infinity",
    "-infinity",
    "0044-03-15 BC",
    "0001-01-01",
    "10000-01-01",
    "5874897-12-31",
    "4713-11-24 BC",
];

const TIMES: [&str; 10] = [
    "2024-01-01 00:00:00",
    "2024-01-01 00:00:00.000001",
    "2024-01-01 10:20:30.5",
    "infinity",
    "-infinity",
    "0044-03-15 10:00 BC",
    "0001-01-01",
    "10000-01-01",
    "294276-12-31 23:59:59.999999",
    "4713-11-24 00:00 BC",
];

const UUIDS: [&str; 3] = [
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
];

/// Texts for patterns, one column for each way of treating capitals.
pub(super) fn texts() -> Vec<Column> {
    let values = [
        "", "a", "A", "b", "ab", "Ab", "aba", "abab", "a\nb", "a.b", "a-b", "a_b", "a%b", "a*b",
        "a\\b", "éa", "Éa", "ÉA", "k", "K", "\u{212A}", "ſs", "İi", "ıI", "ΑΣ", "ας", "ασ", "ß",
        "ẞ", "ǆ", "ǅ", "[a]", "a{2}", "^a$", "(a)", "a|b", "1", "12", "😀a", "]", "-",
    ];
    let text = |name, ddl| column(name, ddl, &[], &values, &[]);
    vec![
        text("c", "text COLLATE \"C\""),
        text("utf", "text COLLATE \"C.utf8\""),
        text("icu", "text COLLATE \"und-x-icu\""),
        text("tr", "text COLLATE \"tr-x-icu\""),
        text("v", "varchar COLLATE \"C.utf8\""),
        text("p", "char(6) COLLATE \"C.utf8\""),
        text("n", "name"),
    ]
}
