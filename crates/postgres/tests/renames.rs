//! Whatever is done to the names of tables: no row ever comes under a name that its table did not
//! have when it was written, and none is lost without a gap after it.
//!
//! Each row says under which name it was written, so what comes can be judged by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidewire::Topic;
use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::{OutboxOptions, OutboxSource, SlotKind, Target, WalOptions, WalSource};
use tokio_postgres::Client;

use crate::support::changes::{Seen, Witness, object};
use crate::support::moody::Moody;
use crate::support::{comes_true, connect, database, database_url, own_cluster};
use crate::wal::renamed::drop_slot;

/// What is done in each round; enough for every kind of statement to meet most others.
const STEPS: u32 = 60;

/// Rounds, each with other statements; failures name the round.
const ROUNDS: u64 = 4;

const NAMES: [&str; 4] = ["s.a", "s.b", "s.c", "s.m"];

const SETUP: &str = "
DROP SCHEMA IF EXISTS s CASCADE; CREATE SCHEMA s; DROP SCHEMA IF EXISTS o CASCADE; CREATE SCHEMA o;
CREATE TABLE s.a (id int PRIMARY KEY, name text); CREATE TABLE s.b (id int PRIMARY KEY, name text);
CREATE TABLE s.m (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
CREATE TABLE s.part PARTITION OF s.m FOR VALUES FROM (0) TO (1000000)";

/// A source of either kind.
enum Source {
    Wal(WalSource),
    Outbox(OutboxSource),
}

impl Source {
    async fn add(&self, name: &str) -> bool {
        let topic = Topic::table(name).unwrap();
        match self {
            Self::Wal(source) => source.add(&topic).await.is_ok(),
            Self::Outbox(source) => source.add(&topic).await.is_ok(),
        }
    }

    async fn shutdown(&self) {
        match self {
            Self::Wal(source) => source.shutdown().await,
            Self::Outbox(source) => source.shutdown().await,
        }
    }
}

/// Numbers that look random, the same ones for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.roll(NAMES.len())]
    }
}

/// One database, a source that reads it, and what was written and heard.
struct World {
    target: Target,
    client: Client,
    history: Arc<Moody>,
    wal: bool,
    source: Source,
    witness: Witness,
    /// The statements so far.
    log: Vec<String>,
    /// Names with a listener.
    heard: BTreeSet<&'static str>,
    /// What was written under a name with a listener and did not come yet: the row, and when.
    missing: BTreeMap<(String, String), usize>,
    next: u32,
}

impl World {
    fn start(target: &Target, history: &Arc<Moody>, wal: bool) -> (Source, Witness) {
        let (publisher, witness) = Witness::with(Arc::clone(history) as _);
        let source = if wal {
            let slot = SlotKind::Persistent { name: "kept".to_owned(), failover: false };
            let check_interval = Duration::from_millis(300);
            let options = WalOptions { slot, check_interval, ..WalOptions::default() };
            Source::Wal(WalSource::start(target.clone(), publisher, options))
        } else {
            let options = OutboxOptions::default();
            Source::Outbox(OutboxSource::start(target.clone(), publisher, options))
        };
        (source, witness)
    }

    async fn run(&mut self, sql: String) -> bool {
        let done = self.client.batch_execute(&sql).await;
        if done.is_err() {
            let _ = self.client.batch_execute("ROLLBACK").await;
        } else {
            self.log.push(sql);
        }
        self.hear();
        done.is_ok()
    }

    /// Writes a row that says under which name.
    async fn insert(&mut self, name: &str) {
        self.next += 1;
        let id = self.next;
        if self.run(format!("INSERT INTO {name} VALUES ({id}, '{name}')")).await {
            self.written(name, id);
        }
    }

    fn written(&mut self, name: &str, id: u32) {
        if self.heard.contains(name) {
            self.missing.insert((name.to_owned(), id.to_string()), self.log.len());
        }
    }

    /// Takes in what came. A gap tells of everything that was written before on its topic.
    fn hear(&mut self) {
        for seen in self.witness.taken() {
            match seen {
                Seen::Change(change) => {
                    let Some(row) = change.record.as_ref() else { continue };
                    let row = object(&change, row);
                    let (schema, table) = (&change.relation.schema, &change.relation.table);
                    let topic = format!("{schema}.{table}");
                    let name = row["name"].trim_matches('"').to_owned();
                    assert_eq!(topic, name, "{row:?} after {:#?}", self.log);
                    self.missing.remove(&(topic, row["id"].clone()));
                }
                Seen::Gap(topic, _) => self.missing.retain(|(name, _), _| *name != topic),
                Seen::Message(..) => {}
            }
        }
    }

