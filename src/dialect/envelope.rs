//! The gateway's refusals in each generation's words: status, case, message and body.
//!
//! Pure. Chooses words for a problem, never the problem (contract section 4, `errors.md`).

use http::StatusCode;
use serde_json::{Value, json};

use super::{Dialect, Fault, Operation, Rule};
use crate::caller::Unproven;
use crate::error::Error;

/// Characters of a SNAP `responseMessage` at most (`errors.md` section 2).
const MESSAGE_MAX: usize = 150;

/// What a refusal depends on besides the error itself.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// Whose shape the answer takes.
    pub dialect: Dialect,
    /// Absent where no route matched.
    pub operation: Option<&'static Operation>,
    /// `errors.classic_validation_status`.
    pub classic_validation_status: StatusCode,
    /// `responseTime`.
    pub response_time: &'a str,
}

/// The HTTP status of a refusal.
#[must_use]
pub fn status(error: &Error, scene: &Scene<'_>) -> StatusCode {
    let classic = scene.dialect == Dialect::Classic;
    match error {
        Error::BadJson(_) | Error::InvalidRequest(_) if classic => scene.classic_validation_status,
        Error::AmountTooLow if classic => StatusCode::BAD_REQUEST,
        Error::BadJson(_) | Error::InvalidRequest(_) => StatusCode::BAD_REQUEST,
        Error::UnknownRoute | Error::UnknownMerchant | Error::ReferenceUnknown(_) | Error::AmountTooLow => {
            StatusCode::NOT_FOUND
        }
        Error::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
        Error::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
        Error::RateLimited(_) | Error::TooManyInFlight => StatusCode::TOO_MANY_REQUESTS,
        Error::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Error::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
        Error::IdempotencyConflict | Error::IdempotencyInProgress => StatusCode::CONFLICT,
        Error::TokenUnavailable | Error::UpstreamUnavailable | Error::StoreUnavailable | Error::ShuttingDown => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Error::UpstreamTimeout | Error::OutcomeUnknown => StatusCode::GATEWAY_TIMEOUT,
        Error::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The last two digits of SNAP's response code.
#[must_use]
pub fn case(error: &Error) -> &'static str {
    match error {
        Error::UnknownMerchant => "08",
        Error::InvalidRequest(faults) if faults.iter().any(|fault| fault.rule == Rule::Required) => "02",
        Error::InvalidRequest(_) | Error::IdempotencyInProgress | Error::ReferenceUnknown(_) => "01",
        Error::AmountTooLow => "13",
        Error::UnknownRoute
        | Error::MethodNotAllowed(_)
        | Error::Unauthenticated(_)
        | Error::RateLimited(_)
        | Error::TooManyInFlight
        | Error::BodyTooLarge
        | Error::BodyTimeout
        | Error::BadJson(_)
        | Error::IdempotencyConflict
        | Error::TokenUnavailable
        | Error::UpstreamUnavailable
        | Error::UpstreamTimeout
        | Error::OutcomeUnknown
        | Error::StoreUnavailable
        | Error::ShuttingDown
        | Error::Internal => "00",
    }
}

/// What happened and what to do, in a sentence of at most 150 characters.
#[must_use]
pub fn message(error: &Error) -> String {
    let first = |faults: &[Fault], rule: Option<Rule>| {
        let found = faults.iter().find(|fault| rule.is_none_or(|rule| fault.rule == rule));
        found.map_or_else(String::new, |fault| fault.field.clone())
    };
    let text = match error {
        Error::UnknownRoute => "Not Found. No operation has this path".to_owned(),
        Error::MethodNotAllowed(_) => "Requested Function Is Not Supported".to_owned(),
        Error::Unauthenticated(why) => format!("Unauthorized. {}", unproven(*why)),
        Error::UnknownMerchant => "Invalid Merchant".to_owned(),
        Error::RateLimited(_) => "Too Many Requests. Retry after the time in Retry-After".to_owned(),
        Error::TooManyInFlight => "Too Many Requests. Too many are under way; retry when one has ended".to_owned(),
        Error::BodyTooLarge => "Bad Request. The body is too large".to_owned(),
        Error::BodyTimeout => "Request Timeout. The body took too long to arrive".to_owned(),
        Error::BadJson(why) => format!("Bad Request. {why}"),
        Error::InvalidRequest(faults) if faults.iter().any(|fault| fault.rule == Rule::Required) => {
            format!("Invalid Mandatory Field {{{}}}", first(faults, Some(Rule::Required)))
        }
        Error::InvalidRequest(faults) => format!("Invalid Field Format {{{}}}", first(faults, None)),
        Error::IdempotencyConflict => "Conflict. The id was used for another request".to_owned(),
        Error::IdempotencyInProgress => {
            "Conflict. The first request with this id is still under way; retry later".to_owned()
        }
        Error::ReferenceUnknown(_) => "Transaction Not Found. Nothing is known of this virtual account".to_owned(),
        Error::AmountTooLow => "Invalid Amount. This bank's amounts must not go down".to_owned(),
        Error::TokenUnavailable => "Service Unavailable. No token could be had; nothing was sent, retry".to_owned(),
        Error::UpstreamUnavailable => {
            "Service Unavailable. Upstream cannot be reached; nothing was sent, retry".to_owned()
        }
        Error::UpstreamTimeout => "Timeout. Upstream gave no answer in time; retry".to_owned(),
        Error::OutcomeUnknown => "Timeout. The outcome is unknown; retry with the same id and body".to_owned(),
        Error::StoreUnavailable => {
            "Service Unavailable. The request could not be recorded; nothing was sent, retry".to_owned()
        }
        Error::ShuttingDown => "Service Unavailable. Shutting down; nothing was sent, retry".to_owned(),
        Error::Internal => "General Error. A defect of the gateway; nothing was changed, retry".to_owned(),
    };
    text.chars().take(MESSAGE_MAX).collect()
}

/// What a caller who is nobody should do.
const fn unproven(why: Unproven) -> &'static str {
    match why {
        Unproven::NoKey => "No API key; send it as X-API-Key: KEY or as Authorization: Bearer KEY",
        Unproven::UnusableKey => "The API key is empty, or not visible ASCII; send it as it was given",
        Unproven::SeveralKeys => "More than one API key; send it once, in one header",
        Unproven::UnknownKey => "The API key is not known; send the one this merchant was given",
        Unproven::NoCertificate => "No client certificate; connect with the one this merchant was given",
        Unproven::UnknownCertificate => "The client certificate is no merchant's; connect with the one that was given",
        Unproven::Disagreement => "Credentials and merchant header do not agree; leave the header out",
    }
}

