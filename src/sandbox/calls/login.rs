//! The two token calls (`classic.md` section 2, `snap.md` section 2).
//!
//! Promises the observed shapes of answers and refusals. How long a token is good is the switches',
//! what it is good for is `token`'s affair.

use http::StatusCode;
use serde_json::json;

use super::authenticate::{first, is_login_of, timestamp};
use super::{ALPHANUMERIC, HEX, header, random_text};
use crate::clock;
use crate::config::sandbox::NumberShape;
use crate::dialect::check::{Fault, single_header};
use crate::dialect::snap::{CREATE, TOKEN_SERVICE_CODE};
use crate::dialect::{Dialect, Form, Rule};
use crate::document::Document;
use crate::sandbox::answer::{Answer, SnapRefusal, status};
use crate::sandbox::journal::Checks;
use crate::sandbox::merchant::Merchant;
use crate::sandbox::service::Received;
use crate::sandbox::{Shared, State};

/// The classic login.
pub(super) fn classic(shared: &Shared, state: &mut State, received: &Received, checks: &mut Checks) -> Answer {
    let verdict = checks.note("credentials", classic_client(shared, received));
    let merchant = match verdict {
        Ok(merchant) => merchant,
        Err(refusal) => {
            let body = json!({"ErrorCode": refusal.code, "Error": refusal.message});
            return Answer::json(refusal.status, &body);
        }
    };
    let real = shared.clock.now();
    let token = random_text(&mut state.random, ALPHANUMERIC, CLASSIC_TOKEN_LENGTH);
    let life = shared.config.classic.token_life;
    state.tokens.issue(token.clone(), merchant.index, Dialect::Classic, real.checked_add(life).unwrap_or(real));
    state.ledger.token_issued();
    let body = json!({
        "apiProductList": "[of-oauth, virtual-account-sandbox]",
        "organizationName": "ayoconnect-open-finance",
        "developer.email": "dev@merchant.example",
        "tokenType": "BearerToken",
        "responseTime": clock::compact(real),
        "clientId": merchant.client_id,
        "accessToken": token,
        "expiresIn": life.as_secs().to_string(),
    });
    Answer::json(StatusCode::OK, &body)
}

/// `ErrorCode` and `Error` of a refused classic login.
struct LoginRefusal {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
}

impl std::fmt::Display for LoginRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.code, self.message)
    }
}

fn classic_client<'s>(shared: &'s Shared, received: &Received) -> Result<&'s Merchant, LoginRefusal> {
    let refuse = |status, code, message| Err(LoginRefusal { status, code, message });
    let content_type = header(&received.headers, "Content-Type");
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let message = "Content-Type must be application/x-www-form-urlencoded";
        return refuse(StatusCode::BAD_REQUEST, "invalid_request", message);
    }
    let query = received.query.as_deref().unwrap_or_default();
    if one(query.as_bytes(), "grant_type").as_deref() != Some("client_credentials") {
        return refuse(StatusCode::BAD_REQUEST, "unsupported_grant_type", "grant_type must be client_credentials");
    }
    let (id, secret) = (one(&received.body, "client_id"), one(&received.body, "client_secret"));
    let merchant = shared.merchants.iter().find(|merchant| Some(&merchant.client_id) == id.as_ref());
    match merchant {
        None => refuse(StatusCode::UNAUTHORIZED, "invalid_client", "ClientId is Invalid"),
        Some(merchant) if Some(merchant.client_secret.expose()) == secret.as_ref() => Ok(merchant),
        Some(_) => refuse(StatusCode::UNAUTHORIZED, "invalid_client", "Client credentials are invalid"),
    }
}

/// The single value of a form's field.
fn one(form: &[u8], name: &str) -> Option<String> {
    let mut values = form_urlencoded::parse(form).filter(|(found, _)| found == name);
    let value = values.next()?.1.into_owned();
    values.next().is_none().then_some(value)
}

