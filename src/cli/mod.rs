//! The command line: what may be typed, and which exit code comes back.
//!
//! Promises 0, 1 (failure), 2 (usage), 78 (bad configuration), results on standard output and
//! everything else on standard error. Work is done in one module per command; this one only reads
//! arguments, the environment and the clock, and hands them on.

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::clock::{self, Clock as _, SystemClock};
use crate::config::{self, Config, Problems};

pub mod callbacks;
pub mod check;
pub mod completions;
pub mod dev;
mod dev_app;
pub mod healthcheck;
pub mod outcomes;
mod reload;
pub mod run;
pub mod sandbox;
pub mod schema;
pub mod signals;
pub mod signature;
mod spans;

/// Sidecar gateway for Ayoconnect's virtual accounts.
///
/// Apps call ayova instead of Ayoconnect, with the same paths and bodies; ayova logs in, signs,
/// validates, recognises repetitions and remembers references.
#[derive(Debug, Parser)]
#[command(name = "ayova", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Gateway, sandbox and a sample merchant in one process, without a configuration file
    Dev(dev::DevArgs),
    /// The gateway
    Run(run::RunArgs),
    /// Say everything that is wrong with a configuration file
    Check(check::CheckArgs),
    /// Print the JSON Schema of the configuration file
    #[command(after_help = schema::EXAMPLES)]
    Schema,
    /// The simulated Ayoconnect alone
    Sandbox(sandbox::SandboxArgs),
    /// Make a signature by hand
    Sign(signature::SignArgs),
    /// Check a signature by hand
    Verify(signature::VerifyArgs),
    /// Ask a running gateway whether it is ready
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Creates and updates of a running gateway nobody knows the outcome of
    Outcomes(outcomes::OutcomesArgs),
    /// Payment callbacks of a running gateway, and delivering them again
    Callbacks(callbacks::CallbacksArgs),
    /// Print a shell's completion script
    Completions(completions::CompletionsArgs),
}

/// Why a command ends with another code than 0.
#[derive(Debug)]
pub enum Failure {
    /// Code 1, with the reason.
    Failed(String),
    /// Code 1; standard output has said why.
    Said,
    /// Code 78, with every problem.
    BadConfig(String),
}

impl Failure {
    /// The process's exit code.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Said => 1,
            // EX_CONFIG of sysexits.
            Self::BadConfig(_) => 78,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message) | Self::BadConfig(message) => f.write_str(message),
            Self::Said => Ok(()),
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::BadConfig(problems.to_string())
    }
}

/// Reads the process's arguments, does what they say and returns its exit code. A usage error ends
/// the process with code 2.
#[must_use]
pub fn main() -> ExitCode {
    match perform(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let message = failure.to_string();
            if !message.is_empty() {
                tell(message);
            }
            ExitCode::from(failure.code())
        }
    }
}

/// Says something on standard error. Where that is closed or nobody reads, the exit code still tells,
/// and the process ends.
fn tell(message: String) {
    let (done, told) = mpsc::channel();
    let telling = thread::Builder::new().spawn(move || {
        let _ = writeln!(io::stderr(), "{message}");
        let _ = done.send(());
    });
    if telling.is_ok() {
        let _ = told.recv_timeout(TELLING);
    }
}

/// Longest wait for whoever reads standard error.
const TELLING: Duration = Duration::from_secs(1);

fn perform(command: Command) -> Result<(), Failure> {
    match command {
        Command::Dev(args) => dev::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Check(args) => print(&check::check(&args)?),
        Command::Schema => print(&schema::schema()),
        Command::Sandbox(args) => sandbox::run(&args),
        Command::Sign(mut args) => {
            args.fill_timestamp(&clock::iso8601(SystemClock.now()));
            let mut out = Vec::new();
            let signed = signature::sign(&args, &mut out);
            print_bytes(&out)?;
            signed.map_err(|error| Failure::Failed(error.to_string()))
        }
        Command::Verify(args) => {
            let mut out = Vec::new();
            let verdict = signature::verify(&args, &mut out);
            print_bytes(&out)?;
            match verdict {
                Ok(true) => Ok(()),
                Ok(false) => Err(Failure::Said),
                Err(error) => Err(Failure::Failed(error.to_string())),
            }
        }
        Command::Healthcheck(args) => print(&healthcheck::ask(&args)?),
        Command::Outcomes(args) => outcomes::run(&args),
        Command::Callbacks(args) => callbacks::run(&args),
        Command::Completions(args) => print_bytes(&completions::script(&args)),
    }
}

/// Reads the gateway's configuration with the process's environment.
///
/// # Errors
/// Everything that is wrong with it; where the default file is missing, how to get one.
pub(crate) fn load(path: &Path) -> Result<Config, Failure> {
    if path == Path::new(DEFAULT_CONFIG) && !path.exists() {
        return Err(Failure::BadConfig(NO_CONFIG.to_owned()));
    }
    Ok(config::load(path, &variable)?)
}

/// An environment variable; one that is not Unicode counts as unset.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Writes a result. A reader that has seen enough (`| head`) is not a failure.
fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write to standard output: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// `--config` of the commands that need the gateway's file.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArg {
    /// Configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// Where the configuration is looked for when nothing is said.
pub(crate) const DEFAULT_CONFIG: &str = "config/ayova.yaml";

const NO_CONFIG: &str = "\
config/ayova.yaml: there is no such file, and no --config was given

  ayova dev                           tries everything out without a file
  cp config/minimal.yaml config/ayova.yaml
                                      starts from the smallest file that works
  ayova check --config FILE           says what is wrong with a file; config/example.yaml explains every key";

const EXAMPLES: &str = "\
Examples:
  ayova dev                                    everything in one process, no file, no network
  ayova check --config config/ayova.yaml       before a deployment
  ayova run --config config/ayova.yaml         the gateway

Exit codes: 0 success, 1 failure, 2 usage, 78 bad configuration.";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{Cli, Command, Parser as _, Path, load};

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_examples() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
            let help = sub.render_long_help().to_string();
            assert!(help.contains("Example"), "{}: {help}", sub.get_name());
        }
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let Command::Dev(dev) = Cli::parse_from(["ayova", "dev"]).command else { panic!() };
        let addresses = [dev.listen, dev.admin, dev.sandbox, dev.callbacks, dev.app].map(|address| address.to_string());
        let expected = ["127.0.0.1:8080", "127.0.0.1:9080", "127.0.0.1:9090", "127.0.0.1:9443", "127.0.0.1:9070"];
        assert_eq!(addresses, expected);
        let Command::Run(run) = Cli::parse_from(["ayova", "run"]).command else { panic!() };
        assert_eq!(run.file.config, Path::new("config/ayova.yaml"));
        Cli::try_parse_from(["ayova", "run", "--cofnig", "x"]).unwrap_err();
    }

    #[test]
    fn a_missing_default_file_says_how_to_get_one() {
        // Tests run in the package's root, where the default file is never kept.
        let failure = load(Path::new(super::DEFAULT_CONFIG)).unwrap_err();
        assert_eq!(failure.code(), 78);
        let message = failure.to_string();
        for way in ["ayova dev", "config/minimal.yaml", "ayova check"] {
            assert!(message.contains(way), "{message}");
        }
    }
}
