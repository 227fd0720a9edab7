//! Which function a name means, and how it is called.

use futures_util::future::join3;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::name::Name;
use crate::connect::{Pool, Target};
use crate::prepare::quoted;

/// Functions of that name which can be called with one text, of the schemas in their order.
const SQL: &str = "\
SELECT n.nspname::pg_catalog.text, p.proname::pg_catalog.text, t.typname::pg_catalog.text,
       o.rolname::pg_catalog.text
FROM pg_catalog.unnest($1::pg_catalog.text[]) WITH ORDINALITY s (name, place)
JOIN pg_catalog.pg_namespace n ON n.nspname = s.name
JOIN pg_catalog.pg_proc p ON p.pronamespace = n.oid AND p.proname = $2::pg_catalog.text
JOIN pg_catalog.pg_roles o ON o.oid = p.proowner
JOIN pg_catalog.pg_type t ON t.oid = p.proargtypes[0]
WHERE p.prokind = 'f' AND p.provariadic = 0
  AND p.pronargs >= 1 AND p.pronargs - p.pronargdefaults <= 1
  AND t.oid IN ('pg_catalog.text'::pg_catalog.regtype, 'pg_catalog.varchar'::pg_catalog.regtype)
ORDER BY s.place, t.typname <> 'text', p.pronargs
LIMIT 1";

/// A function as it was found.
#[derive(Debug)]
pub(super) struct Function {
    schema: String,
    name: String,
    /// `text` or `varchar`.
    argument: String,
    /// Whose code it is.
    pub(super) owner: String,
    /// The search path that it runs with.
    path: String,
}

/// The function that is meant by a name: of the schema that is named, or of the first schema of the
/// role's own search path that has one. Temporary schemas have none that count.
///
/// # Errors
/// Why there is none, in words.
pub(super) async fn function(
    target: &Target,
    pool: &Pool,
    name: &Name,
) -> Result<Function, String> {
    let path = target.own_search_path().await.map_err(|error| error.to_string())?;
    let schemas = name.schema.as_ref().map_or_else(|| path.clone(), |schema| vec![schema.clone()]);
    let connection = pool.get().await.map_err(|error| error.to_string())?;
    let asked = connection.run(async |client| {
        let parameters = [(&schemas as _, Type::TEXT_ARRAY), (&name.function as _, Type::TEXT)];
        client.query_typed(SQL, &parameters).await
    });
    let rows = asked.await.ok_or("no answer in time")?.map_err(|error| error.to_string())?;
    let row = rows.first().ok_or_else(|| {
        format!(
            "there is no function {:?} that takes one text, in schema {}",
            name.function,
            schemas.join(" or ")
        )
    })?;
    let mut path: Vec<String> = path.iter().map(|schema| quoted(schema)).collect();
    path.push("pg_temp".to_owned());
    Ok(Function {
        schema: row.get(0),
        name: row.get(1),
        argument: row.get(2),
        owner: row.get(3),
        path: path.join(", "),
    })
}

impl Function {
    /// A call of it.
    pub(super) fn call(&self, argument: &str) -> String {
        format!("{}.{}({argument})", quoted(&self.schema), quoted(&self.name))
    }

    /// Asks it, within a transaction in which names that its body does not qualify mean what they
    /// mean to the role; ours are qualified.
    ///
    /// As JSON, so that a `user_id` may be of any type and a single boolean needs no second
    /// statement.
    pub(super) async fn ask(
        &self,
        client: &Client,
        token: &str,
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let begin = format!("BEGIN; SET LOCAL search_path = {}", self.path);
        let argument = format!("$1::pg_catalog.{}", quoted(&self.argument));
        let sql = format!(
            "SELECT pg_catalog.to_jsonb(answer)::pg_catalog.text FROM {} AS answer LIMIT 2",
            self.call(&argument)
        );
        // All are on their way before the first is answered.
        let parameters = [(&token as _, Type::TEXT)];
        let (begun, rows, ended) = join3(
            client.batch_execute(&begin),
            client.query_typed(&sql, &parameters),
            client.batch_execute("COMMIT"),
        )
        .await;
        begun?;
        let rows = rows?;
        ended.map(|()| rows)
    }
}
