//! What upstream's answer about an account says of its payments: pure.
//!
//! Promises to believe of a callback only what an inquiry or get shows too (`callbacks.md` section 5), to
//! find what no callback told, and to say so where an answer leaves it open. SNAP shows the newest
//! payment only and classic the sum of all, so a payment that others followed can be hidden.

use jiff::{SignedDuration, Timestamp};

use super::notice::{self, Notice, money, text};
use crate::dialect::Dialect;
use crate::dialect::amount::Amount;
use crate::dialect::number::without_blanks;
use crate::document::Document;
use crate::reference::{Account, expiry_in};
use crate::store::watch::Counted;

/// An account as upstream shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its number, where it is named.
    pub number: Option<String>,
    /// Classic: which life of the number it is.
    pub account_id: Option<String>,
    /// SNAP: the create's transaction, or the question's.
    pub trx_id: Option<String>,
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
    /// Of which currency.
    pub currency: String,
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
    let paid_at = paid_at.map(|time| (time.to_owned(), notice::moment(time)));
    let latest = find("latestPaidAmount").and_then(money).map(|(amount, currency)| Latest {
        amount,
        currency,
        paid_at: paid_at.clone(),
    });
    let number = match dialect {
        Dialect::Snap => "virtualAccountNo",
        Dialect::Classic => "virtualAccountNumber",
    };
    Some(Shown {
        number: text(data, number),
        account_id: text(data, "virtualAccountId"),
        trx_id: text(data, "trxId"),
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

/// What an answer says of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Upstream shows it too.
    Confirmed,
    /// It says of itself too little to be told from others, but can be the newest payment shown.
    Newest,
    /// It can be true, and nobody can tell.
    Hidden,
    /// Upstream does not show it.
    NotShown,
}

/// What is known of the account a claim is about; nothing of one without a record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// Its record.
    pub account: Option<&'a Account>,
    /// What it is known to have been paid.
    pub counted: Option<Counted>,
    /// Classic: what was told of it, true or not.
    pub told: Amount,
}

impl Known<'_> {
    /// The amount it was made or last updated with.
    fn asked(&self) -> Option<Amount> {
        self.account.and_then(|account| account.amount)
    }

    /// The only amount it takes.
    fn closed(&self) -> Option<Amount> {
        self.account.filter(|account| account.closed).and_then(|account| account.amount)
    }

    /// When its create was sent.
    fn created(&self) -> Option<Timestamp> {
        self.account.map(|account| account.created).filter(|created| *created != Account::READ)
    }
}

/// Holds a claim against what upstream shows.
#[must_use]
pub fn judge(shown: &Shown, claim: &Notice, known: &Known<'_>) -> Verdict {
    let same = |shown: &Option<String>, claimed: Option<&str>| {
        shown.as_deref().zip(claimed).is_none_or(|(shown, claimed)| without_blanks(shown) == claimed)
    };
    // The answer is about the ids a callback names, and these may be another account's.
    if !same(&shown.number, Some(claim.digits())) || !same(&shown.account_id, claim.account_id.as_deref()) {
        return Verdict::NotShown;
    }
    match &shown.latest {
        Some(latest) => judge_latest(shown, latest, claim, known),
        None => judge_sum(shown, claim, known),
    }
}

fn judge_latest(shown: &Shown, latest: &Latest, claim: &Notice, known: &Known<'_>) -> Verdict {
    if claim.currency != latest.currency {
        return Verdict::NotShown;
    }
    let like = |verdict| if latest.amount == claim.amount { verdict } else { Verdict::NotShown };
    let (claimed, shown_time, shown_moment) = match (&claim.paid_at, &latest.paid_at) {
        (Some(claimed), Some((time, moment))) => (claimed, time, moment),
        (None, Some(_)) => return like(Verdict::Newest),
        // Which of its payments is meant cannot be told.
        (_, None) => return like(Verdict::Hidden),
    };
    let is_same = match (claim.paid_at(), shown_moment) {
        (Some(claimed), Some(shown)) => claimed == *shown,
        _ => claimed == shown_time,
    };
    if is_same {
        // Of an account without a record the order is known from the callback only.
        let ordered = claim.trx_id.as_ref().zip(shown.trx_id.as_ref()).is_none_or(|(claimed, shown)| claimed == shown);
        return like(if known.account.is_some() || ordered { Verdict::Confirmed } else { Verdict::Hidden });
    }
    let is_earlier = claim.paid_at().zip(*shown_moment).is_some_and(|(claimed, shown)| claimed < shown);
    if is_earlier && can_be_earlier(shown, latest, claim, known) { Verdict::Hidden } else { Verdict::NotShown }
}

