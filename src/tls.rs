//! Certificates, keys and authorities from PEM files, for listeners and for the way upstream.
//!
//! Promises TLS 1.2 and 1.3 with the program's one provider of cryptography, that a key belongs to its
//! certificate, and that what is wrong is said by the configuration's key, never with a file's content.
//! There is no way to leave a check out. When files are read again is their holder's affair.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use hyper_rustls::ConfigBuilderExt as _;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The files of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFiles {
    /// The certificate, and those that lead from it to its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities whose certificates clients may show; absent: none are asked for.
    pub client_ca: Option<PathBuf>,
}

/// The files of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// Authorities that are believed instead of the system's.
    pub ca: Option<PathBuf>,
    /// What is shown to a server that asks: certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Which of the section's keys names the file.
    pub key: &'static str,
    /// What is wrong with it.
    pub message: String,
    /// What to do about it.
    pub hint: &'static str,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tls.{}: {} ({})", self.key, self.message, self.hint)
    }
}

impl std::error::Error for Trouble {}

impl From<Trouble> for io::Error {
    fn from(trouble: Trouble) -> Self {
        Self::other(trouble)
    }
}

/// What a listener's files held when they were read. Not shown: one is a private key.
pub struct ServerTexts {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl fmt::Debug for ServerTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTexts")
    }
}

impl ServerFiles {
    /// Reads them.
    ///
    /// # Errors
    /// The first that cannot be read.
    pub fn read(&self) -> Result<ServerTexts, Trouble> {
        Ok(ServerTexts {
            cert: text("cert", &self.cert)?,
            key: text("key", &self.key)?,
            client_ca: self.client_ca.as_deref().map(|path| text("client_ca", path)).transpose()?,
        })
    }
}

impl ServerTexts {
    /// Stands for files that cannot be read, each way of its own.
    pub(crate) fn of(trouble: &Trouble) -> Self {
        Self { cert: trouble.message.clone().into_bytes(), key: trouble.key.into(), client_ca: None }
    }

    /// Tells one content from another.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        for part in [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()] {
            let part = part.map(Vec::as_slice).unwrap_or_default();
            // With lengths, so that no content can move from one file to the next unseen.
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    /// The authorities for clients, however the file puts them.
    ///
    /// # Errors
    /// What is no certificate.
    pub(crate) fn authorities(&self) -> Result<HashSet<CertificateDer<'static>>, Trouble> {
        let list = self.client_ca.as_deref().map(|text| certificates("client_ca", text)).transpose()?;
        Ok(list.into_iter().flatten().collect())
    }

    /// How a listener with these files shakes hands: HTTP/2 or HTTP/1.1 by ALPN; a client's certificate
    /// is asked for where there are authorities for it, and one that is shown must be theirs.
    ///
    /// # Errors
    /// What is no certificate or key, or does not belong together.
    pub fn terms(&self) -> Result<ServerTerms, Trouble> {
        let (chain, key) = (certificates("cert", &self.cert)?, private_key("key", &self.key)?);
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("cert", &error))?;
        let clients = match &self.client_ca {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(text) => {
                let roots = Arc::new(authorities("client_ca", text)?);
                WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| unusable("client_ca", &error))?
            }
        };
        let builder = builder.with_client_cert_verifier(Arc::clone(&clients));
        let mut config = builder.with_single_cert(chain, key).map_err(|error| mismatch("cert", "key", &error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(ServerTerms { config: Arc::new(config), clients })
    }
}

/// What a listener's files come to.
#[derive(Clone, Debug)]
pub struct ServerTerms {
    /// How hands are shaken.
    pub config: Arc<ServerConfig>,
    /// Whose certificates clients may show.
    clients: Arc<dyn ClientCertVerifier>,
}

impl ServerTerms {
    /// Whether a client with these certificates, its own first, could shake hands now.
    #[must_use]
    pub fn admits(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some((own, others)) = chain.split_first() else { return false };
        let now = self.config.time_provider.current_time();
        now.is_some_and(|now| self.clients.verify_client_cert(own, others, now).is_ok())
    }
}

/// How a client connects: the system's authorities unless others are given.
///
/// # Errors
/// What is no certificate or key, or does not belong together; a certificate store that cannot be used.
pub fn client_config(files: Option<&ClientFiles>) -> Result<ClientConfig, Trouble> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("ca", &error))?;
    let builder = match files.and_then(|files| files.ca.as_deref()) {
        None => builder.try_with_platform_verifier().map_err(|error| Trouble {
            key: "ca",
            message: format!("the system's certificate store cannot be used: {error}"),
            hint: "install the system's certificates (ca-certificates), or name a file",
        })?,
        Some(path) => builder.with_root_certificates(authorities("ca", &text("ca", path)?)?),
    };
    match files.and_then(|files| files.identity.as_ref()) {
        None => Ok(builder.with_no_client_auth()),
        Some((cert, key)) => {
            let chain = certificates("client_cert", &text("client_cert", cert)?)?;
            let key = private_key("client_key", &text("client_key", key)?)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| mismatch("client_cert", "client_key", &error))
        }
    }
}

