//! `sslmode` against a server with a certificate of an authority made for the test.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tidewire_postgres::private_cluster::PrivateCluster;
use tidewire_postgres::{ConnectError, ErrorKind, Probe, Target};

use crate::support::{own_cluster, sql};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A cluster whose roles `only_tls` and `only_plain` may come in with and without TLS only.
struct Fixture {
    cluster: PrivateCluster,
    trusted: PathBuf,
    stranger: PathBuf,
}

impl Fixture {
    /// With a server certificate for `names`, and `common_name` as its subject.
    async fn new(names: &[&str], common_name: &str) -> Self {
        let cluster = own_cluster();
        let trusted = authority("trusted authority");
        let stranger = authority("somebody else");
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let server = params.signed_by(&key, &trusted).unwrap();
        let hba = "local all all trust\n\
                   hostssl all only_tls 127.0.0.1/32 trust\n\
                   hostnossl all only_plain 127.0.0.1/32 trust\n\
                   host all postgres 127.0.0.1/32 scram-sha-256\n";
        for (name, contents) in [
            ("server.crt", server.pem()),
            ("server.key", key.serialize_pem()),
            ("pg_hba.conf", hba.to_owned()),
            ("ca.pem", trusted.pem()),
            ("stranger.pem", stranger.pem()),
        ] {
            cluster.write_file(name, contents).unwrap();
        }
        let client = sql(&cluster).await;
        for statement in [
            "CREATE ROLE only_tls LOGIN",
            "CREATE ROLE only_plain LOGIN",
            "ALTER SYSTEM SET ssl = on",
            "SELECT pg_reload_conf()",
        ] {
            client.batch_execute(statement).await.unwrap();
        }
        let data = cluster.data_dir();
        let fixture =
            Self { cluster, trusted: data.join("ca.pem"), stranger: data.join("stranger.pem") };
        fixture.until_tls_is_on().await;
        fixture
    }

    /// A reload is carried out some moments after it was asked for.
    async fn until_tls_is_on(&self) {
        let on = async { while self.probe("user=only_tls sslmode=require").await.is_err() {} };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(10), on).await;
        waited.expect("TLS is on within 10 s");
    }

    async fn probe(&self, words: &str) -> Result<Probe, ConnectError> {
        let port = self.cluster.port();
        let words = format!("dbname=postgres port={port} hostaddr=127.0.0.1 {words}");
        words.parse::<Target>()?.probe().await
    }

    async fn encrypted(&self, words: &str) -> bool {
        self.probe(words).await.unwrap_or_else(|error| panic!("{words}: {error}")).encrypted
    }

    async fn refused(&self, words: &str) -> (ErrorKind, String) {
        let error = self.probe(words).await.expect_err(words);
        (error.kind(), error.to_string())
    }
}

#[tokio::test]
async fn each_mode_does_what_libpq_does() {
    let fixture = Fixture::new(&["localhost"], "the server").await;
    let trusted = format!("sslrootcert={}", fixture.trusted.display());
    let stranger = format!("sslrootcert={}", fixture.stranger.display());

    // Without TLS a hostssl line lets nobody in, and the other way round.
    let (kind, told) = fixture.refused("user=only_tls sslmode=disable").await;
    assert_eq!(kind, ErrorKind::Authentication);
    assert!(told.contains("no encryption") && told.contains("sslmode"), "{told}");
    let (kind, _) = fixture.refused("user=only_plain sslmode=require").await;
    assert_eq!(kind, ErrorKind::Authentication);

    // The modes that may do either.
    for mode in ["", "sslmode=allow", "sslmode=prefer"] {
        assert!(fixture.encrypted(&format!("user=only_tls {mode}")).await, "{mode}");
        assert!(!fixture.encrypted(&format!("user=only_plain {mode}")).await, "{mode}");
    }

    // Without a root certificate, require takes any certificate.
    assert!(fixture.encrypted("user=only_tls sslmode=require host=wrong.example").await);
    // With one it checks the chain, not the name.
    let words = format!("user=only_tls sslmode=require host=wrong.example {trusted}");
    assert!(fixture.encrypted(&words).await);
    let (kind, told) = fixture.refused(&format!("user=only_tls sslmode=require {stranger}")).await;
    assert_eq!(kind, ErrorKind::Tls);
    assert!(told.contains("sslrootcert"), "{told}");

    // verify-ca checks the chain, verify-full the name too.
    let words = format!("user=only_tls sslmode=verify-ca host=wrong.example {trusted}");
    assert!(fixture.encrypted(&words).await);
    let (kind, _) = fixture.refused(&format!("user=only_tls sslmode=verify-ca {stranger}")).await;
    assert_eq!(kind, ErrorKind::Tls);
    let words = format!("user=only_tls sslmode=verify-full host=localhost {trusted}");
    assert!(fixture.encrypted(&words).await);
    for wrong in ["host=wrong.example", ""] {
        let words = format!("user=only_tls sslmode=verify-full {wrong} {trusted}");
        let (kind, told) = fixture.refused(&words).await;
        assert_eq!(kind, ErrorKind::Tls);
        assert!(told.contains("not valid for name"), "{told}");
    }
    let words = format!("user=only_tls sslmode=verify-full host=localhost {stranger}");
    assert_eq!(fixture.refused(&words).await.0, ErrorKind::Tls);
}

