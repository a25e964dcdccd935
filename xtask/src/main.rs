//! Every developer and user chore of Cloister: `cargo xtask NAME`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

mod apt;

mod console;
mod cpio;
mod demo;
mod enclave;
mod guest;

mod image;
mod kernel;

mod machine;
mod process;
mod repository;
mod selftests;
mod signer;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Chores of Cloister.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

/// One chore.
#[derive(Subcommand)]
enum Chore {
    /// Boot a stock Debian kernel with a virtual EPC and run an enclave in it
    Demo(demo::Options),
    /// Fetch and build what the guests need, and boot nothing
    Fetch,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Demo(options) => demo::run(&options),
        Chore::Fetch => image::fetch_all(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
