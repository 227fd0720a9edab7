//! Tables that are renamed, swapped, moved, dropped, or leave the publication and come back: a topic
//! is that of one relation at a time, and what happened meanwhile is a gap.

use std::sync::Arc;

use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::{SlotKind, WalOptions, WalSource};
use tokio_postgres::Client;

use super::{Rig, quick, table};
use crate::support::changes::{Witness, word};
use crate::support::moody::Moody;
use crate::support::{newer_cluster, own_cluster, sql, target, until};

/// Something that is done to the tables `s.a` and `s.b` while both are listened to.
struct Case {
    /// Each statement by itself, between them nothing that the server could look at.
    done: &'static [&'static str],
    /// Topics with a gap then.
    gaps: &'static [&'static str],
    /// What is written afterwards, and what comes of it.
    after: &'static str,
    told: &'static [&'static str],
}

const TABLES: &str = "
DROP SCHEMA IF EXISTS s CASCADE; DROP SCHEMA IF EXISTS s2 CASCADE; CREATE SCHEMA s;
DROP SCHEMA IF EXISTS other CASCADE; CREATE SCHEMA other;
CREATE TABLE s.a (id int PRIMARY KEY); CREATE TABLE s.b (id int PRIMARY KEY);
CREATE TABLE s.m (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE s.m1 PARTITION OF s.m FOR VALUES FROM (0) TO (100);
CREATE TABLE s.k (id int PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE s.k1 PARTITION OF s.k FOR VALUES FROM (0) TO (100)";

const TOPICS: [&str; 4] = ["s.a", "s.b", "s.m", "s.k"];

const CASES: &[Case] = &[
    Case {
        done: &["ALTER TABLE s.a RENAME TO secret", "INSERT INTO s.secret VALUES (1)"],
        gaps: &["s.a"],
        after: "INSERT INTO s.secret VALUES (2); INSERT INTO s.b VALUES (3)",
        told: &["s.b 3"],
    },
    Case {
        done: &["BEGIN; ALTER TABLE s.a RENAME TO tmp; ALTER TABLE s.b RENAME TO a; \
             ALTER TABLE s.tmp RENAME TO b; COMMIT"],
        gaps: &["s.a", "s.b"],
        after: "INSERT INTO s.a VALUES (1); INSERT INTO s.b VALUES (2)",
        told: &["s.a 1", "s.b 2"],
    },
    Case {
        done: &[
            "ALTER TABLE s.a RENAME TO x",
            "INSERT INTO s.x VALUES (1)",
            "ALTER TABLE s.x RENAME TO a",
        ],
        gaps: &["s.a"],
        after: "INSERT INTO s.a VALUES (2)",
        told: &["s.a 2"],
    },
    Case {
        done: &[
            "CREATE TABLE s.a_new (id int PRIMARY KEY)",
            "INSERT INTO s.a_new VALUES (1)",
            "BEGIN; ALTER TABLE s.a RENAME TO a_old; ALTER TABLE s.a_new RENAME TO a; COMMIT",
        ],
        gaps: &["s.a"],
        after: "INSERT INTO s.a VALUES (2); INSERT INTO s.a_old VALUES (3)",
        told: &["s.a 2"],
    },
    Case {
        done: &["DROP TABLE s.a", "CREATE TABLE s.a (id int PRIMARY KEY)"],
        gaps: &["s.a"],
        after: "INSERT INTO s.a VALUES (1)",
        told: &["s.a 1"],
    },
    Case {
        done: &["ALTER SCHEMA s RENAME TO s2", "INSERT INTO s2.a VALUES (1)"],
        gaps: &TOPICS,
        after: "INSERT INTO s2.a VALUES (2); INSERT INTO s2.m VALUES (3)",
        told: &[],
    },
    Case {
        done: &[
            "ALTER SCHEMA s RENAME TO s2",
            "INSERT INTO s2.a VALUES (1)",
            "INSERT INTO s2.m VALUES (1)",
            "ALTER SCHEMA s2 RENAME TO s",
        ],
        gaps: &TOPICS,
        after: "INSERT INTO s.a VALUES (2); INSERT INTO s.m VALUES (3)",
        told: &["s.a 2", "s.m 3"],
    },
    Case {
        done: &[
            "ALTER TABLE s.a SET SCHEMA other",
            "INSERT INTO other.a VALUES (1)",
            "ALTER TABLE other.a SET SCHEMA s",
        ],
        gaps: &["s.a"],
        after: "INSERT INTO s.a VALUES (2)",
        told: &["s.a 2"],
    },
    Case {
        done: &[
            "BEGIN; ALTER TABLE s.m RENAME TO tmp; ALTER TABLE s.k RENAME TO m; \
             ALTER TABLE s.tmp RENAME TO k; COMMIT",
            "INSERT INTO s.m1 VALUES (1)",
        ],
        gaps: &["s.m", "s.k"],
        after: "INSERT INTO s.m1 VALUES (2); INSERT INTO s.k1 VALUES (3)",
        told: &["s.k 2", "s.m 3"],
    },
    Case {
        done: &["ALTER TABLE s.m RENAME TO n", "INSERT INTO s.m1 VALUES (1)"],
        gaps: &["s.m"],
        after: "INSERT INTO s.m1 VALUES (2); INSERT INTO s.a VALUES (3)",
        told: &["s.a 3"],
    },
    Case {
        done: &[
            "TRUNCATE s.b",
            "ALTER TABLE s.a ADD COLUMN n int",
            "GRANT SELECT ON s.a TO PUBLIC",
        ],
        gaps: &[],
        after: "INSERT INTO s.a VALUES (1)",
        told: &["s.b TRUNCATE", "s.a 1"],
    },
];

/// As [`CASES`], with a publication of somebody's own called `mine`.
const PUBLISHED: &[(&str, Case)] = &[
    (
        "FOR TABLE s.a, s.b, s.m, s.k",
        Case {
            done: &[
                "ALTER PUBLICATION mine DROP TABLE s.a",
                "INSERT INTO s.a VALUES (1)",
                "ALTER PUBLICATION mine ADD TABLE s.a",
            ],
            gaps: &["s.a"],
            after: "INSERT INTO s.a VALUES (2); INSERT INTO s.b VALUES (3)",
            told: &["s.a 2", "s.b 3"],
        },
    ),
    (
        "FOR TABLE s.a, s.b, s.m, s.k",
        Case {
            done: &[
                "ALTER PUBLICATION mine SET TABLE s.b, s.m, s.k",
                "INSERT INTO s.a VALUES (1)",
                "ALTER PUBLICATION mine SET TABLE s.b, s.a, s.m, s.k",
            ],
            gaps: &["s.a"],
            after: "INSERT INTO s.a VALUES (2)",
            told: &["s.a 2"],
        },
    ),
    (
        "FOR TABLE s.a, s.b, s.m, s.k",
        Case {
            done: &[
                "ALTER PUBLICATION mine SET (publish = 'insert')",
                "UPDATE s.a SET id = id + 1",
                "ALTER PUBLICATION mine SET (publish = 'insert, update, delete, truncate')",
            ],
            gaps: &TOPICS,
            after: "INSERT INTO s.a VALUES (2)",
            told: &["s.a 2"],
        },
    ),
    (
        "FOR ALL TABLES",
        Case {
            done: &["DROP TABLE s.a", "CREATE TABLE s.a (id int PRIMARY KEY)"],
            gaps: &["s.a"],
            after: "INSERT INTO s.a VALUES (2)",
            told: &["s.a 2"],
        },
    ),
    (
        "FOR ALL TABLES",
        Case {
            done: &["ALTER TABLE s.a RENAME TO old", "ALTER TABLE s.b RENAME TO a"],
            gaps: &["s.a", "s.b"],
            after: "INSERT INTO s.a VALUES (2); INSERT INTO s.old VALUES (3)",
            told: &["s.a 2"],
        },
    ),
    (
        "FOR TABLES IN SCHEMA s",
        Case {
            done: &[
                "ALTER TABLE s.a SET SCHEMA other",
                "INSERT INTO other.a VALUES (1)",
                "ALTER TABLE other.a SET SCHEMA s",
            ],
            gaps: &["s.a"],
            after: "INSERT INTO s.a VALUES (2)",
            told: &["s.a 2"],
        },
    ),
    (
        "FOR TABLES IN SCHEMA s",
        Case {
            done: &[
                "ALTER PUBLICATION mine DROP TABLES IN SCHEMA s",
                "INSERT INTO s.a VALUES (1)",
                "ALTER PUBLICATION mine ADD TABLES IN SCHEMA s",
            ],
            gaps: &["s.a", "s.b"],
            after: "INSERT INTO s.a VALUES (2)",
            told: &["s.a 2"],
        },
    ),
];

impl Case {
    /// Does it under a source and looks at what is told.
    async fn check(&self, rig: &mut Rig) {
        for done in self.done {
            rig.run(done).await;
        }
        self.check_done(rig).await;
    }

    async fn check_done(&self, rig: &mut Rig) {
        let mut gaps: Vec<&str> = self.gaps.to_vec();
        let mut rows = Vec::new();
        while !gaps.is_empty() {
            let word = word(&rig.witness.next().await);
            match word.strip_suffix(" gap") {
                Some(topic) => gaps.retain(|other| *other != topic),
                None => rows.push(word),
            }
        }
        for topic in TOPICS {
            // It may be gone.
            let _ = rig.source.add(&table(topic)).await;
        }
        rig.run(self.after).await;
        let told = rig.caught_up().await;
        rows.extend(told.iter().map(word).filter(|word| !word.ends_with(" gap")));
        assert_eq!(rows, self.told, "{:?}", self.done);
    }
}

async fn check(cluster: &PrivateCluster) {
    for case in CASES {
        let mut rig = Rig::new(cluster, TABLES).await;
        listen(&mut rig).await;
        case.check(&mut rig).await;
        rig.source.shutdown().await;
    }
    for (publication, case) in PUBLISHED {
        let setup = format!(
            "{TABLES}; DROP PUBLICATION IF EXISTS mine; CREATE PUBLICATION mine {publication}"
        );
        let options = WalOptions { publication: Some("mine".to_owned()), ..quick() };
        let mut rig = Rig::with(cluster, target(cluster), options, &setup).await;
        listen(&mut rig).await;
        case.check(&mut rig).await;
        rig.source.shutdown().await;
    }
}

async fn listen(rig: &mut Rig) {
    for topic in TOPICS {
        // FOR ALL TABLES sends partitions as tables of their own.
        let _ = rig.source.add(&table(topic)).await;
    }
    rig.caught_up().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_topic_is_that_of_one_relation_at_a_time() {
    check(&own_cluster()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_topic_is_that_of_one_relation_at_a_time_on_a_newer_server() {
    if let Some(cluster) = newer_cluster() {
        check(&cluster).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_happened_to_names_while_no_server_ran_is_a_gap() {
    let cluster = own_cluster();
    for case in CASES.iter().chain(PUBLISHED[..2].iter().map(|(_, case)| case)) {
        sql(&cluster).await.batch_execute(TABLES).await.unwrap();
        let publish = "DROP PUBLICATION IF EXISTS mine; CREATE PUBLICATION mine";
        sql(&cluster).await.batch_execute(publish).await.unwrap();
        let (_mood, history) = Moody::new();
        let mut rig = begin(&cluster, &history).await;
        listen(&mut rig).await;
        rig.source.shutdown().await;
        for done in case.done {
            rig.run(done).await;
        }
        let mut rig = begin(&cluster, &history).await;
        case.check_done(&mut rig).await;
        rig.source.shutdown().await;
        drop_slot(&rig.sql).await;
    }
}

/// Once PostgreSQL has seen that its reader is gone.
pub(crate) async fn drop_slot(sql: &Client) {
    let drop = "SELECT pg_drop_replication_slot('kept')";
    until("the slot is free", async || sql.batch_execute(drop).await.is_ok()).await;
}

async fn begin(cluster: &PrivateCluster, history: &Arc<Moody>) -> Rig {
    let slot = SlotKind::Persistent { name: "kept".to_owned(), failover: false };
    let (publisher, witness) = Witness::with(Arc::clone(history) as _);
    let options = WalOptions { slot, publication: Some("mine".to_owned()), ..quick() };
    let source = WalSource::start(target(cluster), publisher, options);
    Rig { source, witness, sql: sql(cluster).await }
}
