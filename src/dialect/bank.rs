//! The banks: codes, digits of a number, and which kinds of account each offers.
//!
//! One table for both generations (`classic.md` section 7, `snap.md` section 8). Whether a request
//! fits it is `check`'s affair.

use std::ops::RangeInclusive;

use super::Dialect;

/// A bank and its rules.
#[derive(Debug)]
pub struct Bank {
    /// Three digits.
    pub code: &'static str,
    /// For messages.
    pub name: &'static str,
    /// Digits that Ayoconnect puts before everything else.
    pub prefix_digits: usize,
    /// Digits a SNAP client may choose.
    pub snap_digits: RangeInclusive<usize>,
    /// Digits a classic client may choose (three digits of the merchant come in between).
    pub classic_digits: RangeInclusive<usize>,
    /// What SNAP offers.
    pub snap: Offer,
    /// What classic offers.
    pub classic: Offer,
}

/// Which kinds of account are offered.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Paid once, with a fixed amount.
    pub single_closed: bool,
    /// Paid often, with a fixed amount.
    pub multi_closed: bool,
    /// Paid once, with any amount.
    pub single_open: bool,
    /// Paid often, with any amount.
    pub multi_open: bool,
}

impl Offer {
    const ALL: Self = Self { single_closed: true, multi_closed: true, single_open: true, multi_open: true };

    /// Whether an account of this kind is offered.
    #[must_use]
    pub const fn includes(self, uses: Uses, amount: AmountKind) -> bool {
        match (uses, amount) {
            (Uses::Single, AmountKind::Closed) => self.single_closed,
            (Uses::Multi, AmountKind::Closed) => self.multi_closed,
            (Uses::Single, AmountKind::Open) => self.single_open,
            (Uses::Multi, AmountKind::Open) => self.multi_open,
        }
    }
}

/// How often an account may be paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uses {
    /// Once: `dynamic`, `isSingleUse` "Y".
    Single,
    /// Until it expires: `static`, `isSingleUse` "N".
    Multi,
}

/// Whether the amount is fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmountKind {
    /// The exact amount only.
    Closed,
    /// Any amount.
    Open,
}

/// Digits between the bank's prefix and the client's own in a classic number (`classic.md` section 7).
pub const CLASSIC_MERCHANT_DIGITS: usize = 3;

/// BNI, whose amounts never go down (`classic.md` section 5).
pub const BNI: &str = "009";

/// Every bank.
pub const BANKS: [Bank; 4] = [
    Bank {
        code: "002",
        name: "BRI",
        prefix_digits: 5,
        snap_digits: 11..=13,
        classic_digits: 8..=17,
        snap: Offer::ALL,
        classic: Offer::ALL,
    },
    Bank {
        code: "008",
        name: "Mandiri",
        prefix_digits: 5,
        snap_digits: 11..=14,
        classic_digits: 8..=17,
        snap: Offer::ALL,
        classic: Offer { single_closed: false, multi_closed: false, ..Offer::ALL },
    },
    Bank {
        code: BNI,
        name: "BNI",
        prefix_digits: 4,
        snap_digits: 12..=12,
        classic_digits: 9..=9,
        snap: Offer { multi_closed: false, ..Offer::ALL },
        classic: Offer { multi_closed: false, ..Offer::ALL },
    },
    Bank {
        code: "014",
        name: "BCA",
        prefix_digits: 5,
        snap_digits: 11..=18,
        classic_digits: 8..=15,
        snap: Offer::ALL,
        classic: Offer::ALL,
    },
];

/// The codes of [`BANKS`].
pub const BANK_CODES: &[&str] = &["002", "008", "009", "014"];

/// The bank of that code.
#[must_use]
pub fn bank(code: &str) -> Option<&'static Bank> {
    BANKS.iter().find(|bank| bank.code == code)
}

impl Bank {
    /// Digits a client may choose.
    #[must_use]
    pub const fn digits(&self, dialect: Dialect) -> &RangeInclusive<usize> {
        match dialect {
            Dialect::Classic => &self.classic_digits,
            Dialect::Snap => &self.snap_digits,
        }
    }

    /// What the generation offers.
    #[must_use]
    pub const fn offer(&self, dialect: Dialect) -> Offer {
        match dialect {
            Dialect::Classic => self.classic,
            Dialect::Snap => self.snap,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_banks() {
        assert_eq!(BANKS.iter().map(|bank| bank.code).collect::<Vec<_>>(), BANK_CODES);
    }
}
