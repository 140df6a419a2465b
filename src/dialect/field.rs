//! A field's rule and how one value is held against it.
//!
//! Knows kinds of fields, not fields: names, and which kind they have, are in the two tables.
//! Messages never repeat the value, since it may be a name, a phone or an account number.

use std::borrow::Cow;

use super::amount::Amount;
use super::number::without_blanks;
use crate::clock;
use crate::document::{self, Value};

/// One member of a body, or one parameter of a query.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Who has to give it.
    pub need: Need,
    /// What it looks like.
    pub kind: Kind,
}

/// Who has to give a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The caller.
    Required,
    /// Nobody.
    Optional,
    /// Upstream demands it, the gateway knows it.
    Attached(Attach),
    /// Upstream takes it, the gateway knows it.
    Completed(Attach),
    /// Upstream demands it; a caller may give `Idempotency-Key` instead.
    Keyed,
    /// Only for finding the record; never sent.
    Lookup,
}

impl Need {
    /// What the gateway attaches, if anything.
    #[must_use]
    pub const fn attach(self) -> Option<Attach> {
        match self {
            Self::Attached(attach) | Self::Completed(attach) => Some(attach),
            Self::Required | Self::Optional | Self::Keyed | Self::Lookup => None,
        }
    }

    /// Whether a request in this form may not go without it.
    #[must_use]
    pub const fn demanded(self, form: Form) -> bool {
        match self {
            Self::Required => true,
            Self::Attached(_) | Self::Keyed => matches!(form, Form::Wire),
            Self::Optional | Self::Completed(_) | Self::Lookup => false,
        }
    }
}

/// What the gateway attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// The create's `referenceNo`.
    Reference,
    /// Another member of the record; it names the account, so a caller may not contradict it.
    Identity(Identity),
    /// The create's transaction id; a caller may use another.
    TransactionId,
    /// A new id for every call.
    Fresh,
}

/// Members that name an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// SNAP: the padded prefix.
    PartnerServiceId,
    /// SNAP: the merchant's key of the customer.
    CustomerNo,
    /// Both: the number itself, in the form upstream wants.
    Number,
    /// Classic: `virtualAccountId`.
    AccountId,
    /// Classic: `customerId`.
    CustomerId,
    /// Classic: `bankCode`.
    BankCode,
}

/// What a value looks like. Lengths are in characters.
#[derive(Debug)]
pub enum Kind {
    /// Any text.
    Text(usize, usize),
    /// Letters and digits.
    Alphanumeric(usize, usize),
    /// Visible ASCII without blanks.
    Visible(usize, usize),
    /// Digits.
    Digits(usize, usize),
    /// Digits, or nothing: upstream then makes a number.
    DigitsOrEmpty(usize, usize),
    /// Blanks, then digits; what callers may write shorter (see [`Form`]).
    Padded(usize, usize),
    /// `62` and digits; total length.
    Phone(usize, usize),
    /// A whole number.
    Integer(i64, i64),
    /// Digits, a point and two digits; `whole` demands `.00`.
    Money {
        /// Whether sen are refused.
        whole: bool,
    },
    /// 25 characters with an offset.
    Timestamp,
    /// One of these.
    Choice(&'static [&'static str]),
    /// `application/json`, with or without parameters.
    Json,
    /// An object of these members.
    Object(&'static [Field]),
    /// An array of exactly one such object.
    Single(&'static [Field]),
}

/// How strictly a number is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As upstream wants it.
    Wire,
    /// As a caller may write it, since the gateway completes it.
    Caller,
}

/// Digits of the shortest and longest number without its padding. A prefix of eight digits leaves no
/// room for any, so the longest is as long as with it.
const UNPADDED: (usize, usize) = (8, 26);

/// A rule that was broken; the stable name a program may branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Missing or `null`.
    Required,
    /// Another JSON type.
    Type,
    /// Too short or too long.
    Length,
    /// Not of the demanded form.
    Format,
    /// Outside the allowed numbers.
    Range,
    /// Not among the allowed values.
    Choice,
    /// Not offered together with another member.
    Combination,
    /// Given more than once.
    Repeated,
    /// Contradicts what is known of the account.
    Mismatch,
}

impl Rule {
    /// The name in `errors[].rule`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Type => "type",
            Self::Length => "length",
            Self::Format => "format",
            Self::Range => "range",
            Self::Choice => "choice",
            Self::Combination => "combination",
            Self::Repeated => "repeated",
            Self::Mismatch => "mismatch",
        }
    }
}

