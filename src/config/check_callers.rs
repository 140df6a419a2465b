//! The part of the checks that is about who apps are.
//!
//! Promises that a key or a certificate's name is one merchant's, that every merchant can be reached, and
//! that nothing is given which nobody would be asked for. No message repeats a key or its hash: what is
//! malformed may be the key itself.

use std::collections::HashMap;
use std::hash::Hash;

use super::Secret;
use super::findings::Findings;
use super::raw::{RawAuth, RawConfig};
use crate::caller::{KeyDigest, comparable};

/// Judges how apps prove who they are. `verifies_clients`: whether the listener asks for certificates.
pub(super) fn check(raw: &RawConfig, verifies_clients: bool, found: &mut Findings) {
    let auth = raw.listen.auth;
    // Otherwise nobody knows what was meant.
    let is_known = !found.has_refused("listen.auth");
    if auth == RawAuth::Mtls && !verifies_clients {
        let hint = "listen.tls.client_ca says whose certificates count; without it, api_key proves who an app is";
        found.report("listen.auth", "`mtls` needs listen.tls with a client_ca", hint);
    }
    let mut keys = Owners::default();
    let mut names = Owners::default();
    for (index, merchant) in raw.merchants.iter().enumerate() {
        let at = |key: &str| format!("merchants[{index}].{key}");
        if is_known {
            belongs(&at("api_keys"), merchant.api_keys.is_empty(), (auth, RawAuth::ApiKey), found);
            belongs(&at("client_names"), merchant.client_names.is_empty(), (auth, RawAuth::Mtls), found);
        }
        for (entry, key) in merchant.api_keys.iter().enumerate() {
            let path = at(&format!("api_keys[{entry}]"));
            match KeyDigest::parse(key.expose()) {
                None => found.report(&path, "not `sha256:` and 64 hexadecimal digits", MAKING),
                Some(digest) if digest == KeyDigest::of("") => {
                    found.report(&path, "the hash of nothing: the key was empty when it was hashed", MAKING);
                }
                Some(digest) => keys.take(path, digest, found),
            }
        }
        for (entry, name) in merchant.client_names.iter().enumerate() {
            let path = at(&format!("client_names[{entry}]"));
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
                let hint = "a DNS name or URI of the certificate, such as shop.example or spiffe://example/shop";
                found.report(&path, "empty, or with a blank or a letter outside ASCII", hint);
            } else {
                names.take(path, comparable(name).into_owned(), found);
            }
        }
    }
}

/// The digests; what is malformed is reported by [`check`].
pub(super) fn digests(keys: &[Secret<String>]) -> Vec<KeyDigest> {
    keys.iter().filter_map(|key| KeyDigest::parse(key.expose())).collect()
}

/// Says so where a list is empty that is needed, or full that is not.
fn belongs(path: &str, is_empty: bool, (auth, wanted): (RawAuth, RawAuth), found: &mut Findings) {
    let (word, entry) = match wanted {
        RawAuth::Mtls => ("mtls", "a DNS name or URI of its app's certificate"),
        RawAuth::ApiKey | RawAuth::None => ("api_key", MAKING),
    };
    if auth == wanted && is_empty && !found.has_refused_entry_of(path) {
        found.report(path, format!("missing, and listen.auth is {word}: nobody could speak for this merchant"), entry);
    } else if auth != wanted && !is_empty {
        let hint = format!("set listen.auth: {word}, or remove it");
        found.report(path, format!("listen.auth is not {word}, so nobody would be asked"), hint);
    }
}

/// Who has what, by the path where it was first given.
struct Owners<T>(HashMap<T, String>);

impl<T> Default for Owners<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Eq + Hash> Owners<T> {
    /// Notes what stands at `path`, and says so if it stood somewhere before.
    fn take(&mut self, path: String, value: T, found: &mut Findings) {
        match self.0.get(&value) {
            Some(earlier) => {
                let message = format!("the same as {earlier}");
                found.report(&path, message, "one merchant's only, and given once");
            }
            None => drop(self.0.insert(value, path)),
        }
    }
}

