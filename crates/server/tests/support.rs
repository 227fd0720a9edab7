//! Servers, programs, databases and clients for tests; everything ends with the test.

mod client;
mod database;
mod dice;
mod http;
mod pause;
mod program;
mod server;
mod tokens;

use std::time::Duration;

pub(crate) use client::{Client, client, client_with, try_client};
pub(crate) use database::{Database, Psql, database, newer_cluster, own_cluster};
pub(crate) use dice::{Dice, seed};
pub(crate) use http::{Answer, encoded, get, get_with, post, post_with, request, try_get};
pub(crate) use pause::Pause;
pub(crate) use program::{Program, run_program};
pub(crate) use server::Server;
pub(crate) use tokens::{SECRET, granted, jwt, short_lived, token};

/// Longest any single thing may take; generous, since the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for: {what}"),
    }
}

/// Asks again and again until the answer is yes.
pub(crate) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !so().await {
            // Nobody tells when it is so; a hundred questions a second disturb nothing.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
