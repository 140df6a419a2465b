//! What upstream's answer about an account says of its payments: pure.
//!
//! Promises to believe of a callback only what an inquiry or get shows too (`callbacks.md` section 5), to
//! find what no callback told, and to say so where an answer leaves it open. SNAP shows the newest
//! payment only and classic the sum of all, so a payment that others followed can be hidden.

use jiff::Timestamp;

use super::notice::{money, text};
use crate::dialect::Dialect;
use crate::dialect::amount::Amount;
use crate::document::Document;
use crate::reference::expiry_in;
use crate::store::watch::Counted;

/// An account as upstream shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its state in upstream's word; absent where it shows none.
    pub word: Option<String>,
    /// What that means.
    pub state: State,
    /// When it can no longer be paid.
    pub expires: Option<Timestamp>,
    /// SNAP: its newest payment.
    pub latest: Option<Latest>,
    /// Classic: what was asked for until it is paid, the sum of payments from then on
    /// (`protocol/README.md` row 17).
    pub total: Option<Amount>,
}

/// The newest payment of a SNAP account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// Its money.
    pub amount: Amount,
    /// When, as written and understood; absent where it is not said.
    pub paid_at: Option<(String, Option<Timestamp>)>,
}

/// Where an account stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It may be paid. A classic one that says so has not been paid.
    Open,
    /// Classic: it has been paid and may be again.
    PaidOpen,
    /// It has been paid and is closed.
    PaidUp,
    /// Its time is over, paid or not.
    Expired,
    /// It does not say.
    Unknown,
}

/// Reads upstream's answer.
#[must_use]
pub fn read(dialect: Dialect, answer: &Document) -> Option<Shown> {
    let data = answer.root().member("virtualAccountData")?;
    let extra = data.member("additionalInfo");
    let word = ["virtualAccountStatus", "status", "vaStatus"].into_iter().find_map(|name| text(data, name));
    let find = |name: &str| data.member(name).or_else(|| extra?.member(name));
    let paid_at = find("latestPaidTime").and_then(|time| time.as_str()).filter(|time| !time.is_empty());
    let latest = find("latestPaidAmount")
        .and_then(money)
        .map(|(amount, _)| Latest { amount, paid_at: paid_at.map(|time| (time.to_owned(), time.parse().ok())) });
    Some(Shown {
        state: word.as_deref().map_or(State::Unknown, |word| state(dialect, word)),
        word,
        expires: expiry_in(answer),
        latest: latest.filter(|_| dialect == Dialect::Snap),
        total: data
            .member("totalAmount")
            .and_then(money)
            .map(|(total, _)| total)
            .filter(|_| dialect == Dialect::Classic),
    })
}

/// SNAP's words may come in any case and with other separators (`protocol/README.md` section 4).
fn state(dialect: Dialect, word: &str) -> State {
    let word = word.to_ascii_lowercase().replace([' ', '_'], "-");
    match (dialect, word.as_str()) {
        (Dialect::Snap, "active") | (Dialect::Classic, "unused" | "inquired") => State::Open,
        (Dialect::Classic, "paid") => State::PaidOpen,
        (Dialect::Snap, "inactive-paid") | (Dialect::Classic, "inactive") => State::PaidUp,
        (Dialect::Snap, "inactive-expired") | (Dialect::Classic, "expired") => State::Expired,
        _ => State::Unknown,
    }
}

/// A payment as a callback claims it.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Its money.
    pub amount: Amount,
    /// When, as written.
    pub paid_at: Option<&'a str>,
}

/// What an answer says of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Upstream shows it too.
    Confirmed,
    /// A later payment of the same account stands before it.
    Hidden,
    /// Upstream does not show it.
    NotShown,
}

/// Holds a claim against what upstream shows. `counted` is what the account is known to have been paid
/// before, `asked` the amount it was made or last updated with.
#[must_use]
pub fn judge(shown: &Shown, claim: Claim<'_>, counted: Option<Counted>, asked: Option<Amount>) -> Verdict {
    match (&shown.latest, sum(shown, counted, asked)) {
        (Some(latest), _) => judge_latest(shown, latest, claim),
        (None, Some(sum)) => {
            let before = counted.map_or(Amount::ZERO, |counted| counted.total);
            if sum >= before.saturating_add(claim.amount) { Verdict::Confirmed } else { Verdict::NotShown }
        }
        (None, None) => Verdict::NotShown,
    }
}

fn judge_latest(shown: &Shown, latest: &Latest, claim: Claim<'_>) -> Verdict {
    let (Some(claimed), Some((shown_time, shown_moment))) = (claim.paid_at, &latest.paid_at) else {
        // Which of its payments is meant cannot be told.
        return if latest.amount == claim.amount { Verdict::Hidden } else { Verdict::NotShown };
    };
    let moment: Option<Timestamp> = claimed.parse().ok();
    let is_same = match (moment, shown_moment) {
        (Some(claimed), Some(shown)) => claimed == *shown,
        _ => claimed == shown_time,
    };
    if is_same {
        return if latest.amount == claim.amount { Verdict::Confirmed } else { Verdict::NotShown };
    }
    // An account that is paid once has no earlier payment.
    let may_have_more = shown.state != State::PaidUp;
    let is_earlier = moment.zip(*shown_moment).is_some_and(|(claimed, shown)| claimed < shown);
    if may_have_more && is_earlier { Verdict::Hidden } else { Verdict::NotShown }
}

