//! A real pooler before PostgreSQL: it cannot replicate, and everybody is told what to do.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tidewire_postgres::connect::ErrorKind;
use tidewire_postgres::doctor::{self, Outcome};
use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::{Target, WalErrorKind, WalOptions, WalSource};

use super::{Rig, quick};
use crate::support::{own_cluster, until};

/// A PgBouncer in transaction mode before a cluster; it ends when dropped.
struct Bouncer {
    child: Child,
    place: TempDir,
}

/// Where `scripts/install-pgbouncer.sh` puts it, or the system has it.
fn program() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let places = [
        std::env::var_os("TIDEWIRE_PGBOUNCER").map(PathBuf::from),
        Some(root.join(".tidewire/pgbouncer/usr/sbin")),
        Some(PathBuf::from("/usr/sbin")),
        Some(PathBuf::from("/usr/bin")),
    ];
    let found = places.into_iter().flatten().map(|dir| dir.join("pgbouncer"));
    let found = found.into_iter().find(|path| path.is_file());
    if found.is_none() {
        println!("skipped: no PgBouncer here, see scripts/install-pgbouncer.sh");
    }
    found
}

impl Bouncer {
    /// With `settings` beside the necessary ones.
    async fn before(cluster: &PrivateCluster, settings: &str) -> Option<Self> {
        let program = program()?;
        let place = tempfile::tempdir().unwrap();
        // It refuses to run as root, as PostgreSQL does, so it runs as whoever owns the cluster.
        let owner = std::fs::metadata(cluster.data_dir()).unwrap();
        chown(place.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
        std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let (socket, port) = (cluster.socket_dir().unwrap(), cluster.port());
        let config = format!(
            "[databases]\n\
             postgres = host={} port={port} user=postgres dbname=postgres\n\
             [pgbouncer]\n\
             listen_addr =\nunix_socket_dir = {}\nauth_type = any\npool_mode = transaction\n\
             {settings}\n",
            socket.display(),
            place.path().display(),
        );
        let file = place.path().join("pgbouncer.ini");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(program);
        command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        if owner.uid() != nix::unistd::geteuid().as_raw() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        let bouncer = Self { child: command.spawn().unwrap(), place };
        bouncer.ready().await;
        Some(bouncer)
    }

    async fn ready(&self) {
        let socket = self.place.path().join(".s.PGSQL.6432");
        let listens = async || tokio::net::UnixStream::connect(&socket).await.is_ok();
        until("PgBouncer listens", listens).await;
    }

    fn target(&self) -> Target {
        let host = self.place.path().display();
        format!("host={host} port=6432 dbname=postgres user=postgres").parse().unwrap()
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        // One that ended by itself is gone as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const FIX: &str = "use a direct connection";

/// As it is out of the box, and as most set it so that drivers may say what they want.
const SETTINGS: [&str; 2] = ["", "ignore_startup_parameters = extra_float_digits, options"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_is_found_out_by_the_probe_and_by_reading() {
    let cluster = own_cluster();
    for settings in SETTINGS {
        let Some(bouncer) = Bouncer::before(&cluster, settings).await else { return };
        let refused = WalSource::probe(&bouncer.target(), &quick()).await.unwrap_err();
        assert_eq!(refused.kind(), WalErrorKind::Connection(ErrorKind::Pooler), "{refused}");
        assert!(refused.is_unsupported(), "`source = auto` takes the outbox then");
        assert!(refused.to_string().contains(FIX), "{refused}");
        let rig = Rig::with(&cluster, bouncer.target(), quick(), "").await;
        rig.until("an error", |source| source.status().last_error.is_some()).await;
        let told = rig.source.status().last_error.unwrap();
        assert!(told.contains(FIX), "{told}");
        rig.source.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_finds_a_pooler_and_says_what_to_do() {
    let cluster = own_cluster();
    for settings in SETTINGS {
        let Some(bouncer) = Bouncer::before(&cluster, settings).await else { return };
        let report = doctor::examine(&bouncer.target(), &WalOptions::default()).await;
        assert_ne!(report.outcome(), Outcome::Ok, "{}", report.text());
        assert!(report.text().contains(FIX), "{}", report.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_pooler_that_drops_settings_a_session_still_begins_with_ours() {
    let cluster = own_cluster();
    let hostile = "CREATE SCHEMA hostile;
        CREATE FUNCTION hostile.current_setting(text) RETURNS text LANGUAGE plpgsql
          AS $$BEGIN RAISE EXCEPTION 'hostile.current_setting ran'; END$$;
        ALTER DATABASE postgres SET search_path = hostile, pg_catalog";
    crate::support::sql(&cluster).await.batch_execute(hostile).await.unwrap();
    for settings in SETTINGS {
        let settings = format!("pool_mode = session\n{settings}");
        let Some(bouncer) = Bouncer::before(&cluster, &settings).await else { return };
        let report = doctor::examine(&bouncer.target(), &WalOptions::default()).await;
        assert_ne!(report.outcome(), Outcome::Fail, "{}", report.text());
        assert!(!report.text().contains("hostile."), "{}", report.text());
    }
}
