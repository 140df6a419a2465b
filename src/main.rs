//! Arguments in, exit code out; everything else is in the library.

/// A request makes some dozens of small pieces of memory and frees them again; with the system's own allocator
/// that alone was an eighth of its CPU time (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    ayova::cli::main()
}
