//! One virtual account: who it belongs to, what it was made of, and how answers and callbacks show it.
//!
//! Promises the members of `classic.md` section 4, `snap.md` sections 4 to 6 and `callbacks.md`
//! sections 3 and 4, at the places the switches name. What may happen to it is decided by its life.

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value as Json, json};

use super::account::{PayRefusal, amount_of};
use super::{classic, snap};
use crate::clock;
use crate::config::SandboxConfig;
use crate::config::sandbox::{PaidAmountShape, ReferencePlace, SnapSwitches};
use crate::dialect::amount::Amount;
use crate::dialect::bank::Bank;
use crate::dialect::number::SnapNumber;
use crate::dialect::{Dialect, Field, Kind};
use crate::document::{self, Value};

/// An account of either generation.
#[derive(Clone, Debug)]
pub(super) enum Account {
    /// Made by the classic create.
    Classic(ClassicAccount),
    /// Made by create-va.
    Snap(SnapAccount),
}

/// A classic account.
#[derive(Clone, Debug)]
pub(super) struct ClassicAccount {
    /// Whose.
    pub(super) merchant: usize,
    /// At which bank.
    pub(super) bank: &'static Bank,
    /// The full number.
    pub(super) number: String,
    /// `virtualAccountId`.
    pub(super) id: String,
    /// `customerId`.
    pub(super) customer_id: String,
    /// The flow's `A-Correlation-ID`.
    pub(super) correlation_id: String,
    /// `virtualAccountName`.
    pub(super) name: String,
    /// `virtualAccountPhone`.
    pub(super) phone: String,
    /// `billDetails`, as given.
    pub(super) bills: Json,
    /// What decides about its state.
    pub(super) life: classic::Life,
}

/// A SNAP account.
#[derive(Clone, Debug)]
pub(super) struct SnapAccount {
    /// Whose.
    pub(super) merchant: usize,
    /// At which bank.
    pub(super) bank: &'static Bank,
    /// Prefix and own digits.
    pub(super) number: SnapNumber,
    /// The create's `X-EXTERNAL-ID`, which names this life of the number.
    pub(super) reference: String,
    /// `customerNo`.
    pub(super) customer_no: String,
    /// The create's `trxId`.
    pub(super) trx_id: String,
    /// `virtualAccountName`.
    pub(super) name: String,
    /// `virtualAccountPhone`.
    pub(super) phone: Option<String>,
    /// `additionalInfo`, the members the table knows.
    pub(super) info: Map<String, Json>,
    /// What decides about its state.
    pub(super) life: snap::Life,
}

impl Account {
    /// The generation.
    #[must_use]
    pub(super) const fn dialect(&self) -> Dialect {
        match self {
            Self::Classic(_) => Dialect::Classic,
            Self::Snap(_) => Dialect::Snap,
        }
    }

    /// Whose it is, by position.
    #[must_use]
    pub(super) const fn merchant(&self) -> usize {
        match self {
            Self::Classic(account) => account.merchant,
            Self::Snap(account) => account.merchant,
        }
    }

    /// The number a customer types.
    #[must_use]
    pub(super) fn payable(&self) -> String {
        match self {
            Self::Classic(account) => account.number.clone(),
            Self::Snap(account) => account.number.payable(),
        }
    }

