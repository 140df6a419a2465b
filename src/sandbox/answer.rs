//! What the simulator answers, before it is an HTTP response: status, headers, bytes.
//!
//! Promises bodies in the shape of each generation's refusals (`errors.md` sections 1 and 2). Which
//! refusal a request earns is the calls' affair.

use std::fmt;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

/// One answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Its status.
    pub(super) status: StatusCode,
    /// Beside `Content-Type`, which is JSON where none is given here.
    pub(super) headers: Vec<(HeaderName, String)>,
    /// Its bytes.
    pub(super) body: Bytes,
}

impl Answer {
    /// A JSON body.
    #[must_use]
    pub(super) fn json(status: StatusCode, body: &Value) -> Self {
        Self::bytes(status, body.to_string())
    }

    /// A body that is sent as it is.
    #[must_use]
    pub(super) fn bytes(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// A method that a path does not have.
    #[must_use]
    pub(super) fn not_allowed(allow: &str, body: &Value) -> Self {
        Self::json(StatusCode::METHOD_NOT_ALLOWED, body).with(ALLOW, allow.to_owned())
    }

    /// With one header more.
    #[must_use]
    pub(super) fn with(mut self, name: HeaderName, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The HTTP response.
    #[must_use]
    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            // Values are times and method names; another one would only be left out.
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

/// A status from a number the tables or a switch hold; 500 for what is none.
#[must_use]
pub(super) fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// A refusal in SNAP's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SnapRefusal {
    /// HTTP status and first three digits of the code.
    pub(super) http: u16,
    /// Last two digits of the code.
    pub(super) case: String,
    /// `responseMessage`.
    pub(super) message: String,
}

impl SnapRefusal {
    /// Any refusal.
    #[must_use]
    pub(super) fn new(http: u16, case: &str, message: impl Into<String>) -> Self {
        Self { http, case: case.to_owned(), message: message.into() }
    }

    /// 400 case 00.
    #[must_use]
    pub(super) fn bad_request() -> Self {
        Self::new(400, "00", "Bad Request")
    }

    /// 400 case 01.
    #[must_use]
    pub(super) fn format(field: &str) -> Self {
        Self::new(400, "01", format!("Invalid Field Format {{{field}}}"))
    }

    /// 400 case 02.
    #[must_use]
    pub(super) fn mandatory(field: &str) -> Self {
        Self::new(400, "02", format!("Invalid Mandatory Field {{{field}}}"))
    }

    /// 401 case 00.
    #[must_use]
    pub(super) fn unauthorized(reason: &str) -> Self {
        Self::new(401, "00", format!("Unauthorized. [{reason}]"))
    }

    /// 401 case 01.
    #[must_use]
    pub(super) fn token() -> Self {
        Self::new(401, "01", "Invalid Token (B2B)")
    }

    /// 404 case 01.
    #[must_use]
    pub(super) fn transaction_not_found() -> Self {
        Self::new(404, "01", "Transaction Not Found")
    }

    /// 404 with the text of a case; the switches choose some of the cases.
    #[must_use]
    pub(super) fn business(case: &str, reason: &str) -> Self {
        let text = match case {
            "01" => return Self::transaction_not_found(),
            "08" => "Invalid Merchant",
            "11" => "Invalid Card/Account/Customer/Virtual Account",
            "13" => "Invalid Amount",
            "14" => "Paid Bill",
            "18" => "Inconsistent Request",
            _ => "Invalid Bill/Virtual Account",
        };
        Self::new(404, case, format!("{text} [{reason}]"))
    }

    /// The answer, given the operation's service digits.
    #[must_use]
    pub(super) fn answer(&self, service: &str) -> Answer {
        let body = json!({
            "responseCode": format!("{}{service}{}", self.http, self.case),
            "responseMessage": self.message,
        });
        Answer::json(status(self.http), &body)
    }
}

impl fmt::Display for SnapRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} {}", self.http, self.case, self.message)
    }
}

/// A refusal in classic's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClassicRefusal {
    /// The token is missing or not good.
    Unauthorised,
    /// Everything else.
    Invalid(Vec<Problem>),
}

/// One entry of `errors[]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Four digits (`errors.md` section 1).
    pub(super) code: &'static str,
    /// In words, beginning with the field's name.
    pub(super) details: String,
}

impl ClassicRefusal {
    /// One problem.
    #[must_use]
    pub(super) fn one(code: &'static str, details: impl Into<String>) -> Self {
        Self::Invalid(vec![Problem { code, details: details.into() }])
    }

    /// The answer; `http` is the switch `validation_status`.
    #[must_use]
    pub(super) fn answer(&self, http: u16, echo: &ClassicEcho<'_>) -> Answer {
        match self {
            Self::Unauthorised => {
                let message = "Unauthorised error";
                let body = json!({
                    "code": "401", "message": message, "responseTime": echo.response_time,
                    "errors": [{"code": "401", "message": message, "details": "Token is invalid/expired"}],
                });
                Answer::json(StatusCode::UNAUTHORIZED, &body)
            }
            Self::Invalid(problems) => {
                let errors: Vec<Value> = problems
                    .iter()
                    .map(|problem| {
                        let message = format!("error.validator.{}", problem.code);
                        json!({"code": problem.code, "message": message, "details": problem.details})
                    })
                    .collect();
                let message = match http {
                    412 => "precondition.failed",
                    400 => "bad.request",
                    _ => "service.unavailable",
                };
                let body = json!({
                    "responseCode": http, "responseMessage": message, "responseTime": echo.response_time,
                    "referenceNumber": echo.reference_number, "transactionId": echo.transaction_id,
                    "errors": errors,
                });
                Answer::json(status(http), &body)
            }
        }
    }
}

impl fmt::Display for ClassicRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthorised => f.write_str("401 token is invalid/expired"),
            Self::Invalid(problems) => problems.iter().enumerate().try_for_each(|(index, problem)| {
                write!(f, "{}{} {}", if index == 0 { "" } else { "; " }, problem.code, problem.details)
            }),
        }
    }
}

/// What every classic answer says about the call it belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClassicEcho<'a> {
    /// `yyyyMMddHHmmss`.
    pub(super) response_time: &'a str,
    /// 32 hex digits, the server's.
    pub(super) reference_number: &'a str,
    /// The request's own; empty where it could not be read.
    pub(super) transaction_id: &'a str,
}
