//! The life of a classic virtual account (`classic.md` section 6) as a pure function of what it was,
//! what happened and when.
//!
//! Promises the documented transitions and nothing about requests: who may ask and how a refusal
//! reads is the calls' affair.

use jiff::Timestamp;

use super::account::{self, Paid, PayRefusal, Price, is_refused_decrease};
use crate::config::sandbox::ClassicState;
use crate::dialect::Dialect;
use crate::dialect::amount::Amount;
use crate::dialect::bank::{BNI, Bank, Uses};

/// The word of a state in answers.
#[must_use]
pub(super) const fn word(state: ClassicState) -> &'static str {
    match state {
        ClassicState::Unused => "UNUSED",
        ClassicState::Inquired => "INQUIRED",
        ClassicState::Paid => "PAID",
        ClassicState::Inactive => "INACTIVE",
        ClassicState::Expired => "EXPIRED",
    }
}

/// What decides about an account's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Life {
    /// The state, expiry left aside.
    pub(super) stage: ClassicState,
    /// Paid once or often.
    pub(super) uses: Uses,
    /// What has to be paid.
    pub(super) price: Price,
    /// The amount last asked for, which an open account may have too.
    pub(super) requested: Amount,
    /// The first moment at which it may not be paid any more.
    pub(super) expires_at: Timestamp,
    /// What was paid.
    pub(super) paid: Paid,
}

/// What an update asks for; `None` leaves a thing as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Change {
    /// Paid once or often.
    pub(super) uses: Option<Uses>,
    /// `totalAmount`.
    pub(super) total: Option<Amount>,
    /// When it ends.
    pub(super) expires_at: Option<Timestamp>,
}

/// The rules of updates that are switches or the bank's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'s> {
    /// Whose account it is.
    pub(super) bank: &'static Bank,
    /// Whether open may become closed and back.
    pub(super) allow_kind_change: bool,
    /// Whether a BNI account may become static or dynamic.
    pub(super) allow_bni_uses_change: bool,
    /// States in which an update is taken.
    pub(super) updatable: &'s [ClassicState],
    /// Least closed amount.
    pub(super) min_closed: Amount,
}

/// Why an update is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UpdateRefusal {
    /// Not in this state.
    State(ClassicState),
    /// Less than the least closed amount, or nothing.
    BelowMinimum,
    /// The bank does not go down.
    Decrease,
    /// Open and closed do not change into each other.
    KindChange,
    /// BNI's type never changes.
    UsesChange,
    /// The bank does not offer that kind of account.
    NotOffered,
}

impl Life {
    /// The state at a moment; the instant of expiry itself counts as expired.
    #[must_use]
    pub(super) fn state(&self, now: Timestamp) -> ClassicState {
        match self.stage {
            ClassicState::Inactive => ClassicState::Inactive,
            ClassicState::Unused | ClassicState::Inquired | ClassicState::Paid | ClassicState::Expired
                if self.expires_at <= now =>
            {
                ClassicState::Expired
            }
            stage => stage,
        }
    }

    /// What the bank's question makes of it.
    ///
    /// # Errors
    /// Why it cannot be paid any more.
    pub(super) fn inquire(&self, paid_to_inquired: bool, now: Timestamp) -> Result<Self, PayRefusal> {
        let stage = match self.state(now) {
            ClassicState::Inactive => return Err(PayRefusal::AlreadyPaid),
            ClassicState::Expired => return Err(PayRefusal::Expired),
            ClassicState::Paid if !paid_to_inquired => ClassicState::Paid,
            ClassicState::Unused | ClassicState::Inquired | ClassicState::Paid => ClassicState::Inquired,
        };
        Ok(Self { stage, ..*self })
    }

