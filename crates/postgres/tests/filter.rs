//! Filters, with PostgreSQL itself as the judge of what they mean.

mod oracle;
mod types;

use std::sync::Arc;

use oracle::Oracle;
use tidewire::RowFilter;
use tidewire_postgres::Preparer;
use tidewire_protocol::{Code, Interest, Refusal, Topic};

use crate::support::{cluster, sql, target};

fn wanting(filter: &str) -> Interest {
    Interest { filter: Some(filter.into()), ..Interest::default() }
}

async fn refused(preparer: &Preparer, topic: &Topic, interest: &Interest) -> Refusal {
    let refusal = preparer.prepare(topic, interest).await.err().expect("a refusal");
    assert_eq!(refusal.topic.as_ref(), Some(topic));
    refusal
}

#[tokio::test]
async fn every_operator_on_every_type_says_what_postgres_says() {
    let cluster = cluster();
    let oracle = Oracle::new(&cluster, "filter_types", &types::columns()).await;
    let mut judged = 0;
    for column in types::columns() {
        for test in column.tests() {
            for negated in ["", "not."] {
                oracle.check_one(&column, negated, &test).await;
                judged += 1;
            }
        }
    }
    println!("{judged} conditions were judged as PostgreSQL judges them");
    assert!(judged > 3_000);
}

#[tokio::test]
async fn conditions_joined_at_random_say_what_postgres_says() {
    let cluster = cluster();
    let columns = types::columns();
    let oracle = Oracle::new(&cluster, "filter_joined", &columns).await;
    let mut dice = oracle::Dice::new();
    for _ in 0..400 {
        let (filter, sql) = oracle::joined(&mut dice, &columns, 0);
        oracle.check(&filter, &sql).await;
        oracle.check_snapshot(&filter, &sql).await;
    }
}

#[tokio::test]
async fn patterns_at_random_match_what_postgres_matches() {
    let cluster = cluster();
    let columns = types::texts();
    let oracle = Oracle::new(&cluster, "filter_patterns", &columns).await;
    let mut dice = oracle::Dice::new();
    let mut accepted = 0;
    for round in 0..1_500 {
        let column = dice.pick(&columns);
        let (word, pattern) = match round % 2 {
            0 => (dice.pick(&["like", "ilike"]), oracle::like(&mut dice)),
            _ => (dice.pick(&["match", "imatch"]), oracle::expression(&mut dice)),
        };
        accepted += usize::from(oracle.check_pattern(column, word, &pattern).await);
    }
    println!("{accepted} of 1500 patterns were accepted, and match what they match in PostgreSQL");
    assert!(accepted > 500, "{accepted}");
}

#[tokio::test]
async fn what_is_wrong_is_told_with_the_name_of_the_column() {
    let cluster = cluster();
    let sql = sql(&cluster).await;
    sql.batch_execute(
        "CREATE SCHEMA filter_wrong; CREATE TABLE filter_wrong.t (id int PRIMARY KEY, \
         customer_id int, tags text[], data jsonb, price money, at interval, \
         name text COLLATE \"und-x-icu\", twice int GENERATED ALWAYS AS (id * 2) STORED); \
         CREATE VIEW filter_wrong.v AS SELECT 1 AS id",
    )
    .await
    .unwrap();
    let preparer = Preparer::new(&target(&cluster));
    let topic = Topic::table("filter_wrong.t").unwrap();
    for (filter, expected) in [
        ("costumer_id=eq.1", "no column \"costumer_id\"; did you mean \"customer_id\"?"),
        ("zzz=eq.1", "table filter_wrong.t has no column \"zzz\""),
        ("id=eq.abc", "column \"id\": \"abc\" is not a value of type integer: invalid input"),
        ("id=in.(1,2,x,4)", "\"x\" is not a value of type integer"),
        ("id=eq.1,customer_id=eq.99999999999", "column \"customer_id\": \"99999999999\" is not"),
        ("tags=eq.{a}", "column \"tags\" is of type text[], for which \"eq\" cannot be decided"),
        ("data=is.null", "its JSON null and NULL look the same"),
        ("price=gt.5", "only is.null can"),
        ("at=eq.\"1 day\"", "only is.null can"),
        ("name=gt.a", "for which \"gt\" depends on the collation"),
        ("name=ilike.a*", "for which \"ilike\" depends on the language of the collation"),
        ("twice=eq.2", "column \"twice\" is generated"),
        ("id=like.1*", "it is for text"),
        ("id=foo.1", "filter, at character 4: there is no operator \"foo\""),
    ] {
        let refusal = refused(&preparer, &topic, &wanting(filter)).await;
        assert_eq!(refusal.code, Code::BadField, "{filter}");
        assert!(refusal.message.contains(expected), "{filter}: {}", refusal.message);
    }
    let column = Interest { columns: vec!["nmae".into()], ..Interest::default() };
    assert!(refused(&preparer, &topic, &column).await.message.contains("did you mean \"name\"?"));
    for (name, code) in [
        ("filter_wrong.missing", Code::NotFound),
        ("missing.t", Code::NotFound),
        ("filter_wrong.v", Code::BadField),
    ] {
        let topic = Topic::table(name).unwrap();
        assert_eq!(refused(&preparer, &topic, &Interest::default()).await.code, code, "{name}");
    }
}

