//! A filter as the `WHERE` of a query.
//!
//! It is the same filter that judges changes, with the same constants, so both mean the same rows.
//! Constants are parameters; names are quoted.

use tidewire_protocol::filter::{Condition as One, Node, Test};
use tokio_postgres::types::{ToSql, Type};

use crate::prepare::{Plan, Table, quoted};

/// A condition and its parameters.
pub(super) struct Condition {
    sql: Option<String>,
    parameters: Vec<String>,
}

impl Condition {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut parameters = Vec::new();
        let sql = plan.filter.as_ref().map(|filter| {
            let mut sql = String::new();
            node(&mut sql, &mut parameters, &filter.root, &plan.table);
            sql
        });
        Self { sql, parameters }
    }

    /// ` WHERE …`, or nothing.
    pub(super) fn sql(&self) -> String {
        self.sql.as_ref().map(|sql| format!(" WHERE {sql}")).unwrap_or_default()
    }

    pub(super) fn parameters(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.parameters.iter().map(|text| (text as &(dyn ToSql + Sync), Type::TEXT)).collect()
    }
}

fn node(sql: &mut String, parameters: &mut Vec<String>, root: &Node, table: &Table) {
    let mut joined = |list: &[Node], word: &str| {
        for (index, inner) in list.iter().enumerate() {
            sql.push_str(if index == 0 { "(" } else { word });
            node(sql, parameters, inner, table);
        }
        sql.push(')');
    };
    match root {
        Node::All(list) => joined(list, " AND "),
        Node::Any(list) => joined(list, " OR "),
        Node::Not(inner) => {
            sql.push_str("(NOT ");
            node(sql, parameters, inner, table);
            sql.push(')');
        }
        Node::Condition(condition) => sql.push_str(&one(parameters, condition, table)),
    }
}

fn one(parameters: &mut Vec<String>, One { column, test }: &One, table: &Table) -> String {
    let known = table.told_column(column).expect("the filter was held against this table");
    let mut parameter = |value: &str| {
        parameters.push(value.to_owned());
        format!("${}::pg_catalog.text", parameters.len())
    };
    let mut constant = |value: &str| known.constant(value, &mut parameter);
    let name = quoted(column);
    let test = match test {
        Test::Compare(comparison, value) => format!("{} {}", comparison.sql(), constant(value)),
        Test::Distinct(value) => format!("IS DISTINCT FROM {}", constant(value)),
        Test::OneOf(list) => {
            let list: Vec<_> = list.iter().map(|value| constant(value)).collect();
            format!("IN ({})", list.join(", "))
        }
        Test::Like(like) if like.any_case() => format!("ILIKE {}", parameter(&like.sql())),
        Test::Like(like) => format!("LIKE {}", parameter(&like.sql())),
        Test::Match(regular) if regular.any_case() => format!("~* {}", parameter(regular.sql())),
        Test::Match(regular) => format!("~ {}", parameter(regular.sql())),
        Test::Is(is) => format!("IS {}", is.sql()),
    };
    format!("({name} {test})")
}
