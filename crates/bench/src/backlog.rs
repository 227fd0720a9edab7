//! Rows that were written while nobody read them: through the server to a client, and by
//! PostgreSQL's own `pg_recvlogical`, which copies the same log and understands nothing of it.
//!
//! Both are charged from their start to the last row. The client comes while the server reads
//! already, so it is not there for the first rows; from its subscription on it must have all.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::clock::{self, SECOND};
use crate::process;
use crate::report::Report;
use crate::run;
use crate::scenario::Scenario;
use crate::server::{Program, Server};
use crate::stamp;
use crate::swarm::Swarm;
use crate::system::{self, Database, Places};

/// Rows, in transactions of a thousand.
const ROWS: u32 = 1_000_000;

/// For all of them to come through; they take five seconds on two slow cores.
const PATIENCE: u64 = 120 * SECOND;

/// Publication and slot of the server.
const SERVER: &str = "bench";

/// Slot of `pg_recvlogical`.
const BESIDE: &str = "beside";

/// What one reader of the log took.
#[derive(Clone, Copy)]
struct Took {
    seconds: f64,
    /// Processor time.
    cpu: f64,
}

/// Measures both, one after the other.
///
/// # Errors
/// When PostgreSQL or the server does not start, or the rows do not come through.
pub(crate) fn measure(scenario: &Scenario, places: &Places) -> anyhow::Result<Report> {
    fs::create_dir_all(&places.scratch).context("making a folder for logs")?;
    let (_alive, database) = system::database(scenario, places)?;
    let end = database.execute(&statements()).context("writing the rows")?;
    let mut report = Report {
        scenario: scenario.name.to_owned(),
        system: "tidewire".to_owned(),
        way: "insert".to_owned(),
        at: clock::since_1970(),
        subscribers: 1,
        topics: 1,
        payload_bytes: stamp::LENGTH as u64,
        published: u64::from(ROWS),
        ..Report::default()
    };
    match recvlogical(&database, &end.unwrap_or_default()) {
        Ok(Took { seconds, cpu }) => {
            report.beside_cpu_per_million = Some(cpu * 1e6 / f64::from(ROWS));
            report.beside_per_second = Some(f64::from(ROWS) / seconds);
        }
        Err(error) => report.notes.push(format!("nothing beside: {error:#}")),
    }
    let Took { seconds, cpu } = served(scenario, &database, places, &mut report)?;
    report.seconds = seconds;
    report.deliveries_per_second = f64::from(ROWS) / seconds;
    report.server_cpu_per_million = Some(cpu * 1e6 / f64::from(ROWS));
    report.server_cores = Some(cpu / seconds);
    Ok(report)
}

/// The table, both slots, the rows, and the end of the log.
fn statements() -> Vec<String> {
    let batch = 1_000;
    let last = ROWS / batch - 1;
    let digits = "000000000";
    [
        "CREATE TABLE bench0 (id bigint PRIMARY KEY, n int, uid uuid, name text, price numeric, \
         at timestamptz, body text)"
            .to_owned(),
        format!(
            "CREATE PUBLICATION {SERVER} FOR TABLE bench0 WITH (publish_via_partition_root = true)"
        ),
        format!("SELECT pg_create_logical_replication_slot('{SERVER}', 'pgoutput')"),
        format!("SELECT pg_create_logical_replication_slot('{BESIDE}', 'pgoutput')"),
        // Each body is the stamp of lane 0, topic 0, that number and no time.
        format!(
            "DO $$ BEGIN FOR batch IN 0..{last} LOOP \
             INSERT INTO bench0 SELECT n, n % 1000, gen_random_uuid(), 'name ' || n, n * 1.25, \
             now(), '~tw{digits}' || lpad(n::text, 10, '0') || '0{digits}{digits}~' \
             FROM generate_series(batch * {batch} + 1, (batch + 1) * {batch}) n; \
             COMMIT; END LOOP; END $$"
        ),
        "CHECKPOINT".to_owned(),
        "SELECT pg_current_wal_lsn()::text".to_owned(),
    ]
    .into()
}

fn recvlogical(database: &Database, end: &str) -> anyhow::Result<Took> {
    let mut program = Program::new(Path::new("pg_recvlogical"))?;
    let publication = format!("publication_names={SERVER}");
    program.command.args(["--start", "--slot", BESIDE, "--dbname", &database.url]);
    program.command.args(["-o", "proto_version=1", "-o", &publication]);
    program.command.args(["--endpos", end, "--file", "/dev/null", "--no-loop"]);
    program.command.stdin(Stdio::null()).stderr(Stdio::null());
    let (begun, before) = (clock::now(), process::of_ended_children());
    let status = program.command.status().context("running pg_recvlogical")?;
    if !status.success() {
        bail!("pg_recvlogical ended with {status}");
    }
    Ok(Took { seconds: since(begun), cpu: process::of_ended_children() - before })
}

/// The rows through the server to a client.
fn served(
    scenario: &Scenario,
    database: &Database,
    places: &Places,
    report: &mut Report,
) -> anyhow::Result<Took> {
    let begun = clock::now();
    let server = system::reader(&database.url, SERVER, places)?;
    let templates = run::templates(scenario, None)?;
    let mut swarm = Swarm::new(server.target.clone(), templates, 1, 1, stamp::LENGTH)?;
    swarm.open(0, 0, false)?;
    let first = watch(&mut swarm, begun)?;
    let took = Took { seconds: since(begun), cpu: cpu(&server) };
    let count = swarm.tally.count;
    report.deliveries = count.delivered;
    report.delivered_fraction = Some(count.delivered as f64 / f64::from(ROWS - first + 1));
    report.out_of_order = count.out_of_order;
    report.duplicates = count.duplicates;
    report.gaps = count.gaps;
    report.disconnects = count.disconnects;
    report.notes.push(format!(
        "the subscriber was there from row {first} on; the server kept {:.2} cores busy",
        took.cpu / took.seconds
    ));
    Ok(took)
}

/// Waits for the last row; the first that came.
fn watch(swarm: &mut Swarm, begun: u64) -> anyhow::Result<u32> {
    let mut first = None;
    while swarm.tally.last(0, 0) < ROWS {
        swarm.turn(Duration::from_millis(50))?;
        let delivered = u32::try_from(swarm.tally.count.delivered).unwrap_or(u32::MAX);
        if first.is_none() && delivered > 0 {
            first = Some(swarm.tally.last(0, 0) + 1 - delivered);
        }
        if clock::now() > begun + PATIENCE {
            let complaint = swarm.complaint.as_deref().unwrap_or("no complaint");
            bail!("the subscriber had {delivered} rows of {ROWS} in time; {complaint}");
        }
    }
    first.context("rows came")
}

fn since(begun: u64) -> f64 {
    (clock::now() - begun) as f64 / SECOND as f64
}

fn cpu(server: &Server) -> f64 {
    let used = server.watched.as_ref().map_or(0, |watched| watched.usage().cpu);
    used as f64 / SECOND as f64
}
