//! Whether the log of a database can be read at all, asked once before choosing.

use super::error::{WalError, WalErrorKind};
use super::reader::Facts;
use super::slot::ask;
use super::sql_text::{literal, readable_part};
use super::{SlotKind, WalOptions};
use crate::connect::Target;

/// Asks.
pub(super) async fn probe(target: &Target, options: &WalOptions) -> Result<(), WalError> {
    let mut line = match target.connect_for_replication().await {
        Ok(line) => line,
        Err((place, error)) => return Err(WalError::line(error, &place)),
    };
    let facts = Facts::ask(&mut line).await?;
    facts.check()?;
    // A slot of ours that is there already needs no free one.
    let slot = match &options.slot {
        SlotKind::Persistent { name, .. } => name.as_str(),
        SlotKind::Temporary => "",
    };
    let (publication, _) = options.publication_name();
    let sql = format!(
        "SELECT (SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE slot_name <> {}) \
                < pg_catalog.current_setting('max_replication_slots')::int, \
         pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') \
         OR EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = {}), \
         pg_catalog.current_database()",
        literal(slot),
        literal(&publication)
    );
    let rows = ask(&mut line, &sql).await?;
    line.close().await;
    let row = rows.first().map(Vec::as_slice).unwrap_or_default();
    let is_so = |at: usize| row.get(at).and_then(Option::as_deref) == Some("t");
    if !is_so(0) {
        return Err(WalError::new(
            WalErrorKind::NoneFree,
            "all replication slots are in use: raise max_replication_slots, or drop one that \
             nobody reads",
        ));
    }
    if !is_so(1) {
        let database = readable_part(row.get(2).and_then(Option::as_deref).unwrap_or("…"));
        let name = match options.publication {
            Some(_) => readable_part(&publication),
            None => "tidewire".to_owned(),
        };
        return Err(WalError::new(
            WalErrorKind::Privilege,
            format!(
                "the role may not make a publication: GRANT CREATE ON DATABASE {database} TO it and \
                 have it own the tables, or let their owner CREATE PUBLICATION {name} FOR TABLE … \
                 and name it in wal.publication"
            ),
        ));
    }
    Ok(())
}
