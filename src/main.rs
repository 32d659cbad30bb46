//! `chronik-server`: the process around the broker.
//!
//! Owns what belongs to a process and not to a shard: the allocator, the panic hook, the command
//! line, exit codes. Everything here runs on the main thread, before or beside the shards; nothing
//! here serves a client.

mod batches;
mod cli;
mod config;
mod failure;
mod folder;
mod logging;
mod port;
mod run;
mod screen;

use std::process::ExitCode;

#[cfg(not(target_os = "linux"))]
compile_error!("chronik-server runs on Linux only: it needs io_uring (kernel 5.15 or newer)");

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    rt::use_small_pages();
    abort_on_panic();
    match cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{failure}");
            failure.exit.into()
        }
    }
}

/// A panic anywhere is a bug, and a half-dead broker is worse than a dead one: the other shards
/// would wait for the dead one for ever. So the first panic reports itself and ends the process;
/// everything acknowledged is on disk.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        eprintln!(
            "chronik-server {} stops: this is a bug. Nothing acknowledged is lost; please report \
             the lines above.",
            env!("CARGO_PKG_VERSION")
        );
        std::process::abort();
    }));
}
