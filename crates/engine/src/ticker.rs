//! One ticker for everything that happens by the clock, so that no connection has a timer.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidewire_protocol::Topic;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::node::Inner;

/// How often the clock is looked at; the resolution of all timeouts.
const TICK: Duration = Duration::from_secs(1);

/// Ticks in which every topic is compared once with its history's head: a lost last announcement
/// is found within this many seconds, and a topic that is listened to is never forgotten.
const CHECK_TICKS: u64 = 16;

/// Parts of the hub's map, each compared at its own tick.
const PARTS: u64 = 64;

/// Seconds since the node started, for coarse times that must be small.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn seconds(self) -> u32 {
        self.0.elapsed().as_secs() as u32
    }
}

/// Seconds since 1970.
pub(crate) fn wall_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Ticks until `stop` is cancelled.
pub(crate) async fn run(node: Arc<Inner>, stop: CancellationToken) {
    let mut ticks = 0;
    let mut interval = interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            // 1. The node stops.
            () = stop.cancelled() => return,
            // 2. A second has passed.
            _ = interval.tick() => tick(&node, ticks),
        }
        ticks += 1;
    }
}

fn tick(node: &Inner, count: u64) {
    let limits = node.limits.load_full();
    node.sessions.tick(&limits, node.clock.seconds(), wall_seconds());
    node.publisher.tick(&limits);
    node.history.tick();
    node.relay.tick();
    let per_tick = PARTS / CHECK_TICKS;
    for part in 0..per_tick {
        for topic in node.hub.part(((count * per_tick + part) % PARTS) as usize) {
            node.relay.check(&topic);
        }
    }
    node.measure();
}

/// Lets go of topics that nobody listens to any more, until `stop` is cancelled.
///
/// Apart from [`run`], because a broker may take its time.
pub(crate) async fn let_go(node: Arc<Inner>, stop: CancellationToken) {
    let mut interval = interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let work = async {
        loop {
            interval.tick().await;
            let linger = node.limits.load().linger;
            for topic in node.remove_deserted(linger) {
                unfollow(&node, &topic).await;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

async fn unfollow(node: &Inner, topic: &Topic) {
    let mut done = node.broker.unfollow(topic).await;
    // Whoever came meanwhile may have followed the topic before this took effect.
    if node.hub.get(topic).is_some() {
        done = done.and(node.broker.follow(topic).await);
        node.relay.check(topic);
    }
    if let Err(error) = done {
        node.metrics.failures.inc();
        tracing::warn!(%topic, error = &error as &dyn std::error::Error, "unfollowing");
    }
}
