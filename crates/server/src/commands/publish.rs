//! `tidewire publish`: says one thing and waits until it is said.

use anyhow::bail;
use serde_json::{Value, json};
use tidewire_postgres::Target as Database;
use tidewire_postgres::notify::send;
use tidewire_protocol::{Code, Payload, Topic};

use super::plain::{escaped, sentence};
use super::remote::Remote;
use crate::args::{Args, PublishFlags, Target};

pub(super) fn run(args: &Args, flags: &PublishFlags) -> anyhow::Result<()> {
    let target = flags.connection.target(&args.global, |name| std::env::var(name).ok());
    super::small_runtime()?.block_on(async {
        match target {
            Target::Server { url, token } => say(flags, &url, token.as_deref()).await,
            Target::Postgres(url) => notify(flags, &url).await,
        }
    })
}

async fn say(flags: &PublishFlags, url: &str, token: Option<&str>) -> anyhow::Result<()> {
    let mut remote = Remote::connect(url, token).await?;
    remote.send(&request(flags)).await?;
    loop {
        let frame = remote.next().await?;
        match frame["type"].as_str().unwrap_or_default() {
            "published" => break,
            "error" | "close" => bail!("{}", escaped(sentence(&frame["message"]))),
            _ => {}
        }
    }
    remote.close().await;
    Ok(())
}

/// A topic takes JSON; what is not JSON is meant as text.
fn request(flags: &PublishFlags) -> Value {
    let kind = if flags.topic { "topic" } else { "notify" };
    let parsed = serde_json::from_str(&flags.payload).ok().filter(|_| flags.topic);
    let data = parsed.unwrap_or_else(|| Value::String(flags.payload.clone()));
    let mut request = json!({ "type": "publish", "id": 1, kind: flags.channel, "data": data });
    if let Some(event) = &flags.event {
        request["event"] = json!(event);
    }
    request
}

async fn notify(flags: &PublishFlags, url: &str) -> anyhow::Result<()> {
    let topic = Topic::notify(&flags.channel)?;
    let target: Database = url.parse()?;
    let payload = Payload::Text(flags.payload.as_str().into());
    let Err(refusal) = send(&target, &topic, &payload).await else { return Ok(()) };
    if refusal.code == Code::Unavailable {
        // The refusal is what strangers are told; here is a person who may know why.
        target.probe().await?;
    }
    bail!("{}", refusal.message)
}
