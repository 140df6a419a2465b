//! The shared vectors, every case of them, and properties of minify, signing and key reading.
//!
//! Promises that a case which is not understood fails rather than being skipped: each test counts
//! what it has checked. Vectors come from `tests/vectors`, so that other programs can read them too.

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn cases(vectors: &str) -> Vec<Value> {
    let vectors: Value = serde_json::from_str(vectors).unwrap();
    let cases = vectors["cases"].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

/// A text member that every case of its kind has.
fn text<'a>(case: &'a Value, member: &str) -> &'a str {
    case[member].as_str().unwrap_or_else(|| panic!("{}: no {member}", case["id"]))
}

/// Whichever of the two encodings a case carries.
fn signatures(case: &Value) -> Vec<(Encoding, &str)> {
    let found: Vec<_> = [(Encoding::Hex, "signature_hex"), (Encoding::Base64, "signature_base64")]
        .into_iter()
        .filter_map(|(encoding, member)| Some((encoding, case[member].as_str()?)))
        .collect();
    assert!(!found.is_empty(), "{}", case["id"]);
    found
}

fn check_body(case: &Value, raw: &str) -> BodyHash {
    let minified = text(case, "body_minified");
    assert_eq!(minify(raw.as_bytes()).as_ref(), minified.as_bytes(), "{}", case["id"]);
    let hash = body_hash(raw.as_bytes());
    assert_eq!(hash.as_str(), text(case, "body_sha256_hex"), "{}", case["id"]);
    hash
}

#[test]
fn minify_vectors() {
    let cases = cases(include_str!("../../tests/vectors/minify.json"));
    for case in &cases {
        let input = text(case, "input").as_bytes();
        let minified = minify(input);
        assert_eq!(minified.as_ref(), text(case, "output").as_bytes(), "{}", case["id"]);
        assert_eq!(body_hash(input).as_str(), text(case, "sha256_hex"), "{}", case["id"]);
        // What has nothing to drop is not copied.
        let compact = input.len() == minified.len();
        assert_eq!(matches!(minified, std::borrow::Cow::Borrowed(_)), compact, "{}", case["id"]);
    }
}

#[test]
fn minify_is_lexical_also_where_the_body_is_not_json() {
    // A backslash escapes inside strings only, a form feed is no JSON blank, a string may not end.
    assert_eq!(minify(b"\\ \" \" \x0c ").as_ref(), b"\\\" \"\x0c");
    assert_eq!(minify(b" { \"a b").as_ref(), b"{\"a b");
}

#[test]
fn symmetric_vectors() {
    for case in cases(include_str!("../../tests/vectors/signature-symmetric.json")) {
        let key = HmacKey::new(text(&case, "client_secret").as_bytes());
        if case["method"].is_null() {
            // One published case gives the string alone.
            check_hmac(&case, &key, &StringToSign::verbatim(text(&case, "string_to_sign")));
            continue;
        }
        let body_hash = check_body(&case, text(&case, "body_raw"));
        let request = SignedRequest {
            method: text(&case, "method"),
            path: text(&case, "path"),
            body_hash: &body_hash,
            timestamp: text(&case, "timestamp"),
        };
        check_hmac(&case, &key, &StringToSign::hmac_sha512(&request, text(&case, "access_token")));
    }
}

fn check_hmac(case: &Value, key: &HmacKey, string: &StringToSign<'_>) {
    assert_eq!(string.to_string(), text(case, "string_to_sign"), "{}", case["id"]);
    let expected = case["expect_verify"].as_bool().unwrap();
    for (encoding, signature) in signatures(case) {
        assert_eq!(key.verify(string, signature), expected, "{} {encoding:?}", case["id"]);
        assert_eq!(key.sign(string, encoding) == signature, expected, "{} {encoding:?}", case["id"]);
    }
}

