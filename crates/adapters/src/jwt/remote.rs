//! Keys that a key server publishes, kept fresh.
//!
//! One task does all fetching, so that however many clients bring a token with a new key, one
//! request goes out. It fetches at the start, when the answer has grown old, and when it is asked;
//! whoever asks waits for the answer. Asking is rationed, since anyone can make up a key's name.
//! An answer that is not a usable set of keys changes nothing: what was fetched before is kept,
//! for as long as the outage lasts.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::CACHE_CONTROL;
use reqwest::{Client, Response, StatusCode, Url};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::key::{Key, Place};
use super::key_set::{self, KeySetError};

/// How long one fetch may take, in all.
///
/// Clients wait for it with a connection open; five seconds is past any answer that is still
/// coming, and short of the ten that clients commonly wait for a handshake.
const TIMEOUT: Duration = Duration::from_secs(5);

/// First pause after a failed fetch while there are no keys at all; doubles up to the cooldown.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// Bounds for what `Cache-Control: max-age` may ask for: not more than once a minute, and a key
/// that was taken back is believed for an hour at most.
const MAX_AGE_BOUNDS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(3600));

/// How often the key server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cadence {
    /// Shortest time between two fetches that clients cause.
    pub(super) cooldown: Duration,
    /// Time after which keys are fetched again when the answer names none.
    pub(super) refresh: Duration,
}

/// What is known of the key server.
#[derive(Clone, Debug)]
pub(super) struct Status {
    /// The keys of the last usable answer.
    pub(super) keys: Option<Arc<[Key]>>,
    is_fetching: bool,
    /// When the last fetch began.
    begun: Instant,
    /// How many fetches have ended.
    ended: u64,
    /// How many have failed since the last that did not.
    failures: u32,
}

/// Keys of one URL, and the task that fetches them.
#[derive(Debug)]
pub(super) struct RemoteKeys {
    url: Url,
    cadence: Cadence,
    shared: Arc<Shared>,
    task: AbortHandle,
}

/// Counts how often keys were taken away, or came for the first time, at a key server.
#[derive(Clone, Debug)]
pub(super) struct Removals(watch::Sender<u64>);

impl Default for Removals {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl Removals {
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }

    /// Notes what became of the keys.
    fn note(&self, before: Option<&[Key]>, now: &[Key]) {
        let stays = |key: &Key| now.iter().any(|other| other.is_the_same(key));
        if before.is_none_or(|before| !before.iter().all(stays)) {
            self.0.send_modify(|count| *count += 1);
        }
    }
}

#[derive(Debug)]
struct Shared {
    status: watch::Sender<Status>,
    /// The highest [`Status::ended`] at which somebody found a key missing. An ask is about what
    /// was known then: once another fetch has ended it means nothing any more.
    asked: watch::Sender<Option<u64>>,
}

