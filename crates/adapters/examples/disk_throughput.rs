//! How many events a second a history on disk takes: `cargo run --release --example
//! disk_throughput -- FOLDER [batch]`, with `batch` to wait for the disk itself.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tidewire::Namespaces;
use tidewire::history::History;
use tidewire_adapters::disk::{DiskHistory, DiskMetrics, DiskSettings, Sync};
use tidewire_protocol::{Draft, Payload, Topic};
use tokio::time::Instant;

/// How long each case is measured.
const SPAN: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let folder = words.next().ok_or("the first argument is a folder")?;
    let sync = if words.next().as_deref() == Some("batch") { Sync::Batch } else { Sync::Never };
    let settings = DiskSettings { sync, ..DiskSettings::new(folder) };
    let namespaces = Arc::new(RwLock::new(Arc::new(Namespaces::default())));
    let history = Arc::new(DiskHistory::open(settings, namespaces, DiskMetrics::default())?);
    for (batch, callers) in [(1, 1), (1, 64), (100, 1), (100, 8)] {
        let began = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|caller| tokio::spawn(fill(Arc::clone(&history), caller, batch, began + SPAN)))
            .collect();
        let mut events = 0;
        for task in tasks {
            events += task.await?;
        }
        let each = events as f64 / began.elapsed().as_secs_f64();
        println!("batches of {batch} from {callers} callers: {each:.0} events a second");
    }
    history.close().await?;
    Ok(())
}

/// Events that one caller appended.
async fn fill(history: Arc<DiskHistory>, caller: usize, batch: usize, until: Instant) -> usize {
    let topic = Topic::application(&format!("topic:{caller}")).expect("a topic's name");
    let payload = Payload::Text("x".repeat(200).into());
    let mut events = 0;
    while Instant::now() < until {
        let drafts = vec![Draft::message(topic.clone(), payload.clone()); batch];
        events += history.append(drafts).await.iter().filter(|said| said.is_ok()).count();
    }
    events
}
