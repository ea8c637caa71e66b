//! The certificates of replicas. Their certificate authority is derived from the secret key, so only a process that has
//! the key can act as a replica or as the operator.
//!
//! Each process creates a certificate of its own at its start. The certificates do not expire, because a certificate is
//! discarded when its process ends, and the authority when the secret key is replaced. During a rotation of the key,
//! both authorities are trusted ([`SecretKeys::previous`]).

use std::sync::Arc;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use waypost_core::secret::{SecretKey, SecretKeys};

/// The purpose of the derived key, for domain separation.
const PURPOSE: &str = "replica-authority";
/// The beginning of an Ed25519 private key in PKCS #8, before the 32 bytes of the seed (RFC 8410, section 7).
const PKCS8_ED25519: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// The certificate of this process, and the authorities that it trusts.
pub struct Certificates {
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Certificates {
    /// Creates a certificate for a process that others reach at `host`, which is a name or an address.
    ///
    /// # Errors
    /// If `host` cannot be in a certificate.
    pub fn new(keys: &SecretKeys, host: &str) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        let issuer = authority(&keys.current)?;
        roots.add(issuer.certificate)?;
        if let Some(previous) = &keys.previous {
            roots.add(authority(previous)?.certificate)?;
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut params = CertificateParams::new([host.to_owned()])
            .context("the host of the setting `internal_url` cannot be in a certificate")?;
        params.distinguished_name = name("Waypost replica");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer.issuer)?.der().clone();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(Self { provider, roots: Arc::new(roots), certificate, key: key.serialize_der().into() })
    }

    /// Returns the TLS configuration of the listener, which rejects clients without a certificate.
    ///
    /// # Errors
    /// If the configuration is invalid.
    pub fn server(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(&self.provider)).build()?;
        let config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![self.certificate.clone()], self.private_key())?;
        Ok(Arc::new(config))
    }

    /// Returns the TLS configuration of requests to other replicas.
    ///
    /// # Errors
    /// If the configuration is invalid.
    pub fn client(&self) -> anyhow::Result<ClientConfig> {
        Ok(ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(vec![self.certificate.clone()], self.private_key())?)
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// Returns the certificate authority of a secret key: every replica derives the same key pair and the same name.
fn authority(key: &SecretKey) -> anyhow::Result<Authority> {
    let pkcs8 = [&PKCS8_ED25519[..], &key.sign(PURPOSE, b"")].concat();
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8.into(), &PKCS_ED25519)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name = name("Waypost replicas");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key)?.der().clone();
    Ok(Authority { issuer: Issuer::new(params, key), certificate })
}

fn name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;

    fn key(byte: u8) -> SecretKey {
        SecretKey::new([byte; 32])
    }

    fn certificates(current: u8, previous: Option<u8>, host: &str) -> Certificates {
        Certificates::new(&SecretKeys { current: key(current), previous: previous.map(key) }, host).unwrap()
    }

    /// Connects to `host`, and returns whether both ends accept each other.
    async fn accepts(server: &Certificates, client: ClientConfig, host: &str) -> bool {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (one, two) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let (acceptor, connector) = (TlsAcceptor::from(server.server().unwrap()), TlsConnector::from(Arc::new(client)));
        let accepted = async {
            let mut stream = acceptor.accept(one).await.ok()?;
            stream.write_all(b"ok").await.ok()
        };
        // In TLS 1.3, a client learns that its certificate was accepted only when it receives the first data.
        let connected = async {
            let mut stream = connector.connect(name, two).await.ok()?;
            stream.read_exact(&mut [0; 2]).await.ok()
        };
        let (accepted, connected) = tokio::join!(accepted, connected);
        accepted.is_some() && connected.is_some()
    }

    #[tokio::test]
    async fn processes_with_the_same_key_accept_each_other() {
        for host in ["10.0.0.5", "fd00::1", "waypost-1.internal"] {
            let server = certificates(1, None, host);
            let client = certificates(1, None, "elsewhere.internal").client().unwrap();
            assert!(accepts(&server, client.clone(), host).await, "{host}");
            assert!(!accepts(&server, client, "other.internal").await, "another host than that of the server");
        }
        certificates(1, None, "[fd00::1]");
    }

    #[tokio::test]
    async fn processes_with_another_key_are_rejected() {
        let server = certificates(1, None, "a.internal");
        assert!(!accepts(&server, certificates(2, None, "a.internal").client().unwrap(), "a.internal").await);
        assert!(!accepts(&server, certificates(2, Some(1), "a.internal").client().unwrap(), "a.internal").await);
        let client = certificates(1, None, "b.internal").client().unwrap();
        assert!(!accepts(&certificates(2, None, "a.internal"), client, "a.internal").await);
    }

    #[tokio::test]
    async fn a_client_without_a_certificate_is_rejected() {
        let server = certificates(1, None, "a.internal");
        let client = ClientConfig::builder_with_provider(Arc::clone(&server.provider))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(Arc::clone(&server.roots))
            .with_no_client_auth();
        assert!(!accepts(&server, client, "a.internal").await);
    }

    /// The rotation of the secret key in docs/sign-in.md: at any time, all replicas accept each other.
    #[tokio::test]
    async fn both_keys_are_accepted_during_a_rotation() {
        let rounds = [((1, None), (1, Some(2))), ((1, Some(2)), (2, Some(1))), ((2, Some(1)), (2, None))];
        for (one, two) in rounds {
            let [one, two] = [one, two].map(|(current, previous)| certificates(current, previous, "a.internal"));
            assert!(accepts(&one, two.client().unwrap(), "a.internal").await);
            assert!(accepts(&two, one.client().unwrap(), "a.internal").await);
        }
    }
}