    /// The state's word.
    #[must_use]
    pub(super) fn status(&self, now: Timestamp) -> &'static str {
        match self {
            Self::Classic(account) => classic::word(account.life.state(now)),
            Self::Snap(account) => account.life.state(now).word(),
        }
    }

    /// Whether its number may be given to another account: it ran out or was paid for good.
    #[must_use]
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        use crate::config::sandbox::ClassicState;
        match self {
            Self::Classic(account) => {
                matches!(account.life.state(now), ClassicState::Inactive | ClassicState::Expired)
            }
            Self::Snap(account) => account.life.state(now) != snap::State::Active,
        }
    }

    /// Takes a payment.
    ///
    /// # Errors
    /// Why it is not taken; the account is then as before.
    pub(super) fn pay(&mut self, amount: Amount, switches: &SnapSwitches, now: Timestamp) -> Result<(), PayRefusal> {
        match self {
            Self::Classic(account) => account.life = account.life.pay(amount, now)?,
            Self::Snap(account) => {
                account.life = account.life.pay(amount, amount_of(switches.min_open_amount), now)?;
            }
        }
        Ok(())
    }

    /// The bank asks.
    ///
    /// # Errors
    /// Why it cannot be paid.
    pub(super) fn inquire(&mut self, paid_to_inquired: bool, now: Timestamp) -> Result<(), PayRefusal> {
        match self {
            Self::Classic(account) => account.life = account.life.inquire(paid_to_inquired, now)?,
            Self::Snap(account) => match account.life.state(now) {
                snap::State::Active => {}
                snap::State::InactivePaid => return Err(PayRefusal::AlreadyPaid),
                snap::State::InactiveExpired => return Err(PayRefusal::Expired),
            },
        }
        Ok(())
    }

    /// The body that announces its newest payment; `payment_id` is the bank's reference.
    #[must_use]
    pub(super) fn callback(&self, config: &SandboxConfig, payment_id: u64, now: Timestamp) -> Bytes {
        let body = match self {
            Self::Classic(account) => account.callback(payment_id, now),
            Self::Snap(account) => {
                let view = SnapView {
                    switches: &config.snap,
                    now,
                    reference: &account.reference,
                    original: None,
                    trx_id: None,
                };
                account.body("2003400", &view)
            }
        };
        body.to_string().into()
    }

    /// What `GET /_sandbox/accounts` shows.
    #[must_use]
    pub(super) fn show(&self, merchant: &str, config: &SandboxConfig, now: Timestamp) -> Json {
        let (data, reference, paid) = match self {
            Self::Classic(account) => (account.data(ClassicView::Get, now), &account.correlation_id, account.life.paid),
            Self::Snap(account) => {
                let view = SnapView {
                    switches: &config.snap,
                    now,
                    reference: &account.reference,
                    original: None,
                    trx_id: None,
                };
                (account.data(&view), &account.reference, account.life.paid)
            }
        };
        json!({
            "dialect": self.dialect().name(),
            "merchant": merchant,
            "number": self.payable(),
            "status": self.status(now),
            "reference": reference,
            "payments": paid.count,
            "paid_total": paid.total.to_string(),
            "virtualAccountData": data,
        })
    }
}

/// Which call shows a classic account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClassicView {
    /// Create.
    Create,
    /// Get.
    Get,
    /// Update.
    Update,
}

impl ClassicAccount {
    /// `virtualAccountData`.
    #[must_use]
    pub(super) fn data(&self, view: ClassicView, now: Timestamp) -> Json {
        let total = match view {
            ClassicView::Create | ClassicView::Update => self.life.requested,
            ClassicView::Get => self.total_so_far(),
        };
        let mut data = json!({
            "virtualAccountId": self.id,
            "virtualAccountNumber": self.number,
            "virtualAccountStatus": classic::word(self.life.state(now)),
            "virtualAccountName": self.name,
            "correlationId": self.correlation_id,
            "customerId": self.customer_id,
            "totalAmount": money(total),
            "adminFee": json!({"value": ADMIN_FEE, "currency": "IDR"}),
            "expiredAt": clock::iso8601(self.life.expires_at),
        });
        if let Json::Object(members) = &mut data {
            if view != ClassicView::Update {
                members.insert("virtualAccountPhone".to_owned(), json!(self.phone));
                members.insert("billDetails".to_owned(), self.bills.clone());
            }
            if view == ClassicView::Get {
                members.insert("billAmount".to_owned(), self.bill_amount());
            }
        }
        data
    }

    fn callback(&self, payment_id: u64, now: Timestamp) -> Json {
        let mut data = self.data(ClassicView::Get, now);
        if let Json::Object(members) = &mut data {
            members.remove("expiredAt");
            let amount = self.life.paid.latest.map_or(Amount::ZERO, |payment| payment.amount);
            let details = json!({"trxRefID": payment_id.to_string(), "amount": amount.to_string()});
            members.insert("paymentDetails".to_owned(), details);
        }
        json!({"code": 200, "message": "ok", "virtualAccountData": data})
    }

    /// The amount asked for, then the sum of payments (`protocol/README.md` row 17).
    fn total_so_far(&self) -> Amount {
        if self.life.paid.count == 0 { self.life.requested } else { self.life.paid.total }
    }

    fn bill_amount(&self) -> Json {
        match self.life.price {
            super::account::Price::Closed(amount) => money(amount),
            super::account::Price::Open => {
                self.bills.pointer("/0/billAmount").cloned().unwrap_or_else(|| money(Amount::ZERO))
            }
        }
    }
}

