//! How many instructions the whole stack takes for a request, by operation, counted under callgrind.
//!
//! Unlike times, counts are nearly the same in every run, so a change that costs something shows here.
//! What is counted is what happens from the moment a server hands a request over until its answer has
//! been dropped; connections and TLS are not in it, nor is the making of requests. Hashing weighs more
//! here than in earnest: the CPU that callgrind shows has no instructions for SHA.
//!
//! ```sh
//! cargo bench --bench instructions                           # counts, and compares with instructions.json
//! AYOVA_BENCH_RECORD=1 cargo bench --bench instructions      # counts, and writes instructions.json
//! cargo bench --bench instructions -- '*snap_update*'        # counts one, and compares nothing
//! benches/layers.py [snap_update]                            # what of the last run went into which layer
//! ```
//!
//! Wanted are valgrind and `gungraun-runner` of the version in Cargo.lock. `cargo test` sends a few requests
//! of each operation, counts nothing and needs neither.

#![cfg(test)]

mod counts;
mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use counts::{Counts, Machine};
use world::{Operation, Sizes, World};

/// What the binary allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What counts are compared with.
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.json");

/// What is counted: in a module of its own, since the harness brings a `main`.
mod counted {
    use bytes::Bytes;
    use gungraun::{Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group};
    use http::Request;
    use http_body_util::Full;

    use super::world::{Operation, Sizes, World};

    /// A warm gateway and what it will be asked.
    fn ready(operation: Operation) -> (World, Vec<Request<Full<Bytes>>>) {
        let sizes = Sizes::told(Sizes::USUAL);
        let mut world = World::new(sizes);
        world.rehearse(operation, sizes.accounts);
        let requests = world.prepare(operation, sizes.requests);
        (world, requests)
    }

    // The world is given back, so that its end is not counted.
    #[library_benchmark(setup = ready)]
    #[bench::snap_create(Operation::SnapCreate)]
    #[bench::snap_replay(Operation::SnapReplay)]
    #[bench::snap_update(Operation::SnapUpdate)]
    #[bench::snap_inquiry(Operation::SnapInquiry)]
    #[bench::classic_create(Operation::ClassicCreate)]
    fn serve((mut world, requests): (World, Vec<Request<Full<Bytes>>>)) -> (World, usize) {
        let good = world.serve(requests);
        (world, good)
    }

    library_benchmark_group!(name = stack, benchmarks = serve);

    gungraun::main!(
        config = LibraryBenchmarkConfig::default()
            .pass_through_envs(Sizes::VARIABLES)
            // Instructions only: a model of caches costs time and says little.
            .tool(Callgrind::with_args(["--cache-sim=no"]).format([EventKind::Ir]));
        library_benchmark_groups = stack
    );

    pub(super) fn run() {
        main();
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    if has("--list") {
        println!("instructions: test");
        return ExitCode::SUCCESS;
    }
    if has("--gungraun-run") {
        counted::run();
        return ExitCode::SUCCESS;
    }
    if !has("--bench") {
        rehearse();
        return ExitCode::SUCCESS;
    }
    // Ends the process where anything goes wrong.
    counted::run();
    if arguments.len() > 1 {
        return ExitCode::SUCCESS;
    }
    conclude()
}

/// Everything once, and not counted.
fn rehearse() {
    let sizes = Sizes::told(Sizes::TINY);
    for operation in Operation::ALL {
        let mut world = World::new(sizes);
        world.rehearse(operation, sizes.requests);
        let requests = world.prepare(operation, sizes.requests);
        assert_eq!(world.serve(requests), sizes.requests, "{}", operation.name());
        // Work that goes on afterwards would not be counted.
        assert!(world.gateway().tasks().is_empty(), "{} leaves work behind", operation.name());
    }
    println!("instructions: {} operations, nothing counted", Operation::ALL.len());
}

/// Compares with what is recorded, or records.
fn conclude() -> ExitCode {
    let sizes = Sizes::told(Sizes::USUAL);
    let counts =
        Operation::ALL.map(|operation| (operation.name().to_owned(), count(operation) / sizes.requests as u64));
    let found = Counts {
        made_with: machine(),
        sizes: [sizes.requests, sizes.body, sizes.merchants, sizes.accounts],
        instructions_per_request: counts.into_iter().collect(),
    };
    if std::env::var_os("AYOVA_BENCH_RECORD").is_some() {
        found.write(Path::new(RECORDED)).unwrap();
        println!("recorded in {RECORDED}");
        return ExitCode::SUCCESS;
    }
    match Counts::read(Path::new(RECORDED)).and_then(|recorded| recorded.compare(&found)) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(report) => {
            println!("{report}\nIf that is meant: AYOVA_BENCH_RECORD=1 cargo bench --bench instructions");
            ExitCode::FAILURE
        }
    }
}

/// What callgrind has counted for an operation.
fn count(operation: Operation) -> u64 {
    let id = match operation {
        Operation::SnapCreate => "snap_create",
        Operation::SnapReplay => "snap_replay",
        Operation::SnapUpdate => "snap_update",
        Operation::SnapInquiry => "snap_inquiry",
        Operation::ClassicCreate => "classic_create",
    };
    let file = output().join(format!("serve.{id}/callgrind.serve.{id}.out"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ").or_else(|| line.strip_prefix("summary: ")));
    total.unwrap().trim().parse().unwrap()
}

/// Where the harness leaves what callgrind writes: in the folder of build results this program lies in.
fn output() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let results = program.ancestors().nth(3).unwrap();
    results.join("gungraun/ayova/instructions/counted/stack")
}

/// What besides the sources decides about counts.
fn machine() -> Machine {
    let say = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().unwrap_or_else(|error| panic!("{program}: {error}"));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let compiler = say("rustc", "-vV");
    let part = |name: &str| compiler.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown").to_owned();
    #[cfg(target_arch = "x86_64")]
    let avx2 = std::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    let avx2 = false;
    Machine {
        rustc: part("release: "),
        target: part("host: "),
        valgrind: say("valgrind", "--version"),
        libc: say("getconf", "GNU_LIBC_VERSION"),
        avx2,
    }
}
