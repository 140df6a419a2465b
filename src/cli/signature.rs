//! `ayova sign` and `ayova verify`: a signature made or checked by hand.
//!
//! Promises the very code that signs the gateway's calls, fed from options and files, and an
//! explanation that can be pasted into a ticket: the token appears as its fingerprint, secrets and
//! keys not at all. The present time comes from whoever calls, and so do exit codes.

use std::fmt;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use zeroize::Zeroizing;

use crate::signature::{
    BodyHash, Encoding, HmacKey, KeyError, PrivateKey, PublicKey, Scheme, SignedRequest, SigningFailed, StringToSign,
    body_hash, fingerprint,
};

/// Options of `ayova sign`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = SIGN_EXAMPLES)]
pub struct SignArgs {
    #[command(flatten)]
    signed: SignedArgs,
    /// How the signature is written
    #[arg(long, value_name = "ENCODING", default_value = Encoding::Hex.name(), value_parser = encoding_parser())]
    encoding: Encoding,
    /// Set where the present was filled in, which the user then has to be told.
    #[arg(skip)]
    present: bool,
}

/// Options of `ayova verify`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub struct VerifyArgs {
    #[command(flatten)]
    signed: SignedArgs,
    /// The signature to check, in hex or base64
    #[arg(long, value_name = "SIGNATURE")]
    signature: String,
}

/// What both commands need to know of the signed request.
#[derive(Clone, Debug, clap::Args)]
struct SignedArgs {
    /// Which string is signed with which key
    #[arg(long, default_value = Scheme::HmacSha512.name(), value_parser = scheme_parser())]
    scheme: Scheme,
    /// HTTP method
    #[arg(long)]
    method: Option<String>,
    /// Path from the root, including the base path
    #[arg(long)]
    path: Option<String>,
    /// Access token, with or without "Bearer "
    #[arg(long, conflicts_with = "token_file")]
    token: Option<Token>,
    /// File with the access token, which keeps it out of the shell's history
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Text of X-TIMESTAMP, exactly as sent (sign: the present where absent)
    #[arg(long)]
    timestamp: Option<String>,
    /// File with the client secret; one final newline is dropped
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// File with the body as sent, "-" for standard input; an empty body where absent
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Client id
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// File with the RSA key: private to sign, either half to verify
    #[arg(long, value_name = "PEM")]
    key: Option<PathBuf>,
    /// Show the string to sign, with the token as its hash
    #[arg(long)]
    explain: bool,
    /// The other side's string to sign: show where it first differs
    #[arg(long, value_name = "STRING", requires = "explain")]
    against: Option<Against>,
}

impl SignArgs {
    /// Sets the timestamp where the user gave none. Without this call a missing one is an error.
    pub fn fill_timestamp(&mut self, present: &str) {
        if self.signed.timestamp.is_none() {
            self.signed.timestamp = Some(present.to_owned());
            self.present = true;
        }
    }
}

/// Writes the signature as the last line, after the explanation where one is wanted. Where the
/// timestamp was filled in, both headers are written, since one is no use without the other.
///
/// # Errors
///
/// Missing options, unreadable files, unusable keys.
pub fn sign(args: &SignArgs, out: &mut dyn Write) -> Result<(), SignatureCliError> {
    let inputs = Inputs::load(&args.signed)?;
    let text = inputs.string_to_sign();
    let signature = match &inputs.key {
        KeyFile::Secret(path) => secret_key(path)?.sign(&text, args.encoding),
        KeyFile::Rsa(path) => private_key(path)?.sign(&text, args.encoding).map_err(SignatureCliError::Signing)?,
    };
    explain(&args.signed, &inputs, out)?;
    if args.present {
        writeln!(out, "X-TIMESTAMP: {}\nX-SIGNATURE: {signature}", inputs.timestamp)?;
    } else {
        writeln!(out, "{signature}")?;
    }
    Ok(())
}