/// The body of a refusal.
#[must_use]
pub fn body(error: &Error, scene: &Scene<'_>) -> Value {
    let status = status(error, scene).as_u16();
    let mut body = match scene.dialect {
        Dialect::Snap => {
            let service = scene.operation.map_or("00", |operation| operation.service_code);
            json!({"responseCode": format!("{status}{service}{}", case(error)), "responseMessage": message(error)})
        }
        Dialect::Classic => json!({
            "responseCode": status,
            "responseMessage": message(error),
            "responseTime": scene.response_time,
        }),
    };
    let (Error::InvalidRequest(faults) | Error::ReferenceUnknown(faults)) = error else { return body };
    if let (Some(members), false) = (body.as_object_mut(), faults.is_empty()) {
        let errors: Vec<Value> = faults.iter().map(|fault| fault_entry(fault, scene.dialect)).collect();
        members.insert("errors".to_owned(), errors.into());
    }
    body
}

fn fault_entry(fault: &Fault, dialect: Dialect) -> Value {
    let mut entry = json!({
        "field": fault.field,
        "pointer": fault.pointer,
        "rule": fault.rule.name(),
        "message": format!("{} {}", fault.field, fault.message),
    });
    if let (Dialect::Classic, Some(members)) = (dialect, entry.as_object_mut()) {
        members.insert("code".to_owned(), classic_code(fault).into());
        members.insert("details".to_owned(), format!("{} {}", fault.field, fault.message).into());
    }
    entry
}

/// The four digits a sibling product uses for such a fault (`errors.md` section 1).
fn classic_code(fault: &Fault) -> &'static str {
    match fault.field.as_str() {
        "bankCode" => "0016",
        "transactionId" => "0310",
        _ => "0505",
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::dialect::OperationId;

    fn scene(id: OperationId) -> Scene<'static> {
        let operation = id.operation();
        Scene {
            dialect: operation.dialect,
            operation: Some(operation),
            classic_validation_status: StatusCode::BAD_REQUEST,
            response_time: "20260105100000",
        }
    }

    #[test]
    fn every_error_has_words_in_both_generations() {
        let mut table = String::new();
        for error in Error::samples() {
            let snap = body(&error, &scene(OperationId::SnapCreate));
            let classic = body(&error, &scene(OperationId::ClassicCreate));
            writeln!(
                table,
                "{:24} {} | {} {}",
                error.reason().code(),
                snap["responseCode"].as_str().unwrap(),
                classic["responseCode"],
                classic["responseMessage"].as_str().unwrap()
            )
            .unwrap();
        }
        expect_test::expect_file!["../../tests/snapshots/errors.txt"].assert_eq(&table);
    }

    #[test]
    fn faults_are_all_listed() {
        let error = Error::InvalidRequest(vec![
            Fault::of_header("X-EXTERNAL-ID", Rule::Length, "must have exactly 32 characters"),
            Fault::missing(&["additionalInfo", "bankCode"]),
        ]);
        let snap = body(&error, &scene(OperationId::SnapCreate));
        assert_eq!(snap["responseCode"], "4002702");
        assert_eq!(snap["responseMessage"], "Invalid Mandatory Field {additionalInfo.bankCode}");
        assert_eq!(snap["errors"].as_array().unwrap().len(), 2);
        assert_eq!(snap["errors"][0]["pointer"], Value::Null);
        assert_eq!(snap["errors"][1]["pointer"], "/additionalInfo/bankCode");
        let classic = body(&error, &scene(OperationId::ClassicCreate));
        assert_eq!(classic["responseCode"], 400);
        assert_eq!(classic["errors"][1]["code"], "0505");
        assert_eq!(classic["errors"][1]["details"], "additionalInfo.bankCode is missing");
    }

    #[test]
    fn classic_validation_may_take_ayoconnects_status() {
        let scene =
            Scene { classic_validation_status: StatusCode::SERVICE_UNAVAILABLE, ..scene(OperationId::ClassicCreate) };
        assert_eq!(status(&Error::InvalidRequest(vec![]), &scene), 503);
        assert_eq!(status(&Error::BadJson(String::new()), &scene), 503);
        assert_eq!(status(&Error::AmountTooLow, &scene), 400, "a business rule, not validation");
    }

    #[test]
    fn messages_fit() {
        let long = Error::BadJson("x".repeat(1_000));
        assert_eq!(message(&long).chars().count(), MESSAGE_MAX);
        let strangers = Unproven::ALL.map(Error::Unauthenticated);
        assert!(Error::samples().iter().chain(&strangers).all(|error| message(error).len() < MESSAGE_MAX));
    }
}
