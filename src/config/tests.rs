//! The configuration's promises, held against whole files.
//!
//! Promises that these tests know texts, files and printed problems only, so that the steps in between
//! may be rearranged.

use std::fmt::Write as _;
use std::path::Path;

use expect_test::{Expect, expect};
use serde_json::Value;

use super::interpolate::Sources;
use super::sandbox_file::{KIND as SANDBOX, RawSandbox};
use super::*;

/// Reads a text as the gateway's file `c.yaml` beside the shipped key.
pub(super) fn read(text: &str) -> Result<Config, Problems> {
    let env = |name: &str| (name == "SECRET").then(|| "hush-hush".to_owned());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    from_yaml(text, &Sources { env: &env, folder: &folder }).map_err(|list| Problems::new("c.yaml", KIND.example, list))
}

pub(super) fn refused(text: &str, expected: &Expect) {
    let shown = read(text).unwrap_err().to_string();
    expected.assert_eq(&shown.replace(env!("CARGO_MANIFEST_DIR"), "ROOT"));
}

/// A valid file with more text behind it.
pub(super) fn valid_and(more: &str) -> String {
    let mut text = std::fs::read_to_string(shipped("minimal.yaml")).unwrap();
    text.push_str(more);
    text
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

fn no_env(_: &str) -> Option<String> {
    None
}

#[test]
fn a_file_full_of_mistakes_is_reported_at_once() {
    let text = r#"verson: 1
listen: { address: 0.0.0.0:8080, max_body: 64kb, auth: nobody }
admin:
  address: localhost:9080
upstream:
  base_url: https://user:pass@example.com/va
  attempt_timeout: 30s
  connect_timeout: 2
  snap:
    base_path: /va/api/v2.0/
    update_method: PATCH
    signature: { scheme: hmac_sha521 }
merchants:
  - name: one
    merchant_code: AYO
    client_id: ${AYO_CLIENT_ID}
    client_secret: 12345678
    private_key: |
      -----BEGIN NOTHING-----
  - name: one
    merchant_code: AYO002
    client_id: two
    client_secret: ""
    channel_id: 95221
    rate_limit: { per_second: 0, operations: { snap.craete: { per_second: 1 } } }
retry: { attempts: 11, base_delay: 5s, max_delay: 1s }
errors: { classic_validation_status: 500 }
log:
store: [memory]
"#;
    refused(
        text,
        &expect![[r#"
            c.yaml:1:1: verson: unknown key (did you mean `version`?)
            c.yaml:2:44: listen.max_body: expected a size such as 512B, 64KiB, 32MiB or 1GiB
            c.yaml:2:56: listen.auth: `nobody` is not one of none, api_key, mtls
            c.yaml:4:12: admin.address: `localhost:9080` is not an IP address with a port (write 127.0.0.1:9080)
            c.yaml:6:13: upstream.base_url: expected http:// or https:// with a host and nothing behind it (such as https://sandbox.api.of.ayoconnect.id; paths belong to base_path and token_path)
            c.yaml:7:20: upstream.attempt_timeout: longer than upstream.deadline (20s) (one attempt is part of what the deadline covers)
            c.yaml:8:20: upstream.connect_timeout: expected a duration such as 500ms, 8s, 15m, 48h or 35d (found a bare number)
            c.yaml:10:16: upstream.snap.base_path: `/va/api/v2.0/` is not a path (starts with `/`, does not end with it; letters, digits and -._~ between slashes)
            c.yaml:11:20: upstream.snap.update_method: `PATCH` is not one of PUT, POST
            c.yaml:12:26: upstream.snap.signature.scheme: `hmac_sha521` is not one of hmac_sha512, rsa_client_timestamp, rsa_transactional (did you mean `hmac_sha512`?)
            c.yaml:15:20: merchants[0].merchant_code: `AYO` is not six letters or digits (as given by Ayoconnect, such as AYOTST)
            c.yaml:16:16: merchants[0].client_id: the environment variable AYO_CLIENT_ID is not set (set it, or write ${AYO_CLIENT_ID:-default})
            c.yaml:17:20: merchants[0].client_secret: expected a string, found a number (put it in quotes)
            c.yaml:19:7: merchants[0].private_key: no PEM key found: give the whole text, from its -----BEGIN line to its -----END line (a DER file becomes PEM with `openssl rsa -inform DER`) (usually ${file:/run/secrets/ayo.pem})
            c.yaml:20:5: merchants[1].private_key: missing, and SNAP is enabled (${file:/path/to/key.pem}, or upstream.snap.enabled: false)
            c.yaml:20:11: merchants[1].name: the same as merchants[0].name (each merchant needs its own name)
            c.yaml:23:20: merchants[1].client_secret: empty (as given by Ayoconnect)
            c.yaml:24:17: merchants[1].channel_id: expected a string, found a number (put it in quotes)
            c.yaml:25:31: merchants[1].rate_limit.per_second: must be 1 to 1000000
            c.yaml:25:48: merchants[1].rate_limit.operations["snap.craete"]: unknown key (did you mean `snap.create`?)
            c.yaml:26:20: retry.attempts: must be 1 to 10
            c.yaml:26:36: retry.base_delay: longer than retry.max_delay (the pause doubles up to retry.max_delay)
            c.yaml:27:38: errors.classic_validation_status: must be 400 or 503
            c.yaml:28:4: log: expected keys with values, found nothing (leave the key out to get its default)
            c.yaml:29:8: store: expected keys with values, found a list
            25 problems; see config/example.yaml"#]],
    );
}

#[test]
fn keys_of_later_versions_are_refused_by_name() {
    let text = r"
listen: { auth: api_key }
upstream: { base_url: https://example.com }
merchants:
  - name: sample
    merchant_code: AYOTST
    client_id: a
    client_secret: b
    private_key: ${file:sandbox-key.pem}
    api_keys: []
    client_names: [x]
store: { kind: redis, url: redis://x }
callbacks:
  secret: 0123456789abcdef0123456789abcdef
  deliver: { url: http://127.0.0.1:3000, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw }
";
    refused(
        text,
        &expect![[r#"
            c.yaml:10:5: merchants[0].api_keys: missing, and listen.auth is api_key: nobody could speak for this merchant ("sha256:<hash>", the hash as from `printf %s "$KEY" | sha256sum`, the key as from `openssl rand -hex 32`)
            c.yaml:11:5: merchants[0].client_names: listen.auth is not mtls, so nobody would be asked (set listen.auth: mtls, or remove it)
            c.yaml:12:16: store.kind: `redis` is not available in this version (store: { kind: sqlite } on a local disk; one process serves a file)
            c.yaml:12:23: store.url: not available in this version (store: { kind: sqlite, path: ./data/ayova.db } has no address)
            4 problems; see config/example.yaml"#]],
    );
    refused(
        &valid_and("listen: { auth: mtls }\nstore: { kind: memory, path: x.db }\n"),
        &expect![[r#"
            c.yaml:8:5: merchants[0].client_names: missing, and listen.auth is mtls: nobody could speak for this merchant (a DNS name or URI of its app's certificate)
            c.yaml:13:17: listen.auth: `mtls` needs listen.tls with a client_ca (listen.tls.client_ca says whose certificates count; without it, api_key proves who an app is)
            c.yaml:14:30: store.path: goes with kind sqlite (leave it out: kind memory has no file)
            3 problems; see config/example.yaml"#]],
    );
}

/// With a secret, an app and nothing else that has a default.
const CALLBACKS: &str = "callbacks:
  secret: 0123456789abcdef0123456789abcdef
  deliver: { url: http://127.0.0.1:3000/payments?a=b, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw }
";

#[test]
fn callbacks_are_read_and_shown_without_their_secrets() {
    let sources = Sources { env: &|_| None, folder: Path::new("config") };
    let text = format!(
        "{CALLBACKS}  previous_secrets: [{}]\n  allow: [203.0.113.0/24, 10.1.2.3]\n  sweep: {{ every: 1h }}\n",
        "f".repeat(32)
    );
    let config = from_yaml(&valid_and(&text), &sources).unwrap();
    let callbacks = config.callbacks.as_ref().unwrap();
    assert_eq!(callbacks.listen.to_string(), "0.0.0.0:8443");
    assert_eq!(callbacks.confirm, Confirm::Unsigned);
    let deliver = callbacks.deliver_to(&config.merchants[0]).unwrap();
    assert_eq!((deliver.timeout.as_secs(), deliver.retry_for.as_secs(), deliver.in_flight), (10, 72 * 3_600, 16));
    let shown = effective_yaml(&config);
    for secret in ["0123456789abcdef", "MfKQ9", "fff"] {
        assert!(!shown.contains(secret) && !format!("{config:?}").contains(secret), "{shown}");
    }
    let section = &shown[shown.find("callbacks:\n").unwrap()..];
    expect![[r#"
        callbacks:
          listen:
            address: 0.0.0.0:8443
          secret: "***"
          previous_secrets:
            - "***"
          allow:
            - "203.0.113.0/24"
            - "10.1.2.3/32"
          trusted_proxies: []
          verify: none
          confirm: unsigned
          deliver:
            url: "http://127.0.0.1:3000/payments?a=b"
            secret: "***"
            timeout: 10s
            retry_for: 3d
            in_flight: 16
          sweep:
            every: 1h
            before_expiry: 2m
            after_expiry: 5m
    "#]]
    .assert_eq(section);
}

#[test]
fn signatures_are_checked_with_exactly_the_keys_they_need() {
    let with = |more: &str| valid_and(&format!("{CALLBACKS}{more}"));
    let hmac = read(&with("  verify: hmac_sha512\n")).unwrap();
    assert!(matches!(hmac.callbacks.as_ref().unwrap().verify, Verify::HmacSha512));
    let rsa = "  verify: rsa_transactional\n  public_key: ${file:sandbox-callback-public.pem}\n";
    let rsa = read(&with(rsa)).unwrap();
    let Verify::RsaTransactional(public) = &rsa.callbacks.as_ref().unwrap().verify else { panic!("{rsa:?}") };
    assert_eq!(public.key.bits(), 2048);
    // The key is no secret: it is shown as it was given, and reads back.
    let shown = effective(&rsa)["callbacks"].clone();
    assert_eq!((&shown["verify"], &shown["public_key"]), (&"rsa_transactional".into(), &Value::from(&*public.pem)));
    let yaml = effective_yaml(&rsa);
    let section = &yaml[yaml.find("  verify: ").unwrap()..yaml.find("  confirm: ").unwrap()];
    assert_eq!(effective_yaml(&read(&with(section)).unwrap()), yaml);
    refused(
        &with("  verify: rsa_transactional\n"),
        &expect![[r#"
        c.yaml:13:1: callbacks.public_key: missing (Ayoconnect's public key as PEM, usually ${file:ayoconnect-public.pem})
        1 problem; see config/example.yaml"#]],
    );
    refused(
        &with("  verify: hmac_sha512\n  public_key: x\n"),
        &expect![[r#"
            c.yaml:17:15: callbacks.public_key: goes with verify: rsa_transactional (leave it out, or say so)
            1 problem; see config/example.yaml"#]],
    );
    refused(
        &with("  public_key: x\n"),
        &expect![[r#"
            c.yaml:16:15: callbacks.public_key: goes with verify: rsa_transactional (leave it out, or say so)
            1 problem; see config/example.yaml"#]],
    );
    refused(
        &with("  verify: rsa_transactional\n  public_key: x\n"),
        &expect![[r#"
            c.yaml:17:15: callbacks.public_key: no PEM key found: give the whole text, from its -----BEGIN line to its -----END line (a DER file becomes PEM with `openssl rsa -inform DER`) (usually ${file:ayoconnect-public.pem})
            1 problem; see config/example.yaml"#]],
    );
    let private = "  verify: rsa_transactional\n  public_key: ${file:sandbox-key.pem}\n";
    refused(
        &with(private),
        &expect![[r#"
            c.yaml:17:15: callbacks.public_key: this is a private key, and only the public one belongs here: `openssl pkey -pubout` prints it (usually ${file:ayoconnect-public.pem})
            1 problem; see config/example.yaml"#]],
    );
}

#[test]
fn callbacks_that_make_no_sense_are_refused() {
    refused(
        &valid_and(
            "callbacks:\n  secret: short\n  allow: [10.0.0.1/8, x]\n  listen: { address: 127.0.0.1:8080 }\n  sweep: { every: 0s, after_expiry: 2h }\n  deliver: { url: ftp://x, secret: whsec_x, timeout: 0s, in_flight: 0 }\n",
        ),
        &expect![[r#"
            c.yaml:14:11: callbacks.secret: too short, too long, or no part of an address (32 to 256 letters, digits, `-` or `_`, such as from `openssl rand -hex 32`)
            c.yaml:15:11: callbacks.allow[0]: `10.0.0.1/8` is not a network (such as 203.0.113.0/24 or 2001:db8::/32, with zeros behind the prefix)
            c.yaml:15:23: callbacks.allow[1]: `x` is not a network (such as 203.0.113.0/24 or 2001:db8::/32, with zeros behind the prefix)
            c.yaml:16:22: callbacks.listen.address: the same address as listen.address (take another port, such as 8443; Ayoconnect must reach neither the app's listener nor the admin's)
            c.yaml:17:19: callbacks.sweep.every: zero (1s to 366d)
            c.yaml:17:37: callbacks.sweep.after_expiry: 2h is out of bounds (1ms to 1h)
            c.yaml:18:19: callbacks.deliver.url: expected http:// or https:// with a host (such as http://127.0.0.1:3000/payments; no user, no fragment)
            c.yaml:18:36: callbacks.deliver.secret: what follows whsec_ is not base64 (such as from `echo whsec_$(openssl rand -base64 32)`)
            c.yaml:18:54: callbacks.deliver.timeout: zero (1ms to 1h)
            c.yaml:18:69: callbacks.deliver.in_flight: must be 1 to 1000
            10 problems; see config/example.yaml"#]],
    );
    refused(
        &valid_and("callbacks: { secret: 0123456789abcdef0123456789abcdef }\n"),
        &expect![[r#"
        c.yaml:13:1: callbacks.deliver: missing (where events go; or give every merchant its own)
        1 problem; see config/example.yaml"#]],
    );
    let (one, other) = ("0123456789abcdef0123456789abcdef", "f".repeat(32));
    let previous = format!("  previous_secrets: [short, '{one}', '{other}', '{other}']\n");
    refused(
        &valid_and(&format!("{CALLBACKS}{previous}")),
        &expect![[r#"
        c.yaml:16:22: callbacks.previous_secrets[0]: too short, too long, or no part of an address (32 to 256 letters, digits, `-` or `_`, such as from `openssl rand -hex 32`)
        c.yaml:16:29: callbacks.previous_secrets[1]: the same as callbacks.secret (the new one goes there, what it replaces here)
        c.yaml:16:101: callbacks.previous_secrets[3]: given twice (remove one of them)
        3 problems; see config/example.yaml"#]],
    );
    let nine: String = ('a'..='i').map(|letter| format!("{}, ", letter.to_string().repeat(32))).collect();
    refused(
        &valid_and(&format!("{CALLBACKS}  previous_secrets: [{nine}]\n")),
        &expect![[r#"
            c.yaml:16:3: callbacks.previous_secrets: more than 8 (remove those Ayoconnect no longer calls; the address with each of them is open)
            1 problem; see config/example.yaml"#]],
    );
}

#[test]
fn broken_yaml_is_reported_with_its_place() {
    refused(
        "merchants: [\n",
        &expect![[r#"
        c.yaml:2:1: YAML: while parsing a node, did not find expected node content
        1 problem; see config/example.yaml"#]],
    );
    refused(
        "listen:\n\taddress: x\n",
        &expect![[r#"
        c.yaml:2:2: YAML: tabs disallowed within this context (block indentation)
        1 problem; see config/example.yaml"#]],
    );
    refused(
        "a: b: c\n",
        &expect![[r#"
        c.yaml:1:5: YAML: mapping values are not allowed in this context
        1 problem; see config/example.yaml"#]],
    );
    refused(
        "",
        &expect![[r#"
            c.yaml: the file is empty
            1 problem; see config/example.yaml"#]],
    );
    refused(
        "- 1\n",
        &expect![[r#"
        c.yaml:1:1: expected keys with values, found a list
        1 problem; see config/example.yaml"#]],
    );
    refused(
        &valid_and("---\nversion: 1\n"),
        &expect![[r#"
        c.yaml:13:1: YAML: a second document (one document a file; remove the `---`)
        1 problem; see config/example.yaml"#]],
    );
    refused(
        &valid_and("version: 1\nversion: 1\nretry: { attempts: 1, attempts: 2 }\n"),
        &expect![[r#"
        c.yaml:14:1: YAML: the key `version` is given twice (first in line 13)
        c.yaml:15:23: YAML: the key `attempts` is given twice (first in line 15)
        2 problems; see config/example.yaml"#]],
    );
    refused(
        &valid_and("retry: !!map { attempts: 1 }\nlog: { level: !secret info }\n? [a]\n: 1\n"),
        &expect![[r#"
            c.yaml:13:8: YAML: tags are not supported (remove the word with the `!`)
            c.yaml:14:15: YAML: tags are not supported (remove the word with the `!`)
            c.yaml:15:3: YAML: this cannot be a key (a key is a word followed by `:`)
            3 problems; see config/example.yaml"#]],
    );
}

#[test]
fn hostile_yaml_is_refused_cheaply() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        writeln!(bomb, "a{level}: &a{level} [*a{0}, *a{0}, *a{0}]", level - 1).unwrap();
    }
    let problems = read(&bomb).unwrap_err();
    assert!(problems.list().iter().any(|problem| problem.message == "YAML: aliases are not supported"));
    for opening in ["[", "{", "- ", "? ", "{a: ", "\"", "&a ", "!", "|\n", "a:\n "] {
        read(&opening.repeat(1_000_000 / opening.len())).unwrap_err();
    }
    refused(
        &"[".repeat(20),
        &expect![[r#"
            c.yaml:1:17: YAML: nested too deeply (at most 16 levels)
            1 problem; see config/example.yaml"#]],
    );
}

/// Each takes a second or two where the work grows with the text, and minutes where it grows with its
/// square.
#[test]
fn long_files_are_judged_in_time() {
    let keys = (0..80_000).fold("x:\n".to_owned(), |text, number| text + &format!(" k{number}: 1\n"));
    let merchants = "merchants:\n".to_owned() + &"- {name: a}\n".repeat(20_000);
    let networks = "callbacks:\n  allow:\n".to_owned() + &"  - x\n".repeat(60_000);
    for text in [keys, merchants, networks] {
        let (done, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(read(&text).is_err()));
        assert!(ended.recv_timeout(Duration::from_secs(30)).unwrap());
    }
}

#[test]
fn a_file_over_one_mebibyte_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.yaml");
    std::fs::write(&path, vec![b' '; 10 << 20]).unwrap();
    let shown = load(&path, &no_env).unwrap_err().to_string();
    assert!(shown.contains("c.yaml: larger than 1 MiB"), "{shown}");
    let shown = load(&folder.path().join("none.yaml"), &no_env).unwrap_err().to_string();
    assert!(shown.contains("none.yaml: cannot read the file: No such file"), "{shown}");
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    let shown = load(&path, &no_env).unwrap_err().to_string();
    assert!(shown.contains("c.yaml: not UTF-8 text"), "{shown}");
}

#[test]
fn references_work_in_values_of_every_kind() {
    let config = read(&valid_and("retry: { attempts: '${N:-5}' }\nreference: { on_miss: '${M:-reject}' }\n")).unwrap();
    assert_eq!(config.retry.attempts, 5);
    assert_eq!(config.reference.on_miss, OnMiss::Reject);
    let config = read(&valid_and("listen: { address: '127.0.0.1:${PORT:-0}' }\n")).unwrap();
    assert_eq!(config.listen.address.to_string(), "127.0.0.1:0");
    refused(
        &valid_and("retry: { attempts: '5' }\nlog: { level: '${SECRET}' }\nbreaker: { failures: '${SECRET}' }\n"),
        &expect![[r#"
            c.yaml:13:20: retry.attempts: expected a whole number, found a string (a number without quotes and without a unit)
            c.yaml:14:15: log.level: the value is not one of error, warn, info, debug, trace
            c.yaml:15:22: breaker.failures: expected a whole number, found a string (a number without quotes and without a unit)
            3 problems; see config/example.yaml"#]],
    );
    refused(
        &valid_and("admin: { address: '${file:none}' }\n"),
        &expect![[r#"
            c.yaml:13:19: admin.address: cannot read ROOT/config/none: No such file or directory (os error 2) (a relative path counts from the configuration file's folder)
            1 problem; see config/example.yaml"#]],
    );
}

#[test]
fn what_belongs_together_is_checked_together() {
    let check = |more: &str, message: &str| {
        let problems = read(&valid_and(more)).unwrap_err();
        let found = problems.list().iter().any(|problem| problem.message.contains(message));
        assert!(found, "{more}: {problems}");
    };
    check("admin: { address: 127.0.0.1:8080 }", "the same address as listen.address");
    check("admin: { address: 0.0.0.0:8080 }", "the same address as listen.address");
    check("listen: { body_timeout: 0s }", "zero");
    check("listen: { address: '[::]:8080' }", "not a loopback address");
    check("idempotency: { retention: 999999999d }", "999999999d is out of bounds");
    check("idempotency: { memory: 1KiB }", "1KiB is out of bounds");
    check("version: 2", "must be 1");
    read(&valid_and("listen: { address: '[::1]:0' }\nadmin: { address: 0.0.0.0:0 }\n")).unwrap();
}

#[test]
fn generations_can_be_switched_off_but_not_both() {
    let text = |classic: bool, snap: bool| {
        format!(
            "upstream: {{ base_url: http://h, classic: {{ enabled: {classic} }}, snap: {{ enabled: {snap} }} }}
merchants: [{{ name: a, merchant_code: AYOTST, client_id: b, client_secret: c }}]
"
        )
    };
    let config = read(&text(true, false)).unwrap();
    assert!(config.merchants[0].private_key.is_none());
    refused(
        &text(false, false),
        &expect![[r#"
        c.yaml:1:79: upstream.snap.enabled: both generations are off, so there is nothing to serve (set upstream.snap.enabled or upstream.classic.enabled to true)
        1 problem; see config/example.yaml"#]],
    );
    refused(
        &text(true, true),
        &expect![[r#"
        c.yaml:2:13: merchants[0].private_key: missing, and SNAP is enabled (${file:/path/to/key.pem}, or upstream.snap.enabled: false)
        1 problem; see config/example.yaml"#]],
    );
}

#[test]
fn origins() {
    for (url, good) in [
        ("http://127.0.0.1:9090", true),
        ("https://api.of.ayoconnect.id/", true),
        ("https://[::1]:1", true),
        ("https://[::1]", true),
        ("ftp://host", false),
        ("host:80", false),
        ("/path", false),
        ("https://", false),
        ("https://host:", false),
        ("https://host/va", false),
        ("https://host?x", false),
        ("https://host#x", false),
        ("https://user@host", false),
        ("https://host:99999", false),
    ] {
        let mut found = Findings::default();
        assert_eq!(check::origin("u", url, &mut found).is_some(), good, "{url}");
        assert_eq!(found.problems.is_empty(), good, "{url}");
    }
}

#[test]
fn secrets_are_never_shown() {
    let config = read(&valid_and("")).unwrap();
    for shown in [format!("{config:?}"), effective_yaml(&config), effective(&config).to_string()] {
        for secret in ["sandbox-secret", "sandbox-client", "PRIVATE KEY", "MIIE"] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
        assert!(shown.contains("***"), "{shown}");
    }
    // A secret at the wrong place, as a literal and from outside.
    for key in ["name", "merchant_code", "channel_id", "client_id", "client_secret", "private_key", "wrong"] {
        for value in ["${SECRET} ünd", "${file:sandbox-key.pem}"] {
            let merchant = format!("upstream: {{ base_url: '${{SECRET}}' }}\nmerchants: [{{ {key}: \"{value}\" }}]\n");
            let problems = read(&merchant).unwrap_err();
            let shown = format!("{problems} {problems:?}");
            assert!(!shown.contains("hush") && !shown.contains("MIIE"), "{shown}");
        }
    }
    let literal = "merchants: [{ client_secret: 4242424242, client_id: 'a b hush', private_key: hush }]\n";
    let shown = format!("{}", read(literal).unwrap_err());
    assert!(!shown.contains("hush") && !shown.contains("4242"), "{shown}");
}

#[test]
fn the_effective_configuration_reads_back() {
    let more = "listen: { max_body: 1000B }\nretry: { base_delay: 1500ms }\n";
    let limit = "    rate_limit: { per_second: 50, operations: { snap.create: { per_second: 10, burst: 20 } } }\n";
    let config = read(&valid_and(&format!("{limit}{more}"))).unwrap();
    let yaml = effective_yaml(&config);
    let restored = yaml
        .replacen("private_key: \"***\"", "private_key: ${file:sandbox-key.pem}", 1)
        .replace("client_id: \"***\"", "client_id: sandbox-client")
        .replace("client_secret: \"***\"", "client_secret: sandbox-secret");
    assert_eq!(effective_yaml(&read(&restored).unwrap()), yaml);
    expect![[r#"
        version: 1
        listen:
          address: 127.0.0.1:8080
          auth: none
          max_body: 1000B
          body_timeout: 5s
          header_timeout: 5s
        admin:
          address: 127.0.0.1:9080
        upstream:
          base_url: http://127.0.0.1:9090
          connect_timeout: 2s
          attempt_timeout: 8s
          deadline: 20s
          classic:
            enabled: true
            base_path: /api/v1
            token_path: /v1/oauth/client_credential/accesstoken
          snap:
            enabled: true
            base_path: /va/api/v2.0
            token_path: /va/api/v2.0/access-token/b2b
            update_method: PUT
            signature:
              scheme: hmac_sha512
              encoding: hex
        merchants:
          - name: sample
            merchant_code: AYOTST
            client_id: "***"
            client_secret: "***"
            private_key: "***"
            channel_id: "95221"
            api_keys: []
            client_names: []
            rate_limit:
              per_second: 50
              burst: 50
              in_flight: 64
              operations:
                snap.create:
                  per_second: 10
                  burst: 20
        idempotency:
          key: require
          retention: 48h
          trx_id_retention: 35d
          wait: 10s
          memory: 64MiB
          same_trx_id: replay
        reference:
          on_mismatch: recorded_first
          on_miss: inquiry
          memory: 32MiB
        retry:
          attempts: 3
          base_delay: 1500ms
          max_delay: 2s
          budget_percent: 20
        breaker:
          failures: 10
          window: 10s
          open_for: 5s
        store:
          kind: sqlite
          path: "./data/ayova.db"
        errors:
          classic_validation_status: 400
        log:
          format: auto
          level: info
        shutdown:
          grace: 30s
    "#]]
    .assert_eq(&yaml);
}

#[test]
fn the_shipped_files_are_valid() {
    let minimal = load(&shipped("minimal.yaml"), &no_env).unwrap();
    let example = load(&shipped("example.yaml"), &no_env).unwrap();
    let mut sample = Config::sample(
        "127.0.0.1:8080".parse().unwrap(),
        "127.0.0.1:9080".parse().unwrap(),
        "127.0.0.1:9090".parse().unwrap(),
    )
    .unwrap();
    assert_eq!(sample.store, Store::Memory);
    assert_eq!(minimal.store, Store::Sqlite(shipped("data/ayova.db")));
    sample.store = minimal.store.clone();
    assert_eq!(effective_yaml(&minimal), effective_yaml(&sample));
    assert_eq!(sample.merchants[0].client_secret.expose(), minimal.merchants[0].client_secret.expose());
    // The example holds the defaults: only the upstream's address differs.
    sample.upstream.base_url = example.upstream.base_url.clone();
    assert_eq!(effective_yaml(&example), effective_yaml(&sample));
    let exposed = "0.0.0.0:8080".parse().unwrap();
    Config::sample(exposed, "127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap()).unwrap_err();
}

#[test]
fn sandbox_yaml_holds_the_defaults() {
    let file = SandboxConfig::load(&shipped("sandbox.yaml"), &no_env).unwrap();
    let default = SandboxConfig::default();
    assert_eq!(format!("{file:?}"), format!("{default:?}"));
    assert_eq!(file.merchants[0].client_secret.expose(), default.merchants[0].client_secret.expose());
    match (&file.merchants[0].key, &default.merchants[0].key) {
        (sandbox::MerchantKey::PrivatePem(file), sandbox::MerchantKey::PrivatePem(default)) => {
            assert_eq!(file.expose(), default.expose());
        }
        other => panic!("{other:?}"),
    }
    // Without a file the same holds.
    let empty = SandboxConfig::from_yaml("{}", &Sources { env: &no_env, folder: Path::new("") }).unwrap();
    assert_eq!(format!("{empty:?}"), format!("{default:?}"));
}

#[test]
fn sandbox_mistakes_are_reported_at_once() {
    let text = r#"
listen: 9090
merchants:
  - { name: a, merchant_code: AYOTST, client_id: x, client_secret: y }
  - { name: b, merchant_code: AYOTST, client_id: x, client_secret: y, public_key: nonsense }
classic: { validation_status: 200, updatable_states: [UNUSED, OPEN], initial_state: { BNX: UNUSED } }
snap:
  base_paths: []
  token_life: 1500ms
  token_success_code: 2007300
  signature: { accept: [hex, base46] }
  min_closed_amount: 10000
  idempotency_mod: replay
callbacks: { snap: localhost, retry_delays: [5s, 0s] }
"#;
    let list = SandboxConfig::from_yaml(text, &Sources { env: &no_env, folder: Path::new("") }).unwrap_err();
    expect![[r#"
        s.yaml:2:9: listen: expected a string, found a number (put it in quotes)
        s.yaml:4:5: merchants[0].public_key: missing (the public key as PEM, or private_key)
        s.yaml:5:31: merchants[1].merchant_code: the same as merchants[0].merchant_code (each merchant needs its own merchant_code)
        s.yaml:5:83: merchants[1].public_key: no PEM key found: give the whole text, from its -----BEGIN line to its -----END line (a DER file becomes PEM with `openssl rsa -inform DER`) (usually ${file:public.pem})
        s.yaml:6:31: classic.validation_status: must be 400 to 599
        s.yaml:6:63: classic.updatable_states[1]: `OPEN` is not one of UNUSED, INQUIRED, PAID, INACTIVE, EXPIRED
        s.yaml:6:87: classic.initial_state.BNX: unknown key (did you mean `BNI`?)
        s.yaml:8:15: snap.base_paths: at least 1 needed
        s.yaml:9:15: snap.token_life: not whole seconds (the protocol tells a token's life in seconds)
        s.yaml:10:23: snap.token_success_code: expected a string, found a number (put it in quotes)
        s.yaml:11:30: snap.signature.accept[1]: `base46` is not one of hex, base64 (did you mean `base64`?)
        s.yaml:12:22: snap.min_closed_amount: expected an amount with two decimals such as "10000.00" (found a bare number)
        s.yaml:13:3: snap.idempotency_mod: unknown key (did you mean `idempotency_mode`?)
        s.yaml:14:20: callbacks.snap: expected an http:// or https:// address (such as http://127.0.0.1:3000/payments)
        s.yaml:14:50: callbacks.retry_delays[1]: zero (1ms to 1h)
        15 problems; see config/sandbox.yaml"#]].assert_eq(&Problems::new("s.yaml", SANDBOX.example, list).to_string());
}

/// Every key of a schema, wherever it stands.
fn keys(schema: &Value, into: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::Object(properties)) = map.get("properties") {
                into.extend(properties.keys().cloned());
            }
            map.values().for_each(|value| keys(value, into));
        }
        Value::Array(list) => list.iter().for_each(|value| keys(value, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_examples_name_every_key() {
    // A bank without an entry starts at UNUSED; the comment names the banks.
    let banks = ["BRI", "MANDIRI", "BNI", "BCA", "public_key"];
    for (file, schema) in [("example.yaml", schema()), ("sandbox.yaml", schema::of::<RawSandbox>())] {
        let text = std::fs::read_to_string(shipped(file)).unwrap();
        let mut found = Vec::new();
        keys(&schema, &mut found);
        assert!(found.len() > 40, "{found:?}");
        for key in found {
            let named =
                if banks.contains(&key.as_str()) { text.contains(&key) } else { text.contains(&format!("{key}:")) };
            assert!(named, "{file} does not explain {key}");
        }
    }
}

#[test]
fn the_schema_describes_every_key_and_allows_no_null() {
    fn walk(schema: &Value, path: &str) {
        match schema {
            Value::Object(map) => {
                assert_ne!(map.get("type"), Some(&Value::from("null")), "{path}");
                if let Some(Value::Object(properties)) = map.get("properties") {
                    for (key, property) in properties {
                        assert!(property.get("description").is_some(), "{path}/{key} has no description");
                        assert!(property.get("default").is_none_or(|default| !default.is_null()), "{path}/{key}");
                    }
                    assert_eq!(map.get("additionalProperties"), Some(&Value::Bool(false)), "{path}");
                }
                for (key, value) in map {
                    walk(value, &format!("{path}/{key}"));
                }
            }
            Value::Array(list) => list.iter().for_each(|value| walk(value, path)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["required"], serde_json::json!(["upstream", "merchants"]));
    walk(&schema, "");
    walk(&schema::of::<RawSandbox>(), "");
}
