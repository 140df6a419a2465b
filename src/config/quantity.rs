//! Durations, sizes and amounts as the configuration writes them: `8s`, `64KiB`, `"10000.00"`.
//!
//! Promises that reading what was printed gives the same value back, and that each text form has one
//! pattern, which is also the schema's. Whether a value makes sense at its place is `check`'s affair.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration with its unit: `500ms`, `8s`, `15m`, `48h`, `35d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

/// A number of bytes with its unit: `64KiB`, `32MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

/// An amount of rupiah with two decimals, kept in hundredths; `0.00` where none is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Amount(pub(super) u64);

impl Span {
    /// Reads a duration. The error says what is expected.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected a duration such as 500ms, 8s, 15m, 48h or 35d";
        let (number, unit) = split_unit(text).ok_or(EXPECTED)?;
        if unit == "ms" {
            return Ok(Self(Duration::from_millis(number)));
        }
        let (_, seconds) = SPAN_UNITS.into_iter().find(|(name, _)| *name == unit).ok_or(EXPECTED)?;
        Ok(Self(Duration::from_secs(number.checked_mul(seconds).ok_or(EXPECTED)?)))
    }
}

impl Size {
    /// Reads a size. The error says what is expected.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected a size such as 512B, 64KiB, 32MiB or 1GiB";
        let (number, unit) = split_unit(text).ok_or(EXPECTED)?;
        let (_, bytes) = SIZE_UNITS.into_iter().find(|(name, _)| *name == unit).ok_or(EXPECTED)?;
        Ok(Self(number.checked_mul(bytes).ok_or(EXPECTED)?))
    }
}

impl Amount {
    /// Reads an amount. The error says what is expected.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected an amount with two decimals such as \"10000.00\"";
        let (whole, cents) = text.split_once('.').ok_or(EXPECTED)?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(cents) || cents.len() != 2 || whole.len() > MOST_AMOUNT_DIGITS {
            return Err(EXPECTED);
        }
        format!("{whole}{cents}").parse().map(Self).map_err(|_| EXPECTED)
    }

    /// The bound it stands for: zero is none.
    pub(super) const fn bound(self) -> Option<u64> {
        match self.0 {
            0 => None,
            sen => Some(sen),
        }
    }
}

/// Digits, then letters; nothing between and nothing else.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    // Nine digits of days or gibibytes still fit a u64 of seconds or bytes.
    if number.len() > MOST_DIGITS {
        return None;
    }
    Some((number.parse().ok()?, unit))
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        if millis != 0 {
            return write!(f, "{}ms", self.0.as_millis());
        }
        // Two days are what people write as 48h.
        let least = |size: u64| if size == 86_400 { 3 * size } else { size };
        let fits = |size: u64| seconds.checked_rem(size) == Some(0) && seconds >= least(size);
        match SPAN_UNITS.into_iter().find(|(_, size)| fits(*size)) {
            Some((unit, size)) => write!(f, "{}{unit}", seconds / size),
            None => write!(f, "{seconds}s"),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |size: u64| self.0.checked_rem(size) == Some(0) && self.0 >= size;
        match SIZE_UNITS.into_iter().find(|(_, size)| fits(*size)) {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

/// Serde and schema of a quantity: a string of a pattern, and a keyword that tells `conform` which
/// function reads it, so that no pattern is interpreted at run time.
macro_rules! as_text {
    ($name:ident, $kind:literal, $pattern:literal, $description:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "pattern": $pattern,
                    "x-quantity": $kind,
                    "description": $description
                })
            }
        }
    };
}

as_text!(Span, "duration", "^[0-9]{1,9}(ms|s|m|h|d)$", "A duration: a whole number and ms, s, m, h or d.");
as_text!(Size, "size", "^[0-9]{1,9}(B|KiB|MiB|GiB)$", "A size: a whole number and B, KiB, MiB or GiB.");
as_text!(Amount, "amount", "^[0-9]{1,16}\\.[0-9]{2}$", "Rupiah with two decimals, in quotes; \"0.00\" is no bound.");

/// What a quantity of that kind does not like about a text; nothing when it is fine.
pub(super) fn complaint(kind: &str, text: &str) -> Option<&'static str> {
    match kind {
        "duration" => Span::parse(text).err(),
        "size" => Size::parse(text).err(),
        "amount" => Amount::parse(text).err(),
        _ => None,
    }
}

/// Lets a plain duration be read and written as [`Span`].
pub(super) mod span {
    use super::{Deserialize, Deserializer, Duration, Serialize, Serializer, Span};

    pub(in super::super) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        Span(*value).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Span::deserialize(deserializer).map(|Span(value)| value)
    }
}

/// Lets plain durations be read and written as a list of [`Span`].
pub(super) mod spans {
    use super::{Deserialize, Deserializer, Duration, Serializer, Span};

    pub(in super::super) fn serialize<S: Serializer>(values: &[Duration], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().copied().map(Span))
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Duration>, D::Error> {
        Ok(Vec::<Span>::deserialize(deserializer)?.into_iter().map(|Span(value)| value).collect())
    }
}

/// Lets an optional bound be read and written as [`Amount`], `"0.00"` being none.
pub(super) mod bound {
    use super::{Amount, Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde's `with` hands over a reference to the field's type")]
    pub(in super::super) fn serialize<S: Serializer>(value: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        Amount(value.unwrap_or(0)).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        Amount::deserialize(deserializer).map(Amount::bound)
    }
}

/// Units of a duration in seconds, largest first; `ms` is not one of them.
const SPAN_UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
/// Units of a size in bytes, largest first.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
/// Longest number in front of a unit.
const MOST_DIGITS: usize = 9;
/// Longest whole part of an amount, the protocol's 16 digits.
const MOST_AMOUNT_DIGITS: usize = 16;

#[cfg(test)]
mod tests {
    use super::{Amount, Duration, Size, Span};

    #[test]
    fn durations_survive_being_printed() {
        for text in ["0s", "500ms", "1500ms", "8s", "90s", "15m", "48h", "35d", "999999999d"] {
            assert_eq!(Span::parse(text).unwrap().to_string(), text);
        }
        // The largest unit that loses nothing is the one shown.
        assert_eq!(Span::parse("2d").unwrap().to_string(), "48h");
        assert_eq!(Span::parse("3600s").unwrap().to_string(), "1h");
        assert_eq!(Span::parse("1000ms").unwrap().0, Duration::from_secs(1));
        for text in ["", "8", "s", "8 s", "-8s", "8.5s", "1h30m", "8S", "9999999999s", "８s"] {
            assert!(Span::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_survive_being_printed() {
        for text in ["0B", "1B", "64KiB", "32MiB", "1GiB", "1025B"] {
            assert_eq!(Size::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "64", "64KB", "64kib", "64 KiB", "1.5MiB"] {
            assert!(Size::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_survive_being_printed() {
        for text in ["0.00", "10000.00", "0.01", "9999999999999999.99"] {
            assert_eq!(Amount::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Amount::parse("10000.00").unwrap().bound(), Some(1_000_000));
        assert_eq!(Amount::parse("0.00").unwrap().bound(), None);
        for text in ["", "1", "1.0", "1.000", ".00", "-1.00", "+1.00", "1,000.00", "99999999999999999.00"] {
            assert!(Amount::parse(text).is_err(), "{text}");
        }
    }
}
