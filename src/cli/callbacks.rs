//! `ayova callbacks`: payment callbacks of a running gateway, and sending them again.
//!
//! Promises to say what it did, over the admin listener; decides nothing by itself.

use std::net::SocketAddr;

use http::{Method, StatusCode};
use serde_json::Value;

use super::outcomes::ask;
use super::{Failure, print};

/// Options of `ayova callbacks`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct CallbacksArgs {
    /// The admin listener
    #[arg(long, global = true, value_name = "ADDR", default_value = "127.0.0.1:9080")]
    pub admin: SocketAddr,
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with callbacks.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Action {
    /// Show callbacks, the newest first
    List {
        /// pending, delivered, dead or quarantined; default: all
        #[arg(long)]
        state: Option<String>,
    },
    /// Show one callback
    Show {
        /// As `ayova callbacks list` shows it
        id: String,
    },
    /// Deliver again, under the same id
    Replay {
        /// As `ayova callbacks list` shows it
        #[arg(required_unless_present = "since", conflicts_with = "since")]
        id: Option<String>,
        /// Everything delivered or dead that came in since then
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
    },
}

/// Does it.
///
/// # Errors
/// A gateway that does not answer, an id it does not know, a time it cannot read.
pub fn run(args: &CallbacksArgs) -> Result<(), Failure> {
    match &args.action {
        Action::List { state } => {
            let query = state.as_ref().map(|state| format!("?state={}", escaped(state))).unwrap_or_default();
            print(&table(&said(ask(args.admin, Method::GET, &format!("/callbacks{query}"), None)?)?))
        }
        Action::Show { id } => {
            let answer = said(ask(args.admin, Method::GET, &format!("/callbacks/{}", escaped(id)), None)?)?;
            print(&format!("{answer:#}\n"))
        }
        Action::Replay { id, since } => {
            let path = match (id, since) {
                (Some(id), _) => format!("/callbacks/{}/replay", escaped(id)),
                (None, since) => format!("/callbacks/replay?since={}", escaped(since.as_deref().unwrap_or_default())),
            };
            let answer = said(ask(args.admin, Method::POST, &path, None)?)?;
            print(&replayed(&answer))
        }
    }
}

fn escaped(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn said((status, answer): (StatusCode, Value)) -> Result<Value, Failure> {
    if status.is_success() {
        return Ok(answer);
    }
    let error = answer.get("error").and_then(Value::as_str).unwrap_or("the gateway refused it");
    Err(Failure::Failed(error.to_owned()))
}

fn replayed(answer: &Value) -> String {
    let count = answer.get("replayed").and_then(Value::as_u64).unwrap_or_default();
    let more = answer.get("more").and_then(Value::as_bool).unwrap_or_default();
    let rest = if more { "; there are more: replay from where these end, with a later --since" } else { "" };
    format!("{count} to be delivered again{rest}\n")
}

fn table(answer: &Value) -> String {
    let callbacks = answer.get("callbacks").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if callbacks.is_empty() {
        return "no callbacks\n".to_owned();
    }
    let text = |callback: &Value, name: &str| callback.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let mut lines = String::from("RECEIVED                   STATE        MERCHANT  NUMBER    AMOUNT          ID\n");
    for callback in callbacks {
        let [received, state, merchant, number, amount, id] =
            ["received", "state", "merchant", "number", "amount", "id"].map(|name| text(callback, name));
        lines.push_str(&format!("{received:<26} {state:<12} {merchant:<9} {number:<9} {amount:<15} {id}\n"));
    }
    lines
}

const EXAMPLES: &str = "\
A callback is pending until the app has answered 2xx, dead when the app said 410 or its time was over,
and quarantined when it cannot be understood or believed: `show` says why.

Examples:
  ayova callbacks list --state dead
  ayova callbacks show evt_0f1e2d3c4b5a69788796a5b4c3d2e1f0
  ayova callbacks replay evt_0f1e2d3c4b5a69788796a5b4c3d2e1f0
  ayova callbacks replay --since 2026-01-05T10:00:00+07:00";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::replayed;

    #[test]
    fn what_is_left_of_a_replay_is_said() {
        assert_eq!(replayed(&json!({"replayed": 1})), "1 to be delivered again\n");
        assert_eq!(replayed(&json!({"replayed": 2, "more": false})), "2 to be delivered again\n");
        assert!(replayed(&json!({"replayed": 10_000, "more": true})).contains("later --since"));
    }
}
