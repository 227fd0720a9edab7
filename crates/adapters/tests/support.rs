//! What the tests share: keys made for the occasion, and a clock that stands still.

mod key_server;

mod signer;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidewire::protocol::{Code, Refusal, Token};
use tidewire::{Authenticator, Identity};
use tidewire_adapters::jwt::Clock;
use tidewire_adapters::{JwtAuthenticator, JwtSettings};

pub(crate) use key_server::KeyServer;
pub(crate) use signer::{Signer, encode_part, signed};

/// The time in all tests, in seconds since 1970.
pub(crate) const NOW: u64 = 1_800_000_000;

/// How long a test waits for anything before it fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const SECRET: &str = "a secret that is long enough for HMAC";

/// Claims of a token that is good for an hour.
pub(crate) fn claims() -> Value {
    json!({ "sub": "alice", "exp": NOW + 3600 })
}

/// A clock that stands still.
pub(crate) fn clock_at(now: u64) -> Clock {
    Arc::new(move || now)
}

pub(crate) fn authenticator(settings: &JwtSettings) -> JwtAuthenticator {
    JwtAuthenticator::with_clock(settings, clock_at(NOW)).expect("usable settings")
}

/// Waits, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

pub(crate) async fn identify(
    authenticator: &impl Authenticator,
    token: &Token,
) -> Result<Identity, Refusal> {
    soon("an answer about a token", authenticator.identify(token)).await
}

pub(crate) async fn is_good(authenticator: &impl Authenticator, token: &Token) -> bool {
    identify(authenticator, token).await.is_ok()
}

pub(crate) async fn refused(authenticator: &impl Authenticator, token: &Token) -> (Code, String) {
    let refusal = identify(authenticator, token).await.expect_err("a refusal");
    (refusal.code, refusal.message)
}

/// A file with this content that is removed with the returned value.
pub(crate) struct File(std::path::PathBuf);

impl File {
    pub(crate) fn with(content: &str) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("tidewire-adapters-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, content).expect("a writable directory for temporary files");
        Self(path)
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.0.clone()
    }

    pub(crate) fn rewrite(&self, content: &str) {
        std::fs::write(&self.0, content).expect("a writable file");
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
