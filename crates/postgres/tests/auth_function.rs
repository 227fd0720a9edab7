//! An SQL function as authenticator.

use tidewire::Authenticator;
use tidewire_postgres::AuthFunction;
use tidewire_protocol::{Code, Token};

use crate::support::{cluster, sql, target};

/// Makes a function `name`, asks it for `token`, and says whom it let in.
async fn ask(name: &str, returns: &str, body: &str, token: &str) -> Result<String, Code> {
    let cluster = cluster();
    let sql = sql(&cluster).await;
    let create = format!("CREATE OR REPLACE FUNCTION {name}(token text) RETURNS {returns} {body}");
    sql.batch_execute(&create).await.unwrap();
    let function = AuthFunction::new(&target(&cluster), name).unwrap();
    let identity = function.identify(&Token::new(token)).await.map_err(|refusal| refusal.code)?;
    assert!(identity.has_token() && !identity.superuser);
    Ok(identity.subject.as_deref().unwrap_or("somebody").to_owned())
}

#[tokio::test]
async fn columns_count_by_name_in_any_order() {
    let _cluster = cluster();
    let body = "LANGUAGE sql AS $$ SELECT token = 'good', 'u1'::text $$";
    let returns = "TABLE(authenticated bool, user_id text)";
    assert_eq!(ask("by_name", returns, body, "good").await, Ok("u1".to_owned()));
    assert_eq!(ask("by_name", returns, body, "bad").await, Err(Code::TokenInvalid));
}

#[tokio::test]
async fn a_single_boolean_will_do() {
    let _cluster = cluster();
    let body = "LANGUAGE sql AS $$ SELECT token = 'good' $$";
    for (name, returns) in
        [("plain_bool", "bool"), ("set_of_bool", "SETOF bool"), ("table_bool", "TABLE(ok bool)")]
    {
        assert_eq!(ask(name, returns, body, "good").await, Ok("somebody".to_owned()), "{name}");
        assert_eq!(ask(name, returns, body, "bad").await, Err(Code::TokenInvalid), "{name}");
    }
}

#[tokio::test]
async fn no_row_and_null_refuse() {
    let _cluster = cluster();
    let body = "LANGUAGE sql AS $$ SELECT true WHERE token = 'good' $$";
    assert_eq!(ask("no_row", "SETOF bool", body, "bad").await, Err(Code::TokenInvalid));
    assert_eq!(ask("null_bool", "bool", body, "bad").await, Err(Code::TokenInvalid));
}

#[tokio::test]
async fn two_rows_let_nobody_in() {
    let _cluster = cluster();
    let body = "LANGUAGE sql AS $$ SELECT true UNION ALL SELECT false $$";
    assert_eq!(ask("two_rows", "SETOF bool", body, "x").await, Err(Code::Unavailable));
}

#[tokio::test]
async fn an_exception_is_a_refusal() {
    let _cluster = cluster();
    let body = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no such token'; END $$";
    assert_eq!(ask("raises", "bool", body, "x").await, Err(Code::TokenInvalid));
}

#[tokio::test]
async fn a_function_in_a_schema_with_capitals_is_found() {
    let cluster = cluster();
    sql(&cluster).await.batch_execute("CREATE SCHEMA IF NOT EXISTS \"Auth\"").await.unwrap();
    let body = "LANGUAGE sql AS $$ SELECT true $$";
    let name = "\"Auth\".\"check\"\"It\"";
    assert_eq!(ask(name, "bool", body, "x").await, Ok("somebody".to_owned()));
}

#[tokio::test]
async fn a_token_with_sql_or_nul_in_it_is_only_a_token() {
    let _cluster = cluster();
    let body = "LANGUAGE sql AS $$ SELECT token = 'good' $$";
    for token in ["'); SELECT true; --", "good\0", ""] {
        assert_eq!(ask("only_token", "bool", body, token).await, Err(Code::TokenInvalid));
    }
}

#[tokio::test]
async fn a_function_that_is_missing_or_hangs_is_unavailable_and_lets_nobody_in() {
    let cluster = cluster();
    let function = AuthFunction::new(&target(&cluster), "no_such_function").unwrap();
    let refused = function.identify(&Token::new("x")).await.unwrap_err();
    assert_eq!(refused.code, Code::Unavailable);
    let body = "LANGUAGE sql AS $$ SELECT pg_sleep(60) IS NOT NULL $$";
    assert_eq!(ask("hangs", "bool", body, "x").await, Err(Code::Unavailable));
}
