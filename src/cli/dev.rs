//! `ayova dev`: gateway, sandbox, sample merchant and an app that takes its events, in one process.
//!
//! Promises to need neither a file nor a network, that the lines it prints work as pasted, and that a
//! port that is taken is refused with the option that gives another.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::run::color;
use super::signals::{Signals, block_on};
use super::{Failure, dev_app, print, sandbox};
use crate::app::App;
use crate::callback::webhook::WebhookKey;
use crate::clock::{Clock as _, SystemClock, iso8601};
use crate::config::sandbox::SAMPLE_MERCHANT_CODE;
use crate::config::{Config, SampleCallbacks, SandboxConfig, Secret, Store};
use crate::server::{Address, CannotListen, bind};
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
    /// Where the simulated Ayoconnect announces payments
    #[arg(long, value_name = "ADDR", default_value_t = local(9443))]
    pub callbacks: SocketAddr,
    /// Where the receiving app listens, which prints the events it is told
    #[arg(long, value_name = "ADDR", default_value_t = local(9070))]
    pub app: SocketAddr,
    /// Keep the gateway's records in this folder
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// Runs until a signal.
///
/// # Errors
/// Addresses that are taken or not loopback.
pub fn run(args: &DevArgs) -> Result<(), Failure> {
    let secrets = Secrets::random()?;
    // Refused before anything is opened.
    let config = configuration(args, args.sandbox, &secrets.callbacks(args, args.app))?;
    // Kept until everything has ended, so that the last lines are written.
    let _written = log::init(config.log, color()).map_err(|error| Failure::Failed(error.to_string()))?;
    block_on(serve(args.clone(), secrets))
}

async fn serve(args: DevArgs, secrets: Secrets) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Failed(args.with_option(&error));
    let mut signals = Signals::listen().map_err(failed)?;
    let listener = sandbox::bind(args.sandbox).await.map_err(failed)?;
    let receiving = bind(&args.app.into()).await.map_err(failed)?;
    // With the real ports, which may have been asked for as 0.
    let upstream = listener.local_addr().map_err(failed)?;
    let payments = receiving.address.tcp().unwrap_or(args.app);
    let callbacks = secrets.callbacks(&args, payments);
    let app = App::start(&configuration(&args, upstream, &callbacks)?).await.map_err(failed)?;
    let announced = app.callbacks.unwrap_or(args.callbacks);
    let addresses = [
        ("{app}", app.listen.tcp().unwrap_or(args.listen)),
        ("{admin}", app.admin),
        ("{sandbox}", upstream),
        ("{callbacks}", announced),
        ("{receiving}", payments),
    ];
    let sandbox = sandbox::start(listener, secrets.sandbox(announced))?;
    let key = WebhookKey::parse(secrets.app.expose()).map_err(|why| Failure::Failed(why.to_owned()))?;
    let receiving = dev_app::start(receiving, key);
    print(&welcome(&addresses, args.data.as_deref()))?;
    signals.end().await;
    signals
        .while_ending(async {
            app.stop().await.map_err(|error| Failure::Failed(error.to_string()))?;
            sandbox.stop().await?;
            receiving.stop().await
        })
        .await
}

impl DevArgs {
    /// What is wrong and, where it is about a listener, which option gives another.
    fn with_option(&self, error: &io::Error) -> String {
        let taken = error.get_ref().and_then(|inner| inner.downcast_ref::<CannotListen>());
        let options = [
            ("--listen", self.listen),
            ("--admin", self.admin),
            ("--sandbox", self.sandbox),
            ("--callbacks", self.callbacks),
            ("--app", self.app),
        ];
        match taken.and_then(|taken| options.iter().find(|(_, address)| Address::from(*address) == taken.address)) {
            Some((option, _)) => format!("{error} ({option})"),
            None => error.to_string(),
        }
    }
}

/// What sandbox, gateway and app share; other ones at every start.
struct Secrets {
    address: Secret<String>,
    app: Secret<String>,
}

impl Secrets {
    fn random() -> Result<Self, Failure> {
        let random = || {
            let mut bytes = [0; 32];
            aws_lc_rs::rand::fill(&mut bytes)
                .map(|()| bytes)
                .map_err(|_| Failure::Failed("the system gives no random numbers".to_owned()))
        };
        let app = format!("whsec_{}", STANDARD.encode(random()?));
        Ok(Self { address: Secret::new(hex::encode(random()?)), app: Secret::new(app) })
    }

    fn callbacks(&self, args: &DevArgs, app: SocketAddr) -> SampleCallbacks {
        SampleCallbacks {
            listen: args.callbacks,
            secret: self.address.clone(),
            app: format!("http://{app}/payments"),
            app_secret: self.app.clone(),
        }
    }

    /// A sandbox that announces payments to the gateway, also after a reset.
    fn sandbox(&self, gateway: SocketAddr) -> SandboxConfig {
        let mut config = SandboxConfig::default();
        let secret = self.address.expose();
        let address = |dialect| format!("http://{gateway}/callbacks/{dialect}/{SAMPLE_MERCHANT_CODE}/{secret}");
        (config.callbacks.snap, config.callbacks.classic) = (Some(address("snap")), Some(address("classic")));
        config
    }
}

fn configuration(args: &DevArgs, sandbox: SocketAddr, callbacks: &SampleCallbacks) -> Result<Config, Failure> {
    let mut config = Config::sample_calling_back(args.listen, args.admin, sandbox, callbacks)?;
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
fn welcome(addresses: &[(&str, SocketAddr)], data: Option<&Path>) -> String {
    let tomorrow = SystemClock.now() + jiff::SignedDuration::from_hours(24);
    let text = WELCOME.replace("{tomorrow}", &iso8601(tomorrow)).replace("{records}", &records(data));
    addresses.iter().fold(text, |text, (name, address)| text.replace(name, &address.to_string()))
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

const WELCOME: &str = r#"ayova dev: {records}, nothing leaves this machine. Ctrl-C ends it.

  gateway    http://{app}    your app's base URL instead of Ayoconnect's
  sandbox    http://{sandbox}    the simulated Ayoconnect; /_sandbox/accounts, /_sandbox/requests
  admin      http://{admin}    /status, /metrics, /routes, /config, /callbacks
  callbacks  http://{callbacks}    where the sandbox announces payments, at addresses with a secret in them
  receiver   http://{receiving}    stands for your app: prints a line here for every payment it is told of

SNAP. Create an account without token, signature or merchant header:
curl -sS -w '\n' http://{app}/va/api/v2.0/transfer-va/create-va -H 'Content-Type: application/json' -H 'Idempotency-Key: order-1' -d '{"customerNo":"CUST000123","virtualAccountNo":"12345678901","virtualAccountName":"Budi Santoso","trxId":"7f3b1c9e5a2d4f608b1e3c7a9d5f2b41","totalAmount":{"value":"150000.00","currency":"IDR"},"expiredDate":"{tomorrow}","additionalInfo":{"bankCode":"014","isSingleUse":"N"}}'

A customer pays it, in the sandbox; its callback comes back through the gateway and is printed here:
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
  ayova dev --callbacks 127.0.0.1:9444 --app 127.0.0.1:9071    where 9443 and 9070 are taken
  ayova dev --listen 127.0.0.1:0    on a free port; every address takes port 0
  ayova dev --data ./dev-data    accounts and answers survive; the sandbox's own state does not";
