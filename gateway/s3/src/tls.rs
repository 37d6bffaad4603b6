//! TLS on the S3 side.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Certificate chain and key, ready to accept connections with HTTP/2 or HTTP/1.1. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    pub(crate) acceptor: TlsAcceptor,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate file has no certificate")]
    NoCertificate,
    #[error("the key file has no private key")]
    NoKey,
    #[error("not PEM")]
    Pem(#[source] std::io::Error),
    #[error("the certificate and the key cannot be used")]
    Unusable(#[source] rustls::Error),
}

impl Tls {
    /// Reads a certificate chain, the server's own certificate first, and its private key.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain: Vec<CertificateDer<'static>> =
            rustls_pemfile::certs(&mut &*certificates).collect::<Result<_, _>>().map_err(TlsError::Pem)?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let key: PrivateKeyDer<'static> =
            rustls_pemfile::private_key(&mut &*key).map_err(TlsError::Pem)?.ok_or(TlsError::NoKey)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(TlsError::Unusable)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_or_key_is_refused() {
        assert!(matches!(Tls::from_pem(b"", b""), Err(TlsError::NoCertificate)));
        let bad = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(Tls::from_pem(bad, b""), Err(TlsError::NoKey)));
    }
}