/// How an answer shows a SNAP account.
#[derive(Clone, Copy, Debug)]
pub(super) struct SnapView<'a> {
    /// Places and names.
    pub(super) switches: &'a SnapSwitches,
    /// By the control clock.
    pub(super) now: Timestamp,
    /// `referenceNo`.
    pub(super) reference: &'a str,
    /// `originalReferenceNo`, where the answer has one.
    pub(super) original: Option<&'a str>,
    /// Another `trxId` than the create's.
    pub(super) trx_id: Option<&'a str>,
}

impl SnapAccount {
    /// A whole answer or callback.
    #[must_use]
    pub(super) fn body(&self, code: &str, view: &SnapView<'_>) -> Json {
        let mut body = Map::new();
        body.insert("responseCode".to_owned(), json!(code));
        body.insert("responseMessage".to_owned(), json!("Successful"));
        body.insert("virtualAccountData".to_owned(), self.data(view));
        if view.switches.reference_place == ReferencePlace::Top {
            insert_references(&mut body, view);
        }
        Json::Object(body)
    }

    /// `virtualAccountData`.
    #[must_use]
    pub(super) fn data(&self, view: &SnapView<'_>) -> Json {
        let mut data = Map::new();
        let mut put = |name: &str, value: Json| data.insert(name.to_owned(), value);
        put("partnerServiceId", json!(self.number.partner_service_id()));
        put("customerNo", json!(self.customer_no));
        put("virtualAccountNo", json!(self.number.to_string()));
        put("virtualAccountName", json!(self.name));
        if let Some(phone) = &self.phone {
            put("virtualAccountPhone", json!(phone));
        }
        put("trxId", json!(view.trx_id.unwrap_or(&self.trx_id)));
        put("totalAmount", money(self.requested()));
        put("expiredDate", json!(clock::iso8601(self.life.expires_at)));
        put(&view.switches.status_name, json!(self.life.state(view.now).word()));
        let mut info = self.info.clone();
        if view.switches.reference_place == ReferencePlace::AdditionalInfo {
            insert_references(&mut info, view);
        }
        put("additionalInfo", Json::Object(info));
        if let Some(latest) = self.life.paid.latest {
            let amount = match view.switches.latest_paid_amount {
                PaidAmountShape::Object => money(latest.amount),
                PaidAmountShape::String => json!(latest.amount.to_string()),
            };
            put("latestPaidAmount", amount);
            put("latestPaidTime", json!(clock::iso8601(latest.at)));
        }
        if view.switches.reference_place == ReferencePlace::VirtualAccountData {
            insert_references(&mut data, view);
        }
        Json::Object(data)
    }

    fn requested(&self) -> Amount {
        match self.life.price {
            super::account::Price::Closed(amount) => amount,
            super::account::Price::Open => Amount::ZERO,
        }
    }
}

fn insert_references(members: &mut Map<String, Json>, view: &SnapView<'_>) {
    members.insert("referenceNo".to_owned(), json!(view.reference));
    if let Some(original) = view.original {
        members.insert("originalReferenceNo".to_owned(), json!(original));
    }
}

/// An amount as both generations write it.
#[must_use]
pub(super) fn money(amount: Amount) -> Json {
    json!({"value": amount.to_string(), "currency": "IDR"})
}

/// The members of a value that the table knows, so that what is kept is bounded by the table.
#[must_use]
pub(super) fn known_members(fields: &[Field], object: Value<'_>) -> Map<String, Json> {
    let mut members = Map::new();
    for field in fields {
        let given = object.member(field.name).filter(|value| value.kind() != document::Kind::Null);
        if let Some(value) = given {
            members.insert(field.name.to_owned(), known(&field.kind, value));
        }
    }
    members
}

/// A value without what the table does not know.
#[must_use]
pub(super) fn known(kind: &Kind, value: Value<'_>) -> Json {
    match kind {
        Kind::Object(fields) => Json::Object(known_members(fields, value)),
        Kind::Single(fields) => value.elements().map(|element| Json::Object(known_members(fields, element))).collect(),
        _ => serde_json::from_slice(value.raw()).unwrap_or(Json::Null),
    }
}

/// The fee of the samples (`classic.md` section 4).
const ADMIN_FEE: &str = "4000.00";