/// How a key and its hash are made.
const MAKING: &str =
    "\"sha256:<hash>\", the hash as from `printf %s \"$KEY\" | sha256sum`, the key as from `openssl rand -hex 32`";

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::problem::Problems;
    use super::super::tests::{read, refused, valid_and};
    use super::*;

    /// The hashes of `abc` and of nothing.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const NOTHING: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// A second merchant with this among its keys, behind the valid file's own with that.
    fn two(first: &str, second: &str, more: &str) -> String {
        let second = format!(
            "  - {{ name: b, merchant_code: AYOTS2, client_id: b, client_secret: b, \
             private_key: '${{file:sandbox-key.pem}}', {second} }}\n"
        );
        valid_and(&format!("    {first}\n{second}{more}"))
    }

    #[test]
    fn keys_are_read_and_let_apps_come_from_elsewhere() {
        let listen = "listen: { address: 0.0.0.0:8080, auth: api_key }\n";
        let config = read(&valid_and(&format!("    api_keys: [\"{ABC}\", \"{}\"]\n{listen}", ABC.replace('b', "c"))));
        let config = config.unwrap();
        assert_eq!(config.merchants[0].api_keys.len(), 2);
        assert_eq!(config.merchants[0].api_keys[0], KeyDigest::of("abc"));
        let shown = crate::config::effective_yaml(&config);
        assert!(shown.contains("    api_keys:\n      - \"***\"\n      - \"***\"\n"), "{shown}");
        assert!(shown.contains("  auth: api_key\n"), "{shown}");
        assert!(!format!("{shown}{config:?}").contains("7816"), "{shown}");
    }

    #[test]
    fn keys_that_make_no_sense_are_refused() {
        let first = format!("api_keys: ['{ABC}', '{NOTHING}', my-own-key, '{ABC}']");
        refused(
            &two(
                &first,
                &format!("api_keys: ['{}']", ABC.to_uppercase().replace("SHA", "sha")),
                "listen: { auth: api_key }\n",
            ),
            &expect![[r#"
                c.yaml:13:91: merchants[0].api_keys[1]: the hash of nothing: the key was empty when it was hashed ("sha256:<hash>", the hash as from `printf %s "$KEY" | sha256sum`, the key as from `openssl rand -hex 32`)
                c.yaml:13:166: merchants[0].api_keys[2]: not `sha256:` and 64 hexadecimal digits ("sha256:<hash>", the hash as from `printf %s "$KEY" | sha256sum`, the key as from `openssl rand -hex 32`)
                c.yaml:13:178: merchants[0].api_keys[3]: the same as merchants[0].api_keys[0] (one merchant's only, and given once)
                c.yaml:14:122: merchants[1].api_keys[0]: the same as merchants[0].api_keys[0] (one merchant's only, and given once)
                4 problems; see config/example.yaml"#]],
        );
        refused(
            &two(&format!("api_keys: ['{ABC}']"), "channel_id: \"95221\"", "listen: { auth: api_key }\n"),
            &expect![[r#"
                c.yaml:14:5: merchants[1].api_keys: missing, and listen.auth is api_key: nobody could speak for this merchant ("sha256:<hash>", the hash as from `printf %s "$KEY" | sha256sum`, the key as from `openssl rand -hex 32`)
                1 problem; see config/example.yaml"#]],
        );
        refused(
            &two("api_keys: ['${UNSET}']", &format!("api_keys: ['{ABC}']"), "listen: { auth: api_key }\n"),
            &expect![[r#"
                c.yaml:13:16: merchants[0].api_keys[0]: the environment variable UNSET is not set (set it, or write ${UNSET:-default})
                1 problem; see config/example.yaml"#]],
        );
        refused(
            &valid_and(&format!("    api_keys: ['{ABC}']\n    client_names: [a]\n")),
            &expect![[r#"
            c.yaml:13:5: merchants[0].api_keys: listen.auth is not api_key, so nobody would be asked (set listen.auth: api_key, or remove it)
            c.yaml:14:5: merchants[0].client_names: listen.auth is not mtls, so nobody would be asked (set listen.auth: mtls, or remove it)
            2 problems; see config/example.yaml"#]],
        );
        refused(
            &valid_and("    client_names: [a]\nlisten: { auth: mtsl, address: 0.0.0.0:1 }\n"),
            &expect![[r#"
            c.yaml:14:17: listen.auth: `mtsl` is not one of none, api_key, mtls (did you mean `mtls`?)
            1 problem; see config/example.yaml"#]],
        );
    }

    #[test]
    fn certificates_names_are_one_merchants() {
        refused(
            &valid_and("    client_names: [a]\nlisten: { auth: mtls }\n"),
            &expect![[r#"
            c.yaml:14:17: listen.auth: `mtls` needs listen.tls with a client_ca (listen.tls.client_ca says whose certificates count; without it, api_key proves who an app is)
            1 problem; see config/example.yaml"#]],
        );
        // As it is judged where the listener asks for certificates.
        let judged = |first: &[&str], second: &[&str]| {
            let mut raw = RawConfig::default();
            raw.listen.auth = RawAuth::Mtls;
            for names in [first, second] {
                let client_names = names.iter().map(|&name| name.to_owned()).collect();
                raw.merchants.push(super::super::raw::RawMerchant { client_names, ..Default::default() });
            }
            let mut found = Findings::default();
            check(&raw, true, &mut found);
            Problems::new("c", "e", found.problems).to_string()
        };
        assert_eq!(judged(&["a.example", "spiffe://e/A"], &["b.example", "spiffe://e/a"]), "0 problems; see e");
        expect![[r#"
            c: merchants[0].client_names[1]: empty, or with a blank or a letter outside ASCII (a DNS name or URI of the certificate, such as shop.example or spiffe://example/shop)
            c: merchants[0].client_names[2]: empty, or with a blank or a letter outside ASCII (a DNS name or URI of the certificate, such as shop.example or spiffe://example/shop)
            c: merchants[1].client_names[0]: the same as merchants[0].client_names[0] (one merchant's only, and given once)
            3 problems; see e"#]].assert_eq(&judged(&["a.example", "", "b c"], &["A.example"]));
        expect![[r#"
            c: merchants[1].client_names: missing, and listen.auth is mtls: nobody could speak for this merchant (a DNS name or URI of its app's certificate)
            1 problem; see e"#]].assert_eq(&judged(&["a.example"], &[]));
    }
}
