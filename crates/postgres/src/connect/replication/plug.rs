//! The stream of bytes under a line: a socket, with TLS or without.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use sha2::{Digest, Sha256, Sha384, Sha512};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio_postgres::Config;
use tokio_postgres::config::SslNegotiation;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::db::rfc5912;

use super::socket::Socket;
use super::{Host, LineError, Place};
use crate::connect::Inner;

/// What is under TLS. It reads a few kilobytes at a time, so more is read ahead for it.
type Encrypted = BufReader<Socket<TcpStream>>;

/// Bytes read ahead under TLS.
const AHEAD: usize = 64 * 1024;

/// A stream of bytes to the server.
pub(crate) enum Plug {
    Unix(Socket<UnixStream>),
    Tcp(Socket<TcpStream>),
    Tls(Box<TlsStream<Encrypted>>),
}

/// Opens one, the way the connection string says.
pub(super) async fn open(host: &Host, inner: &Inner, with_tls: bool) -> Result<Plug, LineError> {
    match &host.place {
        Place::Unix(dir) => {
            let path = dir.join(format!(".s.PGSQL.{}", host.port));
            Ok(Plug::Unix(Socket::new(UnixStream::connect(path).await?)))
        }
        Place::Tcp { name, address } => {
            let socket = match address {
                Some(address) => TcpStream::connect((*address, host.port)).await?,
                None => connect_to_any(name, host.port).await?,
            };
            prepare(&socket, &inner.base)?;
            if !with_tls {
                return Ok(Plug::Tcp(Socket::new(socket)));
            }
            let config = inner.tls.config().map_err(LineError::Refused)?;
            let connector = TlsConnector::from(Arc::new(config));
            let stream = encrypt(socket, connector, name, inner.base.get_ssl_negotiation()).await?;
            Ok(Plug::Tls(Box::new(stream)))
        }
    }
}

async fn connect_to_any(name: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host's name has no address");
    let addresses: Vec<SocketAddr> = lookup_host((name, port)).await?.collect();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn prepare(socket: &TcpStream, base: &Config) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let options = SockRef::from(socket);
    #[cfg(target_os = "linux")]
    if let Some(timeout) = base.get_tcp_user_timeout() {
        options.set_tcp_user_timeout(Some(*timeout))?;
    }
    if base.get_keepalives() {
        let mut keepalive = TcpKeepalive::new().with_time(base.get_keepalives_idle());
        if let Some(interval) = base.get_keepalives_interval() {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(retries) = base.get_keepalives_retries() {
            keepalive = keepalive.with_retries(retries);
        }
        options.set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

async fn encrypt(
    mut socket: TcpStream,
    connector: TlsConnector,
    name: &str,
    negotiation: SslNegotiation,
) -> Result<TlsStream<Encrypted>, LineError> {
    if negotiation == SslNegotiation::Postgres {
        let mut out = bytes::BytesMut::new();
        postgres_protocol::message::frontend::ssl_request(&mut out);
        socket.write_all(&out).await?;
        // One byte and no more: whatever followed in the clear could be an attacker's.
        if socket.read_u8().await? != b'S' {
            return Err(LineError::Tls("the server does not support TLS".to_owned()));
        }
    }
    let name =
        ServerName::try_from(name.to_owned()).map_err(|error| LineError::Tls(error.to_string()))?;
    let socket = BufReader::with_capacity(AHEAD, Socket::new(socket));
    let connected = connector.connect(name, socket).await;
    connected.map_err(|error| LineError::Tls(format!("error performing TLS handshake: {error}")))
}

impl Plug {
    /// Leaves the stream alone until it is next used, so that bytes gather in it.
    ///
    /// # Errors
    /// When Tokio cannot let go of the socket.
    pub(crate) fn rest(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.rest(),
            Self::Tcp(stream) => stream.rest(),
            Self::Tls(stream) => stream.get_mut().0.get_mut().rest(),
        }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// What ties the password's proof to this TLS connection: a digest of the server's
    /// certificate, by the digest that its signature uses (RFC 5929).
    pub(super) fn channel_binding(&self) -> Option<Vec<u8>> {
        let Self::Tls(stream) = self else { return None };
        let certificate = stream.get_ref().1.peer_certificates()?.first()?;
        let signed_with = Certificate::from_der(certificate).ok()?.signature_algorithm.oid;
        match signed_with {
            // SHA-1 counts as SHA-256.
            rfc5912::ID_SHA_1
            | rfc5912::ID_SHA_256
            | rfc5912::SHA_1_WITH_RSA_ENCRYPTION
            | rfc5912::SHA_256_WITH_RSA_ENCRYPTION
            | rfc5912::ECDSA_WITH_SHA_256 => Some(Sha256::digest(certificate).to_vec()),
            rfc5912::ID_SHA_384
            | rfc5912::SHA_384_WITH_RSA_ENCRYPTION
            | rfc5912::ECDSA_WITH_SHA_384 => Some(Sha384::digest(certificate).to_vec()),
            rfc5912::ID_SHA_512 | rfc5912::SHA_512_WITH_RSA_ENCRYPTION => {
                Some(Sha512::digest(certificate).to_vec())
            }
            // Others, such as Ed25519, have none.
            _ => None,
        }
    }
}

impl AsyncRead for Plug {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Plug {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
