//! Numbers of virtual accounts: how they are put together and told apart.
//!
//! Pure text work. Which digits a client may choose is `bank`'s affair; who owns a number is the
//! store's.

use std::fmt;

use super::bank::{Bank, CLASSIC_MERCHANT_DIGITS};

/// Characters of `partnerServiceId` and of the padded prefix in `virtualAccountNo` (`snap.md` section 8).
pub const PARTNER_SERVICE_ID_LENGTH: usize = 8;

/// A SNAP number: the prefix padded with blanks on the left, then the own digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapNumber {
    partner_service_id: String,
    own_digits: String,
}

impl SnapNumber {
    /// Puts a prefix of at most eight digits and own digits together.
    #[must_use]
    pub fn compose(prefix: &str, own_digits: &str) -> Option<Self> {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        (digits(prefix) && digits(own_digits) && prefix.len() <= PARTNER_SERVICE_ID_LENGTH).then(|| Self {
            partner_service_id: format!("{prefix:>PARTNER_SERVICE_ID_LENGTH$}"),
            own_digits: own_digits.to_owned(),
        })
    }

    /// Takes a padded number apart.
    #[must_use]
    pub fn parse(padded: &str) -> Option<Self> {
        let (partner_service_id, own_digits) = padded.split_at_checked(PARTNER_SERVICE_ID_LENGTH)?;
        Self::compose(partner_service_id.trim_start_matches(' '), own_digits)
    }

    /// The prefix, padded to eight.
    #[must_use]
    pub fn partner_service_id(&self) -> &str {
        &self.partner_service_id
    }

    /// The digits behind the prefix.
    #[must_use]
    pub fn own_digits(&self) -> &str {
        &self.own_digits
    }

    /// What a customer types: no blanks.
    #[must_use]
    pub fn payable(&self) -> String {
        format!("{}{}", self.partner_service_id.trim_start_matches(' '), self.own_digits)
    }
}

impl fmt::Display for SnapNumber {
    /// `virtualAccountNo`, blanks included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.partner_service_id, self.own_digits)
    }
}

/// A number without its blanks, the form records are found by.
#[must_use]
pub fn without_blanks(number: &str) -> &str {
    number.trim_start_matches(' ')
}

/// The client's own digits of a full classic number (`classic.md` section 7: prefix, three digits of
/// the merchant, own digits).
#[must_use]
pub fn classic_own_digits<'n>(bank: &Bank, full: &'n str) -> Option<&'n str> {
    full.get(bank.prefix_digits + CLASSIC_MERCHANT_DIGITS..).filter(|own| !own.is_empty())
}

/// The last four digits, all that may be shown of a number.
#[must_use]
pub fn masked(number: &str) -> String {
    let tail = number.char_indices().rev().nth(3).map_or("", |(at, _)| number.get(at..).unwrap_or(""));
    format!("****{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;
    use crate::dialect::bank::bank;

    #[test]
    fn numbers_of_the_vectors() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/va-number.json")).unwrap();
        let text = |case: &serde_json::Value, name: &str| case[name].as_str().unwrap_or_default().to_owned();
        for case in vectors["cases"].as_array().unwrap() {
            let bank = bank(&text(case, "bank_code")).unwrap();
            let dialect = if case["generation"] == "snap" { Dialect::Snap } else { Dialect::Classic };
            let input = text(case, "input");
            let valid = input.bytes().all(|byte| byte.is_ascii_digit()) && bank.digits(dialect).contains(&input.len());
            assert_eq!(valid, case["valid"].as_bool().unwrap(), "{}", case["id"]);
            if !valid {
                continue;
            }
            if dialect == Dialect::Snap {
                let number = SnapNumber::compose(&text(case, "prefix"), &input).unwrap();
                assert_eq!(number.partner_service_id(), text(case, "partnerServiceId"));
                assert_eq!(number.to_string(), text(case, "virtualAccountNo"));
                assert_eq!(number.payable(), text(case, "payable_number"));
                assert_eq!(SnapNumber::parse(&number.to_string()), Some(number));
            } else {
                let full = format!("{}{}{input}", text(case, "prefix"), text(case, "merchant_part"));
                assert_eq!(full, text(case, "virtualAccountNumber"));
                assert_eq!(classic_own_digits(bank, &full), Some(input.as_str()));
            }
        }
    }

    #[test]
    fn only_four_digits_show() {
        assert_eq!(masked("   1462912345678901"), "****8901");
        assert_eq!(masked("12"), "****");
        assert_eq!(masked(""), "****");
    }

    #[test]
    fn hostile_numbers_are_no_numbers() {
        for text in ["", "14629", "   14629", "   1462é12345678901", "  x14629123456789", "        12345678901"] {
            assert_eq!(SnapNumber::parse(text), None, "{text:?}");
        }
    }
}
