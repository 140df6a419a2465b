//! SNAP's seven-digit response codes: reading them and what a client does about them.
//!
//! Only the HTTP part and the case part count; the two service digits differ between Ayoconnect's
//! own pages (`errors.md` section 2).

/// A response code taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseCode {
    /// The HTTP status it stands for.
    pub http: u16,
    /// Which service answered; not to be relied on.
    pub service: u8,
    /// What happened.
    pub case: u8,
}

/// What a client does about an answer (`errors.md` section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Done.
    Success,
    /// Accepted, the outcome comes later.
    Pending,
    /// The token is to blame: a new one, once.
    AuthToken,
    /// Credentials or signature are to blame.
    AuthFatal,
    /// The request is to blame.
    Rejected,
    /// Refused for a business reason.
    Business,
    /// The id is already in use.
    Conflict,
    /// Too fast.
    RateLimited,
    /// Nobody knows whether it happened.
    Ambiguous,
}

impl ResponseCode {
    /// Reads exactly seven digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 7 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(Self {
            http: text.get(0..3)?.parse().ok()?,
            service: text.get(3..5)?.parse().ok()?,
            case: text.get(5..7)?.parse().ok()?,
        })
    }

    /// What a client does about it.
    #[must_use]
    pub const fn category(self) -> Category {
        match (self.http, self.case) {
            (202, _) => Category::Pending,
            (200..=299, _) => Category::Success,
            (401, 1 | 3) => Category::AuthToken,
            (401, _) => Category::AuthFatal,
            (404, _) => Category::Business,
            (409, _) => Category::Conflict,
            (429, _) => Category::RateLimited,
            (400..=499, _) => Category::Rejected,
            _ => Category::Ambiguous,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_vectors() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/response-codes.json")).unwrap();
        for case in vectors["cases"].as_array().unwrap() {
            let text = case["code"].as_str().map_or_else(|| case["code"].to_string(), ToOwned::to_owned);
            let read = ResponseCode::parse(&text);
            assert_eq!(read.is_some(), case["valid"].as_bool().unwrap_or(true), "{}", case["id"]);
            let Some(code) = read else { continue };
            assert_eq!(u64::from(code.http), case["http"].as_u64().unwrap(), "{}", case["id"]);
            assert_eq!(format!("{:02}", code.service), case["service"].as_str().unwrap(), "{}", case["id"]);
            assert_eq!(format!("{:02}", code.case), case["case"].as_str().unwrap(), "{}", case["id"]);
            let expected = match case["category"].as_str().unwrap() {
                "success" => Category::Success,
                "pending" => Category::Pending,
                "auth_token" => Category::AuthToken,
                "auth_fatal" => Category::AuthFatal,
                "rejected" => Category::Rejected,
                "business" => Category::Business,
                "conflict" => Category::Conflict,
                "rate_limited" => Category::RateLimited,
                // A token call may simply be repeated; for a VA operation the same code is in doubt.
                "ambiguous" | "upstream_error" => Category::Ambiguous,
                other => panic!("unknown category {other}"),
            };
            assert_eq!(code.category(), expected, "{}", case["id"]);
        }
    }
}
