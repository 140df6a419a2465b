//! Signatures of every scheme, made and verified, and the explanation a person gets of them.
//!
//! Input: lines: switches (letters), method, path, token, timestamp, client id, the other side's string or
//! signature; then the body. Switches: `t` and `r` choose the RSA schemes, `b` base64.

use std::path::PathBuf;
use std::sync::LazyLock;

use ayova::cli::signature::{sign, verify};
use ayova::cli::{Cli, Command};
use ayova::config::sandbox::SAMPLE_KEY_PEM;
use ayova::signature::{
    Encoding, HmacKey, PrivateKey, PublicKey, Scheme, SignedRequest, StringToSign, body_hash, fingerprint,
};
use clap::Parser as _;
use tempfile::TempDir;

use super::text::lines;

const SECRET: &str = "sandbox-secret";

/// The target's body.
pub fn run(data: &[u8]) {
    let ([switches, method, path, token, timestamp, client_id, other], body) = lines(data);
    let scheme = match switches.as_bytes() {
        [b't', ..] => Scheme::RsaClientTimestamp,
        [b'r', ..] => Scheme::RsaTransactional,
        _ => Scheme::HmacSha512,
    };
    let encoding = if switches.ends_with('b') { Encoding::Base64 } else { Encoding::Hex };
    let case = Case { scheme, encoding, method, path, token, timestamp, client_id, other, body };
    case.signs();
    case.explains();
}

struct Case<'a> {
    scheme: Scheme,
    encoding: Encoding,
    method: String,
    path: String,
    token: String,
    timestamp: String,
    client_id: String,
    other: String,
    body: &'a [u8],
}

