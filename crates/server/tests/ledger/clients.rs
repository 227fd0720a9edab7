//! Clients of the three transports that keep accounts, lose their connections now and then, and
//! go on from where they were.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::account::{Account, Register, Rows};
use crate::support::{Client, Dice, encoded, try_client, try_get, until};

/// Where the server is; it changes when the server is started again.
pub(super) type Address = watch::Receiver<SocketAddr>;

/// What the tasks of a client share.
type Shared = Arc<Mutex<Account>>;

/// Running clients.
pub(super) struct Clients {
    pub(super) accounts: Vec<Shared>,
    tasks: JoinSet<()>,
}

impl Clients {
    /// Two of each transport: one stays as long as it can, one hangs up now and then.
    pub(super) fn start(address: &Address, seed: u64) -> Self {
        let (mut accounts, mut tasks) = (Vec::new(), JoinSet::new());
        let register = Register::default();
        for restless in [false, true] {
            let patience = |part| Patience(restless.then(|| Dice::of(seed, part)));
            let mut account = |transport: &str| {
                let name = format!("{transport}, restless: {restless}");
                let account = Arc::new(Mutex::new(Account::new(name, Arc::clone(&register))));
                accounts.push(Arc::clone(&account));
                account
            };
            tasks.spawn(by_websocket(address.clone(), account("websocket"), patience(101)));
            tasks.spawn(by_stream(address.clone(), account("stream"), patience(102)));
            tasks.spawn(by_poll(address.clone(), account("poll"), patience(103)));
        }
        Self { accounts, tasks }
    }

    /// Fails when a client has: what it was told cannot be.
    fn check(&mut self) {
        if let Some(ended) = self.tasks.try_join_next() {
            std::panic::resume_unwind(ended.expect_err("clients never end").into_panic());
        }
    }

    /// Waits until each has its table and was told so many changes since now.
    pub(super) async fn hear(&mut self, changes: usize) {
        let count = |account: &Shared| account.lock().changes;
        let before: Vec<usize> = self.accounts.iter().map(count).collect();
        until("everybody is told changes", async || {
            self.check();
            let mut all = self.accounts.iter().zip(&before);
            all.all(|(account, before)| account.lock().knows && count(account) >= before + changes)
        })
        .await;
    }

    /// Waits until the table of each is this one.
    pub(super) async fn have(&mut self, truth: &Rows) {
        for place in 0..self.accounts.len() {
            let waited = until("a table as it is", async || {
                self.check();
                let account = self.accounts[place].lock();
                account.knows && account.rows == *truth
            });
            if tokio::time::timeout(super::SETTLING, waited).await.is_err() {
                let account = self.accounts[place].lock();
                panic!("{}", account.difference(truth));
            }
        }
    }

    pub(super) fn gaps(&self) -> Vec<Vec<String>> {
        self.accounts.iter().map(|account| account.lock().gaps.clone()).collect()
    }

    /// How often somebody went on from a position and nothing was missing.
    pub(super) fn resumed(&self) -> usize {
        self.accounts.iter().map(|account| account.lock().resumed).sum()
    }

    pub(super) fn changes(&self) -> usize {
        self.accounts.iter().map(|account| account.lock().changes).sum()
    }
}

/// When a client hangs up by itself.
struct Patience(Option<Dice>);

impl Patience {
    /// Decided anew with each frame.
    fn is_over(&mut self) -> bool {
        /// Some connections live for a second, some are cut at once.
        const FRAMES: u64 = 400;
        self.0.as_mut().is_some_and(|dice| dice.once_in(FRAMES))
    }
}

/// A server that is gone is looked for again; a hundred times a second disturbs nothing.
async fn pause() {
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
}

async fn by_websocket(address: Address, account: Shared, mut patience: Patience) {
    loop {
        let at = *address.borrow();
        if let Some(client) = try_client(at).await {
            listen(client, &account, &mut patience).await;
            account.lock().part();
        }
        pause().await;
    }
}

/// Until the connection is lost, or given up.
async fn listen(mut client: Client, account: &Shared, patience: &mut Patience) {
    client.say(&wish(account)).await;
    while let Some(text) = client.try_hear().await {
        let frame = json(&text);
        if is_unavailable(&frame) || patience.is_over() {
            return;
        }
        if !account.lock().take(&frame) {
            client.say(&wish(account)).await;
        }
    }
}

fn wish(account: &Shared) -> Value {
    let mut wish = json!({"type": "subscribe", "table": "public.ledger", "snapshot": true});
    if let Some(cursor) = &account.lock().cursor {
        wish["since"] = json!(cursor);
    }
    wish
}

/// The database is away: it is asked again later.
fn is_unavailable(frame: &Value) -> bool {
    let is_error = frame["type"] == "error" || frame["type"] == "close";
    assert!(!is_error || frame["code"] == "unavailable", "{frame}");
    is_error
}

async fn by_stream(address: Address, account: Shared, mut patience: Patience) {
    const PATH: &str = "/v1/sse?table=public.ledger&snapshot=true";
    let mut last: Option<String> = None;
    loop {
        let at = *address.borrow();
        let since = last.clone();
        let header = since.as_deref().map(|id| ("last-event-id", id));
        if let Some(mut stream) = try_get(at, PATH, header.as_slice()).await
            && stream.status == 200
        {
            while let Some(event) = stream.next_sse().await {
                if patience.is_over() {
                    break;
                }
                last = event.id.clone().or(last);
                let Some(frame) = event.data() else { continue };
                let frame = json(frame);
                if frame["type"] != "welcome" && !account.lock().take(&frame) {
                    // The rows are wanted again.
                    last = None;
                    break;
                }
            }
            account.lock().part();
        }
        pause().await;
    }
}

async fn by_poll(address: Address, account: Shared, mut patience: Patience) {
    const PATH: &str = "/v1/poll?table=public.ledger&snapshot=true&limit=1000&timeout=5";
    let mut cursor: Option<String> = None;
    loop {
        let at = *address.borrow();
        let since = cursor.as_deref().map(|cursor| format!("&since={}", encoded(cursor)));
        let path = format!("{PATH}{}", since.unwrap_or_default());
        let answer = try_get(at, &path, &[]).await;
        let answer = match answer.filter(|answer| answer.status == 200 && !patience.is_over()) {
            Some(answer) => answer.try_json().await,
            None => None,
        };
        match answer {
            Some(answer) => cursor = take_answer(&account, &answer, cursor.is_some()),
            None => pause().await,
        }
    }
}

/// Takes what a poll is answered; the cursor for the next.
fn take_answer(account: &Shared, answer: &Value, had_cursor: bool) -> Option<String> {
    let mut account = account.lock();
    let gap = answer["gap"]["reason"].as_str();
    gap.into_iter().for_each(|reason| account.lose(reason));
    match had_cursor && gap.is_none() {
        true => account.resumed += 1,
        false => account.begin_rows(),
    }
    let mut whole = true;
    for frame in answer["events"].as_array().expect("events") {
        whole &= account.take(frame);
    }
    whole.then(|| answer["cursor"].as_str().expect("a cursor").to_owned())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}