/// What a classic account has been paid in all; nothing where it has not been or that cannot be told: an
/// account that ran out shows a sum or what was asked for, and these may be the same.
#[must_use]
pub fn sum(shown: &Shown, counted: Option<Counted>, asked: Option<Amount>) -> Option<Amount> {
    let total = shown.total?;
    let is_sum = match shown.state {
        State::PaidOpen | State::PaidUp => true,
        State::Open | State::Unknown => counted.is_some_and(|counted| !counted.total.is_zero()),
        State::Expired => {
            counted.is_some_and(|counted| !counted.total.is_zero()) || asked.is_some_and(|asked| asked != total)
        }
    };
    is_sum.then_some(total)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value as Json, json};

    use super::*;

    const NOON: &str = "2026-01-05T12:00:00+07:00";

    fn answer(data: Json) -> Document {
        Document::parse(Bytes::from(json!({"virtualAccountData": data}).to_string())).unwrap()
    }

    fn snap(status: &str, amount: &str, time: &str) -> Shown {
        let mut data = json!({"virtualAccountStatus": status, "expiredDate": NOON});
        if !amount.is_empty() {
            data["latestPaidAmount"] = json!({"value": amount, "currency": "IDR"});
            data["latestPaidTime"] = time.into();
        }
        read(Dialect::Snap, &answer(data)).unwrap()
    }

    fn classic(status: &str, total: &str) -> Shown {
        let data = json!({"virtualAccountStatus": status, "totalAmount": {"value": total, "currency": "IDR"}});
        read(Dialect::Classic, &answer(data)).unwrap()
    }

    fn amount(text: &str) -> Amount {
        Amount::parse(text).unwrap()
    }

    fn counted(total: &str) -> Option<Counted> {
        Some(Counted { total: amount(total), ..Counted::NOTHING })
    }

    #[test]
    fn states_are_read_in_any_spelling() {
        for word in ["Inactive-Paid", "INACTIVE_PAID", "inactive paid"] {
            assert_eq!(snap(word, "", "").state, State::PaidUp);
        }
        let named = |name: &str| read(Dialect::Snap, &answer(json!({name: "Active"}))).unwrap().state;
        assert_eq!(["status", "vaStatus", "other"].map(named), [State::Open, State::Open, State::Unknown]);
        assert_eq!(classic("EXPIRED", "1.00").state, State::Expired);
        assert_eq!(read(Dialect::Snap, &Document::parse(Bytes::from_static(b"{}")).unwrap()), None);
    }

    #[test]
    fn a_snap_payment_is_what_the_inquiry_shows() {
        let claim = |text, paid_at| Claim { amount: amount(text), paid_at };
        let judge = |shown: &Shown, claim| judge(shown, claim, counted("0.00"), None);
        let paid = snap("Active", "5000.00", NOON);
        assert_eq!(judge(&paid, claim("5000.00", Some(NOON))), Verdict::Confirmed);
        assert_eq!(judge(&paid, claim("5000.00", Some("2026-01-05T05:00:00Z"))), Verdict::Confirmed);
        assert_eq!(judge(&paid, claim("9000.00", Some(NOON))), Verdict::NotShown);
        assert_eq!(judge(&paid, claim("9000.00", Some("2026-01-05T11:59:59+07:00"))), Verdict::Hidden);
        assert_eq!(judge(&paid, claim("5000.00", Some("2026-01-05T12:00:01+07:00"))), Verdict::NotShown);
        assert_eq!(judge(&paid, claim("5000.00", Some("yesterday"))), Verdict::NotShown);
        assert_eq!(judge(&paid, claim("5000.00", None)), Verdict::Hidden);
        assert_eq!(judge(&paid, claim("9000.00", None)), Verdict::NotShown);
        // One that is paid once has no earlier payment.
        let once = snap("Inactive-Paid", "5000.00", NOON);
        assert_eq!(judge(&once, claim("5000.00", Some("2026-01-05T11:59:59+07:00"))), Verdict::NotShown);
        assert_eq!(judge(&once, claim("5000.00", Some(NOON))), Verdict::Confirmed);
        for unpaid in ["Active", "Inactive-Expired", "Inactive-Paid", "?"] {
            assert_eq!(judge(&snap(unpaid, "", ""), claim("5000.00", Some(NOON))), Verdict::NotShown, "{unpaid}");
        }
    }

    #[test]
    fn a_classic_payment_must_fit_into_the_sum() {
        let claim = Claim { amount: amount("12500.00"), paid_at: None };
        let asked = Some(amount("12500.00"));
        let judge = |shown: &Shown, before: &str| judge(shown, claim, counted(before), asked);
        assert_eq!(judge(&classic("INACTIVE", "12500.00"), "0.00"), Verdict::Confirmed);
        assert_eq!(judge(&classic("PAID", "25000.00"), "12500.00"), Verdict::Confirmed);
        assert_eq!(judge(&classic("PAID", "12500.00"), "12500.00"), Verdict::NotShown, "once too often");
        assert_eq!(judge(&classic("PAID", "12499.00"), "0.00"), Verdict::NotShown);
        // What an unpaid account shows is what was asked for.
        for unpaid in ["UNUSED", "INQUIRED", "EXPIRED", "?"] {
            assert_eq!(judge(&classic(unpaid, "12500.00"), "0.00"), Verdict::NotShown, "{unpaid}");
        }
        assert_eq!(judge(&classic("EXPIRED", "25000.00"), "12500.00"), Verdict::Confirmed);
        assert_eq!(judge(&classic("EXPIRED", "25000.00"), "0.00"), Verdict::Confirmed, "more than was asked for");
    }
}
