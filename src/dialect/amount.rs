//! Amounts of money as the protocol writes them.
//!
//! Promises exact arithmetic in hundredths; never a floating-point number.

use std::fmt;

/// Digits before the point that are read at most (ISO 20022 amounts in the SNAP standard: 16,2).
const WHOLE_DIGITS_MAX: usize = 16;

/// An amount in hundredths of the currency's unit (sen).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount {
    hundredths: u64,
}

impl Amount {
    /// Nothing, which SNAP writes for an open amount.
    pub const ZERO: Self = Self { hundredths: 0 };

    /// The largest that can be written and read back.
    pub const LARGEST: Self = Self { hundredths: 999_999_999_999_999_999 };

    /// So many hundredths, the form in which a configuration holds an amount.
    #[must_use]
    pub const fn from_hundredths(hundredths: u64) -> Self {
        Self { hundredths }
    }

    /// Reads digits, a point and two digits; no sign, no blanks.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.')?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() != 2 || whole.len() > WHOLE_DIGITS_MAX {
            return None;
        }
        let hundredths = whole.parse::<u64>().ok()?.checked_mul(100)?.checked_add(fraction.parse().ok()?)?;
        Some(Self { hundredths })
    }

    /// Whether nothing stands behind the point, which the rupiah demands (`snap.md` section 4).
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.hundredths.is_multiple_of(100)
    }

    /// Whether it is nothing at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.hundredths == 0
    }

    /// The sum, or the largest amount where it would not fit: a sum can be read back like any other.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        let hundredths = self.hundredths.saturating_add(other.hundredths);
        if hundredths > Self::LARGEST.hundredths { Self::LARGEST } else { Self { hundredths } }
    }

    /// What is left; nothing where the other is more.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.hundredths.checked_sub(other.hundredths) {
            Some(hundredths) => Some(Self { hundredths }),
            None => None,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.hundredths / 100, self.hundredths % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::Amount;

    #[test]
    fn reads_two_decimals_and_nothing_else() {
        for text in ["0.00", "10000.00", "150000.50", "9999999999999999.99"] {
            assert_eq!(Amount::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "1",
            "1.0",
            "1.000",
            "-1.00",
            "+1.00",
            " 1.00",
            "1.00 ",
            ".00",
            "1.",
            "1,00",
            "1e3.00",
            "10000000000000000.00",
            "١.00",
        ] {
            assert_eq!(Amount::parse(text), None, "{text:?}");
        }
        assert!(Amount::parse("1.00") > Amount::parse("0.99"));
        let sum = Amount::LARGEST.saturating_add(Amount::parse("9999999999999999.00").unwrap());
        assert_eq!((Amount::parse(&sum.to_string()), sum), (Some(sum), Amount::LARGEST), "a sum reads back");
        assert!(!Amount::parse("0.50").unwrap().is_whole());
    }
}
