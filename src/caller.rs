//! What a caller shows to prove who it is: pure.
//!
//! Promises that a key is known by its SHA-256 alone and compared in constant time, that a request which
//! shows two keys is taken for neither, and that a token the gateway itself hands to whoever logs in is
//! no key. Whose key or certificate it is, is `identify`'s affair.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};

use aws_lc_rs::{constant_time, digest};
use http::HeaderMap;

/// What the SNAP login is answered with; 32 characters, as Ayoconnect's.
pub const SNAP_PLACEHOLDER: &str = "ayovaPlaceholderTokenOfNoWorth00";
/// What the classic login is answered with; 28 characters, as Ayoconnect's.
pub const CLASSIC_PLACEHOLDER: &str = "ayovaPlaceholderTokenNoWorth";

/// The SHA-256 of an API key.
///
/// It finds its merchant in a hash map, so that thousands of keys cost what one does. What somebody could
/// learn from the time that takes is about digests, and whoever sends a key cannot choose its digest; the
/// map's own hash is seeded anew in each process, and two digests are compared in constant time.
#[derive(Clone)]
pub struct KeyDigest([u8; LENGTH]);

impl KeyDigest {
    /// The digest of a key as it was sent.
    #[must_use]
    pub fn of(key: &str) -> Self {
        let mut bytes = [0; LENGTH];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
        Self(bytes)
    }

    /// Reads `sha256:` and 64 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; LENGTH];
        hex::decode_to_slice(text.strip_prefix("sha256:")?, &mut bytes).ok()?;
        Some(Self(bytes))
    }
}

impl PartialEq for KeyDigest {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for KeyDigest {}

impl Hash for KeyDigest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest")
    }
}

/// Why a caller is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// No API key was sent.
    NoKey,
    /// What was sent cannot be a key.
    UnusableKey,
    /// More than one key was sent.
    SeveralKeys,
    /// The key is nobody's.
    UnknownKey,
    /// The connection has no client certificate.
    NoCertificate,
    /// The certificate's names are nobody's.
    UnknownCertificate,
    /// The merchant's header names somebody else.
    Disagreement,
}

impl Unproven {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NoKey,
        Self::UnusableKey,
        Self::SeveralKeys,
        Self::UnknownKey,
        Self::NoCertificate,
        Self::UnknownCertificate,
        Self::Disagreement,
    ];

    /// Name in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::UnusableKey => "unusable_key",
            Self::SeveralKeys => "several_keys",
            Self::UnknownKey => "unknown_key",
            Self::NoCertificate => "no_certificate",
            Self::UnknownCertificate => "unknown_certificate",
            Self::Disagreement => "disagreement",
        }
    }
}

/// The key of a request: `X-API-Key: KEY` or `Authorization: Bearer KEY`.
///
/// # Errors
/// Where there is none, or more than one: a header sent twice, or two that differ. An `Authorization` that
/// is not of the scheme `Bearer`, or is a placeholder, shows no key and contradicts none.
pub fn presented_key(headers: &HeaderMap) -> Result<KeyDigest, Unproven> {
    let own = single(headers, "x-api-key")?;
    let bearer = single(headers, "authorization")?.and_then(bearer);
    let key = match (own, bearer) {
        (None, None) => return Err(Unproven::NoKey),
        // Both came from the caller, so there is nothing to learn from how long this takes.
        (Some(one), Some(other)) if one != other => return Err(Unproven::SeveralKeys),
        (Some(key), _) | (None, Some(key)) => key,
    };
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Unproven::UnusableKey);
    }
    Ok(KeyDigest::of(key))
}

/// A header that may be there once, as text.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Unproven> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Unproven::UnusableKey),
        (Some(_), Some(_)) => Err(Unproven::SeveralKeys),
    }
}

/// The token behind `Bearer`, unless it is one of ours that is worth nothing.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim_matches(' ');
    let ours = [SNAP_PLACEHOLDER, CLASSIC_PLACEHOLDER].contains(&token);
    (scheme.eq_ignore_ascii_case("bearer") && !ours).then_some(token)
}

/// A certificate's name in the form names are compared in: DNS names know no case, URIs do.
#[must_use]
pub fn comparable(name: &str) -> Cow<'_, str> {
    if name.contains(':') || !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(name.to_ascii_lowercase())
    }
}

