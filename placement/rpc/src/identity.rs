//! Certificates: one authority per cluster secret, one certificate per process.
//!
//! The authority's Ed25519 key is HKDF-SHA-256 of the secret, so that every process derives the same one and no certificate
//! needs to be handed around. A process's own key is drawn at start and never leaves it. Certificates do not expire: whoever
//! has the secret can issue one, so an expiry would protect nothing, and a wrong clock must not take a cluster down. A removed
//! node's certificate is as good as any: what refuses it is the cluster map ([`Admission`]).

use std::fmt;
use std::sync::Arc;

use hkdf::Hkdf;
use placement_types::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sha2::Sha256;

use crate::admission::Admission;
use crate::secret::ClusterSecret;
use crate::verify::{ClientVerifier, ServerVerifier};

/// The name every certificate carries and every client asks for; which process it is stands in a second name.
const CLUSTER_NAME: &str = "dozo.internal";
const NODE_SUFFIX: &str = ".node.dozo.internal";
const GATEWAY_NAME: &str = "gateway.dozo.internal";

/// No clock shows an earlier one: one that has lost its battery starts there, and its node belongs to the cluster all the same.
const BEGINNING_YEAR: i32 = 1970;

/// PKCS #8 of an Ed25519 private key (RFC 8410, section 7) up to its 32 bytes.
const ED25519_PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Whom a certificate names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Node(NodeId),
    Gateway,
}

/// Who is at the other end of a connection, proven by its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerIdentity {
    Node(NodeId),
    Gateway,
    /// A connection without TLS: only the simulator makes these.
    Unproven,
}

/// How connections are protected.
#[derive(Clone)]
pub enum Security {
    Mutual(Identity),
    /// No protection at all; for the simulator, whose network has no wire.
    Plaintext,
}

impl Security {
    /// `None` without protection: there nobody proves who he is.
    pub fn admission(&self) -> Option<&Admission> {
        match self {
            Security::Mutual(identity) => Some(identity.admission()),
            Security::Plaintext => None,
        }
    }
}

/// A process's own certificate, the authority it trusts, and whom it refuses nevertheless.
#[derive(Clone)]
pub struct Identity {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    admission: Admission,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the certificate could not be issued")]
    Issue(#[from] rcgen::Error),
    #[error("the certificate could not be used")]
    Tls(#[from] rustls::Error),
    #[error("certificates cannot be verified")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

impl Identity {
    /// Derives the cluster's authority from the secret and issues this process a certificate.
    pub fn derive(secret: &ClusterSecret, subject: Subject) -> Result<Self, IdentityError> {
        let (authority, authority_certificate) = authority(secret)?;
        let key = KeyPair::generate()?;
        let certificate = leaf_params(subject).signed_by(&key, &authority)?;
        let chain = vec![certificate.der().clone()];
        let private = || PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));

        let mut roots = RootCertStore::empty();
        roots.add(authority_certificate)?;
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let admission = Admission::default();

        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ServerVerifier::new(roots.clone(), provider.clone(), admission.clone())?))
            .with_client_auth_cert(chain.clone(), private())?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session is not verified again: a node that was removed since would get in. Connections are few and long.
        client.resumption = rustls::client::Resumption::disabled();

        let verifier = ClientVerifier::new(roots, provider.clone(), admission.clone())?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(chain, private())?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Self { client: Arc::new(client), server: Arc::new(server), admission })
    }

    /// Whom this process refuses; shared by all that is made from this identity.
    pub fn admission(&self) -> &Admission {
        &self.admission
    }

    pub(crate) fn connector(&self) -> tokio_rustls::TlsConnector {
        tokio_rustls::TlsConnector::from(self.client.clone())
    }

    pub(crate) fn acceptor(&self) -> tokio_rustls::TlsAcceptor {
        tokio_rustls::TlsAcceptor::from(self.server.clone())
    }

    pub(crate) fn server_name() -> ServerName<'static> {
        ServerName::try_from(CLUSTER_NAME).expect("a constant DNS name")
    }
}