#[test]
fn asymmetric_vectors() {
    let vectors = include_str!("../../tests/vectors/signature-asymmetric.json");
    let keys = serde_json::from_str::<Value>(vectors).unwrap()["keys"].take();
    let mut too_small = Vec::new();
    for case in cases(vectors) {
        let body_hash = case["body_minified"].as_str().map(|body| check_body(&case, body));
        let timestamp = text(&case, "timestamp");
        let string = match (text(&case, "form"), &body_hash) {
            ("token", None) => StringToSign::rsa_client_timestamp(text(&case, "client_id"), timestamp),
            ("transactional", Some(body_hash)) => StringToSign::rsa_transactional(&SignedRequest {
                method: text(&case, "method"),
                path: text(&case, "path"),
                body_hash,
                timestamp,
            }),
            other => panic!("{}: {other:?}", case["id"]),
        };
        assert_eq!(string.to_string(), text(&case, "string_to_sign"), "{}", case["id"]);
        let key = &keys[text(&case, "key_id")];
        let bits = u32::try_from(key["bits"].as_u64().unwrap()).unwrap();
        // AWS-LC verifies from 1024 bits on and signs from 2048 on. So of Ayoconnect's published
        // example, which has a 512-bit key, only the string can be checked, and of the 1024-bit
        // one only the verification.
        if bits < 1024 {
            too_small.push(text(&case, "id").to_owned());
            check_refused_as_too_small(key, bits);
            continue;
        }
        check_rsa_verify(&case, key, bits, &string);
        if bits >= 2048 {
            check_rsa_sign(&case, key, bits, &string);
        } else {
            assert_eq!(refusal(key), KeyError::TooSmall { bits, bits_min: 2048 });
        }
    }
    assert_eq!(too_small, ["asy-pub-ayoconnect-wallet-512"]);
}

fn refusal(key: &Value) -> KeyError {
    PrivateKey::from_pem(text(key, "private_pem")).unwrap_err()
}

fn check_refused_as_too_small(key: &Value, bits: u32) {
    assert_eq!(refusal(key), KeyError::TooSmall { bits, bits_min: 2048 });
    let public = PublicKey::from_pem(text(key, "public_pem")).unwrap_err();
    assert_eq!(public, KeyError::TooSmall { bits, bits_min: 1024 });
    assert!(public.to_string().contains("512 bits and at least 1024 are needed"), "{public}");
}

fn check_rsa_verify(case: &Value, key: &Value, bits: u32, string: &StringToSign<'_>) {
    let mut publics = vec![PublicKey::from_private_pem(text(key, "private_pem")).unwrap()];
    publics.extend(key["public_pem"].as_str().map(|pem| PublicKey::from_pem(pem).unwrap()));
    for public in publics {
        assert_eq!(public.bits(), bits);
        for (encoding, signature) in signatures(case) {
            let expected = case["expect_verify"].as_bool().unwrap();
            assert_eq!(public.verify(string, signature), expected, "{} {encoding:?}", case["id"]);
        }
    }
}

fn check_rsa_sign(case: &Value, key: &Value, bits: u32, string: &StringToSign<'_>) {
    for pem in ["private_pem", "private_pem_pkcs1"].iter().filter_map(|member| key[*member].as_str()) {
        let private = PrivateKey::from_pem(pem).unwrap();
        assert_eq!((private.bits(), private.public_key().bits()), (bits, bits));
        for (encoding, signature) in signatures(case) {
            let ours = private.sign(string, encoding).unwrap();
            assert!(private.public_key().verify(string, &ours), "{}", case["id"]);
            // One case carries upper-case hex, which is read but never written.
            let theirs = if encoding == Encoding::Hex { signature.to_lowercase() } else { signature.to_owned() };
            assert_eq!(ours == theirs, case["expect_verify"].as_bool().unwrap(), "{}", case["id"]);
        }
    }
}

fn key_of_the_vectors(id: &str, member: &str) -> String {
    let vectors: Value = serde_json::from_str(include_str!("../../tests/vectors/signature-asymmetric.json")).unwrap();
    vectors["keys"][id][member].as_str().unwrap().to_owned()
}

#[test]
fn names_read_back() {
    for scheme in Scheme::ALL {
        assert_eq!(Scheme::from_name(scheme.name()), Some(scheme));
    }
    for encoding in Encoding::ALL {
        assert_eq!(Encoding::from_name(encoding.name()), Some(encoding));
    }
    assert_eq!((Scheme::from_name("HMAC_SHA512"), Encoding::from_name("")), (None, None));
}

#[test]
fn nothing_secret_is_printed() {
    let private = PrivateKey::from_pem(&key_of_the_vectors("k1", "private_pem")).unwrap();
    assert_eq!(format!("{private:?} {:?}", private.public_key()), "PrivateKey(2048 bits) PublicKey(2048 bits)");
    assert_eq!(format!("{:?}", HmacKey::new(b"secret")), "HmacKey(\"***\")");
    let hash = body_hash(b"");
    let request = SignedRequest { method: "POST", path: "/", body_hash: &hash, timestamp: "" };
    assert_eq!(format!("{:?}", StringToSign::hmac_sha512(&request, "token")), "StringToSign(\"***\")");
}

