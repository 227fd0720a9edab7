//! Live traffic for trying: a shop in which an order comes in every second.

use std::time::Duration;

use serde_json::json;
use tidewire::{Identity, Node, Topic};
use tidewire_protocol::{Payload, Publication};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// One order a second is lively and still readable.
const PACE: Duration = Duration::from_secs(1);

const CHANNEL: &str = "orders";
const DISHES: [&str; 5] = ["ramen", "paella", "pierogi", "injera", "poutine"];
const STATES: [&str; 4] = ["placed", "cooking", "on its way", "delivered"];

/// Writes until `stop` is cancelled; a database that is down is tried again.
pub(super) fn start(node: Node, stop: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        let writer = Identity::everything();
        for number in 1u64.. {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PACE) => {}
            }
            let said = node.publisher().submit(order(number), &writer, None).await;
            if let Err(refusal) = said {
                tracing::debug!(refusal.message, "an order of the demo was not taken");
            }
        }
    })
}

fn order(number: u64) -> Publication {
    let dish = DISHES[number as usize % DISHES.len()];
    let state = STATES[(number / 3) as usize % STATES.len()];
    let text = json!({ "order": number, "dish": dish, "state": state }).to_string();
    Publication {
        topic: Topic::notify(CHANNEL).expect("the channel's name is a good one"),
        name: None,
        payload: Payload::Text(text.into()),
        echo: true,
        idempotency_key: None,
        confirm: false,
        reference: None,
    }
}
