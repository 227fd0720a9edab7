//! What is asked of a server's certificate: nothing, its chain, or its chain and its name.
//!
//! rustls does the checking. Three habits of libpq are added: the name may be left out, a server's
//! self-signed certificate may itself be the root, and a certificate without alternative names may
//! carry the host's name as its common name.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::db::{rfc4519::COMMON_NAME, rfc5912::ID_CE_SUBJECT_ALT_NAME};

use super::error::ConnectError;
use super::tls::Provider;

/// What is asked of a server's certificate; the authorities are those that may have signed it.
pub(super) enum Check {
    Nothing,
    Chain(Vec<CertificateDer<'static>>),
    ChainAndName(Vec<CertificateDer<'static>>),
}

/// The verifier that checks this.
pub(super) fn verifier(
    check: Check,
    provider: Provider,
) -> Result<Arc<dyn ServerCertVerifier>, ConnectError> {
    let (roots, with_name) = match check {
        Check::Nothing => return Ok(Arc::new(Anyone { provider })),
        Check::Chain(roots) => (roots, false),
        Check::ChainAndName(roots) => (roots, true),
    };
    let mut store = RootCertStore::empty();
    let (usable, _) = store.add_parsable_certificates(roots.iter().cloned());
    if usable == 0 {
        return Err(ConnectError::configuration("sslrootcert holds no usable certificate"));
    }
    let chain =
        WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build().map_err(
            |error| ConnectError::configuration(format!("sslrootcert cannot be used: {error}")),
        )?;
    Ok(Arc::new(Trusted { chain, roots, with_name }))
}

/// Any certificate will do; only that the server has its key is checked.
#[derive(Debug)]
struct Anyone {
    provider: Provider,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The certificate must be signed by one of the roots, or be one of them.
#[derive(Debug)]
struct Trusted {
    chain: Arc<WebPkiServerVerifier>,
    roots: Vec<CertificateDer<'static>>,
    with_name: bool,
}

impl Trusted {
    /// Checks a certificate that is itself a root: rustls would refuse it as the server's.
    fn verify_root_itself(
        &self,
        cert: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = parse(cert)?;
        let validity = parsed.tbs_certificate.validity;
        let now = Duration::from_secs(now.as_secs());
        if now < validity.not_before.to_unix_duration() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > validity.not_after.to_unix_duration() {
            return Err(CertificateError::Expired.into());
        }
        let named = ParsedCertificate::try_from(cert)
            .and_then(|cert| rustls::client::verify_server_name(&cert, name));
        self.judge_name(named.map(|()| ServerCertVerified::assertion()), cert, name)
    }

    /// Lets a wrong name pass where names are not asked for or the common name fits.
    fn judge_name(
        &self,
        outcome: Result<ServerCertVerified, Error>,
        cert: &CertificateDer<'_>,
        name: &ServerName<'_>,
    ) -> Result<ServerCertVerified, Error> {
        match outcome {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.with_name || common_name_fits(&parse(cert)?, name) => {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        cert: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.roots.iter().any(|root| root == cert) {
            return self.verify_root_itself(cert, name, now);
        }
        // rustls looks at the chain first, so a complaint about the name means a good chain.
        let outcome = self.chain.verify_server_cert(cert, intermediates, name, ocsp, now);
        self.judge_name(outcome, cert, name)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn parse(cert: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::from_der(cert).map_err(|_| CertificateError::BadEncoding.into())
}

/// Whether a certificate without alternative names is for this host by its common name.
///
/// RFC 6125 has given this up, libpq and the certificates of many intranets have not.
fn common_name_fits(cert: &Certificate, name: &ServerName<'_>) -> bool {
    let tbs = &cert.tbs_certificate;
    let has_alternatives = tbs
        .extensions
        .iter()
        .flatten()
        .any(|extension| extension.extn_id == ID_CE_SUBJECT_ALT_NAME);
    let attributes = tbs.subject.0.iter().flat_map(|set| set.0.iter());
    let common_name = attributes.rev().find(|attribute| attribute.oid == COMMON_NAME);
    match (has_alternatives, common_name) {
        (false, Some(attribute)) => {
            text_of(&attribute.value).is_some_and(|pattern| name_fits(pattern, &name.to_str()))
        }
        _ => false,
    }
}

fn text_of(value: &x509_cert::der::Any) -> Option<&str> {
    value
        .decode_as::<Utf8StringRef<'_>>()
        .map(|text| text.as_str())
        .or_else(|_| value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str()))
        .or_else(|_| value.decode_as::<Ia5StringRef<'_>>().map(|text| text.as_str()))
        .ok()
}

/// Equal but for case, or with a first label `*` that stands for one label.
fn name_fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(name),
        Some(rest) => name
            .split_once('.')
            .is_some_and(|(label, after)| !label.is_empty() && rest.eq_ignore_ascii_case(after)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_name_may_stand_for_one_label() {
        assert!(name_fits("DB.example.com", "db.example.com"));
        assert!(name_fits("*.example.com", "db.example.com"));
        assert!(!name_fits("*.example.com", "a.db.example.com"));
        assert!(!name_fits("*.example.com", ".example.com"));
        assert!(!name_fits("*", "localhost"));
    }
}
