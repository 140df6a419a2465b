//! The life of a SNAP virtual account (`snap.md` section 10) as a pure function of what it was, what
//! happened and when.
//!
//! Promises the documented transitions and nothing about requests: who may ask, which reference is
//! right and how a refusal reads is the calls' affair.

use jiff::Timestamp;

use super::account::{self, Paid, PayRefusal, Price, is_refused_decrease};
use crate::dialect::Dialect;
use crate::dialect::amount::Amount;
use crate::dialect::bank::{Bank, Uses};

/// A state as SNAP names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// May be paid.
    Active,
    /// A single-payment account after its payment; for good.
    InactivePaid,
    /// Past its expiry; an update may bring it back.
    InactiveExpired,
}

impl State {
    /// The word in answers.
    #[must_use]
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::InactivePaid => "Inactive-Paid",
            Self::InactiveExpired => "Inactive-Expired",
        }
    }
}

/// What decides about an account's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    /// Paid once or often.
    pub(super) uses: Uses,
    /// What has to be paid.
    pub(super) price: Price,
    /// The first moment at which it may not be paid any more.
    pub(super) expires_at: Timestamp,
    /// What was paid.
    pub(super) paid: Paid,
    /// Whether the one payment of a single-payment account has been made.
    pub(super) settled: bool,
}

/// What an update asks for; `None` leaves a thing as it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    /// Paid once or often.
    pub(super) uses: Uses,
    /// What has to be paid.
    pub(super) price: Option<Price>,
    /// When it ends; a moment that is not ahead ends it at once.
    pub(super) expires_at: Option<Timestamp>,
}

/// The rules of updates that are switches or the bank's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Whose account it is.
    pub(super) bank: &'static Bank,
    /// Whether open may become closed and back.
    pub(super) allow_kind_change: bool,
    /// Least closed amount.
    pub(super) min_closed: Amount,
}

/// Why an update is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UpdateRefusal {
    /// Paid for good.
    Paid,
    /// Expired, and the update does not bring it back.
    Expired,
    /// Less than the least closed amount.
    BelowMinimum,
    /// The bank does not go down.
    Decrease,
    /// Open and closed do not change into each other.
    KindChange,
    /// The bank does not offer that kind of account.
    NotOffered,
}

impl Life {
    /// The state at a moment; the instant of expiry itself counts as expired.
    #[must_use]
    pub(super) fn state(&self, now: Timestamp) -> State {
        if self.settled {
            State::InactivePaid
        } else if self.expires_at <= now {
            State::InactiveExpired
        } else {
            State::Active
        }
    }

    /// What a payment makes of it.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(super) fn pay(&self, amount: Amount, min_open: Amount, now: Timestamp) -> Result<Self, PayRefusal> {
        match self.state(now) {
            State::InactivePaid => return Err(PayRefusal::AlreadyPaid),
            State::InactiveExpired => return Err(PayRefusal::Expired),
            State::Active => {}
        }
        account::accept(self.price, amount, min_open)?;
        Ok(Self { paid: self.paid.plus(amount, now), settled: self.uses == Uses::Single, ..*self })
    }

    /// What an update makes of it.
    ///
    /// # Errors
    /// Why it is not taken; states before amounts (`errors.md` section 3).
    pub(super) fn update(&self, change: Change, rules: Rules, now: Timestamp) -> Result<Self, UpdateRefusal> {
        let revives = change.expires_at.is_some_and(|expires_at| expires_at > now);
        match self.state(now) {
            State::InactivePaid => return Err(UpdateRefusal::Paid),
            State::InactiveExpired if !revives => return Err(UpdateRefusal::Expired),
            State::InactiveExpired | State::Active => {}
        }
        let price = change.price.unwrap_or(self.price);
        check_price(self.price, price, rules)?;
        if !rules.bank.offer(Dialect::Snap).includes(change.uses, price.kind()) {
            return Err(UpdateRefusal::NotOffered);
        }
        Ok(Self { uses: change.uses, price, expires_at: change.expires_at.unwrap_or(self.expires_at), ..*self })
    }
}