#[tokio::test]
async fn a_certificate_without_alternative_names_is_known_by_its_common_name() {
    let fixture = Fixture::new(&[], "db.example").await;
    let trusted = format!("sslrootcert={}", fixture.trusted.display());
    let words = format!("user=only_tls sslmode=verify-full host=DB.example {trusted}");
    assert!(fixture.encrypted(&words).await);
    let words = format!("user=only_tls sslmode=verify-full host=other.example {trusted}");
    assert_eq!(fixture.refused(&words).await.0, ErrorKind::Tls);
}

#[tokio::test]
async fn a_servers_own_certificate_may_be_the_root() {
    let fixture = Fixture::new(&["localhost"], "unused").await;
    // As the PostgreSQL manual's openssl command makes one: self-signed and an authority.
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let own = params.self_signed(&key).unwrap();
    fixture.cluster.write_file("server.crt", own.pem()).unwrap();
    fixture.cluster.write_file("server.key", key.serialize_pem()).unwrap();
    fixture.cluster.write_file("ca.pem", own.pem()).unwrap();
    fixture.cluster.reload();
    let trusted = format!("sslrootcert={}", fixture.trusted.display());
    let words = format!("user=only_tls sslmode=verify-full host=localhost {trusted}");
    let on = async { while fixture.probe(&words).await.is_err() {} };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(10), on).await;
    waited.expect("the new certificate is used within 10 s");
    let words = format!("user=only_tls sslmode=verify-full host=wrong.example {trusted}");
    assert_eq!(fixture.refused(&words).await.0, ErrorKind::Tls);
}

#[tokio::test]
async fn a_password_is_checked_over_tls_and_never_told() {
    let fixture = Fixture::new(&["localhost"], "the server").await;
    let right = fixture.cluster.password().to_owned();
    let words = format!("user=postgres sslmode=require channel_binding=require password={right}");
    assert!(fixture.encrypted(&words).await);
    let (kind, told) = fixture.refused("user=postgres sslmode=require password=hunter2").await;
    assert_eq!(kind, ErrorKind::Authentication);
    assert!(!told.contains("hunter2"), "{told}");
    let (kind, told) = fixture.refused("user=postgres sslmode=require").await;
    assert_eq!(kind, ErrorKind::Authentication);
    assert!(told.contains("password missing"), "{told}");
}

#[tokio::test]
async fn each_way_of_failing_is_told_apart() {
    let fixture = Fixture::new(&["localhost"], "the server").await;
    let nobody = "postgresql://u:hunter2@127.0.0.1:1/d".parse::<Target>().unwrap();
    let error = nobody.probe().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(!format!("{error:?} {error}").contains("hunter2"), "{error:?}");
    let (kind, told) = fixture.refused("user=only_tls sslmode=require dbname=nowhere").await;
    assert_eq!(kind, ErrorKind::Configuration);
    assert!(told.contains("\"nowhere\" does not exist"), "{told}");
    // The second host is tried when the first does not answer.
    let port = fixture.cluster.port();
    let words = format!("user=only_tls dbname=postgres host=127.0.0.1,127.0.0.1 port=1,{port}");
    assert!(words.parse::<Target>().unwrap().probe().await.unwrap().encrypted);
}
