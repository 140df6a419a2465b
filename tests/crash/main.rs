//! The crash proof: whatever moment the gateway is killed at, nothing is lost and nothing is made twice.
//!
//! Sandbox and gateway run as processes of their own. Each round gives the gateway an empty store, lets
//! many clients send creates, updates and duplicates through it, kills it (SIGKILL at a random moment,
//! or an abort at a chosen place), starts it again over the same store and compares with the sandbox's
//! ledger: at most one account for each key; every create the app saw answered replays byte for byte
//! and can be updated; what had no answer gets one soon; nothing stays under way.
//!
//! `cargo test --all-features --test crash -- --rounds 2000 [--seed N]`. A failure prints its seed.

#![cfg(test)]

mod client;
mod processes;
mod round;

use std::process::ExitCode;
use std::time::Duration;

/// Rounds in CI.
const ROUNDS: u64 = 100;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("crash: test");
        return ExitCode::SUCCESS;
    }
    let number = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    let rounds = number("--rounds").unwrap_or(ROUNDS);
    let seed = number("--seed").unwrap_or_else(|| u64::from(std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut sums = round::Figures::default();
        for index in 0..rounds {
            let seed = seed.wrapping_add(index);
            let played = tokio::time::timeout(Duration::from_secs(60), round::play(seed)).await;
            match played {
                Ok(Ok(figures)) => sums.add(&figures),
                Ok(Err(broken)) => return failed(index, seed, &broken),
                Err(_) => return failed(index, seed, "the round did not end within 60 s"),
            }
        }
        println!("crash: {sums} in {rounds} rounds from seed {seed}");
        println!("{rounds} passed, 0 failed");
        ExitCode::SUCCESS
    })
}

fn failed(index: u64, seed: u64, why: &str) -> ExitCode {
    println!("crash: round {index} failed: {why}");
    println!("again: cargo test --all-features --test crash -- --rounds 1 --seed {seed}");
    println!("{index} passed, 1 failed");
    ExitCode::FAILURE
}