/// Writes the verdict as the last line and returns it.
///
/// # Errors
///
/// Missing options, unreadable files, unusable keys; a wrong signature is not an error.
pub fn verify(args: &VerifyArgs, out: &mut dyn Write) -> Result<bool, SignatureCliError> {
    let inputs = Inputs::load(&args.signed)?;
    let text = inputs.string_to_sign();
    let signature = args.signature.trim();
    let good = match &inputs.key {
        KeyFile::Secret(path) => secret_key(path)?.verify(&text, signature),
        KeyFile::Rsa(path) => public_key(path)?.verify(&text, signature),
    };
    explain(&args.signed, &inputs, out)?;
    writeln!(out, "{}", if good { "signature is good" } else { "signature is wrong" })?;
    Ok(good)
}

/// Why a command could not do its work.
#[derive(Debug)]
pub enum SignatureCliError {
    /// The scheme needs options that were not given.
    Missing {
        /// The scheme.
        scheme: Scheme,
        /// Every missing option.
        options: Vec<&'static str>,
    },
    /// A file could not be read.
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key file holds no usable key.
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// The library failed.
    Signing(SigningFailed),
    /// The result could not be written.
    Write(io::Error),
}

impl SignatureCliError {
    /// Whether the command line is to blame, rather than what it refers to.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        match self {
            Self::Missing { .. } => true,
            Self::Read { .. } | Self::Key { .. } | Self::Signing(_) | Self::Write(_) => false,
        }
    }
}

impl fmt::Display for SignatureCliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { scheme, options } => {
                write!(f, "--scheme {} also needs {}", scheme.name(), options.join(", "))
            }
            Self::Read { path, source } => write!(f, "cannot read {}: {source}", path.display()),
            Self::Key { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Signing(source) => source.fmt(f),
            Self::Write(source) => write!(f, "cannot write the result: {source}"),
        }
    }
}

impl std::error::Error for SignatureCliError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Missing { .. } => None,
            Self::Read { source, .. } | Self::Write(source) => Some(source),
            Self::Key { source, .. } => Some(source),
            Self::Signing(source) => Some(source),
        }
    }
}

impl From<io::Error> for SignatureCliError {
    fn from(source: io::Error) -> Self {
        Self::Write(source)
    }
}

/// A token from the command line, so that no `Debug` of the arguments shows it.
#[derive(Clone)]
struct Token(String);

/// The other side's string, which contains a token as well.
#[derive(Clone)]
struct Against(String);

impl FromStr for Token {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.strip_prefix("Bearer ").unwrap_or(text).to_owned()))
    }
}

impl FromStr for Against {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

impl fmt::Debug for Against {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

/// Everything a string to sign is made of, with the files read. Members a scheme has no use for are
/// empty.
struct Inputs {
    scheme: Scheme,
    method: String,
    path: String,
    token: String,
    client_id: String,
    body_hash: BodyHash,
    timestamp: String,
    key: KeyFile,
}

/// Which file signs.
enum KeyFile {
    Secret(PathBuf),
    Rsa(PathBuf),
}

impl Inputs {
    fn load(args: &SignedArgs) -> Result<Self, SignatureCliError> {
        let mut missing = Missing(Vec::new());
        let timestamp = missing.take(args.timestamp.as_ref(), "--timestamp");
        let inputs = Self {
            scheme: args.scheme,
            method: String::new(),
            path: String::new(),
            token: String::new(),
            client_id: String::new(),
            body_hash: body_hash(b""),
            timestamp,
            key: KeyFile::Rsa(PathBuf::new()),
        };
        let inputs = match args.scheme {
            Scheme::HmacSha512 => {
                let token = args.token.is_some() || args.token_file.is_some();
                missing.take(token.then_some(&()), "--token or --token-file");
                let key = KeyFile::Secret(missing.take(args.secret_file.as_ref(), "--secret-file"));
                Self { key, ..inputs.with_request(args, &mut missing) }
            }
            Scheme::RsaTransactional => {
                let key = KeyFile::Rsa(missing.take(args.key.as_ref(), "--key"));
                Self { key, ..inputs.with_request(args, &mut missing) }
            }
            Scheme::RsaClientTimestamp => {
                let client_id = missing.take(args.client_id.as_ref(), "--client-id");
                let key = KeyFile::Rsa(missing.take(args.key.as_ref(), "--key"));
                Self { client_id, key, ..inputs }
            }
        };
        // Files are read only now, so that a missing option is named before a missing file.
        missing.none_of(args.scheme)?;
        inputs.with_files(args)
    }

