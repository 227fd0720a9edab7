//! What cannot be delivered costs the topic it is on a gap at its place, and nothing else: rows,
//! messages and notifications that are too large, make no sense, or have a character without a
//! Unicode form, in databases that are not in UTF-8.

mod notify;
mod outbox;
mod wal;

use tidewire_postgres::Target;
use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_protocol::{GapReason, Payload};
use tokio_postgres::Client;

use crate::support::changes::{Seen, object};
use crate::support::{connect, database_url, sql};

/// A database of the test's own in another encoding than UTF-8, and a connection to it.
async fn database_in(cluster: &PrivateCluster, encoding: &str, name: &str) -> (Target, Client) {
    let admin = sql(cluster).await;
    let create =
        format!("CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0");
    admin.batch_execute(&create).await.unwrap();
    let url = database_url(cluster, name);
    (url.parse().unwrap(), connect(&url).await)
}

/// What was published, in words.
fn word(seen: &Seen) -> String {
    match seen {
        Seen::Change(change) => {
            let row = change.record.as_ref().or(change.old.as_ref());
            let row = object(change, row.unwrap());
            let cells: Vec<String> =
                row.iter().map(|(name, text)| format!("{name}={text}")).collect();
            format!("{} {}", change.relation.table, cells.join(" "))
        }
        Seen::Gap(name, GapReason::ConnectionLost) => format!("gap of {name}"),
        Seen::Gap(name, reason) => format!("{reason} of {name}"),
        Seen::Message(topic, _, Payload::Json(text) | Payload::Text(text)) => {
            format!("{topic}: {text}")
        }
        other => panic!("{other:?}"),
    }
}