    /// What a payment makes of it; the bank need not have asked.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(super) fn pay(&self, amount: Amount, now: Timestamp) -> Result<Self, PayRefusal> {
        match self.state(now) {
            ClassicState::Inactive => return Err(PayRefusal::AlreadyPaid),
            ClassicState::Expired => return Err(PayRefusal::Expired),
            ClassicState::Unused | ClassicState::Inquired | ClassicState::Paid => {}
        }
        account::accept(self.price, amount, Amount::ZERO)?;
        let stage = match self.uses {
            Uses::Single => ClassicState::Inactive,
            Uses::Multi => ClassicState::Paid,
        };
        Ok(Self { stage, paid: self.paid.plus(amount, now), ..*self })
    }

    /// What an update makes of it.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(super) fn update(&self, change: Change, rules: Rules<'_>, now: Timestamp) -> Result<Self, UpdateRefusal> {
        let state = self.state(now);
        if !rules.updatable.contains(&state) {
            return Err(UpdateRefusal::State(state));
        }
        let uses = change.uses.unwrap_or(self.uses);
        if uses != self.uses && rules.bank.code == BNI && !rules.allow_bni_uses_change {
            return Err(UpdateRefusal::UsesChange);
        }
        let requested = change.total.unwrap_or(self.requested);
        if is_refused_decrease(rules.bank.code, self.requested, requested) {
            return Err(UpdateRefusal::Decrease);
        }
        let price = match change.total {
            Some(total) => self.price_after(total, rules)?,
            None => self.price,
        };
        if !rules.bank.offer(Dialect::Classic).includes(uses, price.kind()) {
            return Err(UpdateRefusal::NotOffered);
        }
        let expires_at = change.expires_at.unwrap_or(self.expires_at);
        Ok(Self { uses, price, requested, expires_at, ..*self })
    }

    /// An update has no word for the kind of amount, so nothing on a closed account means open, and
    /// something on an open one means closed where that change is allowed and is only noted where not.
    fn price_after(&self, total: Amount, rules: Rules<'_>) -> Result<Price, UpdateRefusal> {
        match (self.price, total.is_zero()) {
            (Price::Closed(_), true) if rules.allow_kind_change => Ok(Price::Open),
            (Price::Closed(_), true) => Err(UpdateRefusal::KindChange),
            (Price::Open, true) => Ok(Price::Open),
            (Price::Open, false) if !rules.allow_kind_change => Ok(Price::Open),
            (Price::Open | Price::Closed(_), false) if total < rules.min_closed => Err(UpdateRefusal::BelowMinimum),
            (Price::Open | Price::Closed(_), false) => Ok(Price::Closed(total)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::bank::bank;

    fn amount(text: &str) -> Amount {
        Amount::parse(text).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_582_000 + second).unwrap()
    }

    fn life(uses: Uses, price: Price) -> Life {
        let requested = match price {
            Price::Closed(amount) => amount,
            Price::Open => Amount::ZERO,
        };
        let paid = Paid::default();
        Life { stage: ClassicState::Unused, uses, price, requested, expires_at: at(300), paid }
    }

    const CLOSED: Price = Price::Closed(Amount::from_hundredths(15_000_000));
    const UPDATABLE: &[ClassicState] = &[ClassicState::Unused, ClassicState::Inquired, ClassicState::Paid];

    fn rules(code: &str) -> Rules<'static> {
        Rules {
            bank: bank(code).unwrap(),
            allow_kind_change: false,
            allow_bni_uses_change: false,
            updatable: UPDATABLE,
            min_closed: Amount::ZERO,
        }
    }

    fn total(text: &str) -> Change {
        Change { total: Some(amount(text)), ..Change::default() }
    }

    #[test]
    fn the_table_of_states() {
        let dynamic = life(Uses::Single, CLOSED);
        assert_eq!(dynamic.state(at(299)), ClassicState::Unused);
        assert_eq!(dynamic.state(at(300)), ClassicState::Expired);
        let asked = dynamic.inquire(false, at(1)).unwrap();
        assert_eq!(asked.state(at(1)), ClassicState::Inquired);
        let paid = asked.pay(amount("150000.00"), at(2)).unwrap();
        assert_eq!(paid.state(at(2)), ClassicState::Inactive);
        assert_eq!(paid.state(at(900)), ClassicState::Inactive);
        assert_eq!(paid.inquire(false, at(3)), Err(PayRefusal::AlreadyPaid));
        assert_eq!(paid.pay(amount("150000.00"), at(3)), Err(PayRefusal::AlreadyPaid));
        assert_eq!(dynamic.pay(amount("150000.00"), at(300)), Err(PayRefusal::Expired));
        assert_eq!(dynamic.inquire(false, at(300)), Err(PayRefusal::Expired));
        let fixed = life(Uses::Multi, Price::Open).pay(amount("1.00"), at(1)).unwrap();
        assert_eq!(fixed.state(at(1)), ClassicState::Paid);
        assert_eq!(fixed.state(at(300)), ClassicState::Expired);
        assert_eq!(fixed.inquire(false, at(2)).unwrap().stage, ClassicState::Paid);
        assert_eq!(fixed.inquire(true, at(2)).unwrap().stage, ClassicState::Inquired);
    }

    #[test]
    fn updates_obey_state_bank_and_switches() {
        let closed = life(Uses::Single, CLOSED);
        let update = |life: Life, change, rules, second| life.update(change, rules, at(second));
        assert_eq!(update(closed, total("1.00"), rules("002"), 300), Err(UpdateRefusal::State(ClassicState::Expired)));
        assert_eq!(update(closed, total("149999.00"), rules("009"), 1), Err(UpdateRefusal::Decrease));
        assert_eq!(
            update(closed, total("149999.00"), rules("002"), 1).unwrap().price,
            Price::Closed(amount("149999.00"))
        );
        assert_eq!(update(closed, total("0.00"), rules("002"), 1), Err(UpdateRefusal::KindChange));
        let lenient = Rules { allow_kind_change: true, ..rules("002") };
        assert_eq!(update(closed, total("0.00"), lenient, 1).unwrap().price, Price::Open);
        let open = life(Uses::Multi, Price::Open);
        let noted = update(open, total("5.00"), rules("002"), 1).unwrap();
        assert_eq!((noted.price, noted.requested), (Price::Open, amount("5.00")));
        assert_eq!(update(open, total("5.00"), lenient, 1).unwrap().price, Price::Closed(amount("5.00")));
        let minimum = Rules { min_closed: amount("10.00"), ..rules("002") };
        assert_eq!(update(closed, total("9.99"), minimum, 1), Err(UpdateRefusal::BelowMinimum));
    }

    #[test]
    fn bni_keeps_its_type_unless_told_otherwise() {
        let open = life(Uses::Single, Price::Open);
        let change = Change { uses: Some(Uses::Multi), ..Change::default() };
        assert_eq!(open.update(change, rules("009"), at(1)), Err(UpdateRefusal::UsesChange));
        assert_eq!(open.update(change, rules("002"), at(1)).unwrap().uses, Uses::Multi);
        let lenient = Rules { allow_bni_uses_change: true, ..rules("009") };
        assert_eq!(open.update(change, lenient, at(1)).unwrap().uses, Uses::Multi);
        let closed = life(Uses::Single, CLOSED);
        assert_eq!(closed.update(change, lenient, at(1)), Err(UpdateRefusal::NotOffered));
    }
}