/// Why a value does not fit, in words that follow the field's name.
pub type Misfit = (Rule, Cow<'static, str>);

impl Kind {
    /// Holds a JSON value that is neither an object nor an array against this kind.
    pub(super) fn check_value(&self, value: Value<'_>, form: Form) -> Option<Misfit> {
        match self {
            Self::Integer(min, max) => match (value.kind(), value.as_integer()) {
                (document::Kind::Number, Some(number)) if (*min..=*max).contains(&number) => None,
                (document::Kind::Number, _) => {
                    Some((Rule::Range, format!("must be a whole number from {min} to {max}").into()))
                }
                _ => Some((Rule::Type, "must be a number".into())),
            },
            Self::Object(_) => {
                (value.kind() != document::Kind::Object).then_some((Rule::Type, Cow::Borrowed("must be an object")))
            }
            Self::Single(_) => match value.kind() {
                document::Kind::Array if value.elements().count() == 1 => None,
                document::Kind::Array => Some((Rule::Length, "must have exactly one entry".into())),
                _ => Some((Rule::Type, "must be an array".into())),
            },
            _ => match value.as_str() {
                Some(text) => self.check_text(text, form),
                None => Some((Rule::Type, "must be a string".into())),
            },
        }
    }

    /// Holds a text (a string member, a header, a query parameter) against this kind.
    #[must_use]
    pub fn check_text(&self, text: &str, form: Form) -> Option<Misfit> {
        match self {
            // No rule of Ayoconnect's excludes it, but a text that ends early for half of the programs
            // that read it is nobody's name.
            Self::Text(..) if text.contains('\0') => Some((Rule::Format, Cow::Borrowed("must not contain NUL"))),
            Self::Text(min, max) => length(text, *min, *max),
            Self::Alphanumeric(min, max) => {
                characters(text, *min, *max, |byte| byte.is_ascii_alphanumeric(), "must be letters and digits only")
            }
            Self::Visible(min, max) => {
                characters(text, *min, *max, |byte| byte.is_ascii_graphic(), "must be visible ASCII without blanks")
            }
            Self::Digits(min, max) => characters(text, *min, *max, |byte| byte.is_ascii_digit(), "must be digits only"),
            Self::DigitsOrEmpty(..) if text.is_empty() => None,
            Self::DigitsOrEmpty(min, max) => Self::Digits(*min, *max).check_text(text, form),
            Self::Padded(min, max) => padded(text, *min, *max, form),
            Self::Phone(min, max) => {
                let digits = "must be digits only";
                characters(text, *min, *max, |byte| byte.is_ascii_digit(), digits).or_else(|| {
                    (!text.starts_with("62")).then_some((Rule::Format, Cow::Borrowed("must start with 62")))
                })
            }
            Self::Money { whole } => money(text, *whole),
            Self::Timestamp => clock::parse_iso8601(text).is_none().then_some((
                Rule::Format,
                Cow::Borrowed("must be a time like 2026-01-05T10:00:00+07:00, exactly 25 characters"),
            )),
            Self::Choice(values) => (!values.contains(&text))
                .then(|| (Rule::Choice, format!("must be one of {}", values.join(", ")).into())),
            Self::Json => {
                let essence = text.split(';').next().unwrap_or_default().trim();
                (!essence.eq_ignore_ascii_case("application/json"))
                    .then_some((Rule::Format, Cow::Borrowed("must be application/json")))
            }
            Self::Integer(..) => text.parse().map_or_else(
                |_| Some((Rule::Type, "must be a whole number".into())),
                |number: i64| self.integer(number),
            ),
            Self::Object(_) | Self::Single(_) => Some((Rule::Type, "must not be a text".into())),
        }
    }

    fn integer(&self, number: i64) -> Option<Misfit> {
        match self {
            Self::Integer(min, max) if (*min..=*max).contains(&number) => None,
            _ => Some((Rule::Range, "is out of range".into())),
        }
    }

    /// The kind in words, for the generated tables.
    #[must_use]
    pub fn describe(&self) -> String {
        let between = |what: &str, min: &usize, max: &usize| {
            if min == max { format!("{what}, exactly {min}") } else { format!("{what}, {min} to {max}") }
        };
        match self {
            Self::Text(min, max) => between("text", min, max),
            Self::Alphanumeric(min, max) => between("letters and digits", min, max),
            Self::Visible(min, max) => between("visible ASCII", min, max),
            Self::Digits(min, max) => between("digits", min, max),
            Self::DigitsOrEmpty(min, max) => format!("{}, or empty: generated", between("digits", min, max)),
            Self::Padded(min, max) => between("blanks then digits", min, max),
            Self::Phone(min, max) => between("digits starting with 62", min, max),
            Self::Integer(min, max) => format!("whole number, {min} to {max}"),
            Self::Money { whole: true } => "amount with two decimals, .00".to_owned(),
            Self::Money { whole: false } => "amount with two decimals".to_owned(),
            Self::Timestamp => "time with offset, 25 characters".to_owned(),
            Self::Choice(values) => values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" or "),
            Self::Json => "`application/json`".to_owned(),
            Self::Object(_) => "object".to_owned(),
            Self::Single(_) => "array of exactly one object".to_owned(),
        }
    }
}

fn length(text: &str, min: usize, max: usize) -> Option<Misfit> {
    // Every character has at least one byte and at most four: most texts need no counting.
    let fits =
        if text.is_ascii() { (min..=max).contains(&text.len()) } else { (min..=max).contains(&text.chars().count()) };
    if fits {
        None
    } else if min == max {
        Some((Rule::Length, format!("must have exactly {min} characters").into()))
    } else {
        Some((Rule::Length, format!("must have {min} to {max} characters").into()))
    }
}

fn characters(text: &str, min: usize, max: usize, allowed: fn(&u8) -> bool, otherwise: &'static str) -> Option<Misfit> {
    length(text, min, max)
        .or_else(|| (!text.as_bytes().iter().all(allowed)).then_some((Rule::Format, otherwise.into())))
}

fn padded(text: &str, min: usize, max: usize, form: Form) -> Option<Misfit> {
    let digits = without_blanks(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some((Rule::Format, "must be digits, padded on the left with blanks".into()));
    }
    // Without padding it is one of the shorter forms, which the gateway replaces by the full one.
    if form == Form::Caller && digits.len() == text.len() && min != max {
        return length(text, UNPADDED.0, UNPADDED.1);
    }
    length(text, min, max)
}

fn money(text: &str, whole: bool) -> Option<Misfit> {
    match Amount::parse(text) {
        None => Some((Rule::Format, "must be digits with two decimals, like 150000.00".into())),
        Some(amount) if whole && !amount.is_whole() => Some((Rule::Format, "must end in .00".into())),
        Some(_) => None,
    }
}
