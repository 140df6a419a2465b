//! `ayova outcomes`: what is in doubt at a running gateway, and an operator's word on it.
//!
//! Promises to say what it did, over the admin listener; decides nothing by itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::signals::block_on;
use super::{Failure, print};

/// Options of `ayova outcomes`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct OutcomesArgs {
    /// The admin listener
    #[arg(long, global = true, value_name = "ADDR", default_value = "127.0.0.1:9080")]
    pub admin: SocketAddr,
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with outcomes in doubt.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Action {
    /// Show what is in doubt, the oldest first
    List,
    /// Say how one of them ended
    Resolve(ResolveArgs),
}

/// Options of `ayova outcomes resolve`.
#[derive(Clone, Debug, clap::Args)]
pub struct ResolveArgs {
    /// The merchant's configured name
    #[arg(long)]
    pub merchant: String,
    /// snap.create, snap.update, classic.create or classic.update
    #[arg(long)]
    pub operation: String,
    /// As `ayova outcomes list` shows it
    #[arg(long)]
    pub id: String,
    /// It did not happen: a repetition of the app's is sent as new
    #[arg(long, conflicts_with = "answer", required_unless_present = "answer")]
    pub absent: bool,
    /// It happened: the answer's JSON body, which repetitions of the app's will get
    #[arg(long, value_name = "FILE")]
    pub answer: Option<PathBuf>,
}

/// Longest time the gateway may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest answer that is read.
const ANSWER_MAX: usize = 16 << 20;

/// Does it.
///
/// # Errors
/// A gateway that does not answer, a file that cannot be read, a decision that is refused.
pub fn run(args: &OutcomesArgs) -> Result<(), Failure> {
    match &args.action {
        Action::List => {
            let (_, answer) = ask(args.admin, Method::GET, "/outcomes?state=unknown", None)?;
            print(&table(&answer))
        }
        Action::Resolve(resolve) => {
            let body = decision(resolve)?;
            match ask(args.admin, Method::POST, "/outcomes/resolve", Some(body))? {
                (StatusCode::OK, _) => print("resolved\n"),
                (_, answer) => {
                    let error = answer.get("error").and_then(Value::as_str).unwrap_or("the gateway refused it");
                    Err(Failure::Failed(error.to_owned()))
                }
            }
        }
    }
}

fn decision(args: &ResolveArgs) -> Result<Value, Failure> {
    let ResolveArgs { merchant, operation, id, answer, .. } = args;
    let Some(path) = answer else {
        return Ok(json!({"merchant": merchant, "operation": operation, "id": id, "as": "absent"}));
    };
    let unreadable = |why: String| Failure::Failed(format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let body: Value = serde_json::from_str(&text).map_err(|error| unreadable(format!("not JSON: {error}")))?;
    Ok(json!({"merchant": merchant, "operation": operation, "id": id, "as": "answered", "body": body}))
}

fn table(answer: &Value) -> String {
    let outcomes = answer.get("outcomes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if outcomes.is_empty() {
        return "nothing is in doubt\n".to_owned();
    }
    let text = |outcome: &Value, name: &str| outcome.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    let mut lines = String::from("SINCE                      MERCHANT  OPERATION       NUMBER    ID\n");
    for outcome in outcomes {
        let [since, merchant, operation, number, id] =
            ["since", "merchant", "operation", "number", "id"].map(|name| text(outcome, name));
        lines.push_str(&format!("{since:<26} {merchant:<9} {operation:<15} {number:<9} {id}\n"));
    }
    lines
}

/// Asks the admin listener one thing.
pub(super) fn ask(
    admin: SocketAddr,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> Result<(StatusCode, Value), Failure> {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{admin}{path}"))
        .header("Content-Type", "application/json")
        .body(Full::<Bytes>::new(body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()))))
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let mut answered = None;
    block_on(async {
        let exchange = async {
            let client = Client::builder(TokioExecutor::new()).build_http();
            let response = client.request(request).await.map_err(|error| error.to_string())?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
            Ok::<_, String>((status, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        let silent = |why: &str| Failure::Failed(format!("{admin} does not answer: {why}; is the gateway running?"));
        let (status, body) = timeout(PATIENCE, exchange)
            .await
            .map_err(|_| silent("no answer in 10 s"))?
            .map_err(|error| silent(&error))?;
        answered = Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)));
        Ok(())
    })?;
    answered.ok_or_else(|| Failure::Failed(format!("{admin} does not answer")))
}

const EXAMPLES: &str = "\
A create or update is in doubt when it was sent and no answer came. ayova asks Ayoconnect about it by
itself for a day; what it cannot find out (a classic create, a number Ayoconnect chose) stays listed
until you say how it ended.

Examples:
  ayova outcomes list
  ayova outcomes resolve --merchant sample --operation classic.create --id ID --absent
  ayova outcomes resolve --merchant sample --operation classic.create --id ID --answer answer.json";
