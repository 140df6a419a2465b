//! What is put into a request from the record of its account, and what contradicts it.
//!
//! Pure: request and record in, plan or refusal out. Works down the operation's table, so that a new
//! attachable field needs a line there and none here. Looking records up, asking upstream and
//! sending are the `reference` layer's affair.

use std::borrow::Cow;

use crate::call::Checked;
use crate::config::OnMismatch;
use crate::dialect::amount::Amount;
use crate::dialect::field::Misfit;
use crate::dialect::number::{PARTNER_SERVICE_ID_LENGTH, SnapNumber, without_blanks};
use crate::dialect::{Attach, Dialect, Fault, Field, Form, Identity, Need, Operation, OperationKind, Rule};
use crate::document::{Document, Member, Value};

use super::{Account, AccountQuery, Handle};

/// What to do to a request before it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Members or parameters to set.
    pub members: Vec<Member>,
    /// The flow's `A-Correlation-ID`, where it is the record's.
    pub flow: Option<String>,
    /// A reference of the caller's that ours has replaced; tried once if upstream does not know ours.
    pub callers_reference: Option<String>,
}

/// Why a request cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It contradicts the record, or names no account at all.
    Invalid(Vec<Fault>),
    /// Nothing is known of the account: what is missing without that.
    Unknown(Vec<Fault>),
    /// The bank's amounts never go down.
    AmountTooLow,
}

/// A request as a plan needs it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Which operation.
    pub operation: &'static Operation,
    /// What it says.
    pub checked: &'a Checked,
}

impl<'a> Asked<'a> {
    /// A member or parameter that is given and not empty.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&'a str> {
        let text = match &self.checked.document {
            Some(document) => document.root().member(name).and_then(Value::as_str),
            None => self.checked.query.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str()),
        };
        text.filter(|text| !text.is_empty())
    }

    /// How the request names its account.
    #[must_use]
    pub fn account(&self) -> AccountQuery {
        let by_id = self.operation.attachable().find(|(_, attach)| *attach == Attach::Identity(Identity::AccountId));
        let id = by_id.and_then(|(field, _)| self.text(field.name));
        let number = self.text(self.operation.number).unwrap_or_default();
        let digits = without_blanks(number);
        AccountQuery {
            digits: digits.to_owned(),
            whole: digits.len() < number.len(),
            account_id: id.unwrap_or_default().to_owned(),
        }
    }

    /// Whether the request brings a reference of its own.
    #[must_use]
    pub fn brings_reference(&self) -> bool {
        let mut attachable = self.operation.attachable();
        attachable.any(|(field, attach)| attach == Attach::Reference && self.text(field.name).is_some())
    }

    /// Whether a record that was found by the request's digits can be meant. A padded number is
    /// whole: it is never the own digits of another account.
    #[must_use]
    pub fn can_mean(&self, account: &Account) -> bool {
        self.text(self.operation.number).is_none_or(|number| {
            let digits = without_blanks(number);
            digits.len() == number.len() || digits == account.digits()
        })
    }

    /// The padded number, where it is given so or can be padded from the prefix beside it to one that
    /// upstream takes.
    #[must_use]
    pub fn padded_number(&self) -> Option<SnapNumber> {
        let number = self.text(self.operation.number)?;
        let digits = without_blanks(number);
        if digits.len() < number.len() {
            return SnapNumber::parse(number);
        }
        let prefix = without_blanks(self.text("partnerServiceId")?);
        let padded = SnapNumber::compose(prefix, digits.strip_prefix(prefix)?)?;
        let taken = self.number_misfit(&padded.to_string()).is_none();
        taken.then_some(padded)
    }

    /// What keeps upstream from taking a number in the body.
    fn number_misfit(&self, number: &str) -> Option<Misfit> {
        let field = self.operation.body.iter().find(|field| field.name == self.operation.number);
        field.and_then(|field| field.kind.check_text(number, Form::Wire))
    }

    fn amount(&self) -> Option<Amount> {
        let document: &Document = self.checked.document.as_ref()?;
        Amount::parse(document.root().at(&["totalAmount", "value"])?.as_str()?)
    }
}