#[test]
fn fingerprints_are_sixteen_digits() {
    assert_eq!(fingerprint(""), "sha256:e3b0c44298fc1c14");
}

#[test]
fn only_base64_that_is_complete_and_of_the_right_length_is_read() {
    let signature = STANDARD.encode([7; 64]);
    assert_eq!(decode(&signature, 64), Some(vec![7; 64]));
    assert_eq!(decode(signature.trim_end_matches('='), 64), None);
    assert_eq!(decode(&format!("{signature}\n"), 64), None);
    assert_eq!(decode(&STANDARD.encode([7; 63]), 64), None);
    assert_eq!(decode("", 64), None);
    // 128 hex digits are hex for a key of 64 bytes, and base64 of the right length for one of 96.
    let digits = "ab".repeat(64);
    assert_eq!(decode(&digits, 64), Some(vec![0xab; 64]));
    assert_eq!(decode(&digits, 96).map(|bytes| bytes.len()), Some(96));
    assert_eq!(decode(&digits, 63), None);
}

fn refused<K: std::fmt::Debug>(read: Result<K, KeyError>, expected: Expect) {
    expected.assert_eq(&read.unwrap_err().to_string());
}

#[test]
fn refused_keys_say_what_to_do() {
    let private = key_of_the_vectors("k1", "private_pem");
    let public = key_of_the_vectors("k1", "public_pem");
    let label = |label: &str| private.replace("PRIVATE KEY", label);
    let read = PrivateKey::from_pem;
    refused(
        read("sandbox"),
        expect![
            "no PEM key found: give the whole text, from its -----BEGIN line to its -----END line (a DER file becomes PEM with `openssl rsa -inform DER`)"
        ],
    );
    refused(
        read(&private.replace('\n', "\\n")),
        expect![
            "the PEM has lost its line breaks (spaces or a literal \\n stand in their place): restore them, or refer to the file instead of an environment variable"
        ],
    );
    refused(
        read(&private.replace('\n', " ")),
        expect![
            "the PEM has lost its line breaks (spaces or a literal \\n stand in their place): restore them, or refer to the file instead of an environment variable"
        ],
    );
    refused(read(&format!("{private}\n{public}")), expect!["the PEM holds several keys: leave only the one to use"]);
    refused(
        read(&label("CERTIFICATE")),
        expect!["this is a certificate, not a key: take its public key with `openssl x509 -pubkey -noout`"],
    );
    refused(
        read(&label("ENCRYPTED PRIVATE KEY")),
        expect!["the key is protected by a passphrase: store it without one, as `openssl pkey -in FILE` prints it"],
    );
    refused(
        read(PKCS1_ENCRYPTED),
        expect!["the key is protected by a passphrase: store it without one, as `openssl pkey -in FILE` prints it"],
    );
    refused(
        read(&label("OPENSSH PRIVATE KEY")),
        expect!["this is OpenSSH's own format: rewrite a copy of it with `ssh-keygen -p -m PEM -f FILE`"],
    );
    refused(read(&label("EC PRIVATE KEY")), expect!["not a plain RSA key: make one with `openssl genrsa 3072`"]);
    refused(read(ED25519), expect!["not a plain RSA key: make one with `openssl genrsa 3072`"]);
    refused(
        PublicKey::from_pem(&private),
        expect!["this is a private key, and only the public one belongs here: `openssl pkey -pubout` prints it"],
    );
    refused(read(&public), expect!["this is a public key, and signing needs the private one"]);
    refused(PublicKey::from_private_pem(&public), expect!["this is a public key, and signing needs the private one"]);
    let cut: String = private.lines().take(9).collect::<Vec<_>>().join("\n");
    refused(read(&cut), expect!["the key is damaged: copy it again, whole and unaltered"]);
    refused(
        read(&key_of_the_vectors("pub-ayo-512", "private_pem")),
        expect![
            "the key has 512 bits and at least 2048 are needed: make one with `openssl genrsa 3072` and hand its public key to Ayoconnect"
        ],
    );
}

#[test]
fn keys_are_read_in_every_usual_dress() {
    let pkcs8 = key_of_the_vectors("k1", "private_pem");
    let indented = pkcs8.lines().map(|line| format!("    {line}\r\n")).collect::<String>();
    let with_text = format!("Bag Attributes\n{pkcs8}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for pem in [&pkcs8, &key_of_the_vectors("k1", "private_pem_pkcs1"), &indented, &with_text] {
        assert_eq!(PrivateKey::from_pem(pem).unwrap().bits(), 2048);
    }
    let string = StringToSign::verbatim("x");
    let signature = PrivateKey::from_pem(&pkcs8).unwrap().sign(&string, Encoding::Hex).unwrap();
    assert!(PublicKey::from_pem(&pkcs1_public(&pkcs8)).unwrap().verify(&string, &signature));
}