/// The DNS and URI names of a certificate that has been verified; none of one that cannot be read.
#[must_use]
pub fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    match webpki::EndEntityCert::try_from(certificate) {
        Ok(read) => read.valid_dns_names().chain(read.valid_uri_names()).map(str::to_owned).collect(),
        Err(_) => Vec::new(),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn text(key: &'static str, path: &Path) -> Result<Vec<u8>, Trouble> {
    // The path is not repeated: where a file's content was given in its place, that may be a key.
    let refused = |reason: String| Trouble {
        key,
        message: format!("the file cannot be read: {reason}"),
        hint: "the path of a PEM file; a relative one counts from the configuration file's folder",
    };
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| refused(error.to_string()))?;
    if bytes.len() as u64 > MOST_BYTES { Err(refused("larger than 1 MiB".to_owned())) } else { Ok(bytes) }
}

fn certificates(key: &'static str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Trouble> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match read {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(Trouble { key, message: "the file holds no certificate".to_owned(), hint: PEM_CERTIFICATE }),
        Err(error) => Err(Trouble { key, message: format!("not PEM: {error}"), hint: PEM_CERTIFICATE }),
    }
}

fn authorities(key: &'static str, text: &[u8]) -> Result<RootCertStore, Trouble> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(key, text)? {
        roots.add(certificate).map_err(|error| unusable(key, &error))?;
    }
    Ok(roots)
}

fn private_key(key: &'static str, text: &[u8]) -> Result<PrivateKeyDer<'static>, Trouble> {
    PrivateKeyDer::from_pem_slice(text).map_err(|_| Trouble {
        key,
        message: "the file holds no private key".to_owned(),
        hint: "PEM without a passphrase, from its -----BEGIN line to its -----END line",
    })
}

fn mismatch(cert: &'static str, key: &'static str, error: &rustls::Error) -> Trouble {
    match error {
        rustls::Error::InconsistentKeys(_) => Trouble {
            key,
            message: "does not belong to the certificate".to_owned(),
            hint: "the key the certificate was asked for with; in the file of the chain the server's own comes first",
        },
        rustls::Error::General(_) => unusable(key, error),
        _ => unusable(cert, error),
    }
}

fn unusable(key: &'static str, error: &dyn fmt::Display) -> Trouble {
    Trouble { key, message: format!("cannot be used: {error}"), hint: "look at it with `openssl x509 -text`" }
}

const PEM_CERTIFICATE: &str = "PEM, from a -----BEGIN CERTIFICATE line on, the server's own first";
/// Longest file; a bundle of every public authority has a fifth of it.
const MOST_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, SanType, generate_simple_self_signed};
    use tempfile::TempDir;

    use super::*;

    /// What a listener's configuration says of these contents.
    fn check(cert: &str, key: &str, expected: Result<(), (&str, &str)>) {
        let texts = ServerTexts { cert: cert.into(), key: key.into(), client_ca: Some(cert.into()) };
        let said = texts.terms().map(|_| ()).map_err(|trouble| (trouble.key, trouble.message));
        assert_eq!(said.as_ref().map_err(|(key, message)| (*key, message.as_str())).copied(), expected);
    }

    #[test]
    fn what_does_not_belong_together_is_refused_by_its_key() {
        let (own, other) = (self_signed(), self_signed());
        check(&own.0, &own.1, Ok(()));
        check(&own.0, &other.1, Err(("key", "does not belong to the certificate")));
        check("", &own.1, Err(("cert", "the file holds no certificate")));
        check(&own.1, &own.1, Err(("cert", "the file holds no certificate")));
        check(&own.0, &own.0, Err(("key", "the file holds no private key")));
        check("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &own.1, Err(("client_ca", BAD)));
    }

    const BAD: &str = "cannot be used: invalid peer certificate: BadEncoding";

    #[test]
    fn a_client_is_held_to_the_same() {
        let folder = TempDir::new().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (own, other) = (self_signed(), self_signed());
        let (cert, key, wrong) = (file("cert", &own.0), file("key", &own.1), file("wrong", &other.1));
        let files = |ca: &Path, key: &Path| ClientFiles {
            ca: Some(ca.to_owned()),
            identity: Some((cert.clone(), key.to_owned())),
        };
        client_config(Some(&files(&cert, &key))).unwrap();
        assert_eq!(client_config(Some(&files(&cert, &wrong))).unwrap_err().key, "client_key");
        let missing = client_config(Some(&files(&folder.path().join("nowhere"), &key))).unwrap_err();
        assert!(missing.key == "ca" && missing.message.contains("No such file"), "{missing}");
    }

    #[test]
    fn names_are_those_of_dns_and_uri() {
        let issuer = CertifiedIssuer::self_signed(CertificateParams::default(), KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::new(vec!["app.shop.internal".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://shop/app".try_into().unwrap()));
        let signed = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        assert_eq!(names(signed.der()), ["app.shop.internal", "spiffe://shop/app"]);
        assert!(names(&CertificateDer::from(vec![0; 8])).is_empty());
    }

    fn self_signed() -> (String, String) {
        let made = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }
}
