//! The two generations of Ayoconnect's API as constant tables.
//!
//! The one list of operations, headers, fields and rules: validation, signing, rendering, the
//! sandbox, `/routes` and `docs/routes.md` read it and have none of their own. Pure: no clock, no
//! I/O. What is done about a broken rule is decided elsewhere.

use std::fmt;

use http::Method;

pub mod amount;
pub mod bank;
pub mod check;
pub mod classic;
pub mod code;
pub mod describe;
pub mod envelope;
pub mod field;
pub mod number;
pub mod snap;

pub use check::{Fault, Given, check};
pub use field::{Attach, Field, Form, Identity, Kind, Need, Rule};

/// A generation of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// Bearer token, `/virtualAccount`.
    Classic,
    /// Indonesia's national payment API standard, `/transfer-va/...`.
    Snap,
}

impl Dialect {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Classic, Self::Snap];

    /// Name in metrics and admin answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Snap => "snap",
        }
    }

    /// The header that names the merchant.
    #[must_use]
    pub const fn merchant_header(self) -> &'static str {
        match self {
            Self::Classic => "A-Merchant-Code",
            Self::Snap => "X-PARTNER-ID",
        }
    }

    /// The header that carries the id of a request (SNAP) or of a flow (classic).
    #[must_use]
    pub const fn id_header(self) -> &'static str {
        match self {
            Self::Classic => "A-Correlation-ID",
            Self::Snap => "X-EXTERNAL-ID",
        }
    }
}

/// An operation's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OperationId {
    /// `snap.create`
    SnapCreate,
    /// `snap.update`
    SnapUpdate,
    /// `snap.inquiry`
    SnapInquiry,
    /// `classic.create`
    ClassicCreate,
    /// `classic.update`
    ClassicUpdate,
    /// `classic.get`
    ClassicGet,
}

impl OperationId {
    /// Every operation.
    pub const ALL: [Self; 6] = [
        Self::SnapCreate,
        Self::SnapUpdate,
        Self::SnapInquiry,
        Self::ClassicCreate,
        Self::ClassicUpdate,
        Self::ClassicGet,
    ];

    /// Name in configuration, logs and metrics (contract section 3).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SnapCreate => "snap.create",
            Self::SnapUpdate => "snap.update",
            Self::SnapInquiry => "snap.inquiry",
            Self::ClassicCreate => "classic.create",
            Self::ClassicUpdate => "classic.update",
            Self::ClassicGet => "classic.get",
        }
    }

    /// The operation of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|id| id.name() == name)
    }

    /// The operation's table.
    #[must_use]
    pub const fn operation(self) -> &'static Operation {
        match self {
            Self::SnapCreate => &snap::CREATE,
            Self::SnapUpdate => &snap::UPDATE,
            Self::SnapInquiry => &snap::INQUIRY,
            Self::ClassicCreate => &classic::CREATE,
            Self::ClassicUpdate => &classic::UPDATE,
            Self::ClassicGet => &classic::GET,
        }
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Everything there is to know about one operation.
#[derive(Debug)]
pub struct Operation {
    /// Its name.
    pub id: OperationId,
    /// Its generation.
    pub dialect: Dialect,
    /// What it does to an account.
    pub kind: OperationKind,
    /// The documented method; SNAP's update may be configured otherwise.
    pub method: Method,
    /// Path behind the base path.
    pub path: &'static str,
    /// Middle digits of SNAP's response codes; empty in classic.
    pub service_code: &'static str,
    /// HTTP status of success.
    pub success: u16,
    /// The headers of the call.
    pub headers: &'static [Header],
    /// The query's parameters.
    pub query: &'static [Field],
    /// The body's members; empty where there is no body.
    pub body: &'static [Field],
    /// The parameter or member that carries the account's number.
    pub number: &'static str,
    /// Where the bank's rules find what they speak of.
    pub bank_rule: Option<&'static BankRule>,
    /// What the expiry may be.
    pub expiry: Expiry,
    /// What makes a request the same request.
    pub key: Option<Key>,
    /// When the gateway may send it twice.
    pub repeat: Repeat,
    /// Page of Ayoconnect's documentation.
    pub source: &'static str,
}