/// The `BEGIN RSA PUBLIC KEY` form, which no vector has: a sequence of the two numbers.
fn pkcs1_public(private: &str) -> String {
    let block = pem::only_key(private).unwrap();
    let numbers = block.rsa_numbers().unwrap();
    let mut der = vec![0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00];
    der.extend_from_slice(numbers.modulus);
    der.extend_from_slice(&[0x02, u8::try_from(numbers.exponent.len()).unwrap()]);
    der.extend_from_slice(numbers.exponent);
    format!("-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----", STANDARD.encode(der))
}

/// JSON values whose strings contain what confuses a minifier.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        r#"[ \t\n\r"\\/{}\[\],:a-zé😀]{0,12}"#.prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((r#"[ "\\a-z]{0,6}"#, inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn minify_is_idempotent_on_any_bytes(body in r#"[ \t\n\r"\\{}:,a-z\x00\x0cé]{0,64}"#) {
        let once = minify(body.as_bytes()).into_owned();
        let twice = minify(&once).into_owned();
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn minify_keeps_the_value_and_leaves_the_compact_form(value in json()) {
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        let minified = minify(pretty.as_bytes());
        prop_assert_eq!(&serde_json::from_slice::<Value>(&minified).unwrap(), &value);
        prop_assert_eq!(minified.into_owned(), serde_json::to_vec(&value).unwrap());
    }

    #[test]
    fn hmac_round_trip_and_flipped_bits(
        secret in prop::collection::vec(any::<u8>(), 0..80),
        message in ".{1,80}",
        flip in any::<prop::sample::Index>(),
    ) {
        let key = HmacKey::new(&secret);
        let string = StringToSign::verbatim(&message);
        for encoding in Encoding::ALL {
            let signature = key.sign(&string, encoding);
            prop_assert!(key.verify(&string, &signature));
            for altered in flipped(&signature, flip) {
                prop_assert!(!key.verify(&string, &altered), "{altered}");
            }
        }
        let altered = format!("{message}.");
        prop_assert!(!key.verify(&StringToSign::verbatim(&altered), &key.sign(&string, Encoding::Hex)));
    }
}

proptest! {
    // RSA costs milliseconds in a debug build.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rsa_round_trip_and_flipped_bits(message in ".{0,80}", flip in any::<prop::sample::Index>()) {
        let key = PrivateKey::from_pem(&key_of_the_vectors("k1", "private_pem")).unwrap();
        let string = StringToSign::verbatim(&message);
        for encoding in Encoding::ALL {
            let signature = key.sign(&string, encoding).unwrap();
            prop_assert!(key.public_key().verify(&string, &signature));
            for altered in flipped(&signature, flip) {
                prop_assert!(!key.public_key().verify(&string, &altered), "{altered}");
            }
        }
    }
}

/// The signature with one bit of one character flipped, once per bit that yields ASCII, and one bit
/// of the bytes behind it. A flip that only changes the case of a hex digit is left out: hex is read
/// in both cases.
fn flipped(signature: &str, at: prop::sample::Index) -> Vec<String> {
    let at = at.index(signature.len());
    let texts = (0..7).map(|bit| {
        let mut bytes = signature.as_bytes().to_vec();
        bytes[at] ^= 1 << bit;
        String::from_utf8(bytes).unwrap()
    });
    let is_hex = hex::decode(signature).is_ok();
    let mut all: Vec<_> = texts.filter(|text| !(is_hex && text.eq_ignore_ascii_case(signature))).collect();
    if let Ok(mut bytes) = hex::decode(signature) {
        let byte = at / 2;
        bytes[byte] ^= 1 << (at % 8);
        all.push(Encoding::Hex.encode(&bytes));
        all.push(Encoding::Base64.encode(&bytes));
    }
    all
}

/// The start of what `openssl rsa -aes128 -traditional` writes; made for this test.
const PKCS1_ENCRYPTED: &str = "-----BEGIN RSA PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,754837E5C8AA44A3A7ACB1988CA84816

AAAA
-----END RSA PRIVATE KEY-----
";

/// A throw-away Ed25519 key in the same PKCS#8 dress as an RSA key.
const ED25519: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIMmmX5W++H+HhVDs2t8ARLI6zxnFRCAWFv/a/e2pMx0k
-----END PRIVATE KEY-----
";
