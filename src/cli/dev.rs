//! `ayova dev`: gateway, sandbox and sample merchant in one process.
//!
//! Promises to need neither a file nor a network, and that the lines it prints work as pasted.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use super::run::color;
use super::sandbox::start;
use super::signals::{Signals, block_on};
use super::{Failure, print};
use crate::app::App;
use crate::clock::{Clock as _, SystemClock, iso8601};
use crate::config::{Config, SandboxConfig, Store};
use crate::server::Address;
use crate::telemetry::log;

/// Options of `ayova dev`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct DevArgs {
    /// Where apps connect; a loopback address
    #[arg(long, value_name = "ADDR", default_value_t = local(8080))]
    pub listen: SocketAddr,
    /// Where probes and scrapers connect
    #[arg(long, value_name = "ADDR", default_value_t = local(9080))]
    pub admin: SocketAddr,
    /// Where the simulated Ayoconnect listens
    #[arg(long, value_name = "ADDR", default_value_t = local(9090))]
    pub sandbox: SocketAddr,
    /// Keep the gateway's records in this folder
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Runs until a signal.
///
/// # Errors
/// Addresses that are taken or not loopback.
pub fn run(args: &DevArgs) -> Result<(), Failure> {
    // Refused before anything is opened.
    let config = configuration(args, args.sandbox)?;
    // Kept until everything has ended, so that the last lines are written.
    let _written = log::init(config.log, color()).map_err(|error| Failure::Failed(error.to_string()))?;
    block_on(serve(args.clone()))
}

async fn serve(args: DevArgs) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Failed(error.to_string());
    let mut signals = Signals::listen().map_err(failed)?;
    let sandbox = start(SandboxConfig { listen: args.sandbox, ..SandboxConfig::default() }).await?;
    // With the sandbox's real port, which may have been asked for as 0.
    let config = configuration(&args, sandbox.address)?;
    let app = App::start(&config).await.map_err(failed)?;
    let tomorrow = SystemClock.now() + jiff::SignedDuration::from_hours(24);
    let welcome = welcome(&app.listen, app.admin, sandbox.address, &iso8601(tomorrow));
    print(&welcome.replace("{records}", &records(args.data.as_deref())))?;
    signals.end().await;
    signals
        .while_ending(async {
            app.stop().await.map_err(|error| Failure::Failed(error.to_string()))?;
            sandbox.stop().await
        })
        .await
}

fn configuration(args: &DevArgs, sandbox: SocketAddr) -> Result<Config, Failure> {
    let mut config = Config::sample(args.listen, args.admin, sandbox)?;
    if let Some(folder) = &args.data {
        config.store = Store::Sqlite(folder.join("ayova.db"));
    }
    Ok(config)
}

/// Where the gateway's records are; the sandbox's are always in memory.
fn records(data: Option<&Path>) -> String {
    match data {
        None => "everything in memory".to_owned(),
        Some(folder) => format!("the gateway's records in {}", folder.join("ayova.db").display()),
    }
}

/// What is where, and the lines to paste.
fn welcome(app: &Address, admin: SocketAddr, sandbox: SocketAddr, tomorrow: &str) -> String {
    WELCOME
        .replace("{app}", &app.to_string())
        .replace("{admin}", &admin.to_string())
        .replace("{sandbox}", &sandbox.to_string())
        .replace("{tomorrow}", tomorrow)
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

const WELCOME: &str = r#"ayova dev: {records}, nothing leaves this machine. Ctrl-C ends it.

  gateway  http://{app}    your app's base URL instead of Ayoconnect's
  sandbox  http://{sandbox}    the simulated Ayoconnect; /_sandbox/accounts, /_sandbox/requests
  admin    http://{admin}    /status, /metrics, /routes, /config

SNAP. Create an account without token, signature or merchant header:
curl -sS -w '\n' http://{app}/va/api/v2.0/transfer-va/create-va -H 'Content-Type: application/json' -H 'Idempotency-Key: order-1' -d '{"customerNo":"CUST000123","virtualAccountNo":"12345678901","virtualAccountName":"Budi Santoso","trxId":"7f3b1c9e5a2d4f608b1e3c7a9d5f2b41","totalAmount":{"value":"150000.00","currency":"IDR"},"expiredDate":"{tomorrow}","additionalInfo":{"bankCode":"014","isSingleUse":"N"}}'

A customer pays it, in the sandbox:
curl -sS -w '\n' http://{sandbox}/_sandbox/pay -d '{"virtualAccountNo":"1462912345678901","amount":"150000.00"}'

Ask for it by its number alone:
curl -sS -w '\n' http://{app}/va/api/v2.0/transfer-va/inquiry-va -H 'Content-Type: application/json' -d '{"virtualAccountNo":"1462912345678901"}'

Change the amount without originalReferenceNo:
curl -sS -w '\n' -X PUT http://{app}/va/api/v2.0/transfer-va/update-va -H 'Content-Type: application/json' -H 'Idempotency-Key: order-1-change-1' -d '{"virtualAccountNo":"1462912345678901","virtualAccountName":"Budi Santoso","totalAmount":{"value":"175000.00","currency":"IDR"},"additionalInfo":{"bankCode":"014","isSingleUse":"N"}}'

Classic. The same without ids of upstream's:
curl -sS -w '\n' http://{app}/api/v1/virtualAccount -H 'Content-Type: application/json' -d '{"virtualAccountName":"Budi Santoso","virtualAccountPhone":"628123456789","virtualAccountNumber":"12345678","transactionId":"vXNsQzlmLrJiRmG0e0AhNgqBexupEil9","bankCode":"002","expiresIn":1440,"totalAmount":{"value":"150000.00","currency":"IDR"},"billDetails":[{"billName":"Invoice 1","billAmount":{"value":"150000.00","currency":"IDR"}}],"virtualAccountConfig":{"virtualAccountType":"static","amountType":"closed"}}'
curl -sS -w '\n' http://{sandbox}/_sandbox/pay -d '{"virtualAccountNumber":"1392500012345678","amount":"150000.00"}'
curl -sS -w '\n' 'http://{app}/api/v1/virtualAccount?virtualAccountNumber=1392500012345678'
curl -sS -w '\n' -X PATCH http://{app}/api/v1/virtualAccount -H 'Content-Type: application/json' -d '{"virtualAccountNumber":"1392500012345678","virtualAccountName":"Budi Santoso","totalAmount":{"value":"175000.00","currency":"IDR"}}'

"#;

const EXAMPLES: &str = "\
The sample merchant is AYOTST; lines to paste into another terminal are printed at the start.

Examples:
  ayova dev
  ayova dev --listen 127.0.0.1:0 --admin 127.0.0.1:0 --sandbox 127.0.0.1:0    on free ports
  ayova dev --data ./dev-data    accounts and answers survive; the sandbox's own state does not";
