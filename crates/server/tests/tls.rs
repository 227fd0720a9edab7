//! TLS on the listening address, and a renewed certificate without a restart.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use nix::sys::signal::Signal;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Program, run_program, soon};

/// Puts a new certificate and its key into a folder.
fn renew(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(folder.join("certificate.pem"), made.cert.pem()).expect("a file");
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
    made.cert.der().clone()
}

/// A connection of somebody who trusts this certificate alone.
async fn connect(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    soon("the handshake", TlsConnector::from(Arc::new(config)).connect(name, socket)).await
}

async fn hear(client: &mut WebSocketStream<TlsStream<TcpStream>>) -> Value {
    match soon("a frame", client.next()).await {
        Some(Ok(Message::Text(text))) => serde_json::from_str(&text).expect("JSON"),
        other => panic!("unexpected: {other:?}"),
    }
}

#[tokio::test]
async fn clients_are_served_over_tls_and_a_certificate_is_renewed_on_a_hangup() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = renew(folder.path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (certificate, key) = (path("certificate.pem"), path("key.pem"));
    let variables = [
        ("TIDEWIRE_LISTEN", "127.0.0.1:0"),
        ("TIDEWIRE_TLS_CERTIFICATE", &*certificate),
        ("TIDEWIRE_TLS_KEY", &*key),
    ];
    let (program, address) = Program::serve(&[], &variables).await;
    let stream = connect(address, &first).await.expect("a trusted server");
    let url = "wss://localhost/v1/ws";
    let upgrade = Box::pin(tokio_tungstenite::client_async(url, stream));
    let (mut client, _) = soon("the upgrade", upgrade).await.expect("an upgrade");
    assert_eq!(hear(&mut client).await["type"], "welcome");

    let second = renew(folder.path());
    program.signal(Signal::SIGHUP);
    program.logged("configuration read again").await;
    connect(address, &second).await.expect("the new certificate");
    assert!(connect(address, &first).await.is_err(), "the old one is not shown any more");

    // Who is connected did not notice.
    for frame in [
        json!({ "type": "subscribe", "topic": "room" }),
        json!({ "type": "publish", "topic": "room", "data": 1 }),
    ] {
        client.send(Message::text(frame.to_string())).await.expect("the connection lives");
    }
    assert_eq!(hear(&mut client).await["type"], "subscribed");
    assert_eq!(hear(&mut client).await["data"], 1);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_is_named_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    renew(folder.path());
    let certificate = folder.path().join("certificate.pem").display().to_string();
    let variables = [
        ("TIDEWIRE_LISTEN", "127.0.0.1:0"),
        ("TIDEWIRE_TLS_CERTIFICATE", &*certificate),
        ("TIDEWIRE_TLS_KEY", &*certificate),
    ];
    let refused = run_program(&[], &variables).await;
    let message = String::from_utf8(refused.stderr).expect("UTF-8");
    assert!(!refused.status.success() && message.contains("tls.key"), "{message}");
}
