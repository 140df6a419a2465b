//! The crash proof: whatever moment the gateway is killed at, nothing is lost and nothing is made twice.
//!
//! Sandbox and gateway run as processes of their own. Each round gives the gateway an empty store, lets
//! many clients send creates, updates and duplicates through it, kills it (SIGKILL at a random moment,
//! or an abort at a chosen place), starts it again over the same store and compares with the sandbox's
//! ledger: at most one account for each key; every create the app saw answered replays byte for byte
//! and can be updated; what had no answer gets one soon; nothing stays under way. Payments are announced
//! meanwhile: every callback whose sender saw it acknowledged reaches an app that outlives the gateway, or
//! dead letter, under one id however often it was announced or delivered, in the order of its account.
//!
//! In half of the rounds the gateway asks whether payments are true, and only the sandbox's are made.
//!
//! `cargo test --all-features --test crash -- --rounds 2000 [--seed N]`. A failure prints its seed.

#![cfg(test)]

#[path = "../app/mod.rs"]
mod app;
mod client;
mod payments;
mod processes;
mod round;

use std::process::ExitCode;
use std::time::Duration;

use tokio::task::JoinSet;

/// Rounds in CI.
const ROUNDS: u64 = 100;

/// Rounds that may wait for their apps' last deliveries at once.
const RESTS: usize = 8;

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
    match runtime.block_on(play(rounds, seed)) {
        Ok(sums) => {
            println!("crash: {sums} in {rounds} rounds from seed {seed}");
            println!("{rounds} passed, 0 failed");
            ExitCode::SUCCESS
        }
        Err(Failed { seed, why }) => {
            println!("crash: a round failed: {why}");
            println!("again: cargo test --all-features --test crash -- --rounds 1 --seed {seed}");
            println!("0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}

/// A round that failed.
struct Failed {
    seed: u64,
    why: String,
}

/// Plays the rounds one after the other; of those that only wait for their apps a few at a time.
async fn play(rounds: u64, seed: u64) -> Result<round::Figures, Failed> {
    let mut sums = round::Figures::default();
    let mut rests = JoinSet::new();
    for index in 0..rounds {
        let seed = seed.wrapping_add(index);
        let failed = |why: String| Failed { seed, why };
        let played = tokio::time::timeout(Duration::from_secs(60), round::play(seed)).await;
        let late = |_| failed("the round did not end within 60 s".to_owned());
        let (figures, rest) = played.map_err(late)?.map_err(failed)?;
        sums.add(&figures);
        rests.spawn(async move { rest.end().await.map_err(|why| Failed { seed, why }) });
        while rests.len() >= RESTS || (index + 1 == rounds && !rests.is_empty()) {
            if let Some(ended) = rests.join_next().await {
                sums.add_told(&ended.map_err(|error| failed(error.to_string()))??);
            }
        }
    }
    Ok(sums)
}
