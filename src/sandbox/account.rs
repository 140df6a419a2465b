//! What both generations' accounts have in common: a price, how often it may be paid, what was paid.
//!
//! Promises exact rules about money as pure functions: whether a payment is taken and what the sums
//! then are. Which state an account is in, and when it ends, is `classic`'s and `snap`'s affair.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::dialect::amount::Amount;
use crate::dialect::bank::{AmountKind, BNI};

/// What has to be paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Price {
    /// Exactly this.
    Closed(Amount),
    /// Anything above nothing.
    Open,
}

impl Price {
    /// Whether it is fixed.
    #[must_use]
    pub(super) const fn kind(self) -> AmountKind {
        match self {
            Self::Closed(_) => AmountKind::Closed,
            Self::Open => AmountKind::Open,
        }
    }
}

/// One payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Payment {
    /// How much.
    pub(super) amount: Amount,
    /// When, by the control clock.
    pub(super) at: Timestamp,
}

/// Everything paid so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Paid {
    /// How many payments.
    pub(super) count: u64,
    /// Their sum.
    pub(super) total: Amount,
    /// The newest.
    pub(super) latest: Option<Payment>,
}

impl Paid {
    /// With one payment more.
    ///
    /// A receiver tells payments apart by their time, which is written in whole seconds
    /// (`callbacks.md` section 4), so a second one within the same second counts for the next.
    #[must_use]
    pub(super) fn plus(self, amount: Amount, now: Timestamp) -> Self {
        let whole = |moment: Timestamp| Timestamp::from_second(moment.as_second()).unwrap_or(moment);
        let at = match self.latest {
            Some(latest) if whole(now) <= whole(latest.at) => {
                whole(latest.at).checked_add(SignedDuration::from_secs(1)).unwrap_or(now)
            }
            Some(_) | None => now,
        };
        Self {
            count: self.count.saturating_add(1),
            total: self.total.saturating_add(amount),
            latest: Some(Payment { amount, at }),
        }
    }
}

/// Why a payment is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PayRefusal {
    /// Past its expiry.
    Expired,
    /// Paid once, which was all.
    AlreadyPaid,
    /// Only the exact amount is taken.
    OtherAmount,
    /// Nothing is no payment.
    Nothing,
    /// Less than the switch `min_open_amount` demands.
    BelowMinimum,
}

impl fmt::Display for PayRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the virtual account has expired",
            Self::AlreadyPaid => "the virtual account has been paid",
            Self::OtherAmount => "only the exact amount is taken",
            Self::Nothing => "the amount must be above zero",
            Self::BelowMinimum => "the amount is below the minimum of an open virtual account",
        })
    }
}

/// Whether an amount pays a price (`classic.md` section 6, `snap.md` section 9).
///
/// # Errors
/// Why not.
pub(super) fn accept(price: Price, amount: Amount, min_open: Amount) -> Result<(), PayRefusal> {
    match price {
        _ if amount.is_zero() => Err(PayRefusal::Nothing),
        Price::Closed(exact) if amount != exact => Err(PayRefusal::OtherAmount),
        Price::Open if amount < min_open => Err(PayRefusal::BelowMinimum),
        Price::Closed(_) | Price::Open => Ok(()),
    }
}

/// Whether a bank refuses to go from one requested amount to another (`classic.md` section 5: BNI
/// never goes down).
#[must_use]
pub(super) fn is_refused_decrease(bank_code: &str, before: Amount, after: Amount) -> bool {
    bank_code == BNI && after < before
}

/// An amount from the hundredths a switch holds.
#[must_use]
pub(super) fn amount_of(hundredths: Option<u64>) -> Amount {
    hundredths.map_or(Amount::ZERO, Amount::from_hundredths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(text: &str) -> Amount {
        Amount::parse(text).unwrap()
    }

    #[test]
    fn closed_takes_the_exact_amount_and_open_anything_above_nothing() {
        let closed = Price::Closed(amount("150000.00"));
        assert_eq!(accept(closed, amount("150000.00"), Amount::ZERO), Ok(()));
        for text in ["149999.99", "150000.01", "300000.00"] {
            assert_eq!(accept(closed, amount(text), Amount::ZERO), Err(PayRefusal::OtherAmount));
        }
        assert_eq!(accept(Price::Open, amount("0.01"), Amount::ZERO), Ok(()));
        assert_eq!(accept(Price::Open, Amount::ZERO, Amount::ZERO), Err(PayRefusal::Nothing));
        assert_eq!(accept(Price::Open, amount("9.99"), amount("10.00")), Err(PayRefusal::BelowMinimum));
        assert_eq!(accept(Price::Open, amount("10.00"), amount("10.00")), Ok(()));
        assert_eq!(accept(closed, Amount::ZERO, Amount::ZERO), Err(PayRefusal::Nothing));
    }

    #[test]
    fn two_payments_never_share_a_second() {
        let now: Timestamp = "2026-01-05T03:00:00.9Z".parse().unwrap();
        let once = Paid::default().plus(amount("1.00"), now);
        let twice = once.plus(amount("2.00"), now).plus(amount("2.00"), now);
        assert_eq!(once.latest.unwrap().at, now);
        assert_eq!(twice.latest.unwrap().at.as_second(), now.as_second() + 2);
        assert_eq!((twice.count, twice.total), (3, amount("5.00")));
        let later = now.checked_add(SignedDuration::from_secs(60)).unwrap();
        assert_eq!(twice.plus(amount("1.00"), later).latest.unwrap().at, later);
    }

    #[test]
    fn only_bni_refuses_to_go_down() {
        assert!(is_refused_decrease("009", amount("50000.00"), amount("49999.00")));
        assert!(!is_refused_decrease("009", amount("50000.00"), amount("50000.00")));
        assert!(!is_refused_decrease("014", amount("50000.00"), amount("1.00")));
    }
}
