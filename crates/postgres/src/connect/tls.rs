//! TLS to PostgreSQL as libpq's parameters describe it.
//!
//! Files are read anew for each connection, so a renewed certificate needs no restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, SupportedProtocolVersion};

use super::error::ConnectError;
use super::verifier::{self, Check};

/// libpq's `sslmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS only when the server insists.
    Allow,
    /// TLS when the server can, otherwise none; libpq's default, and no protection from an
    /// attacker.
    #[default]
    Prefer,
    /// Always TLS; the certificate is checked only when there is a root certificate.
    Require,
    /// Always TLS, with a certificate signed by a trusted authority.
    VerifyCa,
    /// As [`SslMode::VerifyCa`], and the certificate is for the host's name.
    VerifyFull,
}

impl SslMode {
    const ALL: [Self; 6] =
        [Self::Disable, Self::Allow, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];

    /// The word for it in connection strings.
    pub fn word(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    pub(super) fn from_word(word: &str) -> Result<Self, ConnectError> {
        Self::ALL.into_iter().find(|mode| mode.word() == word).ok_or_else(|| {
            let words = Self::ALL.map(Self::word).join(", ");
            ConnectError::configuration(format!("sslmode must be one of {words}"))
        })
    }

    /// Whether to try with TLS, in order; a later one only when the earlier was turned down.
    pub(super) fn attempts(self) -> &'static [bool] {
        match self {
            Self::Disable => &[false],
            Self::Allow => &[false, true],
            Self::Prefer => &[true, false],
            Self::Require | Self::VerifyCa | Self::VerifyFull => &[true],
        }
    }
}

/// Which authorities are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Roots {
    /// `~/.postgresql/root.crt`, if it is there.
    #[default]
    Home,
    /// Those of the operating system.
    System,
    /// Those in a file.
    File(PathBuf),
}

/// All parameters that begin with `ssl`.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    mode: Option<SslMode>,
    roots: Roots,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    only_tls13: bool,
    no_sni: bool,
}

impl Tls {
    /// Takes a parameter; `Ok(false)` when it is none of TLS.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool, ConnectError> {
        match (name, value) {
            ("sslmode", word) => self.mode = Some(SslMode::from_word(word)?),
            ("sslrootcert", "system") => self.roots = Roots::System,
            ("sslrootcert", path) => self.roots = Roots::File(path.into()),
            ("sslcert", path) => self.certificate = Some(path.into()),
            ("sslkey", path) => self.key = Some(path.into()),
            ("sslsni", flag) => self.no_sni = flag == "0",
            ("ssl_min_protocol_version", "TLSv1.3") => self.only_tls13 = true,
            // Older versions than 1.2 are never spoken here.
            ("ssl_min_protocol_version", "TLSv1" | "TLSv1.1" | "TLSv1.2" | "") => {}
            // Compression does not exist in any TLS library that is in use.
            ("sslcompression", _) => {}
            (name, _) if name.starts_with("ssl") && name != "sslnegotiation" => {
                return Err(ConnectError::configuration(format!(
                    "the PostgreSQL connection parameter `{name}` is not supported with this \
                     value: leave it out"
                )));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The mode; like libpq, trusting the system's authorities asks for the strictest.
    pub(super) fn mode(&self) -> SslMode {
        self.mode.unwrap_or(match self.roots {
            Roots::System => SslMode::VerifyFull,
            _ => SslMode::default(),
        })
    }

    /// Checks what can be checked without a connection.
    pub(super) fn validate(&self) -> Result<(), ConnectError> {
        if self.roots == Roots::System && self.mode() < SslMode::VerifyFull {
            return Err(ConnectError::configuration(format!(
                "sslmode {} with sslrootcert=system would let anyone with any certificate in: use \
                 sslmode=verify-full",
                self.mode().word()
            )));
        }
        match self.mode() {
            SslMode::Disable => Ok(()),
            _ => self.config().map(drop),
        }
    }

    /// Reads the files and makes the settings for one connection.
    pub(super) fn config(&self) -> Result<ClientConfig, ConnectError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = verifier::verifier(self.check()?, Arc::clone(&provider))?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions())
            .expect("the provider speaks TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match self.identity()? {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
                ConnectError::configuration(format!("sslcert and sslkey do not fit: {error}"))
            })?,
        };
        config.enable_sni = !self.no_sni;
        // What sslnegotiation=direct asks for; without it nobody looks at it.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(config)
    }

    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        static ONLY_TLS13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
        if self.only_tls13 { ONLY_TLS13 } else { rustls::ALL_VERSIONS }
    }

    /// What is asked of the server's certificate. As in libpq, a root certificate that is there is
    /// used in every mode.
    fn check(&self) -> Result<Check, ConnectError> {
        let roots = match &self.roots {
            Roots::System => Some(system_roots()?),
            Roots::File(path) => Some(certificates(path, "sslrootcert")?),
            Roots::Home => match home_file("root.crt") {
                Some(path) => Some(certificates(&path, "the root certificate")?),
                None => None,
            },
        };
        match (self.mode(), roots) {
            (SslMode::VerifyFull, Some(roots)) => Ok(Check::ChainAndName(roots)),
            (SslMode::VerifyFull | SslMode::VerifyCa, None) => {
                Err(ConnectError::configuration(format!(
                    "sslmode {} needs to know whom to trust: add sslrootcert=FILE with the \
                     authority's certificate, or sslrootcert=system",
                    self.mode().word()
                )))
            }
            (_, Some(roots)) => Ok(Check::Chain(roots)),
            (_, None) => Ok(Check::Nothing),
        }
    }

    /// Our own certificate and its key, when there is one.
    fn identity(&self) -> Result<Option<Identity>, ConnectError> {
        let Some(certificate) = self.certificate.clone().or_else(|| home_file("postgresql.crt"))
        else {
            return Ok(None);
        };
        let key =
            self.key.clone().or_else(|| home_file("postgresql.key")).ok_or_else(|| {
                ConnectError::configuration("sslcert is given without its sslkey")
            })?;
        let chain = certificates(&certificate, "sslcert")?;
        let key = PrivateKeyDer::from_pem_file(&key).map_err(|error| {
            ConnectError::configuration(format!(
                "sslkey {} cannot be read as an unencrypted key in PEM: {error}",
                key.display()
            ))
        })?;
        Ok(Some((chain, key)))
    }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A file in libpq's directory of the user, if it is there.
fn home_file(name: &str) -> Option<PathBuf> {
    std::env::home_dir()
        .map(|home| home.join(".postgresql").join(name))
        .filter(|path| path.exists())
}

fn certificates(path: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let unreadable = |error: &dyn std::fmt::Display| {
        ConnectError::configuration(format!(
            "{what} {} cannot be read as certificates in PEM: {error}",
            path.display()
        ))
    };
    let found = CertificateDer::pem_file_iter(path)
        .map_err(|error| unreadable(&error))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unreadable(&error))?;
    if found.is_empty() { Err(unreadable(&"there is none in it")) } else { Ok(found) }
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let loaded = rustls_native_certs::load_native_certs();
    if loaded.certs.is_empty() {
        return Err(ConnectError::configuration(
            "sslrootcert=system finds no certificates on this machine: on Debian install \
             ca-certificates",
        ));
    }
    Ok(loaded.certs)
}

/// Settings for a connection that speaks no TLS; tokio-postgres wants some all the same.
pub(super) fn unused() -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider speaks TLS 1.2 and 1.3")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

/// The provider all of this uses, for those who check signatures.
pub(super) type Provider = Arc<CryptoProvider>;
