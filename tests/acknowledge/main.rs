//! Measures how long senders of callbacks wait for their acknowledgement, whatever the app does.
//!
//! Sandbox and gateway run as processes of their own, the gateway over a SQLite store, with its log at
//! the default level. Callbacks of both generations come at a fixed rate to an app that answers at once,
//! one that is down, one that never answers, and to a gateway that asks whether they are true; creates go through the gateway meanwhile, and once
//! without any callbacks. Each round has a store of its own. An event of the quick app is counted too:
//! all of them must arrive.
//!
//! `cargo test --release --test acknowledge -- --rate 500 --creates 50 --seconds 20`. Without options it
//! is tiny, and only a bound that no healthy machine reaches makes it fail.

#![cfg(test)]

#[path = "../app/mod.rs"]
mod app;
mod load;
mod processes;

use std::process::ExitCode;
use std::time::Duration;

use app::{App, status};
use load::{Kind, Load, Times};
use processes::World;
use tokio::time::{Instant, sleep};

/// What the tiny run asks for.
const RATE: u64 = 100;
const CREATES: u64 = 20;
const SECONDS: u64 = 1;

/// Slowest acknowledgement but one in a hundred that passes. A sender's own patience is about ten seconds.
const P99_MAX: Duration = Duration::from_secs(3);

/// Longest time until a quick app has everything.
const HEARD_WITHIN: Duration = Duration::from_secs(60);

/// What the app does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    /// There are no callbacks at all.
    Unused,
    Quick,
    /// Quick, but nothing of what is announced is true, and the gateway asks about it.
    Asked,
    Down,
    Silent,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == "--list") {
        println!("acknowledge: test");
        return ExitCode::SUCCESS;
    }
    let number = |name: &str, otherwise: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(otherwise)
    };
    let (rate, creates) = (number("--rate", RATE), number("--creates", CREATES));
    let lasting = Duration::from_secs(number("--seconds", SECONDS));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    println!("{rate} callbacks/s and {creates} creates/s for {lasting:?}; p50, p99 and longest in ms");
    for behaviour in [Behaviour::Unused, Behaviour::Quick, Behaviour::Asked, Behaviour::Down, Behaviour::Silent] {
        let rate = if behaviour == Behaviour::Unused { 0 } else { rate };
        if let Err(why) = runtime.block_on(measure(behaviour, Load { rate, lasting }, Load { rate: creates, lasting }))
        {
            println!("acknowledge: app {behaviour:?}: {why}\n0 passed, 1 failed");
            return ExitCode::FAILURE;
        }
    }
    println!("1 passed, 0 failed");
    ExitCode::SUCCESS
}

/// One round; prints its line.
async fn measure(behaviour: Behaviour, callbacks: Load, creates: Load) -> Result<(), String> {
    let silent = behaviour == Behaviour::Silent;
    let app = App::start(move |_| if silent { None } else { status(204) }).await;
    let deliver = app.deliver();
    // Its address is nobody's once it is gone.
    let app = (behaviour != Behaviour::Down).then_some(app);
    // What is made up is told only where nobody asks.
    let asked = matches!(behaviour, Behaviour::Unused | Behaviour::Asked);
    let world = World::start(&deliver, if asked { "unsigned" } else { "never" }).await;
    // The first create logs in.
    Load { rate: 20, lasting: Duration::from_millis(500) }.run(&world.listen, Kind::WarmUp).await?;
    let begun = Instant::now();
    let (acknowledged, created) =
        tokio::join!(callbacks.run(&world.callbacks, Kind::Callback), creates.run(&world.listen, Kind::Create));
    let (acknowledged, created) = (acknowledged?, created?);
    println!(
        "app {:<7} {} acknowledged {acknowledged}; {} created {created}",
        format!("{behaviour:?}"),
        acknowledged.count(),
        created.count()
    );
    match (behaviour, &app) {
        (Behaviour::Quick, Some(app)) => all_arrive(app, &acknowledged, begun + callbacks.lasting).await?,
        (Behaviour::Asked, Some(app)) if !app.look(<[_]>::is_empty) => {
            return Err("the app was told of a payment that is not true".to_owned());
        }
        _ => {}
    }
    if acknowledged.at(99) > P99_MAX {
        return Err(format!("one callback in a hundred waits longer than {P99_MAX:?}"));
    }
    Ok(())
}

/// Waits until the app has taken everything, each under one id.
async fn all_arrive(app: &App, acknowledged: &Times, ended: Instant) -> Result<(), String> {
    let ids = || {
        app.look(|heard| {
            let taken = heard.iter().filter(|delivery| delivery.is_taken());
            let events = taken.map(|delivery| (delivery.id.clone(), delivery.event["data"]["dialect"].to_string()));
            events.collect::<std::collections::BTreeSet<_>>().len()
        })
    };
    while app.look(<[_]>::len) < acknowledged.count() || ids() < acknowledged.count() {
        if ended.elapsed() > HEARD_WITHIN {
            return Err(format!("{} of {} have arrived", ids(), acknowledged.count()));
        }
        sleep(Duration::from_millis(20)).await;
    }
    println!("            the last one was delivered {:?} after the last was sent", ended.elapsed());
    Ok(())
}