/// The SNAP login.
pub(super) fn snap(shared: &Shared, state: &mut State, received: &Received, checks: &mut Checks) -> Answer {
    let real = shared.clock.now();
    let answer = match snap_client(shared, received, checks) {
        Err(refusal) => refusal.answer(TOKEN_SERVICE_CODE),
        Ok(merchant) => {
            let switches = &shared.config.snap;
            let token = random_text(&mut state.random, HEX, SNAP_TOKEN_LENGTH);
            let expires_at = real.checked_add(switches.token_life).unwrap_or(real);
            state.tokens.issue(token.clone(), merchant.index, Dialect::Snap, expires_at);
            state.ledger.token_issued();
            let seconds = switches.token_life.as_secs();
            let expires_in = match switches.expires_in_type {
                NumberShape::String => json!(seconds.to_string()),
                NumberShape::Number => json!(seconds),
            };
            let body = json!({
                "responseCode": switches.token_success_code,
                "responseMessage": "Successful",
                "tokenType": "BearerToken",
                "responseTime": clock::compact(real),
                "accessToken": token,
                "expiresIn": expires_in,
            });
            Answer::json(status(200), &body)
        }
    };
    answer.with(http::HeaderName::from_static("x-timestamp"), clock::iso8601(real))
}

fn snap_client<'s>(shared: &'s Shared, received: &Received, checks: &mut Checks) -> Result<&'s Merchant, SnapRefusal> {
    let faults: Vec<_> = TOKEN_HEADERS.iter().filter_map(|name| header_fault(received, name)).collect();
    checks.note("headers", first(&faults))?;
    let skew = shared.config.snap.clock_skew;
    checks.note("timestamp", timestamp(header(&received.headers, "X-TIMESTAMP"), shared.clock.now(), skew))?;
    let client_id = header(&received.headers, "X-CLIENT-KEY");
    let client = shared.merchants.iter().find(|merchant| merchant.client_id == client_id);
    let merchant = checks.note("client", client.ok_or_else(|| SnapRefusal::unauthorized("Unknown client")))?;
    let signed = is_login_of(merchant, &received.headers);
    let verdict = if signed { Ok(()) } else { Err(SnapRefusal::unauthorized("Signature")) };
    checks.note("signature", verdict)?;
    checks.note("body", grant(received))?;
    Ok(merchant)
}

/// The header's rule is the one it has in the other calls.
fn header_fault(received: &Received, name: &str) -> Option<Fault> {
    match single_header(&received.headers, name) {
        Err(fault) => Some(fault),
        Ok(None) => Some(Fault::of_header(name, Rule::Required, "is missing")),
        Ok(Some(value)) => CREATE.header(name).and_then(|header| {
            header.kind.check_text(value, Form::Wire).map(|(rule, message)| Fault::of_header(name, rule, message))
        }),
    }
}

fn grant(received: &Received) -> Result<(), SnapRefusal> {
    let document = Document::parse(received.body.clone()).map_err(|_| SnapRefusal::bad_request())?;
    let grant = document.root().member("grantType");
    match grant.map(|value| value.as_str()) {
        _ if document.root().kind() != crate::document::Kind::Object => Err(SnapRefusal::bad_request()),
        None => Err(SnapRefusal::mandatory("grantType")),
        Some(Some("client_credentials")) => Ok(()),
        Some(_) => Err(SnapRefusal::format("grantType")),
    }
}

/// `snap.md` section 2.
const TOKEN_HEADERS: [&str; 4] = ["Content-Type", "X-TIMESTAMP", "X-CLIENT-KEY", "X-SIGNATURE"];
/// 28 characters were seen three times.
const CLASSIC_TOKEN_LENGTH: usize = 28;
/// 32 hexadecimal digits in the wallet sample.
const SNAP_TOKEN_LENGTH: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_field_that_is_given_twice_counts_as_none() {
        assert_eq!(one(b"client_id=a%20b&x=1", "client_id").as_deref(), Some("a b"));
        assert_eq!(one(b"client_id=a&client_id=b", "client_id"), None);
        assert_eq!(one(b"", "client_id"), None);
    }
}
