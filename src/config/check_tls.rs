//! The part of the checks that is about TLS: files that are there and belong together.
//!
//! Promises that whoever holds the paths could have used the files when the configuration was read.
//! What was read is dropped again: files change, and their users read them themselves.

use std::path::PathBuf;

use super::findings::Findings;
use super::raw::{RawClientTls, RawServerTls};
use crate::tls::{ClientFiles, ServerFiles, Trouble, client_config};

/// Judges a listener's section.
pub(super) fn server(path: &str, raw: Option<&RawServerTls>, found: &mut Findings) -> Option<ServerFiles> {
    let raw = raw?;
    let files = ServerFiles {
        cert: found.beside(&raw.cert),
        key: found.beside(&raw.key),
        client_ca: raw.client_ca.as_deref().map(|file| found.beside(file)),
    };
    // A key that is missing has been reported, and so have the files that it would have named.
    if !raw.cert.is_empty()
        && !raw.key.is_empty()
        && let Err(trouble) = files.read().and_then(|texts| texts.terms())
    {
        report(path, trouble, found);
    }
    Some(files)
}

/// Judges upstream's section. `is_https` says whether upstream's address is.
pub(super) fn client(raw: Option<&RawClientTls>, is_https: bool, found: &mut Findings) -> Option<ClientFiles> {
    let (path, raw) = ("upstream.tls", raw?);
    if !is_https {
        found.report(path, "upstream.base_url is not https://", "without TLS there is nothing to verify: remove it");
    }
    let beside = |file: &Option<String>| -> Option<PathBuf> { file.as_deref().map(|file| found.beside(file)) };
    let (ca, cert, key) = (beside(&raw.ca), beside(&raw.client_cert), beside(&raw.client_key));
    let identity = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => {
            found.report("upstream.tls.client_key", "missing", "the private key of upstream.tls.client_cert");
            None
        }
        (None, Some(_)) => {
            found.report("upstream.tls.client_cert", "missing", "the certificate of upstream.tls.client_key");
            None
        }
    };
    let files = ClientFiles { ca, identity };
    // Without files there is only the system's store, which is no affair of the configuration's.
    if files != ClientFiles::default()
        && let Err(trouble) = client_config(Some(&files))
    {
        report(path, trouble, found);
    }
    Some(files)
}

fn report(path: &str, trouble: Trouble, found: &mut Findings) {
    found.report(&format!("{path}.{}", trouble.key), trouble.message, trouble.hint);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use crate::config::{Config, effective, load};
    use crate::server::Address;

    /// A folder with a certificate, its key, and another's key.
    fn folder() -> TempDir {
        let folder = TempDir::new().unwrap();
        let made = |name: &str| {
            let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
            fs::write(folder.path().join(format!("{name}.crt")), made.cert.pem()).unwrap();
            fs::write(folder.path().join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
        };
        made("own");
        made("other");
        folder
    }

    /// Reads a file in the folder; of a refusal everything but the last line.
    fn read(folder: &TempDir, upstream: &str, more: &str) -> Result<Config, Vec<String>> {
        let file = folder.path().join("c.yaml");
        let key = concat!(env!("CARGO_MANIFEST_DIR"), "/config/sandbox-key.pem");
        let merchant = format!(
            "merchants:\n- {{ name: a, merchant_code: AYOTST, client_id: a, client_secret: b, private_key: \"${{file:{key}}}\" }}"
        );
        fs::write(&file, format!("upstream: {{ {upstream} }}\n{merchant}\n{more}\n")).unwrap();
        load(&file, &|_| None).map_err(|problems| {
            let text = problems.to_string().replace(file.to_str().unwrap(), "c.yaml");
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.pop();
            lines
        })
    }

    const HTTPS: &str = "base_url: https://example.com";

    #[test]
    fn files_beside_the_configuration_are_found_and_shown() {
        let folder = folder();
        let upstream = format!("{HTTPS}, tls: {{ ca: own.crt, client_cert: own.crt, client_key: own.key }}");
        let listen =
            "listen: { address: \"unix:run/a.sock\", tls: { cert: own.crt, key: own.key, client_ca: own.crt } }";
        let config = read(&folder, &upstream, listen).unwrap();
        let beside = |name: &str| folder.path().join(name);
        assert_eq!(config.listen.address, Address::Unix(beside("run/a.sock")));
        assert_eq!(config.listen.tls.as_ref().unwrap().client_ca, Some(beside("own.crt")));
        let shown = effective(&config);
        assert_eq!(shown["listen"]["address"], format!("unix:{}", beside("run/a.sock").display()));
        assert_eq!(shown["listen"]["tls"]["key"], beside("own.key").to_str().unwrap());
        assert_eq!(shown["upstream"]["tls"]["client_key"], beside("own.key").to_str().unwrap());
    }

    #[test]
    fn files_that_cannot_serve_are_refused_where_they_are_named() {
        let folder = folder();
        let upstream = format!("{HTTPS}, tls: {{ ca: own.key, client_cert: own.crt }}");
        let more = "listen: { tls: { cert: own.crt, key: other.key } }\ncallbacks:\n  listen: { tls: { cert: none.crt, key: own.key } }\n  secret: 0123456789abcdef0123456789abcdef\n  confirm: never\n  deliver: { url: \"http://127.0.0.1:1\", secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw }";
        let found = read(&folder, &upstream, more).unwrap_err();
        let expected = [
            "c.yaml:1:44: upstream.tls.client_key: missing (",
            "c.yaml:1:55: upstream.tls.ca: the file holds no certificate (PEM",
            "c.yaml:4:38: listen.tls.key: does not belong to the certificate (",
            "c.yaml:6:26: callbacks.listen.tls.cert: the file cannot be read: No such file",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (line, expected) in found.iter().zip(expected) {
            assert!(line.starts_with(expected), "{line}\n{expected}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let folder = folder();
        let refused = |upstream: &str, more: &str| read(&folder, upstream, more).unwrap_err().join("\n");
        let plain = refused("base_url: \"http://example.com\", tls: { ca: own.crt }", "");
        assert!(plain.contains("upstream.tls: upstream.base_url is not https://"), "{plain}");
        let half = refused(HTTPS, "listen: { tls: { cert: own.crt } }");
        assert!(half.contains("listen.tls.key: missing") && !half.contains('\n'), "{half}");
        let nameless = refused(HTTPS, "listen: { address: \"unix:\" }");
        assert!(nameless.contains("listen.address: names no file"), "{nameless}");
        let long = refused(HTTPS, &format!("listen: {{ address: \"unix:/{}\" }}", "a".repeat(103)));
        assert!(long.contains("listen.address: 104 bytes are too long"), "{long}");
        let admin = refused(HTTPS, "admin: { address: \"unix:/run/a\" }");
        assert!(admin.contains("admin.address: only listen.address may be a unix socket"), "{admin}");
    }

    /// Somebody who gives a key in a file's place must not find it in a log.
    #[test]
    fn a_key_in_the_place_of_its_path_is_not_repeated() {
        let folder = folder();
        let found = read(&folder, HTTPS, "listen: { tls: { cert: own.crt, key: \"${file:own.key}\" } }").unwrap_err();
        assert!(
            found[0].contains("listen.tls.key: the file cannot be read") && !found[0].contains("PRIVATE"),
            "{found:?}"
        );
    }
}
