//! The two generations of Ayoconnect's API as constant tables.

use std::fmt;

/// A generation of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// Bearer token, `/virtualAccount`.
    Classic,
    /// Indonesia's national payment API standard, `/transfer-va/...`.
    Snap,
}

impl Dialect {
    /// Name in metrics and admin answers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Snap => "snap",
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
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