fn authority(secret: &ClusterSecret) -> Result<(Issuer<'static, KeyPair>, CertificateDer<'static>), rcgen::Error> {
    let mut seed = [0; 32];
    Hkdf::<Sha256>::new(Some(b"dozo"), secret.as_bytes())
        .expand(b"cluster certificate authority, version 1", &mut seed)
        .expect("32 bytes are within what HKDF can expand to");
    let pkcs8 = [ED25519_PKCS8_PREFIX.as_slice(), &seed].concat();
    let key = KeyPair::try_from(pkcs8.as_slice())?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = name("Dozo cluster authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = date_time_ymd(BEGINNING_YEAR, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    params.serial_number = Some(SerialNumber::from(vec![1]));
    let certificate = params.self_signed(&key)?.der().clone();
    Ok((Issuer::new(params, key), certificate))
}

fn leaf_params(subject: Subject) -> CertificateParams {
    let own_name = match subject {
        Subject::Node(node) => format!("{node}{NODE_SUFFIX}"),
        Subject::Gateway => GATEWAY_NAME.to_owned(),
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&own_name);
    params.subject_alt_names = [CLUSTER_NAME, &own_name]
        .into_iter()
        .map(|text| SanType::DnsName(text.try_into().expect("host names are ASCII")))
        .collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = date_time_ymd(BEGINNING_YEAR, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31);
    params
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// Reads whom a certificate, already verified against the authority, names. `None`: not one of ours.
pub(crate) fn read_subject(certificate: &CertificateDer<'_>) -> Option<PeerIdentity> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|entry| match entry {
        x509_parser::extensions::GeneralName::DNSName(GATEWAY_NAME) => Some(PeerIdentity::Gateway),
        x509_parser::extensions::GeneralName::DNSName(text) => {
            text.strip_suffix(NODE_SUFFIX)?.parse().ok().map(PeerIdentity::Node)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::UnixTime;

    use super::*;

    #[test]
    fn one_secret_derives_one_authority() {
        let secret = ClusterSecret::parse(&"s".repeat(32)).unwrap();
        let (_, first) = authority(&secret).unwrap();
        let (_, second) = authority(&secret).unwrap();
        assert_eq!(first, second);
        let (_, other) = authority(&ClusterSecret::parse(&"t".repeat(32)).unwrap()).unwrap();
        assert_ne!(first, other);
    }

    #[tokio::test]
    async fn a_client_without_a_certificate_is_refused() {
        let secret = ClusterSecret::parse(&"s".repeat(32)).unwrap();
        let identity = Identity::derive(&secret, Subject::Node(NodeId::from_u128(7))).unwrap();
        let (near, far) = tokio::io::duplex(1 << 16);
        let connect = async {
            let roots = Arc::new({
                let mut roots = RootCertStore::empty();
                roots.add(authority(&secret).unwrap().1).unwrap();
                roots
            });
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            tokio_rustls::TlsConnector::from(Arc::new(config)).connect(Identity::server_name(), near).await
        };
        let (accepted, _) = tokio::join!(identity.acceptor().accept(far), connect);
        assert!(accepted.is_err());
    }

    #[test]
    fn a_certificate_is_good_whatever_a_clock_shows() {
        let secret = ClusterSecret::parse(&"s".repeat(32)).unwrap();
        let (issuer, root) = authority(&secret).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let leaf = leaf_params(Subject::Gateway).signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        for seconds in [0, 600, 86_400, 1 << 31, 1 << 32, 1 << 33] {
            let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            let verified = verifier.verify_server_cert(leaf.der(), &[], &Identity::server_name(), &[], now);
            assert!(verified.is_ok(), "at {seconds}: {verified:?}");
        }
    }

    #[test]
    fn a_certificate_names_its_node() {
        let secret = ClusterSecret::parse(&"s".repeat(32)).unwrap();
        let (authority, _) = authority(&secret).unwrap();
        let issue = |subject| leaf_params(subject).signed_by(&KeyPair::generate().unwrap(), &authority).unwrap().der().clone();
        let node = NodeId::from_u128(7);
        assert_eq!(read_subject(&issue(Subject::Node(node))), Some(PeerIdentity::Node(node)));
        assert_eq!(read_subject(&issue(Subject::Gateway)), Some(PeerIdentity::Gateway));
    }
}
