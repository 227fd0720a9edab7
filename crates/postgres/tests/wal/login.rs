//! How the log is logged in for: passwords, and TLS.

use std::path::Path;

use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::{Target, WalSource};

use super::basics::changes;
use super::{quick, table};
use crate::support::changes::Witness;
use crate::support::{own_cluster, sql, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_to_log_in_is_known() {
    let cluster = own_cluster();
    let sql = sql(&cluster).await;
    let hba = "local all all trust\nhost all scram 127.0.0.1/32 scram-sha-256\n\
               host all hashed 127.0.0.1/32 md5\nhost all clear 127.0.0.1/32 password\n";
    cluster.write_file("pg_hba.conf", hba).unwrap();
    sql.batch_execute(
        "CREATE ROLE scram SUPERUSER LOGIN PASSWORD 'se''cret';
         SET password_encryption = 'md5'; CREATE ROLE hashed SUPERUSER LOGIN PASSWORD 'se''cret';
         CREATE ROLE clear SUPERUSER LOGIN PASSWORD 'se''cret'",
    )
    .await
    .unwrap();
    sql.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let target_of = |user: &str, password: &str| -> Target {
        // A host that is down comes first.
        let ports = format!("port=1,{}", cluster.port());
        format!("host=127.0.0.1,127.0.0.1 {ports} dbname=postgres user={user} password={password}")
            .parse()
            .unwrap()
    };
    for user in ["scram", "hashed", "clear"] {
        let right = target_of(user, "se\\'cret");
        // A reload is carried out some moments after it was asked for.
        until(user, async || WalSource::probe(&right, &quick()).await.is_ok()).await;
        let wrong = WalSource::probe(&target_of(user, "wrong"), &quick()).await.unwrap_err();
        assert!(wrong.to_string().contains("check user and password"), "{wrong}");
        assert!(!wrong.is_unsupported());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_as_the_connection_string_says() {
    let cluster = own_cluster();
    let sql = sql(&cluster).await;
    let (ca, port) = certify(&cluster);
    sql.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    sql.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let words = |extra: &str| {
        format!(
            "host=localhost port={port} dbname=postgres user=postgres password={} {extra}",
            cluster.password()
        )
    };
    let verified = format!("sslmode=verify-full sslrootcert={}", ca.display());
    let probe = |extra: String| {
        let target: Target = words(&extra).parse().unwrap();
        async move { WalSource::probe(&target, &quick()).await }
    };
    let bound = format!("{verified} channel_binding=require");
    until("TLS is spoken", async || probe(verified.clone()).await.is_ok()).await;
    probe(bound).await.unwrap();
    let wrong_name = format!("{verified} hostaddr=127.0.0.1 host=other.example");
    let refused =
        WalSource::probe(&wrong_name_target(&cluster, &wrong_name), &quick()).await.unwrap_err();
    assert!(refused.to_string().contains("TLS handshake"), "{refused}");
    let plain = probe("sslmode=disable channel_binding=require".to_owned()).await.unwrap_err();
    assert!(plain.to_string().contains("channel_binding=require"), "{plain}");
    for mode in ["disable", "allow", "prefer", "require"] {
        probe(format!("sslmode={mode}")).await.unwrap_or_else(|error| panic!("{mode}: {error}"));
    }
    // A whole stream over TLS.
    let (publisher, mut witness) = Witness::new();
    let source = WalSource::start(words(&verified).parse().unwrap(), publisher, quick());
    sql.batch_execute("CREATE TABLE sealed (id int PRIMARY KEY)").await.unwrap();
    source.add(&table("public.sealed")).await.unwrap();
    sql.batch_execute("INSERT INTO sealed SELECT generate_series(1, 20000)").await.unwrap();
    source.catch_up().await.unwrap();
    assert_eq!(changes(witness.taken()).len(), 20_000);
}

fn wrong_name_target(cluster: &PrivateCluster, words: &str) -> Target {
    let (port, password) = (cluster.port(), cluster.password());
    format!("port={port} dbname=postgres user=postgres password={password} {words}")
        .parse()
        .unwrap()
}

/// Gives the cluster a certificate for localhost; gives its authority's and the port.
fn certify(cluster: &PrivateCluster) -> (std::path::PathBuf, u16) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let server = params.signed_by(&key, &ca).unwrap();
    for (name, contents) in
        [("server.crt", server.pem()), ("server.key", key.serialize_pem()), ("ca.pem", ca.pem())]
    {
        cluster.write_file(name, contents).unwrap();
    }
    (Path::new(&cluster.data_dir()).join("ca.pem"), cluster.port())
}
