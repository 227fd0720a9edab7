//! The launcher itself.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use tidewire_postgres::private_cluster::{ClusterError, Options, PrivateCluster};

#[test]
fn a_cluster_starts_stops_and_starts_again_on_its_port() {
    let mut cluster = PrivateCluster::temporary(Options::default()).unwrap();
    let (dir, port) = (cluster.dir().to_owned(), cluster.port());
    let socket = cluster.socket_dir().unwrap().join(format!(".s.PGSQL.{port}"));
    UnixStream::connect(&socket).unwrap();
    cluster.stop();
    assert!(!cluster.is_running());
    assert!(UnixStream::connect(&socket).is_err());
    cluster.resume().unwrap();
    assert_eq!(cluster.port(), port);
    UnixStream::connect(&socket).unwrap();
    drop(cluster);
    assert!(!dir.exists(), "a temporary cluster leaves nothing");
}

#[test]
fn two_programs_cannot_use_one_directory() {
    let first = PrivateCluster::temporary(Options::default()).unwrap();
    let refused = PrivateCluster::start(first.dir(), Options::default()).unwrap_err();
    assert!(matches!(refused, ClusterError::Busy { .. }), "{refused}");
    assert!(refused.to_string().contains("already running as process"));
    assert!(first.is_running());
}

#[test]
fn a_bad_setting_is_told_with_the_words_of_the_server() {
    let options = Options::default().setting("no_such_setting", "1");
    let refused = PrivateCluster::temporary(options).unwrap_err();
    assert!(refused.to_string().contains("no_such_setting"), "{refused}");
}

#[test]
fn missing_binaries_are_told_with_the_fix() {
    let refused =
        PrivateCluster::temporary(Options::default().bin_dir("/nonexistent")).unwrap_err();
    assert!(refused.to_string().contains("apt-get install postgresql"), "{refused}");
}

#[test]
fn another_version_is_told_before_anything_is_started() {
    let mut cluster = PrivateCluster::temporary(Options::default()).unwrap();
    cluster.stop();
    fs::write(cluster.data_dir().join("PG_VERSION"), "9\n").unwrap();
    let refused = PrivateCluster::start(cluster.dir(), Options::default()).unwrap_err();
    assert!(matches!(refused, ClusterError::Version { .. }), "{refused}");
}

#[test]
fn a_directory_that_the_servers_user_cannot_reach_is_replaced() {
    if !nix::unistd::Uid::effective().is_root() {
        // Only root hands the server to another user.
        return;
    }
    let private = std::env::temp_dir().join(format!("tidewire-private-{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&private).unwrap();
    let cluster = PrivateCluster::start(private.join("pg"), Options::default()).unwrap();
    let dir = cluster.dir().to_owned();
    assert!(cluster.is_running() && dir.starts_with("/var/tmp"), "{dir:?}");
    drop(cluster);
    let again = PrivateCluster::start(private.join("pg"), Options::default()).unwrap();
    assert_eq!(again.dir(), dir, "what was stored is found again");
    drop(again);
    fs::remove_dir_all(dir).unwrap();
    fs::remove_dir(private).unwrap();
}

/// A killed program cannot stop anything, so the kernel has to.
#[test]
fn a_killed_program_takes_its_server_along() {
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "private_cluster::hold_a_cluster", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let dir = BufReader::new(program.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .find_map(|line| line.strip_prefix("cluster in ").map(str::to_owned))
        .unwrap();
    let pid_file = format!("{dir}/data/postmaster.pid");
    assert!(fs::exists(&pid_file).unwrap());
    program.kill().unwrap();
    program.wait().unwrap();
    let deadline = SystemTime::now() + Duration::from_secs(10);
    while fs::exists(&pid_file).unwrap() {
        assert!(SystemTime::now() < deadline, "postgres outlived the killed program");
        std::thread::yield_now();
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
#[ignore = "run as a program of its own by the test before"]
fn hold_a_cluster() {
    let cluster = PrivateCluster::temporary(Options::default()).unwrap();
    println!("\ncluster in {}", cluster.dir().display());
    let _ = std::io::stdin().read(&mut [0]);
}