fn check_price(before: Price, after: Price, rules: Rules) -> Result<(), UpdateRefusal> {
    match (before, after) {
        (Price::Open, Price::Open) => Ok(()),
        (Price::Closed(_), Price::Open) | (Price::Open, Price::Closed(_)) if !rules.allow_kind_change => {
            Err(UpdateRefusal::KindChange)
        }
        // Nothing is less than something, so a bank that never goes down never opens a price.
        (Price::Closed(before), Price::Open) if is_refused_decrease(rules.bank.code, before, Amount::ZERO) => {
            Err(UpdateRefusal::Decrease)
        }
        (Price::Closed(_), Price::Open) => Ok(()),
        (_, Price::Closed(after)) if after < rules.min_closed => Err(UpdateRefusal::BelowMinimum),
        (Price::Closed(before), Price::Closed(after)) if is_refused_decrease(rules.bank.code, before, after) => {
            Err(UpdateRefusal::Decrease)
        }
        (_, Price::Closed(_)) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::dialect::bank::bank;

    fn amount(text: &str) -> Amount {
        Amount::parse(text).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_582_000 + second).unwrap()
    }

    fn life(uses: Uses, price: Price) -> Life {
        Life { uses, price, expires_at: at(600), paid: Paid::default(), settled: false }
    }

    fn rules(code: &str) -> Rules {
        Rules { bank: bank(code).unwrap(), allow_kind_change: false, min_closed: amount("10000.00") }
    }

    fn to(price: Price) -> Change {
        Change { uses: Uses::Single, price: Some(price), expires_at: None }
    }

    const CLOSED: Price = Price::Closed(Amount::from_hundredths(15_000_000));

    #[test]
    fn the_instant_of_expiry_is_expired() {
        let life = life(Uses::Single, CLOSED);
        let before = at(600).checked_sub(SignedDuration::from_nanos(1)).unwrap();
        assert_eq!(life.state(before), State::Active);
        assert_eq!(life.state(at(600)), State::InactiveExpired);
        assert!(life.pay(amount("150000.00"), Amount::ZERO, before).is_ok());
        assert_eq!(life.pay(amount("150000.00"), Amount::ZERO, at(600)), Err(PayRefusal::Expired));
    }

    #[test]
    fn a_single_payment_ends_it_for_good_and_a_multi_one_does_not() {
        let paid = life(Uses::Single, CLOSED).pay(amount("150000.00"), Amount::ZERO, at(1)).unwrap();
        assert_eq!(paid.state(at(1)), State::InactivePaid);
        assert_eq!(paid.state(at(10_000)), State::InactivePaid);
        assert_eq!(paid.pay(amount("150000.00"), Amount::ZERO, at(2)), Err(PayRefusal::AlreadyPaid));
        let multi = life(Uses::Multi, Price::Open).pay(amount("1.00"), Amount::ZERO, at(1)).unwrap();
        assert_eq!(multi.state(at(1)), State::Active);
        // Paid and then run out is expired, not paid (`snap.md` section 10).
        assert_eq!(multi.state(at(600)), State::InactiveExpired);
    }

    #[test]
    fn only_a_future_expiry_brings_an_expired_one_back() {
        let life = life(Uses::Single, CLOSED);
        let change = |expires_at| Change { uses: Uses::Single, price: None, expires_at };
        assert_eq!(life.update(change(None), rules("014"), at(700)), Err(UpdateRefusal::Expired));
        assert_eq!(life.update(change(Some(at(700))), rules("014"), at(700)), Err(UpdateRefusal::Expired));
        let revived = life.update(change(Some(at(701))), rules("014"), at(700)).unwrap();
        assert_eq!(revived.state(at(700)), State::Active);
        let ended = life.update(change(Some(at(5))), rules("014"), at(5)).unwrap();
        assert_eq!(ended.state(at(5)), State::InactiveExpired);
    }

    #[test]
    fn amounts_obey_the_bank_and_the_switches() {
        let closed = life(Uses::Single, CLOSED);
        let price = |text| Price::Closed(amount(text));
        let update = |life: Life, price, rules| life.update(to(price), rules, at(1)).map(|life| life.price);
        assert_eq!(update(closed, price("149999.00"), rules("014")), Ok(price("149999.00")));
        assert_eq!(update(closed, price("149999.00"), rules("009")), Err(UpdateRefusal::Decrease));
        assert_eq!(update(closed, price("9999.00"), rules("014")), Err(UpdateRefusal::BelowMinimum));
        assert_eq!(update(closed, Price::Open, rules("014")), Err(UpdateRefusal::KindChange));
        let open = life(Uses::Single, Price::Open);
        assert_eq!(update(open, CLOSED, rules("014")), Err(UpdateRefusal::KindChange));
        let lenient = |code| Rules { allow_kind_change: true, ..rules(code) };
        assert_eq!(update(closed, Price::Open, lenient("014")), Ok(Price::Open));
        assert_eq!(update(closed, Price::Open, lenient("009")), Err(UpdateRefusal::Decrease));
        assert_eq!(update(open, CLOSED, lenient("014")), Ok(CLOSED));
    }

    #[test]
    fn an_update_cannot_make_what_the_bank_does_not_offer() {
        let change = Change { uses: Uses::Multi, price: None, expires_at: None };
        let closed = life(Uses::Single, CLOSED);
        assert_eq!(closed.update(change, rules("009"), at(1)), Err(UpdateRefusal::NotOffered));
        assert_eq!(closed.update(change, rules("014"), at(1)).unwrap().uses, Uses::Multi);
    }
}
