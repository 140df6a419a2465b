//! Asks upstream about an account a callback names, or one that is watched.
//!
//! Promises never to use the app's own allowance, and never to flood upstream whatever comes in:
//! questions wait for a quarter of the merchant's rate, which they have to themselves, or for a rate of
//! ours where it has none. Judges nothing.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::notice::text;
use crate::call::{Admission, Merchant};
use crate::config::MerchantConfig;
use crate::dialect::bank::BANKS;
use crate::dialect::number::SnapNumber;
use crate::dialect::{Attach, Dialect, Identity};
use crate::document::Document;
use crate::entropy::Entropy;
use crate::error::Error;
use crate::inquiry::{Asked, Errand, Inquirer};
use crate::reference::settle::Subject;
use crate::reference::{Account, Handle};

/// Asks.
pub struct Asker {
    inquirer: Arc<Inquirer>,
    entropy: Entropy,
    merchants: HashMap<Arc<str>, Asking>,
    /// Longest time one question may take once its turn has come.
    patience: Duration,
}

struct Asking {
    merchant: Arc<Merchant>,
    /// A tick a question.
    pace: Mutex<Interval>,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asker")
    }
}

/// What upstream said.
#[derive(Clone, Debug)]
pub enum Said {
    /// It shows the account.
    Shown(Arc<(Bytes, Document)>),
    /// It does not know such an account.
    Refused,
    /// It does not take the question.
    Declined,
    /// It could not be asked.
    NoAnswer,
    /// Too little is known of the account to ask about it.
    NobodyToAsk,
}

impl Asker {
    /// Asks in the names of these merchants, at the pace of their limits.
    #[must_use]
    pub fn new(
        inquirer: Arc<Inquirer>,
        merchants: &[Arc<Merchant>],
        configs: &[MerchantConfig],
        entropy: Entropy,
        patience: Duration,
    ) -> Self {
        let asking = |merchant: &Arc<Merchant>| {
            let limit = configs.iter().find(|config| config.name == merchant.name)?.rate_limit.as_ref();
            let per_second = limit.map_or(PER_SECOND, |limit| limit.rate.per_second.get() / SHARE);
            let (merchant, pace) = (Arc::clone(merchant), Mutex::new(pace(per_second)));
            Some((Arc::clone(&merchant.name), Asking { merchant, pace }))
        };
        Self { inquirer, entropy, merchants: merchants.iter().filter_map(asking).collect(), patience }
    }

    /// Asks about an account that is known.
    pub async fn about(&self, account: &Account) -> Said {
        match &account.handle {
            Handle::Snap { .. } => self.snap(&account.merchant, self.subject(account)).await,
            Handle::Classic { .. } if account.bank_code.is_some() => self.classic(account).await,
            Handle::Classic { .. } => self.classic_at_any_bank(account.clone()).await,
        }
    }

    /// A get must name the bank, and neither a callback nor every record does.
    async fn classic_at_any_bank(&self, mut account: Account) -> Said {
        let mut said = Said::NobodyToAsk;
        for bank in BANKS {
            account.bank_code = Some(bank.code.to_owned());
            said = self.classic(&account).await;
            if !matches!(said, Said::Refused | Said::Declined) {
                break;
            }
        }
        said
    }

    /// Asks about an account of which only a callback is known.
    pub async fn about_stranger(&self, merchant: &Arc<str>, dialect: Dialect, callback: &Document) -> Said {
        let Some(data) = callback.root().member("virtualAccountData") else { return Said::NobodyToAsk };
        let member = |name: &str| text(data, name);
        if dialect == Dialect::Snap {
            let number = member("virtualAccountNo").and_then(|number| SnapNumber::parse(&number));
            let subject = number.zip(member("customerNo")).map(|(number, customer_no)| Subject {
                partner_service_id: number.partner_service_id().to_owned(),
                customer_no,
                number: number.to_string(),
                trx_id: member("trxId").unwrap_or_else(|| self.entropy.id()),
            });
            return self.snap(merchant, subject).await;
        }
        let (Some(account_id), Some(customer_id)) = (member("virtualAccountId"), member("customerId")) else {
            return Said::NobodyToAsk;
        };
        let correlation_id = member("correlationId").unwrap_or_else(|| self.entropy.id());
        let account = Account {
            merchant: Arc::clone(merchant),
            number: member("virtualAccountNumber").unwrap_or_default(),
            own_digits: String::new(),
            bank_code: None,
            amount: None,
            closed: false,
            created: Account::READ,
            expires: None,
            handle: Handle::Classic { account_id, customer_id, correlation_id },
        };
        self.classic_at_any_bank(account).await
    }

    async fn snap(&self, merchant: &str, subject: Option<Subject>) -> Said {
        let Some((errand, subject)) = self.errand(merchant).await.zip(subject) else { return Said::NobodyToAsk };
        said(Dialect::Snap, self.inquirer.snap(errand, &subject).await)
    }

    async fn classic(&self, account: &Account) -> Said {
        let Some(errand) = self.errand(&account.merchant).await else { return Said::NobodyToAsk };
        said(Dialect::Classic, self.inquirer.classic(errand, account).await)
    }

    /// Waits for its turn.
    async fn errand(&self, merchant: &str) -> Option<Errand> {
        let asking = self.merchants.get(merchant)?;
        asking.pace.lock().await.tick().await;
        Some(Errand {
            merchant: Arc::clone(&asking.merchant),
            deadline: Instant::now() + self.patience,
            admission: Arc::new(Admission::default()),
        })
    }

    /// An account's ids; a transaction id of our own serves where none is known.
    fn subject(&self, account: &Account) -> Option<Subject> {
        let value = |attach| account.value(attach).map(ToOwned::to_owned);
        Some(Subject {
            partner_service_id: value(Attach::Identity(Identity::PartnerServiceId))?,
            customer_no: value(Attach::Identity(Identity::CustomerNo))?,
            number: account.number.clone(),
            trx_id: value(Attach::TransactionId).unwrap_or_else(|| self.entropy.id()),
        })
    }
}

fn said(dialect: Dialect, asked: Result<Asked, Error>) -> Said {
    let Ok(Asked { answer, .. }) = asked else { return Said::NoAnswer };
    match (answer.status.as_u16(), answer.document) {
        (200..=299, Some(document)) => Said::Shown(Arc::new((answer.body, document))),
        (400 | 412, _) if dialect == Dialect::Snap => Said::Declined,
        // Of classic's 503 only a refusal gets here (`errors.md` section 1).
        (400 | 404 | 412 | 503, _) => Said::Refused,
        _ => Said::NoAnswer,
    }
}

/// So many questions a second, at least one, and none at once.
pub(super) fn pace(per_second: u32) -> Interval {
    let mut pace = interval(Duration::from_secs(1) / per_second.max(1));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

/// The part of a merchant's rate that questions of our own may use, beside the app's whole rate.
const SHARE: u32 = 4;

/// Questions a second of a merchant without a limit.
const PER_SECOND: u32 = 50;
