//! Certificates for tests, made when they run.
//!
//! Each authority is a new one, so that no test can pass by another's.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};

/// Who is believed.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        // Subject and issuer that are equal would make every certificate look self-signed.
        params.distinguished_name.push(DnType::CommonName, "tests' authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Its own certificate as a file.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, self.pem()).unwrap();
        path
    }

    /// A certificate for servers and clients with these names, URIs among them, and its key, as PEM.
    pub(crate) fn issue(&self, names: &[&str]) -> (String, String) {
        let (uris, others): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
        let mut params = CertificateParams::new(others.into_iter().map(str::to_owned).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a test");
        let uris = uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// The same as files `NAME.crt` and `NAME.key`.
    pub(crate) fn issue_files(&self, folder: &Path, name: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let (cert, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        let pem = self.issue(names);
        std::fs::write(&cert, pem.0).unwrap();
        std::fs::write(&key, pem.1).unwrap();
        (cert, key)
    }
}

/// What a listener on this machine is called.
pub(crate) const LOCAL: &[&str] = &["localhost", "127.0.0.1"];