/// Whether a payment can stand behind the one that is shown: not of an account that is paid once, not
/// before the account was made, and not with an amount it does not take.
fn can_be_earlier(shown: &Shown, latest: &Latest, claim: &Notice, known: &Known<'_>) -> bool {
    let too_early = known
        .created()
        .zip(claim.paid_at())
        .is_some_and(|(created, paid)| paid < created.checked_sub(CLOCKS_APART).unwrap_or(Timestamp::MIN));
    // Somebody else may have changed the amount: then it can be the one the newest has.
    let odd = known.closed().is_some_and(|closed| claim.amount != closed && claim.amount != latest.amount);
    shown.state != State::PaidUp && !too_early && !odd
}

fn judge_sum(shown: &Shown, claim: &Notice, known: &Known<'_>) -> Verdict {
    let Some(sum) = sum(shown, known.counted, known.asked()) else { return Verdict::NotShown };
    // Of what nobody can tell no more is told than has been paid.
    let room = claim.account_id.is_some() && known.told.saturating_add(claim.amount) <= sum;
    let possible = if room { Verdict::Hidden } else { Verdict::NotShown };
    let Some(counted) = known.counted.filter(|counted| counted.whole) else {
        let all = shown.state != State::PaidUp || claim.amount == sum;
        return if all && claim.total.is_none_or(|total| total <= sum) { possible } else { Verdict::NotShown };
    };
    let with = counted.total.saturating_add(claim.amount);
    if with == sum {
        return Verdict::Confirmed;
    }
    if with > sum || shown.state == State::PaidUp {
        return Verdict::NotShown;
    }
    // There is room for it and for more. Which payments fill the sum, the amount or the callback's own
    // sum has to say.
    match (known.closed(), claim.total) {
        (Some(closed), _) if claim.amount == closed => Verdict::Confirmed,
        (Some(_), _) => Verdict::NotShown,
        (None, Some(total)) if total > sum => Verdict::NotShown,
        (None, Some(total)) if with <= total => Verdict::Confirmed,
        // It comes behind another that was made later.
        (None, Some(total)) if claim.amount <= total && room => Verdict::Confirmed,
        (None, _) => possible,
    }
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

/// How far upstream's clock may be from this machine's.
const CLOCKS_APART: SignedDuration = SignedDuration::from_mins(5);

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::reference::Handle;

    const NUMBER: &str = "1392500012345678";
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

    fn claim(text: &str) -> Notice {
        Notice {
            number: NUMBER.to_owned(),
            amount: amount(text),
            currency: "IDR".to_owned(),
            paid_at: None,
            status: None,
            trx_id: None,
            reference_no: None,
            account_id: Some("VA1".to_owned()),
            total: None,
            key: String::new(),
        }
    }

    fn record(asked: &str, closed: bool) -> Account {
        Account {
            merchant: "sample".into(),
            number: NUMBER.to_owned(),
            own_digits: String::new(),
            bank_code: None,
            amount: Some(amount(asked)),
            closed,
            created: "2026-01-05T11:00:00+07:00".parse().unwrap(),
            expires: None,
            handle: Handle::Classic {
                account_id: "VA1".to_owned(),
                customer_id: String::new(),
                correlation_id: String::new(),
            },
        }
    }

    #[test]
    fn a_snap_payment_is_what_the_inquiry_shows() {
        let judge = |shown: &Shown, text: &str, paid_at: Option<&str>| {
            let claim = Notice { paid_at: paid_at.map(str::to_owned), ..claim(text) };
            judge(shown, &claim, &Known { counted: counted("0.00"), ..Known::default() })
        };
        let paid = snap("Active", "5000.00", NOON);
        assert_eq!(judge(&paid, "5000.00", Some(NOON)), Verdict::Confirmed);
        assert_eq!(judge(&paid, "5000.00", Some("2026-01-05T05:00:00Z")), Verdict::Confirmed);
        assert_eq!(judge(&paid, "5000.00", Some("2026-01-05T12:00:00")), Verdict::Confirmed, "in Jakarta");
        assert_eq!(judge(&paid, "9000.00", Some(NOON)), Verdict::NotShown);
        assert_eq!(judge(&paid, "9000.00", Some("2026-01-05T11:59:59+07:00")), Verdict::Hidden);
        assert_eq!(judge(&paid, "5000.00", Some("2026-01-05T12:00:01+07:00")), Verdict::NotShown);
        assert_eq!(judge(&paid, "5000.00", Some("yesterday")), Verdict::NotShown);
        assert_eq!(judge(&paid, "5000.00", None), Verdict::Newest);
        assert_eq!(judge(&paid, "9000.00", None), Verdict::NotShown);
        // One that is paid once has no earlier payment.
        let once = snap("Inactive-Paid", "5000.00", NOON);
        assert_eq!(judge(&once, "5000.00", Some("2026-01-05T11:59:59+07:00")), Verdict::NotShown);
        assert_eq!(judge(&once, "5000.00", Some(NOON)), Verdict::Confirmed);
        for unpaid in ["Active", "Inactive-Expired", "Inactive-Paid", "?"] {
            assert_eq!(judge(&snap(unpaid, "", ""), "5000.00", Some(NOON)), Verdict::NotShown, "{unpaid}");
        }
    }

    #[test]
    fn what_a_snap_callback_says_beside_its_payment_has_to_agree() {
        let paid = Shown { trx_id: Some("T".to_owned()), ..snap("Active", "5000.00", NOON) };
        let claim = || Notice { paid_at: Some(NOON.to_owned()), ..claim("5000.00") };
        let (known, record) = (Known::default(), record("5000.00", true));
        let dollars = Notice { currency: "USD".to_owned(), ..claim() };
        assert_eq!(judge(&paid, &dollars, &known), Verdict::NotShown);
        let elsewhere = Shown { number: Some("   9".to_owned()), ..paid.clone() };
        assert_eq!(judge(&elsewhere, &claim(), &known), Verdict::NotShown);
        let order = Notice { trx_id: Some("SOMEBODY-ELSES".to_owned()), ..claim() };
        assert_eq!(judge(&paid, &order, &known), Verdict::Hidden);
        let known = Known { account: Some(&record), ..known };
        assert_eq!(judge(&paid, &order, &known), Verdict::Confirmed, "the record says which order it is");
    }

    #[test]
    fn an_earlier_snap_payment_is_one_the_account_can_have_had() {
        let judge = |text: &str, paid_at: &str, closed: bool| {
            let record = record("5000.00", closed);
            let claim = Notice { paid_at: Some(paid_at.to_owned()), ..claim(text) };
            let known = Known { account: Some(&record), ..Known::default() };
            judge(&snap("Active", "7000.00", NOON), &claim, &known)
        };
        let (within, skewed, before) =
            ("2026-01-05T11:30:00+07:00", "2026-01-05T10:56:00+07:00", "2026-01-05T10:54:00+07:00");
        assert_eq!(judge("5000.00", within, true), Verdict::Hidden);
        assert_eq!(judge("5000.00", skewed, true), Verdict::Hidden, "clocks may be apart");
        assert_eq!(judge("5000.00", before, true), Verdict::NotShown, "the account was not made yet");
        assert_eq!(judge("7000.00", within, true), Verdict::Hidden, "what it takes was changed since");
        assert_eq!(judge("6000.00", within, true), Verdict::NotShown);
        assert_eq!(judge("6000.00", within, false), Verdict::Hidden);
    }

    #[test]
    fn a_classic_payment_must_fit_into_the_sum() {
        let judge = |shown: &Shown, before: &str| {
            let record = record("12500.00", false);
            let known = Known { account: Some(&record), counted: counted(before), told: Amount::ZERO };
            judge(shown, &claim("12500.00"), &known)
        };
        assert_eq!(judge(&classic("INACTIVE", "12500.00"), "0.00"), Verdict::Confirmed);
        assert_eq!(judge(&classic("PAID", "25000.00"), "12500.00"), Verdict::Confirmed);
        assert_eq!(judge(&classic("PAID", "12500.00"), "12500.00"), Verdict::NotShown, "once too often");
        assert_eq!(judge(&classic("PAID", "12499.00"), "0.00"), Verdict::NotShown);
        // What an unpaid account shows is what was asked for.
        for unpaid in ["UNUSED", "INQUIRED", "EXPIRED", "?"] {
            assert_eq!(judge(&classic(unpaid, "12500.00"), "0.00"), Verdict::NotShown, "{unpaid}");
        }
        assert_eq!(judge(&classic("EXPIRED", "25000.00"), "12500.00"), Verdict::Confirmed);
        assert_eq!(judge(&classic("EXPIRED", "12501.00"), "1.00"), Verdict::Confirmed, "more than was asked for");
        assert_eq!(judge(&classic("INACTIVE", "25000.00"), "0.00"), Verdict::NotShown, "it was paid once, and all");
    }

    #[test]
    fn a_part_of_a_classic_sum_is_a_payment_only_where_something_says_so() {
        let judge = |text: &str, total: Option<&str>, closed: bool, told: &str| {
            let record = record("100.00", closed);
            let known = Known { account: Some(&record), counted: counted("100.00"), told: amount(told) };
            judge(&classic("PAID", "400.00"), &Notice { total: total.map(amount), ..claim(text) }, &known)
        };
        // One that takes one amount only.
        assert_eq!(judge("100.00", None, true, "100.00"), Verdict::Confirmed);
        assert_eq!(judge("1.00", Some("101.00"), true, "100.00"), Verdict::NotShown);
        assert_eq!(judge("300.00", None, true, "100.00"), Verdict::Confirmed, "all there is left");
        // One that takes any: the sum the payment led to has to fit.
        assert_eq!(judge("50.00", Some("150.00"), false, "100.00"), Verdict::Confirmed);
        assert_eq!(judge("50.00", Some("400.00"), false, "100.00"), Verdict::Confirmed);
        assert_eq!(judge("50.00", Some("149.00"), false, "100.00"), Verdict::Confirmed, "out of order");
        assert_eq!(judge("50.00", Some("49.00"), false, "100.00"), Verdict::Hidden, "not even its own sum");
        assert_eq!(judge("50.00", Some("149.00"), false, "351.00"), Verdict::NotShown);
        assert_eq!(judge("50.00", Some("401.00"), false, "100.00"), Verdict::NotShown);
        assert_eq!(judge("50.00", None, false, "350.00"), Verdict::Hidden);
        assert_eq!(judge("50.00", None, false, "351.00"), Verdict::NotShown, "more than was paid");
    }

    #[test]
    fn without_a_complete_count_no_more_is_told_than_was_paid_and_none_of_it_as_certain() {
        let judge = |status: &str, text: &str, told: &str, counted: Option<Counted>| {
            let known = Known { account: None, counted, told: amount(told) };
            judge(&classic(status, "200.00"), &claim(text), &known)
        };
        let partly = Some(Counted { whole: false, ..Counted::NOTHING });
        for counted in [None, partly] {
            assert_eq!(judge("PAID", "200.00", "0.00", counted), Verdict::Hidden);
            assert_eq!(judge("PAID", "100.00", "100.00", counted), Verdict::Hidden);
            assert_eq!(judge("PAID", "200.00", "200.00", counted), Verdict::NotShown, "told already");
            assert_eq!(judge("INACTIVE", "100.00", "0.00", counted), Verdict::NotShown, "it was paid once, and all");
            assert_eq!(judge("UNUSED", "200.00", "0.00", counted), Verdict::NotShown);
        }
    }
}
