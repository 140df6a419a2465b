//! Method and path to what is asked for.
//!
//! Promises that SNAP is mounted under every configured base path and its update under every
//! configured method, and that paths are compared as they came. The operations are the tables'.

use std::collections::BTreeSet;

use http::Method;

use crate::config::SandboxConfig;
use crate::config::sandbox::UpdateMethod;
use crate::dialect::snap::TOKEN_SERVICE_CODE;
use crate::dialect::{Dialect, Operation, OperationId};

/// What may be asked of the simulated Ayoconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// One of the six operations.
    Operation(OperationId),
    /// A login.
    Token(Dialect),
}

impl Target {
    /// Name in faults and in the request list (contract section 9).
    #[must_use]
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Operation(id) => id.name(),
            Self::Token(Dialect::Classic) => "classic.token",
            Self::Token(Dialect::Snap) => "snap.token",
        }
    }

    /// Every one.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        OperationId::ALL.into_iter().map(Self::Operation).chain(Dialect::ALL.map(Self::Token))
    }
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The control interface.
    Control,
    /// The simulated Ayoconnect.
    Api(Target),
    /// Such a path exists, with other methods; the service digits of what stands there.
    NotAllowed {
        /// Methods that exist.
        allow: String,
        /// Empty in classic.
        service: &'static str,
    },
    /// No such path.
    Unknown,
}

/// The control interface's own prefix.
pub(super) const CONTROL: &str = "/_sandbox";

/// The standard's delete call, which Ayoconnect does not have (`snap.md` section 1).
const DELETE_VA: &str = "/transfer-va/delete-va";
const DELETE_SERVICE_CODE: &str = "31";

/// Finds the place of a request.
#[must_use]
pub(super) fn route(method: &Method, path: &str, config: &SandboxConfig) -> Route {
    if path == CONTROL || path.strip_prefix(CONTROL).is_some_and(|rest| rest.starts_with('/')) {
        return Route::Control;
    }
    let mut allow = BTreeSet::new();
    let mut service = "";
    for (target, methods, code) in standing_at(path, config) {
        if methods.contains(method) {
            return Route::Api(target);
        }
        allow.extend(methods.iter().map(ToString::to_string));
        service = code;
    }
    if !allow.is_empty() {
        return Route::NotAllowed { allow: allow.into_iter().collect::<Vec<_>>().join(", "), service };
    }
    if below_a_base(path, config).any(|rest| rest == DELETE_VA) {
        return Route::NotAllowed { allow: String::new(), service: DELETE_SERVICE_CODE };
    }
    Route::Unknown
}

/// What stands at a path, with its methods and service digits.
fn standing_at(path: &str, config: &SandboxConfig) -> Vec<(Target, Vec<Method>, &'static str)> {
    let mut found = Vec::new();
    if path == config.classic.token_path {
        found.push((Target::Token(Dialect::Classic), vec![Method::POST], ""));
    }
    if path == config.snap.token_path || below_a_base(path, config).any(|rest| rest == "/access-token/b2b") {
        found.push((Target::Token(Dialect::Snap), vec![Method::POST], TOKEN_SERVICE_CODE));
    }
    for id in OperationId::ALL {
        let operation = id.operation();
        let stands_here = match operation.dialect {
            Dialect::Classic => path.strip_prefix(config.classic.base_path.as_str()) == Some(operation.path),
            Dialect::Snap => below_a_base(path, config).any(|rest| rest == operation.path),
        };
        if stands_here {
            found.push((Target::Operation(id), methods(operation, config), operation.service_code));
        }
    }
    found
}

fn below_a_base<'p>(path: &'p str, config: &'p SandboxConfig) -> impl Iterator<Item = &'p str> {
    config.snap.base_paths.iter().filter_map(move |base| path.strip_prefix(base.as_str()))
}

fn methods(operation: &Operation, config: &SandboxConfig) -> Vec<Method> {
    if operation.id != OperationId::SnapUpdate {
        return vec![operation.method.clone()];
    }
    config
        .snap
        .update_methods
        .iter()
        .map(|method| match method {
            UpdateMethod::Put => Method::PUT,
            UpdateMethod::Post => Method::POST,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(method: Method, path: &str) -> Route {
        let mut config = SandboxConfig::default();
        config.snap.base_paths.push("/api/v1.0".to_owned());
        route(&method, path, &config)
    }

    #[test]
    fn every_base_path_and_method_leads_to_its_operation() {
        let operation = |id| Route::Api(Target::Operation(id));
        for base in ["/va/api/v2.0", "/api/v1.0"] {
            assert_eq!(at(Method::POST, &format!("{base}/transfer-va/create-va")), operation(OperationId::SnapCreate));
            for method in [Method::PUT, Method::POST] {
                assert_eq!(at(method, &format!("{base}/transfer-va/update-va")), operation(OperationId::SnapUpdate));
            }
            assert_eq!(
                at(Method::POST, &format!("{base}/transfer-va/inquiry-va")),
                operation(OperationId::SnapInquiry)
            );
            assert_eq!(at(Method::POST, &format!("{base}/access-token/b2b")), Route::Api(Target::Token(Dialect::Snap)));
        }
        for (method, id) in [
            (Method::POST, OperationId::ClassicCreate),
            (Method::GET, OperationId::ClassicGet),
            (Method::PATCH, OperationId::ClassicUpdate),
        ] {
            assert_eq!(at(method, "/api/v1/virtualAccount"), operation(id));
        }
        let token = at(Method::POST, "/v1/oauth/client_credential/accesstoken");
        assert_eq!(token, Route::Api(Target::Token(Dialect::Classic)));
        assert_eq!(at(Method::PUT, "/_sandbox/faults"), Route::Control);
    }

    #[test]
    fn other_methods_and_paths_are_told_apart() {
        let not_allowed = |allow: &str, service: &'static str| Route::NotAllowed { allow: allow.to_owned(), service };
        assert_eq!(at(Method::DELETE, "/api/v1/virtualAccount"), not_allowed("GET, PATCH, POST", ""));
        assert_eq!(at(Method::GET, "/va/api/v2.0/transfer-va/update-va"), not_allowed("POST, PUT", "28"));
        assert_eq!(at(Method::DELETE, "/va/api/v2.0/transfer-va/delete-va"), not_allowed("", "31"));
        assert_eq!(at(Method::GET, "/va/api/v2.0/access-token/b2b"), not_allowed("POST", "73"));
        for path in
            ["/", "", "/va/api/v2.0", "/va/api/v2.0/transfer-va/create-va/", "/api/v1//virtualAccount", "/_sandboxed"]
        {
            assert_eq!(at(Method::POST, path), Route::Unknown, "{path:?}");
        }
    }
}
