//! Constants of filters, read by PostgreSQL.
//!
//! Each is cast to its column's type, without the type's length or precision so that nothing is cut
//! or rounded, and comes back as `to_jsonb` prints it. Words such as `today` mean the moment of
//! asking. All are asked for at once; only when that fails is the culprit looked for. What is
//! written just as PostgreSQL would print it, as most numbers and all texts are, needs no asking.

use std::sync::Arc;

use tidewire_protocol::filter::{Filter, Test, scalar};
use tidewire_protocol::{Code, Refusal};
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::table::Table;
use super::transaction::{Asked, transaction};
use crate::connect::Pool;

/// Bytes of a value that an error repeats.
const SHOWN: usize = 64;

/// Whether a test must know the column's capitals.
pub(super) fn needs_case(test: &Test) -> bool {
    match test {
        Test::Like(like) => like.any_case(),
        Test::Match(regular) => regular.any_case(),
        _ => false,
    }
}

/// Something that PostgreSQL must be able to read.
struct Question {
    column: Arc<str>,
    type_name: Arc<str>,
    value: String,
    /// What is asked, with `{}` for the parameter.
    sql: Box<dyn Fn(usize) -> String + Send + Sync>,
}

/// Replaces the constants by what PostgreSQL makes of them.
///
/// # Errors
/// [`Code::BadField`] that names the column and the value that is not of its type.
pub(super) async fn canonicalise(
    pool: &Pool,
    table: &Table,
    filter: &mut Filter,
) -> Result<(), Refusal> {
    let questions = questions(table, filter)?;
    if questions.is_empty() {
        return Ok(());
    }
    let answers =
        transaction(pool, "BEGIN READ ONLY", async |client| ask_or_blame(client, &questions).await)
            .await?;
    let mut answers = answers.into_iter();
    for condition in filter.conditions_mut() {
        let column = table.told_column(&condition.column)?;
        for constant in condition.test.constants_mut() {
            if column.prints(constant) {
                continue;
            }
            *constant = answers.next().expect("constants were asked for first, in order").into();
        }
    }
    Ok(())
}

fn questions(table: &Table, filter: &Filter) -> Result<Vec<Question>, Refusal> {
    let mut questions = Vec::new();
    for condition in filter.conditions() {
        let column = table.told_column(&condition.column)?;
        for constant in condition.test.constants().iter().filter(|text| !column.prints(text)) {
            if let Some(why) = column.refuses(constant) {
                return Err(not_a_value(&column.name, &column.type_name, constant, why));
            }
            let base = column.base_sql.clone();
            questions.push(Question {
                column: Arc::clone(&column.name),
                type_name: Arc::clone(&column.type_name),
                value: (**constant).to_owned(),
                sql: Box::new(move |n| {
                    format!("pg_catalog.to_jsonb(${n}::pg_catalog.text::{base})::pg_catalog.text")
                }),
            });
        }
    }
    // Expressions come after all constants, so that those are the first answers.
    for condition in filter.conditions() {
        let Test::Match(regular) = &condition.test else { continue };
        questions.push(Question {
            column: Arc::clone(&condition.column),
            type_name: "regular expression".into(),
            value: regular.sql().to_owned(),
            sql: Box::new(|n| {
                format!("(''::pg_catalog.text OPERATOR(pg_catalog.~) ${n})::pg_catalog.text")
            }),
        });
    }
    Ok(questions)
}

async fn ask_or_blame(client: &Client, questions: &[Question]) -> Asked<Vec<String>> {
    client.batch_execute("SAVEPOINT asked").await?;
    match ask(client, questions).await {
        Err(error) if is_bad_value(&error) => Ok(Err(blame(client, questions, error).await?)),
        outcome => outcome.map(Ok),
    }
}

async fn ask(
    client: &Client,
    questions: &[Question],
) -> Result<Vec<String>, tokio_postgres::Error> {
    let list: Vec<String> = questions.iter().zip(1..).map(|(asked, n)| (asked.sql)(n)).collect();
    let sql = format!("SELECT ARRAY[{}]", list.join(", "));
    let parameters: Vec<(&(dyn ToSql + Sync), Type)> =
        questions.iter().map(|asked| (&asked.value as &(dyn ToSql + Sync), Type::TEXT)).collect();
    let rows = client.query_typed(&sql, &parameters).await?;
    let answers: Vec<String> = rows[0].get(0);
    Ok(answers.iter().map(|json| scalar(json).into_owned()).collect())
}

/// Halves the questions until the first one that fails is alone.
async fn blame(
    client: &Client,
    mut questions: &[Question],
    mut error: tokio_postgres::Error,
) -> Result<Refusal, tokio_postgres::Error> {
    while questions.len() > 1 {
        client.batch_execute("ROLLBACK TO asked").await?;
        let (first, second) = questions.split_at(questions.len() / 2);
        questions = match ask(client, first).await {
            Ok(_) => second,
            Err(said) => {
                error = said;
                first
            }
        };
    }
    let asked = &questions[0];
    // What was said last may have been about another value.
    client.batch_execute("ROLLBACK TO asked").await?;
    if let Err(said) = ask(client, questions).await {
        error = said;
    }
    if !is_bad_value(&error) {
        return Err(error);
    }
    let said = error.as_db_error().map_or("not understood", |said| said.message());
    Ok(not_a_value(&asked.column, &asked.type_name, &asked.value, said))
}

fn not_a_value(column: &str, type_name: &str, value: &str, why: &str) -> Refusal {
    let shown: String = value.chars().take(SHOWN).collect();
    let message =
        format!("filter on column {column:?}: {shown:?} is not a value of type {type_name}: {why}");
    Refusal::new(Code::BadField, message)
}

/// Class 22: what PostgreSQL says of a value that it cannot read.
fn is_bad_value(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code().starts_with("22"))
}
