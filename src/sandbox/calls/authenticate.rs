//! Who a SNAP call comes from: headers, timestamp, token, signature, partner.
//!
//! Promises the order of `errors.md` section 3 and a signature that is checked over the bytes as they
//! came. A missing or malformed `Authorization` counts as an invalid token (Ayoconnect's own table,
//! code 4012401), though it is a mandatory header too.

use std::time::Duration;

use http::HeaderMap;
use jiff::Timestamp;

use super::{Call, header};
use crate::clock;
use crate::config::sandbox::SignatureSwitches;
use crate::dialect::check::{Fault, Given, check};
use crate::dialect::{Dialect, Form, Rule};
use crate::sandbox::answer::SnapRefusal;
use crate::sandbox::journal::Checks;
use crate::sandbox::merchant::Merchant;
use crate::sandbox::service::Received;
use crate::sandbox::token::bearer;
use crate::sandbox::{Shared, State};
use crate::signature::{Encoding, HmacKey, Scheme, SignedRequest, StringToSign, body_hash};

/// The merchant a call comes from.
pub(super) fn merchant<'s>(
    shared: &'s Shared,
    state: &State,
    call: &Call<'_>,
    checks: &mut Checks,
) -> Result<&'s Merchant, SnapRefusal> {
    let given = Given { headers: &call.received.headers, query: &[], body: None };
    let faults: Vec<_> =
        check(call.operation, given, Form::Wire, call.now).into_iter().filter(|f| f.field != "Authorization").collect();
    checks.note("headers", first(&faults))?;
    checks.note("timestamp", timestamp(call.header("X-TIMESTAMP"), call.real, shared.config.snap.clock_skew))?;
    let token = bearer(call.header("Authorization")).unwrap_or_default();
    let owner = state.tokens.owner(token, Dialect::Snap, call.real).and_then(|index| shared.merchant(index));
    let merchant = checks.note("token", owner.ok_or_else(SnapRefusal::token))?;
    let right = is_signed_by(merchant, &shared.config.snap.signature, call.received, token);
    let client_key = call.header("X-CLIENT-KEY");
    let verdict = if !right {
        Err(SnapRefusal::unauthorized("Signature"))
    } else if !client_key.is_empty() && client_key != merchant.client_id {
        Err(SnapRefusal::unauthorized("X-CLIENT-KEY"))
    } else {
        Ok(())
    };
    checks.note("signature", verdict)?;
    let partner = call.header("X-PARTNER-ID") == &*merchant.code;
    let refusal = || SnapRefusal::business("08", "X-PARTNER-ID");
    checks.note("partner", if partner { Ok(()) } else { Err(refusal()) })?;
    Ok(merchant)
}

/// The refusal that a list of faults earns: something missing before something malformed, in the
/// order of the table.
pub(super) fn first(faults: &[Fault]) -> Result<(), SnapRefusal> {
    if let Some(missing) = faults.iter().find(|fault| fault.rule == Rule::Required) {
        return Err(SnapRefusal::mandatory(&missing.field));
    }
    match faults.first() {
        Some(fault) => Err(SnapRefusal::format(&fault.field)),
        None => Ok(()),
    }
}

/// Whether a timestamp is near enough to real time.
pub(super) fn timestamp(text: &str, real: Timestamp, skew: Duration) -> Result<(), SnapRefusal> {
    let near = clock::parse_iso8601(text).is_some_and(|moment| moment.duration_since(real).unsigned_abs() <= skew);
    if near { Ok(()) } else { Err(SnapRefusal::format("X-TIMESTAMP")) }
}

/// Whether the token call's signature is the client's.
pub(super) fn is_login_of(merchant: &Merchant, headers: &HeaderMap) -> bool {
    let text = StringToSign::rsa_client_timestamp(&merchant.client_id, header(headers, "X-TIMESTAMP"));
    merchant.public_key.verify(&text, header(headers, "X-SIGNATURE"))
}

fn is_signed_by(merchant: &Merchant, switches: &SignatureSwitches, received: &Received, token: &str) -> bool {
    let signature = header(&received.headers, "X-SIGNATURE");
    let timestamp = header(&received.headers, "X-TIMESTAMP");
    let path = match &received.query {
        // The standard signs the query too (`signature.md` section 2); these calls have none.
        Some(query) => format!("{}?{query}", received.path),
        None => received.path.clone(),
    };
    let body_hash = body_hash(&received.body);
    let request = SignedRequest { method: received.method.as_str(), path: &path, body_hash: &body_hash, timestamp };
    let rsa_bytes = merchant.public_key.bits().div_ceil(8) as usize;
    let accepted = |size| switches.accept.contains(&encoding(signature, size));
    match switches.scheme {
        Scheme::HmacSha512 => {
            accepted(HmacKey::SIGNATURE_BYTES)
                && merchant.hmac.verify(&StringToSign::hmac_sha512(&request, token), signature)
        }
        Scheme::RsaClientTimestamp => accepted(rsa_bytes) && is_login_of(merchant, &received.headers),
        Scheme::RsaTransactional => {
            accepted(rsa_bytes) && merchant.public_key.verify(&StringToSign::rsa_transactional(&request), signature)
        }
    }
}

/// How a signature of `size` bytes is written (`signature.md` section 4).
fn encoding(signature: &str, size: usize) -> Encoding {
    let hex = signature.len() == 2 * size && signature.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hex { Encoding::Hex } else { Encoding::Base64 }
}