/// Bytes of a SHA-256.
const LENGTH: usize = 32;

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    /// `printf %s abc | sha256sum`, as FIPS 180-4 has it too.
    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn shown(headers: &[(&'static str, &[u8])]) -> Result<KeyDigest, Unproven> {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap()));
        let mut map = HeaderMap::new();
        map.extend(headers);
        presented_key(&map)
    }

    #[test]
    fn a_digest_is_that_of_sha256sum() {
        assert_eq!(KeyDigest::parse(ABC), Some(KeyDigest::of("abc")));
        assert_eq!(KeyDigest::parse(&ABC.replace("ba78", "BA78")), Some(KeyDigest::of("abc")));
        assert_ne!(KeyDigest::of("abc"), KeyDigest::of("abd"));
        for text in
            ["", "abc", "sha256:", "sha256:00", &ABC[7..], &ABC[..70], &format!("{ABC}0"), &ABC.replace('f', "g")]
        {
            assert_eq!(KeyDigest::parse(text), None, "{text}");
        }
        assert_eq!(format!("{:?}", KeyDigest::of("abc")), "KeyDigest");
    }

    #[test]
    fn a_key_comes_in_either_header() {
        let key = || Ok(KeyDigest::of("abc"));
        assert_eq!(shown(&[("x-api-key", b"abc")]), key());
        for value in ["Bearer abc", "bearer abc", "BEARER   abc ", "Bearer abc"] {
            assert_eq!(shown(&[("authorization", value.as_bytes())]), key(), "{value}");
        }
        assert_eq!(shown(&[("x-api-key", b"abc"), ("authorization", b"Bearer abc")]), key());
    }

    #[test]
    fn a_placeholder_and_other_schemes_are_no_keys() {
        for value in [
            format!("Bearer {SNAP_PLACEHOLDER}"),
            format!("bearer {CLASSIC_PLACEHOLDER}"),
            "Basic YWJjOmFiYw==".to_owned(),
            "Bearer".to_owned(),
            "abc".to_owned(),
            String::new(),
        ] {
            assert_eq!(shown(&[("authorization", value.as_bytes())]), Err(Unproven::NoKey), "{value}");
            let both: [(_, &[u8]); 2] = [("authorization", value.as_bytes()), ("x-api-key", b"abc")];
            assert_eq!(shown(&both), Ok(KeyDigest::of("abc")), "{value}");
        }
        assert_eq!((SNAP_PLACEHOLDER.len(), CLASSIC_PLACEHOLDER.len()), (32, 28));
    }

    #[test]
    fn what_is_ambiguous_or_no_text_is_refused() {
        assert_eq!(shown(&[]), Err(Unproven::NoKey));
        for (headers, why) in [
            (vec![("x-api-key", &b"abc"[..]), ("x-api-key", b"abc")], Unproven::SeveralKeys),
            (vec![("authorization", b"Bearer abc"), ("authorization", b"Bearer abc")], Unproven::SeveralKeys),
            (vec![("authorization", b"Bearer abd"), ("x-api-key", b"abc")], Unproven::SeveralKeys),
            (vec![("authorization", b"Bearer "), ("x-api-key", b"abc")], Unproven::SeveralKeys),
            (vec![("x-api-key", b"")], Unproven::UnusableKey),
            (vec![("authorization", b"Bearer ")], Unproven::UnusableKey),
            (vec![("x-api-key", b"a bc")], Unproven::UnusableKey),
            (vec![("x-api-key", b"caf\xc3\xa9")], Unproven::UnusableKey),
            (vec![("authorization", b"Bearer caf\xe9")], Unproven::UnusableKey),
            (vec![("authorization", b"Basic \xe9"), ("x-api-key", b"abc")], Unproven::UnusableKey),
        ] {
            assert_eq!(shown(&headers), Err(why), "{headers:?}");
        }
    }

    #[test]
    fn dns_names_know_no_case() {
        assert_eq!(comparable("Shop.Example"), "shop.example");
        assert_eq!(comparable("spiffe://a/Shop"), "spiffe://a/Shop");
    }

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let names: std::collections::HashSet<_> = Unproven::ALL.map(Unproven::name).into_iter().collect();
        assert_eq!(names.len(), Unproven::ALL.len());
    }
}