    fn with_request(self, args: &SignedArgs, missing: &mut Missing) -> Self {
        let method = missing.take(args.method.as_ref(), "--method").to_ascii_uppercase();
        Self { method, path: missing.take(args.path.as_ref(), "--path"), ..self }
    }

    fn with_files(self, args: &SignedArgs) -> Result<Self, SignatureCliError> {
        let token = match (self.scheme, &args.token, &args.token_file) {
            (Scheme::HmacSha512, Some(Token(token)), _) => token.clone(),
            (Scheme::HmacSha512, None, Some(path)) => read_token(path)?,
            (Scheme::HmacSha512, None, None) | (Scheme::RsaTransactional | Scheme::RsaClientTimestamp, _, _) => {
                String::new()
            }
        };
        let body = match (self.scheme, &args.body) {
            (Scheme::HmacSha512 | Scheme::RsaTransactional, Some(path)) => read(path)?,
            (Scheme::HmacSha512 | Scheme::RsaTransactional, None) | (Scheme::RsaClientTimestamp, _) => Vec::new(),
        };
        Ok(Self { token, body_hash: body_hash(&body), ..self })
    }

    fn string_to_sign(&self) -> StringToSign<'_> {
        self.with_token(&self.token)
    }

    fn with_token<'a>(&'a self, token: &'a str) -> StringToSign<'a> {
        let request = SignedRequest {
            method: &self.method,
            path: &self.path,
            body_hash: &self.body_hash,
            timestamp: &self.timestamp,
        };
        match self.scheme {
            Scheme::HmacSha512 => StringToSign::hmac_sha512(&request, token),
            Scheme::RsaTransactional => StringToSign::rsa_transactional(&request),
            Scheme::RsaClientTimestamp => StringToSign::rsa_client_timestamp(&self.client_id, &self.timestamp),
        }
    }

    /// The string to sign with the token as its fingerprint.
    fn shown(&self) -> String {
        self.with_token(&fingerprint(&self.token)).to_string()
    }

    /// The other side's string, its token hidden the same way. A token that differs from ours is
    /// hidden whole too, since showing where it differs would show part of it.
    fn shown_against(&self, theirs: &str) -> String {
        if self.scheme != Scheme::HmacSha512 {
            return theirs.to_owned();
        }
        // Before anything is sought in it: a token may be empty, or so short that it stands elsewhere too.
        if theirs == self.string_to_sign().to_string() {
            return self.shown();
        }
        // Ours may stand anywhere, for instance where the path was forgotten.
        let theirs = match self.token.as_str() {
            "" => theirs.to_owned(),
            token => theirs.replace(token, &fingerprint(token)),
        };
        // The path may itself contain colons, so a token of theirs is sought behind ours first.
        let head = format!("{}:{}:", self.method, self.path);
        let at = if theirs.starts_with(&head) { head.len() } else { second_colon(&theirs) };
        let Some((head, rest)) = theirs.split_at_checked(at) else { return theirs };
        let (token, tail) = rest.split_once(':').unwrap_or((rest, ""));
        // Hidden already, here or in a string copied from an explanation; or not there at all.
        if token == "sha256" || token.is_empty() {
            return theirs;
        }
        let colon = if tail.is_empty() { "" } else { ":" };
        format!("{head}{}{colon}{tail}", fingerprint(token))
    }