#[tokio::test]
async fn a_role_without_rights_prepares_filters_all_the_same() {
    let cluster = cluster();
    let sql = sql(&cluster).await;
    sql.batch_execute("CREATE SCHEMA filter_rights; CREATE TABLE filter_rights.t (id int)")
        .await
        .unwrap();
    let preparer = Preparer::new(&target(&cluster));
    let topic = Topic::table("filter_rights.t").unwrap();
    let prepared = preparer.prepare(&topic, &wanting("id=eq.007")).await.unwrap();
    let rows = prepared.rows.expect("a filter");
    // As PostgreSQL reads it, which is how rows have it.
    let demand = rows.demand().unwrap();
    assert!(demand.may_admit("7") && !demand.may_admit("8"));
}

#[tokio::test]
async fn equal_requests_share_a_filter_until_the_table_is_altered() {
    let cluster = cluster();
    let sql = sql(&cluster).await;
    sql.batch_execute("CREATE SCHEMA filter_cache; CREATE TABLE filter_cache.t (id int, a int)")
        .await
        .unwrap();
    let preparer = Preparer::new(&target(&cluster));
    let topic = Topic::table("filter_cache.t").unwrap();
    let filter = async || -> Arc<dyn RowFilter> {
        preparer.prepare(&topic, &wanting("a=eq.1")).await.unwrap().rows.unwrap()
    };
    let first = filter().await;
    assert!(Arc::ptr_eq(&first, &filter().await));
    preparer.forget(&topic);
    sql.batch_execute("ALTER TABLE filter_cache.t ALTER a TYPE text").await.unwrap();
    let second = filter().await;
    assert!(!Arc::ptr_eq(&first, &second));
    sql.batch_execute("ALTER TABLE filter_cache.t DROP a").await.unwrap();
    preparer.forget(&topic);
    let refusal = refused(&preparer, &topic, &wanting("a=eq.1")).await;
    assert!(refusal.message.contains("no column"), "{}", refusal.message);
}

#[tokio::test]
async fn thousands_that_prepare_at_once_are_all_answered_and_leave_no_transaction_open() {
    let cluster = cluster();
    let sql = sql(&cluster).await;
    sql.batch_execute("CREATE SCHEMA filter_many; CREATE TABLE filter_many.t (id int)")
        .await
        .unwrap();
    let preparer = Preparer::new(&target(&cluster));
    let topic = Topic::table("filter_many.t").unwrap();
    let ask = |n: usize| {
        let (preparer, topic) = (preparer.clone(), topic.clone());
        tokio::spawn(
            async move { preparer.prepare(&topic, &wanting(&format!("id=eq.0{n}"))).await },
        )
    };
    let (kept, dropped): (Vec<_>, Vec<_>) =
        (0..2_000).map(ask).enumerate().partition(|(n, _)| n % 10 != 0);
    for (_, task) in dropped {
        task.abort();
    }
    for (_, task) in kept {
        assert!(task.await.unwrap().is_ok());
    }
    let open = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' \
                AND query LIKE '%to_jsonb%'";
    let open: i64 = sql.query_one(open, &[]).await.unwrap().get(0);
    assert_eq!(open, 0);
}
