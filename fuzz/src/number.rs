//! Numbers of virtual accounts in all their forms, amounts and times: what is read is what was written.
//!
//! Input: lines: a text, a prefix, own digits, a bank's code.

use std::sync::Arc;

use ayova::clock::{iso8601, parse_iso8601};
use ayova::dialect::amount::Amount;
use ayova::dialect::bank::bank;
use ayova::dialect::field::Field;
use ayova::dialect::number::{PARTNER_SERVICE_ID_LENGTH, SnapNumber, classic_own_digits, masked, without_blanks};
use ayova::dialect::{Dialect, Form, OperationId};
use ayova::reference::{Account, AccountQuery, Handle};
use ayova::store::Store as _;
use ayova::store::memory::MemoryStore;
use futures_util::FutureExt as _;
use jiff::Timestamp;

use super::text::lines;

/// The target's body.
pub fn run(data: &[u8]) {
    let ([text, prefix, own, code], _) = lines(data);
    forms(&text);
    quantities(&text);
    for kind_text in [&text, &own] {
        fields(kind_text);
    }
    if let Some(bank) = bank(&code) {
        if let Some(own) = classic_own_digits(bank, &text) {
            assert!(!own.is_empty() && text.ends_with(own) && own.len() + bank.prefix_digits + 3 == text.len());
        }
        for dialect in Dialect::ALL {
            assert!(bank.digits(dialect).start() <= bank.digits(dialect).end());
        }
    }
    if let Some(number) = SnapNumber::compose(&prefix, &own) {
        assert_eq!(number.payable(), format!("{prefix}{own}"));
        assert_eq!(number.own_digits(), own);
        assert_eq!(SnapNumber::parse(&number.to_string()).as_ref(), Some(&number), "written and read");
        found_by_any_form(&number, &code);
    }
}

fn forms(text: &str) {
    let shown = masked(text);
    let tail = shown.strip_prefix("****").expect("masked");
    assert!(text.ends_with(tail) && tail.chars().count() == if text.chars().count() < 4 { 0 } else { 4 });
    let digits = without_blanks(text);
    assert!(!digits.starts_with(' ') && text.ends_with(digits) && without_blanks(digits) == digits);
    if let Some(number) = SnapNumber::parse(text) {
        assert_eq!(number.to_string(), text, "read and written");
        assert_eq!(number.partner_service_id().len(), PARTNER_SERVICE_ID_LENGTH);
        assert_eq!(number.payable(), digits);
        assert!(digits.bytes().all(|byte| byte.is_ascii_digit()) && !number.own_digits().is_empty());
    }
}

fn quantities(text: &str) {
    if let Some(amount) = Amount::parse(text) {
        let written = amount.to_string();
        assert_eq!(Amount::parse(&written), Some(amount));
        // Only zeros in front, which no upstream writes, are left out.
        let (zeros, point) = (text.len() - text.trim_start_matches('0').len(), text.len() - ".00".len());
        assert_eq!(written, text[zeros.min(point - 1)..]);
        assert_eq!(amount.is_whole(), text.ends_with(".00"));
        assert_eq!(amount.is_zero(), amount == Amount::ZERO);
    }
    if let Some(moment) = parse_iso8601(text) {
        assert_eq!(text.len(), 25);
        // Jakarta's first hours of the year 0 are written with a sign, which is no 25 characters any more.
        if moment > "0001-01-02T00:00:00Z".parse().unwrap() {
            assert_eq!(parse_iso8601(&iso8601(moment)), Some(moment));
        }
    }
}

/// Every rule of every table over a text: what upstream takes, a caller may send.
fn fields(text: &str) {
    for operation in OperationId::ALL.map(OperationId::operation) {
        for field in operation.body.iter().chain(operation.query) {
            let misfit = |form| field.kind.check_text(text, form);
            if misfit(Form::Wire).is_none() {
                assert!(misfit(Form::Caller).is_none(), "{}: {}", operation.id, described(field));
            }
        }
    }
}

fn described(field: &Field) -> String {
    format!("{} ({})", field.name, field.kind.describe())
}

/// An account is found by each form of its number, and by nothing that is no form of it.
fn found_by_any_form(number: &SnapNumber, code: &str) {
    let account = Arc::new(Account {
        merchant: Arc::from("sample"),
        number: number.to_string(),
        own_digits: number.own_digits().to_owned(),
        bank_code: Some(code.to_owned()),
        amount: None,
        created: Timestamp::UNIX_EPOCH,
        expires: None,
        closed: false,
        handle: Handle::Snap {
            partner_service_id: number.partner_service_id().to_owned(),
            customer_no: "CUST000123".to_owned(),
            trx_id: "T".to_owned(),
            reference_no: "R".to_owned(),
        },
    });
    let store = MemoryStore::new(1 << 20, 1 << 20);
    store.remember(Arc::clone(&account)).now_or_never().unwrap().unwrap();
    let find = |merchant: &str, dialect, digits: &str, whole| {
        let query = AccountQuery { digits: digits.to_owned(), whole, account_id: String::new() };
        store.account(merchant, dialect, &query).now_or_never().unwrap().unwrap()
    };
    let payable = number.payable();
    for (form, whole) in [(payable.as_str(), true), (payable.as_str(), false), (number.own_digits(), false)] {
        assert!(account.is_called(form));
        assert_eq!(find("sample", Dialect::Snap, form, whole).as_ref(), Some(&account), "{whole}");
        assert_eq!(find("other", Dialect::Snap, form, whole), None, "merchants never meet");
        assert_eq!(find("sample", Dialect::Classic, form, whole), None, "generations neither");
    }
    assert!(account.is_called(&number.to_string()));
    if number.own_digits() != payable {
        assert_eq!(find("sample", Dialect::Snap, number.own_digits(), true), None, "own digits are not whole");
    }
    assert_eq!(find("sample", Dialect::Snap, &format!("{payable}0"), false), None);
    assert_eq!(store.accounts(&payable).now_or_never().unwrap().unwrap(), [account]);
}