/// What an operation does to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// Makes one.
    Create,
    /// Changes one.
    Update,
    /// Looks at one.
    Read,
}

/// One header of a call.
#[derive(Debug)]
pub struct Header {
    /// Its name as the protocol spells it.
    pub name: &'static str,
    /// Where its value comes from.
    pub source: HeaderSource,
    /// What it looks like.
    pub kind: Kind,
    /// Whether upstream refuses a call without it.
    pub demanded: bool,
}

/// Where a header's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderSource {
    /// The caller, or made from what it gave.
    Caller,
    /// The caller, or the merchant's configuration.
    Merchant,
    /// Always this.
    Constant(&'static str),
    /// Made anew for every try.
    Attempt,
}

/// Where the bank's rules find what they speak of.
#[derive(Clone, Copy, Debug)]
pub struct BankRule {
    /// The bank's code.
    pub bank: &'static [&'static str],
    /// Single or multi payment.
    pub uses: &'static [&'static str],
    /// The value that means multi payment.
    pub multi: &'static str,
    /// The member to blame for a combination that is not offered.
    pub combination: &'static [&'static str],
    /// Fixed or open amount.
    pub amount: AmountRule,
    /// Whether the number holds the client's own digits only, so that the bank's lengths apply.
    pub checks_number: bool,
}

/// How a request says whether the amount is fixed.
#[derive(Clone, Copy, Debug)]
pub enum AmountRule {
    /// No amount or zero means open (`snap.md` section 9).
    ZeroIsOpen(&'static [&'static str]),
    /// A member says so, and a fixed amount must be given (`classic.md` section 4).
    Named {
        /// The member.
        kind: &'static [&'static str],
        /// Its value for a fixed amount.
        closed: &'static str,
        /// The member that then is mandatory.
        total: &'static str,
    },
}

/// What an expiry may be.
#[derive(Clone, Copy, Debug)]
pub enum Expiry {
    /// Anything of its kind: an update to the past ends an account.
    Any,
    /// In this member, and later than now.
    Ahead(&'static str),
}

/// What makes a request the same request (`snap.md` section 7, `classic.md` section 8).
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The header (or, in a classic update, the member) that identifies it.
    pub id: &'static str,
    /// The member that identifies the merchant's transaction.
    pub transaction: &'static str,
}

/// When the gateway may send a request again that may have arrived (`errors.md` sections 1 and 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Never: it could happen twice.
    Never,
    /// With the same ids and body: upstream then knows it.
    SamePair,
    /// Always.
    Always,
}

impl Operation {
    /// The value of a record's member that this operation's table says may be attached.
    pub fn attachable(&self) -> impl Iterator<Item = (&'static Field, Attach)> {
        self.body.iter().chain(self.query).filter_map(|field| field.need.attach().map(|attach| (field, attach)))
    }

    /// The header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'static Header> {
        self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn tables_are_consistent() {
        for id in OperationId::ALL {
            let operation = id.operation();
            assert_eq!(operation.id, id);
            assert_eq!(OperationId::from_name(id.name()), Some(id));
            assert!(id.name().starts_with(operation.dialect.name()));
            assert!(operation.path.starts_with('/') && !operation.path.ends_with('/'));
            let names: Vec<_> = operation.body.iter().chain(operation.query).map(|field| field.name).collect();
            assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{id}: a field stands twice");
            assert!(names.contains(&operation.number), "{id}");
            assert!(operation.header(operation.dialect.merchant_header()).is_some());
            assert!(operation.header(operation.dialect.id_header()).is_some());
            assert_eq!(operation.service_code.is_empty(), operation.dialect == Dialect::Classic);
            if let Some(key) = operation.key {
                assert!(operation.header(key.id).is_some() || names.contains(&key.id), "{id}");
                assert!(names.contains(&key.transaction), "{id}");
            }
            if operation.kind == OperationKind::Create {
                assert_eq!(operation.attachable().count(), 0, "{id}: a create has nothing to attach");
            }
        }
    }

    #[test]
    fn no_two_operations_share_a_route() {
        let routes: HashSet<_> =
            OperationId::ALL.iter().map(|id| (id.operation().method.as_str(), id.operation().path)).collect();
        assert_eq!(routes.len(), OperationId::ALL.len());
    }
}
