//! `ayova dev`: gateway, sandbox and sample merchant in one process.
//!
//! Promises to need neither a file nor a network.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use super::Failure;
use crate::config::Config;

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
    if args.data.is_some() {
        let message = "--data: not available in this version (leave it out; records live in memory)";
        return Err(Failure::Failed(message.to_owned()));
    }
    let _config = Config::sample(args.listen, args.admin, args.sandbox)?;
    Err(Failure::Failed("the gateway is wired in the next commit".to_owned()))
}

const fn local(port: u16) -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))
}

const EXAMPLES: &str = "\
The sample merchant is AYOTST; lines to paste into another terminal are printed at the start.

Examples:
  ayova dev
  ayova dev --listen 127.0.0.1:0 --admin 127.0.0.1:0 --sandbox 127.0.0.1:0    on free ports";
