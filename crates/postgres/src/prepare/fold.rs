//! Which small letter each capital of a collation becomes, as PostgreSQL says.
//!
//! `ilike` compares what `lower` makes of both sides. For collations of the C library and the
//! builtin ones, `lower` goes character by character, so a table of what it changes is all there is
//! to know of it; one is asked for once for each collation and takes some 50 ms.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewire_protocol::Refusal;
use tidewire_protocol::filter::{Fold, FoldTable};
use tokio_postgres::Client;

use super::flight::Flights;
use super::transaction::transaction;
use crate::connect::Pool;

/// Collations asked for; a database uses one or two.
#[derive(Default)]
pub(super) struct Folds {
    known: Arc<Mutex<HashMap<u32, (Fold, bool)>>>,
    asking: Flights<u32, (Fold, bool)>,
}

/// Some character becomes more than one.
const LONGER: &str = "depends on more than single characters for this collation: use like";

impl Folds {
    /// How capitals become small, and whether those of ASCII do so as in ASCII.
    pub(super) async fn get(
        &self,
        pool: &Pool,
        collation: u32,
        sql: String,
    ) -> Result<(Fold, bool), Refusal> {
        if let Some(known) = self.known.lock().get(&collation) {
            return Ok(known.clone());
        }
        let (pool, known) = (pool.clone(), Arc::clone(&self.known));
        let work = |collation| async move {
            // Whoever came while it was asked for finds it here.
            let held = known.lock().get(&collation).cloned();
            if let Some(held) = held {
                return Ok(held);
            }
            let asked = transaction(&pool, "BEGIN READ ONLY", async |client| {
                Ok(Ok(ask(client, &sql).await?))
            })
            .await?;
            known.lock().insert(collation, asked.clone());
            Ok(asked)
        };
        self.asking.join(collation, work).await
    }
}

/// No script beyond the first two planes has capitals, and the places of surrogates are no
/// characters.
async fn ask(client: &Client, collation: &str) -> Result<(Fold, bool), tokio_postgres::Error> {
    let capitals = format!(
        "SELECT pg_catalog.chr(c), pg_catalog.lower(pg_catalog.chr(c) COLLATE {collation}) \
         FROM pg_catalog.generate_series(1, 131071) c \
         WHERE c NOT BETWEEN 55296 AND 57343 \
         AND pg_catalog.lower(pg_catalog.chr(c) COLLATE {collation}) COLLATE pg_catalog.\"C\" \
             <> pg_catalog.chr(c)"
    );
    let small = format!(
        "SELECT pg_catalog.bool_and(\
           pg_catalog.upper(pg_catalog.chr(c) COLLATE {collation}) COLLATE pg_catalog.\"C\" \
             = pg_catalog.chr(c - 32)) \
         FROM pg_catalog.generate_series(97, 122) c"
    );
    let rows = client.query_typed(&capitals, &[]).await?;
    let pairs = rows.iter().map(|row| Some((single(row.get(0))?, single(row.get(1))?)));
    let Some(table) = pairs.collect::<Option<FoldTable>>() else {
        return Ok((Fold::Unknown(LONGER), false));
    };
    let ascii_up: bool = client.query_typed(&small, &[]).await?[0].get(0);
    let ascii_down = (0..=127_u8)
        .map(char::from)
        .all(|c| table.get(&c).copied().unwrap_or(c) == c.to_ascii_lowercase());
    Ok((Fold::Table(Arc::new(table)), ascii_up && ascii_down))
}

fn single(text: &str) -> Option<char> {
    let mut characters = text.chars();
    characters.next().filter(|_| characters.next().is_none())
}