    /// The names and lengths of the shown string's parts, in order.
    fn parts(&self) -> Vec<(&'static str, usize)> {
        let token = fingerprint(&self.token).len();
        let method = ("method", self.method.len());
        let path = ("path", self.path.len());
        let hash = ("body hash", self.body_hash.as_str().len());
        let timestamp = ("timestamp", self.timestamp.len());
        match self.scheme {
            Scheme::HmacSha512 => vec![method, path, ("token", token), hash, timestamp],
            Scheme::RsaTransactional => vec![method, path, hash, timestamp],
            Scheme::RsaClientTimestamp => vec![("client id", self.client_id.len()), timestamp],
        }
    }
}

/// Collects the names of options that were needed and not given.
struct Missing(Vec<&'static str>);

impl Missing {
    /// The value, or a default that nobody gets to see because `none_of` refuses.
    fn take<T: Clone + Default>(&mut self, value: Option<&T>, option: &'static str) -> T {
        value.cloned().unwrap_or_else(|| {
            self.0.push(option);
            T::default()
        })
    }

    fn none_of(self, scheme: Scheme) -> Result<(), SignatureCliError> {
        if self.0.is_empty() { Ok(()) } else { Err(SignatureCliError::Missing { scheme, options: self.0 }) }
    }
}

fn explain(args: &SignedArgs, inputs: &Inputs, out: &mut dyn Write) -> Result<(), SignatureCliError> {
    if !args.explain {
        return Ok(());
    }
    let ours = inputs.shown();
    writeln!(out, "string to sign: {ours}")?;
    let Some(Against(theirs)) = &args.against else { return Ok(()) };
    let theirs = inputs.shown_against(theirs);
    let same = ours.chars().zip(theirs.chars()).take_while(|(ours, theirs)| ours == theirs).count();
    if same == ours.chars().count() && same == theirs.chars().count() {
        writeln!(out, "no difference")?;
        return Ok(());
    }
    let part = part_at(&inputs.parts(), ours.chars().take(same).map(char::len_utf8).sum());
    writeln!(out, "first difference at character {} ({part}):", same + 1)?;
    writeln!(out, "  ours:   {}\n  theirs: {}", around(&ours, same), around(&theirs, same))?;
    Ok(())
}

/// Which part of the string a byte offset lies in; a separator belongs to what it ends.
fn part_at(parts: &[(&'static str, usize)], offset: usize) -> &'static str {
    let mut end = 0;
    for (name, length) in parts {
        end += length + 1;
        if offset < end {
            return name;
        }
    }
    "end"
}

/// Some characters on both sides of a position, with dots where something was left out.
fn around(text: &str, at: usize) -> String {
    let start = at.saturating_sub(AROUND);
    let shown: String = text.chars().skip(start).take(at - start + AROUND).collect();
    let before = if start > 0 { "..." } else { "" };
    let after = if text.chars().count() > at + AROUND { "..." } else { "" };
    format!("{before}{shown}{after}")
}

/// Where the token begins in a string that does not start like ours.
fn second_colon(text: &str) -> usize {
    text.match_indices(':').nth(1).map_or(text.len(), |(at, _)| at + 1)
}

fn read(path: &Path) -> Result<Vec<u8>, SignatureCliError> {
    let contents = if path == Path::new("-") {
        let mut contents = Vec::new();
        io::stdin().lock().read_to_end(&mut contents).map(|_| contents)
    } else {
        std::fs::read(path)
    };
    contents.map_err(|source| SignatureCliError::Read { path: path.to_owned(), source })
}

/// Reads text; a file that is not UTF-8 counts as unreadable.
fn read_text(path: &Path) -> Result<String, SignatureCliError> {
    String::from_utf8(read(path)?).map_err(|_| SignatureCliError::Read {
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidData, "not UTF-8 text"),
    })
}

fn read_token(path: &Path) -> Result<String, SignatureCliError> {
    let text = read_text(path)?;
    let line = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    Ok(line.strip_prefix("Bearer ").unwrap_or(line).to_owned())
}

/// The secret's bytes are signed with as they are; only the newline an editor adds is dropped.
fn secret_key(path: &Path) -> Result<HmacKey, SignatureCliError> {
    let secret = Zeroizing::new(read(path)?);
    let line = secret.strip_suffix(b"\n").map_or(secret.as_slice(), |line| line.strip_suffix(b"\r").unwrap_or(line));
    Ok(HmacKey::new(line))
}

fn private_key(path: &Path) -> Result<PrivateKey, SignatureCliError> {
    let pem = Zeroizing::new(read_text(path)?);
    PrivateKey::from_pem(&pem).map_err(|source| SignatureCliError::Key { path: path.to_owned(), source })
}

fn public_key(path: &Path) -> Result<PublicKey, SignatureCliError> {
    let pem = read_text(path)?;
    let key = match PublicKey::from_pem(&pem) {
        Err(KeyError::PrivateGiven) => PublicKey::from_private_pem(&pem),
        other => other,
    };
    key.map_err(|source| SignatureCliError::Key { path: path.to_owned(), source })
}

/// Parsers that list the names in `--help` and in the error for a wrong one.
fn scheme_parser() -> impl TypedValueParser<Value = Scheme> {
    PossibleValuesParser::new(Scheme::ALL.map(Scheme::name))
        .try_map(|name| Scheme::from_name(&name).ok_or("no such scheme"))
}

fn encoding_parser() -> impl TypedValueParser<Value = Encoding> {
    PossibleValuesParser::new(Encoding::ALL.map(Encoding::name))
        .try_map(|name| Encoding::from_name(&name).ok_or("no such encoding"))
}

/// Characters shown on each side of a difference.
const AROUND: usize = 24;

const SIGN_EXAMPLES: &str = "\
Without --timestamp the present is used and both headers are printed.

Needed by each --scheme:
  hmac_sha512           --method --path --token|--token-file --secret-file [--body]
  rsa_transactional     --method --path --key [--body]
  rsa_client_timestamp  --client-id --key

Examples:
  A call, signed with the client secret:
    ayova sign --method POST --path /va/api/v2.0/transfer-va/create-va \\
      --token-file token.txt --timestamp 2026-01-05T10:00:00+07:00 \\
      --secret-file secret.txt --body body.json

  The token call, signed with the private key:
    ayova sign --scheme rsa_client_timestamp --client-id ID --key private.pem";

const VERIFY_EXAMPLES: &str = "\
Exits with 0 when the signature is good and with 1 when it is not.

Examples:
  A signature that was refused: is it ours that is wrong, or the string?
    ayova verify --method POST --path /va/api/v2.0/transfer-va/create-va \\
      --token-file token.txt --timestamp 2026-01-05T10:00:00+07:00 \\
      --secret-file secret.txt --body body.json --signature 2e9552... \\
      --explain --against 'POST:/transfer-va/create-va:...'

  A token call, with the other side's public key:
    ayova verify --scheme rsa_client_timestamp --client-id ID --key public.pem \\
      --timestamp 2026-01-05T10:00:00+07:00 --signature NeQMIl...";

#[cfg(test)]
mod tests {
    use clap::Parser;
    use expect_test::{Expect, expect};
    use serde_json::Value;

    use super::*;

    #[derive(Debug, Parser)]
    enum Commands {
        Sign(SignArgs),
        Verify(VerifyArgs),
    }

    /// A folder with the files the commands read.
    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            let files = Self(tempfile::tempdir().unwrap());
            files.write("secret", "sandbox-secret\n");
            files.write("token", "Bearer IQ7xSsIgdrEsQeFHtEI5u37ZgFEB\n");
            files.write("body", "{ \"trxId\": \"a b\" }\n");
            let vectors = include_str!("../../tests/vectors/signature-asymmetric.json");
            let keys = serde_json::from_str::<Value>(vectors).unwrap()["keys"].take();
            files.write("private.pem", keys["k1"]["private_pem"].as_str().unwrap());
            files.write("public.pem", keys["k1"]["public_pem"].as_str().unwrap());
            files.write("small.pem", keys["pub-ayo-512"]["private_pem"].as_str().unwrap());
            files
        }

        fn write(&self, name: &str, contents: &str) {
            std::fs::write(self.0.path().join(name), contents).unwrap();
        }

        /// Parses a command line in which `@name` stands for a file of the folder.
        fn parse(&self, line: &str) -> Commands {
            let words = line.split_whitespace().map(|word| match word.strip_prefix('@') {
                Some(name) => self.0.path().join(name).display().to_string(),
                None => word.to_owned(),
            });
            Commands::try_parse_from(std::iter::once("ayova".to_owned()).chain(words)).unwrap()
        }

        /// What is printed, and the verdict (true for a signature made).
        fn run(&self, line: &str) -> Result<(String, bool), SignatureCliError> {
            let mut out = Vec::new();
            let good = match self.parse(line) {
                Commands::Sign(args) => sign(&args, &mut out).map(|()| true)?,
                Commands::Verify(args) => verify(&args, &mut out)?,
            };
            Ok((String::from_utf8(out).unwrap(), good))
        }

        fn prints(&self, line: &str, expected: Expect) {
            expected.assert_eq(&self.run(line).unwrap().0);
        }

        fn refuses(&self, line: &str, expected: Expect, usage: bool) {
            let error = self.run(line).unwrap_err();
            expected.assert_eq(&error.to_string().replace(self.0.path().to_str().unwrap(), "DIR"));
            assert_eq!(error.is_usage(), usage);
        }
    }

    const REQUEST: &str = "--method post --path /va/x --timestamp 2026-01-05T10:00:00+07:00 --body @body";

    #[test]
    fn each_scheme_signs_and_verifies_in_both_encodings() {
        let files = Files::new();
        let hmac = format!("--token-file @token --secret-file @secret {REQUEST}");
        let transactional = format!("--scheme rsa_transactional {REQUEST} --key");
        let client = "--scheme rsa_client_timestamp --client-id ID --timestamp 2026-01-05T10:00:00+07:00 --key";
        let cases = [
            (hmac.clone(), hmac),
            (format!("{transactional} @private.pem"), format!("{transactional} @public.pem")),
            (format!("{client} @private.pem"), format!("{client} @private.pem")),
        ];
        for (signing, verifying) in cases {
            for encoding in ["hex", "base64"] {
                let (signature, _) = files.run(&format!("sign {signing} --encoding {encoding}")).unwrap();
                let (printed, good) = files.run(&format!("verify {verifying} --signature {signature}")).unwrap();
                assert!(good && printed == "signature is good\n", "{verifying}: {printed}");
                let (printed, good) = files.run(&format!("verify {verifying} --signature 00{signature}")).unwrap();
                assert!(!good && printed == "signature is wrong\n", "{verifying}: {printed}");
            }
        }
    }

    #[test]
    fn the_published_example_comes_out() {
        let files = Files::new();
        let vectors = include_str!("../../tests/vectors/signature-symmetric.json");
        let case = serde_json::from_str::<Value>(vectors).unwrap()["cases"][0].take();
        let text = |member: &str| case[member].as_str().unwrap().to_owned();
        files.write("secret", &text("client_secret"));
        files.write("body", &text("body_raw"));
        let (printed, _) = files
            .run(&format!(
                "sign --scheme hmac_sha512 --method POST --path {} --token {} --timestamp {} --secret-file @secret --body @body",
                text("path"), text("access_token"), text("timestamp")
            ))
            .unwrap();
        assert_eq!(printed, text("signature_hex") + "\n");
    }

    #[test]
    fn explanations_show_neither_token_nor_secret() {
        let files = Files::new();
        let sign = format!("sign --token-file @token --secret-file @secret {REQUEST} --explain");
        files.prints(&sign, expect![[r#"
            string to sign: POST:/va/x:sha256:5f6358b310dad964:101939c07bd334d3400036edec5e285f86129ce7582a6d6cd7443abfd5ca8b36:2026-01-05T10:00:00+07:00
            503a150148ebd25fa6bf2221b6b19b472310762b5b59adf95a0082d1635d36ee0726a9319a61508a17f434da5850aea6d822774280b944730323235207842263
        "#]]);
        let hash = body_hash(b"{\"trxId\":\"a b\"}");
        let theirs = format!("POST:/va/x:ANOTHERTOKEN:{hash}:2026-01-05T10:00:00+07:00");
        let (suffixed, moved) = ("POST:/va/x:IQ7xSsIgdrEsQeFHtEI5u37ZgFEBx", "POST:IQ7xSsIgdrEsQeFHtEI5u37ZgFEB:x");
        for against in [theirs.as_str(), suffixed, moved] {
            let (printed, _) = files.run(&format!("{sign} --against {against}")).unwrap();
            assert!(printed.contains("first difference"), "{printed}");
            for hidden in ["IQ7xSsIgdr", "ANOTHERTOKEN", "sandbox-secret"] {
                assert!(!printed.contains(hidden), "{printed}");
            }
            let parsed = files.parse(&format!("sign --token TOKEN --explain --against {against}"));
            assert!(
                !format!("{parsed:?}").contains("\"TOKEN") && !format!("{parsed:?}").contains("IQ7x"),
                "{parsed:?}"
            );
        }
    }

    #[test]
    fn ones_own_string_never_differs() {
        let files = Files::new();
        let hash = body_hash(b"{\"trxId\":\"a b\"}");
        // A token may be missing, or so short that it stands in the rest of the string as well.
        for token in ["", "0", "POST", ":"] {
            let sign = format!("sign --token={token} --secret-file @secret {REQUEST} --explain");
            let ours = format!("POST:/va/x:{token}:{hash}:2026-01-05T10:00:00+07:00");
            let (printed, _) = files.run(&format!("{sign} --against {ours}")).unwrap();
            assert!(printed.contains("no difference"), "{printed}");
        }
    }

    #[test]
    fn differences_are_located() {
        let files = Files::new();
        let sign = format!("sign --scheme rsa_transactional --key @private.pem {REQUEST} --explain --against");
        let first_lines = |against: &str| {
            let printed = files.run(&format!("{sign} {against}")).unwrap().0;
            printed.lines().skip(1).take_while(|line| line.len() < 120).collect::<Vec<_>>().join("\n")
        };
        let hash = body_hash(b"{\"trxId\":\"a b\"}");
        assert_eq!(first_lines(&format!("POST:/va/x:{hash}:2026-01-05T10:00:00+07:00")), "no difference");
        expect![[r#"
            first difference at character 7 (path):
              ours:   POST:/va/x:101939c07bd334d3400...
              theirs: POST:/x:"#]]
        .assert_eq(&first_lines("POST:/x:"));
        expect![[r#"
            first difference at character 96 (timestamp):
              ours:   ...8b36:2026-01-05T10:00:00+07:00
              theirs: ...8b36:2026-01-05T10:00:00"#]]
        .assert_eq(&first_lines(&format!("POST:/va/x:{hash}:2026-01-05T10:00:00")));
        expect![[r#"
            first difference at character 18 (body hash):
              ours:   POST:/va/x:101939c07bd334d3400036edec5e28...
              theirs: POST:/va/x:101939C07BD334D3400036EDEC5E28..."#]]
        .assert_eq(&first_lines(&format!("POST:/va/x:{}:", hash.as_str().to_uppercase())));
    }

    #[test]
    fn without_a_timestamp_both_headers_are_printed() {
        let files = Files::new();
        let Commands::Sign(mut args) = files.parse("sign --token T --method GET --path / --secret-file @secret") else {
            panic!("not sign");
        };
        args.fill_timestamp("2026-01-05T10:00:00+07:00");
        let mut out = Vec::new();
        sign(&args, &mut out).unwrap();
        let printed = String::from_utf8(out).unwrap();
        assert!(printed.starts_with("X-TIMESTAMP: 2026-01-05T10:00:00+07:00\nX-SIGNATURE: "), "{printed}");
    }

    #[test]
    fn everything_missing_is_named_at_once() {
        let files = Files::new();
        files.refuses(
            "sign",
            expect![
                "--scheme hmac_sha512 also needs --timestamp, --token or --token-file, --secret-file, --method, --path"
            ],
            true,
        );
        files.refuses(
            "sign --scheme rsa_transactional --path /",
            expect!["--scheme rsa_transactional also needs --timestamp, --key, --method"],
            true,
        );
        files.refuses(
            "verify --scheme rsa_client_timestamp --signature 00",
            expect!["--scheme rsa_client_timestamp also needs --timestamp, --client-id, --key"],
            true,
        );
    }

    #[test]
    fn unusable_files_are_named() {
        let files = Files::new();
        let client = "--scheme rsa_client_timestamp --client-id ID --timestamp T --key";
        files.refuses(
            &format!("sign {client} @absent"),
            expect!["cannot read DIR/absent: No such file or directory (os error 2)"],
            false,
        );
        files.refuses(
            &format!("sign {client} @public.pem"),
            expect!["DIR/public.pem: this is a public key, and signing needs the private one"],
            false,
        );
        files.refuses(&format!("verify {client} @small.pem --signature 00"), expect!["DIR/small.pem: the key has 512 bits and at least 1024 are needed: make one with `openssl genrsa 3072` and hand its public key to Ayoconnect"], false);
    }

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory as _;
        Commands::command().debug_assert();
        let needs_explain = Commands::try_parse_from(["ayova", "sign", "--against", "x"]).unwrap_err();
        assert_eq!(needs_explain.kind(), clap::error::ErrorKind::MissingRequiredArgument);
    }
}