    async fn step(&mut self, dice: &mut Dice) {
        let (one, other) = (dice.name(), dice.name());
        let short = |name: &str| name.split_once('.').unwrap().1.to_owned();
        match dice.roll(16) {
            0..=4 => self.insert(one).await,
            5 => {
                self.run(format!("ALTER TABLE {one} RENAME TO {}", short(other))).await;
            }
            6 => {
                let (a, b) = (short(one), short(other));
                self.run(format!(
                    "BEGIN; ALTER TABLE {one} RENAME TO tmp; ALTER TABLE {other} RENAME TO {a}; \
                     ALTER TABLE s.tmp RENAME TO {b}; COMMIT"
                ))
                .await;
            }
            // Written under two names in one transaction.
            7 => {
                let (id, to) = (self.next + 1, short(other));
                self.next += 2;
                let done = self.run(format!(
                    "BEGIN; INSERT INTO {one} VALUES ({id}, '{one}'); \
                     ALTER TABLE {one} RENAME TO {to}; \
                     INSERT INTO {other} VALUES ({id} + 1, '{other}'); COMMIT"
                ));
                if done.await {
                    self.written(one, id);
                    self.written(other, id + 1);
                }
            }
            8 => {
                self.run(format!("DROP TABLE {one}")).await;
            }
            9 | 10 => {
                self.run(format!("CREATE TABLE {one} (id int PRIMARY KEY, name text)")).await;
            }
            11 => {
                self.run(format!("ALTER TABLE {one} SET SCHEMA o")).await;
                self.insert(&format!("o.{}", short(one))).await;
                self.run(format!("ALTER TABLE o.{} SET SCHEMA s", short(other))).await;
            }
            12 => {
                self.run("ALTER SCHEMA s RENAME TO s2".to_owned()).await;
                self.insert(&format!("s2.{}", short(one))).await;
                self.run("ALTER SCHEMA s2 RENAME TO s".to_owned()).await;
            }
            13 if self.wal => {
                if self.run(format!("ALTER PUBLICATION kept DROP TABLE {one}")).await {
                    self.insert(one).await;
                    self.run(format!("ALTER PUBLICATION kept ADD TABLE {one}")).await;
                }
            }
            13 => {
                if self.run(format!("SELECT disable_realtime('{one}')")).await {
                    self.insert(one).await;
                    self.run(format!("SELECT enable_realtime('{one}')")).await;
                }
            }
            14 => {
                if self.run(format!("ALTER TABLE {one} DETACH PARTITION s.part")).await {
                    self.insert("s.part").await;
                }
                let bounds = "FOR VALUES FROM (0) TO (1000000)";
                self.run(format!("ALTER TABLE {other} ATTACH PARTITION s.part {bounds}")).await;
            }
            _ if dice.roll(3) == 0 => self.restart().await,
            _ => self.listen(one).await,
        }
    }

    async fn listen(&mut self, name: &'static str) {
        if self.source.add(name).await {
            self.log.push(format!("-- listening to {name}"));
            self.hear();
            self.heard.insert(name);
        }
    }

    async fn restart(&mut self) {
        self.log.push("-- restart".to_owned());
        self.source.shutdown().await;
        self.hear();
        let heard: Vec<&'static str> = self.heard.iter().copied().collect();
        // What happens to names while no server runs.
        if let Some(name) = heard.first() {
            let table = name.split_once('.').unwrap().1;
            self.run(format!("ALTER TABLE {name} RENAME TO x")).await;
            self.insert("s.x").await;
            self.run(format!("ALTER TABLE s.x RENAME TO {table}")).await;
        }
        for name in &heard {
            self.insert(name).await;
        }
        (self.source, self.witness) = Self::start(&self.target, &self.history, self.wal);
        for name in heard {
            // Whose table is gone is refused, and listens no more.
            if !self.source.add(name).await {
                self.heard.remove(name);
            }
        }
        self.hear();
    }

    /// Everything came, or there was a gap after it.
    async fn nothing_is_missing(&mut self) {
        let mut all = false;
        for _ in 0..3 {
            all = comes_true(async || {
                self.hear();
                self.missing.is_empty()
            })
            .await;
            if all {
                break;
            }
        }
        assert!(all, "{:?} neither came nor has a gap after it: {:#?}", self.missing, self.log);
    }
}

async fn round(cluster: &PrivateCluster, wal: bool, seed: u64) {
    let name = format!("renames_{seed}");
    let (target, client) = database(cluster, &name).await;
    client.batch_execute(SETUP).await.unwrap();
    let (_mood, history) = Moody::new();
    let (source, witness) = World::start(&target, &history, wal);
    let (log, heard, missing) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
    let (client, next) = (connect(&database_url(cluster, &name)).await, 0);
    let mut world =
        World { target, client, history, wal, source, witness, log, heard, missing, next };
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    for name in ["s.a", "s.m"] {
        world.listen(name).await;
    }
    for _ in 0..STEPS {
        world.step(&mut dice).await;
    }
    world.nothing_is_missing().await;
    world.source.shutdown().await;
    if wal {
        drop_slot(&world.client).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_row_comes_under_a_name_it_was_not_written_under_from_the_log() {
    let cluster = own_cluster();
    for seed in 1..=ROUNDS {
        round(&cluster, true, seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_row_comes_under_a_name_it_was_not_written_under_from_the_outbox() {
    let cluster = own_cluster();
    for seed in 1..=ROUNDS {
        round(&cluster, false, seed).await;
    }
}