impl Case<'_> {
    /// The string to sign, put together by hand.
    fn string(&self, token: &str) -> String {
        let Self { method, path, timestamp, client_id, .. } = self;
        let hash = body_hash(self.body);
        match self.scheme {
            Scheme::HmacSha512 => format!("{method}:{path}:{token}:{hash}:{timestamp}"),
            Scheme::RsaTransactional => format!("{method}:{path}:{hash}:{timestamp}"),
            Scheme::RsaClientTimestamp => format!("{client_id}|{timestamp}"),
        }
    }

    /// What is signed verifies, in either encoding; anything else does not.
    fn signs(&self) {
        let hash = body_hash(self.body);
        let Self { method, path, token, timestamp, client_id, .. } = self;
        let request = SignedRequest { method, path, body_hash: &hash, timestamp };
        let text = match self.scheme {
            Scheme::HmacSha512 => StringToSign::hmac_sha512(&request, token),
            Scheme::RsaTransactional => StringToSign::rsa_transactional(&request),
            Scheme::RsaClientTimestamp => StringToSign::rsa_client_timestamp(client_id, timestamp),
        };
        let written = text.to_string();
        assert_eq!(written, self.string(token));
        assert_eq!(format!("{text:?}"), "StringToSign(\"***\")");
        let longer = format!("{written}0");
        for encoding in Encoding::ALL {
            let signature = self.sign(&text, encoding);
            assert_eq!(signature, self.sign(&StringToSign::verbatim(&written), encoding), "in pieces or whole");
            assert!(self.verify(&text, &signature));
            assert!(!self.verify(&StringToSign::verbatim(&longer), &signature));
            assert!(!self.verify(&text, &signature[1..]) && !self.verify(&text, &format!("{signature}0")));
            assert_eq!(self.verify(&text, &self.other), self.is_signature(&text, &self.other));
            if self.scheme != Scheme::HmacSha512 {
                // An RSA operation costs a thousand of the others.
                break;
            }
        }
    }

    fn sign(&self, text: &StringToSign<'_>, encoding: Encoding) -> String {
        match self.scheme {
            Scheme::HmacSha512 => SIGNER.hmac.sign(text, encoding),
            Scheme::RsaTransactional | Scheme::RsaClientTimestamp => SIGNER.private.sign(text, encoding).unwrap(),
        }
    }

    fn verify(&self, text: &StringToSign<'_>, signature: &str) -> bool {
        match self.scheme {
            Scheme::HmacSha512 => SIGNER.hmac.verify(text, signature),
            Scheme::RsaTransactional | Scheme::RsaClientTimestamp => SIGNER.public.verify(text, signature),
        }
    }

    /// Whether it is the one right signature, in hex of any case or in base64.
    fn is_signature(&self, text: &StringToSign<'_>, signature: &str) -> bool {
        signature.len() > 80
            && (signature.eq_ignore_ascii_case(&self.sign(text, Encoding::Hex))
                || signature == self.sign(text, Encoding::Base64))
    }

    /// The commands agree with the library, and their explanation shows neither token nor secret.
    fn explains(&self) {
        std::fs::write(&SIGNER.body, self.body).unwrap();
        let ours = self.string(&self.token);
        let signed = self.command("sign", &[format!("--encoding={}", self.encoding.name())], &ours);
        // The method is written in capitals for whoever types it.
        if self.method == self.method.to_ascii_uppercase() {
            let signature = self.sign(&StringToSign::verbatim(&self.string(self.bare_token())), self.encoding);
            assert!(signed.ends_with(&format!("\n{signature}\n")), "{signed}");
            let verdict = self.command("verify", &[format!("--signature={signature}")], &self.other);
            assert!(verdict.ends_with("\nsignature is good\n"), "{verdict}");
            self.keeps_the_token(&verdict);
            if self.token == self.bare_token() {
                assert!(signed.contains("\nno difference\n"), "our own string differs from ours: {signed}");
            }
        }
        self.keeps_the_token(&signed);
    }

    /// The command line takes a token with or without this word.
    fn bare_token(&self) -> &str {
        self.token.strip_prefix("Bearer ").unwrap_or(&self.token)
    }

    /// What a command writes. Its options take every text.
    fn command(&self, name: &str, more: &[String], against: &str) -> String {
        let mut words = vec!["ayova".to_owned(), name.to_owned()];
        words.extend(more.iter().cloned());
        words.push(format!("--scheme={}", self.scheme.name()));
        words.push(format!("--method={}", self.method));
        words.push(format!("--path={}", self.path));
        words.push(format!("--token={}", self.token));
        words.push(format!("--timestamp={}", self.timestamp));
        words.push(format!("--client-id={}", self.client_id));
        words.push(format!("--secret-file={}", SIGNER.secret.display()));
        words.push(format!("--key={}", SIGNER.key.display()));
        words.push(format!("--body={}", SIGNER.body.display()));
        words.push("--explain".to_owned());
        words.push(format!("--against={against}"));
        let mut out = Vec::new();
        match Cli::try_parse_from(words).map(|cli| cli.command) {
            Ok(Command::Sign(args)) => sign(&args, &mut out).unwrap(),
            Ok(Command::Verify(args)) => assert!(verify(&args, &mut out).unwrap()),
            other => panic!("{other:?}"),
        }
        String::from_utf8(out).unwrap()
    }

    /// A token that could be one does not show, unless it stands somewhere else too.
    fn keeps_the_token(&self, shown: &str) {
        let token = self.bare_token();
        let elsewhere =
            [&self.path, &self.method, &self.timestamp, &self.client_id].iter().any(|text| text.contains(token));
        if self.scheme == Scheme::HmacSha512 && token.len() >= 12 && !elsewhere && !fingerprint(token).contains(token) {
            assert!(!shown.contains(token), "the token shows: {shown}");
        }
        assert!(!shown.contains(SECRET) || self.other.contains(SECRET) || self.string(token).contains(SECRET));
    }
}

struct Signer {
    hmac: HmacKey,
    private: PrivateKey,
    public: PublicKey,
    secret: PathBuf,
    key: PathBuf,
    body: PathBuf,
    _folder: TempDir,
}

static SIGNER: LazyLock<Signer> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("secret"), SECRET).unwrap();
    std::fs::write(path("key"), SAMPLE_KEY_PEM).unwrap();
    let private = PrivateKey::from_pem(SAMPLE_KEY_PEM).unwrap();
    Signer {
        hmac: HmacKey::new(SECRET.as_bytes()),
        public: private.public_key().clone(),
        private,
        secret: path("secret"),
        key: path("key"),
        body: path("body"),
        _folder: folder,
    }
});