/// Why a URL cannot be used for keys.
#[derive(Debug, Error)]
pub enum UrlError {
    /// Not a URL.
    #[error("not a URL")]
    Malformed,
    /// Neither HTTPS nor on this machine.
    #[error("it must begin with https:// (http:// is allowed for this machine only)")]
    Insecure,
    /// The HTTP client cannot be made.
    #[error("no HTTPS client can be made: are the system's CA certificates installed?")]
    Client(#[source] reqwest::Error),
}

#[derive(Debug, Error)]
enum FetchError {
    #[error("the key server cannot be reached")]
    Request(#[source] reqwest::Error),
    #[error("the key server answers with status {0}")]
    Status(StatusCode),
    #[error("the answer is larger than {} bytes", key_set::MAX_BYTES)]
    TooLarge,
    #[error("the answer is not a usable set of keys")]
    KeySet(#[source] KeySetError),
}

impl RemoteKeys {
    /// Begins to fetch.
    pub(super) fn new(url: &str, cadence: Cadence, removals: Removals) -> Result<Self, UrlError> {
        let url = Url::parse(url).map_err(|_| UrlError::Malformed)?;
        let client = client(&url).map_err(UrlError::Client)?;
        let status =
            Status { keys: None, is_fetching: true, begun: Instant::now(), ended: 0, failures: 0 };
        let shared = Shared { status: watch::Sender::new(status), asked: watch::Sender::new(None) };
        let shared = Arc::new(shared);
        let (for_task, its_url) = (Arc::clone(&shared), url.clone());
        let fetcher = Fetcher { client, url: its_url, cadence, shared: for_task, removals };
        let task = tokio::spawn(fetcher.run()).abort_handle();
        Ok(Self { url, cadence, shared, task })
    }

    /// Whether these are the keys of this URL, asked for in this way.
    pub(super) fn is_of(&self, url: &str, cadence: Cadence) -> bool {
        self.cadence == cadence && Url::parse(url).is_ok_and(|url| url == self.url)
    }

    /// What is known now.
    pub(super) fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// Whether the last fetch failed.
    pub(super) fn is_down(&self) -> bool {
        self.shared.status.borrow().failures > 0
    }

    /// Fetches the keys anew, or waits for a fetch that is under way. Returns at once when the
    /// last one was too short a time ago. Cancel safe: the fetch goes on for the others.
    pub(super) async fn refresh(&self) {
        let mut status = self.shared.status.subscribe();
        let seen = {
            let status = status.borrow();
            let is_rested = status.begun.elapsed() >= self.cadence.cooldown;
            if !status.is_fetching && !is_rested {
                return;
            }
            status.ended
        };
        self.shared.asked.send_modify(|asked| *asked = (*asked).max(Some(seen)));
        let ended = status.wait_for(|status| status.ended != seen);
        // Longer than a fetch can take, so that nobody waits for ever should the task be gone.
        let _ = timeout(2 * TIMEOUT, ended).await;
    }
}

impl Drop for RemoteKeys {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// HTTPS only, except that a key server on this machine is spoken to without TLS or proxy.
///
/// Redirects are not followed: they could lead anywhere, and key servers have no need of them.
fn client(url: &Url) -> Result<Client, reqwest::Error> {
    let builder = Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("tidewire/", env!("CARGO_PKG_VERSION")));
    if url.scheme() == "https" {
        builder.https_only(true).build()
    } else {
        // Without TLS there is no need for CA certificates, which small machines may lack.
        builder.no_proxy().tls_certs_only([]).build()
    }
}

/// Refuses URLs over which somebody else could hand us keys.
pub(super) fn check_url(url: &str) -> Result<(), UrlError> {
    let url = Url::parse(url).map_err(|_| UrlError::Malformed)?;
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(&url) => Ok(()),
        _ => Err(UrlError::Insecure),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The URL as it may be written into a log: without what might be a secret.
pub(super) fn shown(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

struct Fetcher {
    client: Client,
    url: Url,
    cadence: Cadence,
    shared: Arc<Shared>,
    removals: Removals,
}

/// A usable answer of the key server.
struct Fetched {
    keys: Vec<Key>,
    max_age: Option<Duration>,
}

impl Fetcher {
    async fn run(self) {
        loop {
            self.begin();
            let outcome = self.fetch().await;
            self.tell(&outcome);
            let pause = self.end(outcome);
            self.rest(pause).await;
        }
    }

    fn begin(&self) {
        self.shared.status.send_modify(|status| {
            status.is_fetching = true;
            status.begun = Instant::now();
        });
    }

    /// Takes the outcome over; returns how long it is good for.
    fn end(&self, outcome: Result<Fetched, FetchError>) -> Duration {
        let mut pause = self.cadence.refresh;
        let before = self.shared.status.borrow().keys.clone();
        self.shared.status.send_modify(|status| {
            status.is_fetching = false;
            status.ended += 1;
            match outcome {
                Ok(fetched) => {
                    status.failures = 0;
                    status.keys = Some(fetched.keys.into());
                    pause = fetched.max_age.unwrap_or(pause);
                }
                Err(_) => {
                    status.failures = status.failures.saturating_add(1);
                    pause = self.pause_after_failure(status);
                }
            }
        });
        if let Some(keys) = &self.shared.status.borrow().keys {
            self.removals.note(before.as_deref(), keys);
        }
        pause
    }

    fn pause_after_failure(&self, status: &Status) -> Duration {
        // With keys in hand the outage hurts nobody yet; without any it hurts everybody.
        if status.keys.is_some() {
            return self.cadence.cooldown.max(FIRST_RETRY);
        }
        let doubled = FIRST_RETRY * 2u32.saturating_pow(status.failures.saturating_sub(1).min(10));
        doubled.min(self.cadence.cooldown.max(FIRST_RETRY))
    }

    fn tell(&self, outcome: &Result<Fetched, FetchError>) {
        let url = shown(&self.url);
        let failures = self.shared.status.borrow().failures;
        match outcome {
            Ok(fetched) if failures > 0 => {
                tracing::info!(url, keys = fetched.keys.len(), "the key server answers again");
            }
            Ok(fetched) => tracing::debug!(url, keys = fetched.keys.len(), "fetched keys"),
            Err(error) => {
                let error: &(dyn std::error::Error + 'static) = error;
                tracing::warn!(url, error, "cannot fetch keys; those known before stay in use");
            }
        }
    }

    /// Waits until it is time for the next fetch.
    async fn rest(&self, pause: Duration) {
        let next = Instant::now() + pause;
        tokio::select! {
            biased;
            // 1. Somebody has a token with a key that is not known.
            () = self.asked() => {}
            // 2. The keys have grown old.
            () = sleep_until(next) => {}
        }
    }

    /// Returns when somebody has asked since the last fetch; they kept the cooldown themselves.
    async fn asked(&self) {
        let ended = self.shared.status.borrow().ended;
        let mut asked = self.shared.asked.subscribe();
        // The sender lives in `self`; there is nothing to be done about an error.
        let _ = asked.wait_for(|asked| *asked == Some(ended)).await;
    }

    async fn fetch(&self) -> Result<Fetched, FetchError> {
        let request = self.client.get(self.url.clone()).header("accept", "application/json");
        let response = request.send().await.map_err(request_failed)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let max_age = max_age(&response);
        let document = body(response).await?;
        let keys = key_set::parse(&document, Place::Url).map_err(FetchError::KeySet)?;
        Ok(Fetched { keys, max_age })
    }
}

fn request_failed(error: reqwest::Error) -> FetchError {
    FetchError::Request(error.without_url())
}

async fn body(mut response: Response) -> Result<Vec<u8>, FetchError> {
    let mut document = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(request_failed)? {
        if document.len() + chunk.len() > key_set::MAX_BYTES {
            return Err(FetchError::TooLarge);
        }
        document.extend_from_slice(&chunk);
    }
    Ok(document)
}

fn max_age(response: &Response) -> Option<Duration> {
    let control = response.headers().get(CACHE_CONTROL)?.to_str().ok()?;
    read_max_age(control)
}

fn read_max_age(control: &str) -> Option<Duration> {
    let (least, most) = MAX_AGE_BOUNDS;
    control
        .split(',')
        .filter_map(|directive| directive.trim().split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("max-age"))
        .and_then(|(_, seconds)| seconds.trim().trim_matches('"').parse().ok())
        .map(|seconds| Duration::from_secs(seconds).clamp(least, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn max_age_is_honoured_within_bounds() {
        for (control, seconds) in [
            ("public, max-age=600, must-revalidate", Some(600)),
            ("Max-Age=0", Some(60)),
            ("max-age=86400", Some(3600)),
            ("max-age=99999999999999999999999", None),
            ("no-cache", None),
            ("s-maxage=600", None),
        ] {
            assert_eq!(read_max_age(control), seconds.map(Duration::from_secs), "{control}");
        }
    }

    #[test]
    fn keys_come_over_https_or_from_this_machine() {
        for url in [
            "https://id.example/jwks",
            "http://127.0.0.1:1/",
            "http://[::1]/",
            "http://localhost/k",
        ] {
            assert!(check_url(url).is_ok(), "{url}");
        }
        for url in [
            "http://id.example/",
            "http://127.0.0.1.evil.example/",
            "file:///etc/keys",
            "ftp://localhost/",
        ] {
            assert!(matches!(check_url(url), Err(UrlError::Insecure)), "{url}");
        }
        assert!(matches!(check_url("keys"), Err(UrlError::Malformed)));
    }

    #[test]
    fn a_url_is_shown_without_what_may_be_secret() {
        let url = Url::parse("https://me:pass@id.example/keys?token=s").unwrap();
        assert_eq!(shown(&url), "https://id.example/keys");
    }
}