/// Works down the table.
///
/// # Errors
/// The [`Refusal`] with every fault at once.
pub fn plan(
    asked: Asked<'_>,
    account: Option<&Account>,
    on_mismatch: OnMismatch,
    fresh: &mut dyn FnMut() -> String,
) -> Result<Plan, Refusal> {
    let mut draft = Draft { asked, account, on_mismatch, plan: Plan::default(), contradictions: vec![], gaps: vec![] };
    for (field, attach) in asked.operation.attachable() {
        draft.field(field, attach, fresh);
    }
    draft.keyed();
    draft.bank();
    draft.number();
    draft.flow();
    draft.finish()
}

const CONTRADICTS: &str = "contradicts what is recorded of this virtual account";

const BANK: &[&str] = &["additionalInfo", "bankCode"];

struct Draft<'a> {
    asked: Asked<'a>,
    account: Option<&'a Account>,
    on_mismatch: OnMismatch,
    plan: Plan,
    contradictions: Vec<Fault>,
    gaps: Vec<Fault>,
}

impl Draft<'_> {
    fn field(&mut self, field: &'static Field, attach: Attach, fresh: &mut dyn FnMut() -> String) {
        let given = self.asked.text(field.name);
        let known = self.account.and_then(|account| account.value(attach));
        match (given, known) {
            (Some(given), Some(known)) if given != known => self.contradiction(field, attach, given, known),
            (Some(_), _) => {}
            (None, Some(known)) => self.set(field.name, known.to_owned()),
            (None, None) => match self.otherwise(attach, fresh) {
                Some(value) => self.set(field.name, value),
                None if field.need.demanded(Form::Wire) => {
                    self.gaps.push(self.fault(field.name, Rule::Required, "is missing"));
                }
                None => {}
            },
        }
    }

    fn contradiction(&mut self, field: &'static Field, attach: Attach, given: &str, known: &str) {
        match (attach, self.on_mismatch) {
            // An app may use another transaction id for each call.
            (Attach::TransactionId | Attach::Fresh, _) | (_, OnMismatch::CallerFirst) => {}
            (Attach::Reference, OnMismatch::RecordedFirst) => {
                self.plan.callers_reference = Some(given.to_owned());
                self.set(field.name, known.to_owned());
            }
            (Attach::Reference, OnMismatch::Reject) | (Attach::Identity(_), _) => {
                self.contradictions.push(self.fault(field.name, Rule::Mismatch, CONTRADICTS));
            }
        }
    }

    /// A value without a record: new ids, and the prefix that a padded number begins with.
    fn otherwise(&self, attach: Attach, fresh: &mut dyn FnMut() -> String) -> Option<String> {
        match attach {
            Attach::Fresh => Some(self.asked.checked.ids.transaction.as_deref().map_or_else(fresh, ToOwned::to_owned)),
            Attach::TransactionId if self.asked.operation.kind == OperationKind::Read => Some(fresh()),
            Attach::Identity(Identity::PartnerServiceId) => {
                let number = self.asked.text(self.asked.operation.number)?;
                number.starts_with(' ').then(|| number.get(..PARTNER_SERVICE_ID_LENGTH).map(ToOwned::to_owned))?
            }
            Attach::Identity(_) | Attach::Reference | Attach::TransactionId => None,
        }
    }

    /// A create's transaction id that came from `Idempotency-Key`.
    fn keyed(&mut self) {
        let ids = &self.asked.checked.ids;
        let keyed = self.asked.operation.body.iter().find(|field| field.need == Need::Keyed);
        if let (Some(field), Some(transaction), true) = (keyed, &ids.transaction, ids.transaction_made) {
            self.set(field.name, (**transaction).to_owned());
        }
    }

    /// SNAP's bank is the caller's to send and stands within a member; it says which account is meant.
    fn bank(&mut self) {
        let known = self.account.and_then(|account| account.bank_code.as_deref());
        let document = self.asked.checked.document.as_ref();
        let given = document.and_then(|document| document.root().at(BANK)?.as_str());
        let snap = self.asked.operation.dialect == Dialect::Snap && self.asked.operation.kind != OperationKind::Create;
        if snap
            && self.on_mismatch != OnMismatch::CallerFirst
            && let (Some(given), Some(known)) = (given, known)
            && given != known
        {
            self.contradictions.push(Fault::of_member(BANK, Rule::Mismatch, CONTRADICTS));
        }
    }

    /// The number in the form upstream wants, whatever form the caller used.
    fn number(&mut self) {
        let operation = self.asked.operation;
        if operation.kind == OperationKind::Create {
            return;
        }
        let Some(given) = self.asked.text(operation.number) else { return };
        if self.account.is_some_and(|account| !account.is_called(given)) {
            // The caller's own word goes out as it is; only another form of our number is completed.
            if self.on_mismatch == OnMismatch::CallerFirst {
                return self.check_number(given);
            }
            return self.contradictions.push(self.fault(operation.number, Rule::Mismatch, CONTRADICTS));
        }
        let lookup = operation.query.iter().any(|field| field.name == operation.number && field.need == Need::Lookup);
        if lookup {
            return;
        }
        let wanted = match self.account {
            Some(account) => account.value(Attach::Identity(Identity::Number)).map(ToOwned::to_owned),
            None if operation.dialect == Dialect::Snap => self.asked.padded_number().map(|number| number.to_string()),
            None => None,
        };
        match wanted {
            Some(wanted) if wanted == given => {}
            Some(wanted) => self.set(operation.number, wanted),
            None => self.check_number(given),
        }
    }

    /// A number that stays as it is must be what upstream takes.
    fn check_number(&mut self, given: &str) {
        if let Some((rule, message)) = self.asked.number_misfit(given) {
            self.gaps.push(self.fault(self.asked.operation.number, rule, message));
        }
    }

    /// In classic everything done to an account carries its create's `A-Correlation-ID`.
    fn flow(&mut self) {
        let operation = self.asked.operation;
        if operation.dialect != Dialect::Classic || operation.kind == OperationKind::Create {
            return;
        }
        let given = self.asked.checked.ids.header.as_deref();
        let known = self.account.and_then(|account| match &account.handle {
            Handle::Classic { correlation_id, .. } => Some(correlation_id),
            Handle::Snap { .. } => None,
        });
        match (given, known) {
            (Some(_), _) if self.on_mismatch == OnMismatch::CallerFirst => {}
            (_, Some(known)) if given != Some(known.as_str()) => self.plan.flow = Some(known.clone()),
            (Some(_), _) => {}
            (None, _) => {
                let name = operation.dialect.id_header();
                self.gaps.push(Fault::of_header(name, Rule::Required, "is missing"));
            }
        }
    }

    /// A fault of a member, or of a parameter where the operation has no body.
    fn fault(&self, name: &str, rule: Rule, message: impl Into<Cow<'static, str>>) -> Fault {
        if self.asked.operation.body.is_empty() {
            Fault::of_header(name, rule, message)
        } else {
            Fault::of_member(&[name], rule, message)
        }
    }

    fn set(&mut self, name: &'static str, value: String) {
        self.plan.members.push(Member { name, value });
    }

    fn finish(self) -> Result<Plan, Refusal> {
        let Self { asked, account, plan, contradictions, gaps, .. } = self;
        if !contradictions.is_empty() {
            return Err(Refusal::Invalid(contradictions));
        }
        if !gaps.is_empty() {
            let names_nothing = asked.account().is_empty();
            return Err(if names_nothing { Refusal::Invalid(gaps) } else { Refusal::Unknown(gaps) });
        }
        let lowers = asked.operation.kind == OperationKind::Update
            && asked.amount().zip(account).is_some_and(|(amount, account)| account.refuses_amount(amount));
        if lowers { Err(Refusal::AmountTooLow) } else { Ok(plan) }
    }
}
