//! `ayova completions`: what a shell needs to complete the other commands.
//!
//! Promises the script of the command line as it is compiled in.

use clap::CommandFactory as _;
use clap_complete::Shell;

/// Options of `ayova completions`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// The shell's script.
#[must_use]
pub fn script(args: &CompletionsArgs) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "ayova", &mut script);
    script
}

const EXAMPLES: &str = "\
Examples:
  ayova completions bash > ~/.local/share/bash-completion/completions/ayova
  ayova completions zsh > ~/.zfunc/_ayova
  ayova completions fish > ~/.config/fish/completions/ayova.fish";
