//! Every developer and user chore of Cloister: `cargo xtask NAME`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]
#![warn(unused_crate_dependencies, clippy::tests_outside_test_module)]

mod apt;
mod bench;
mod ci;
mod console;
mod cpio;
mod debian;
mod demo;
mod diff;
mod disk;
mod dist;
mod enclave;
mod fortanix;
mod fuzz;
mod gdb;
mod grub_oracle;
mod guest;
mod guest_tests;
mod image;
mod kernel;
mod kvm_selftests;
mod lint;
mod linux_source;
mod machine;
mod miri;
mod nested;
mod process;
mod python;
mod qemu_img;
mod repository;
mod selftests;
mod sequences;
mod signer;
mod stacks;
mod sysroot;
mod testing;
mod x86_selftests;

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
    /// Unit tests, then tests in guests
    Test(testing::Options),
    /// Architecture rules, formatting, clippy and documentation
    Lint(lint::Options),
    /// What a change must pass: lint, then test
    Ci,
    /// Instruction semantics next to this machine's own processor
    Diff(diff::Options),
    /// The fuzz targets of the SGX model, of the machine monitor, of VMX and of the translator
    Fuzz(fuzz::Options),
    /// Random sequences of SGX leaves against the model's invariants
    Sequences(sequences::Options),
    /// Unit tests in Miri, which finds undefined behaviour
    Miri(miri::Options),
    /// Boot time and loops next to QEMU's TCG and to this machine
    Bench(bench::Options),
    /// GNU GRUB's own answers, which the tests of its language go by
    GrubOracle(grub_oracle::Options),
    /// A disk with an installed Debian 12, for machines of your own
    Disk(disk::Options),
    /// A Debian package and an archive of the command, its manual and completions
    Dist,
    /// Software for SGX by others, which you have installed, in machines of cloister exec
    Stacks(stacks::Options),
    /// Fetch and build what the guests need, and boot nothing
    Fetch,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Demo(options) => demo::run(&options),
        Chore::Test(options) => testing::run(&options),
        Chore::Lint(options) => lint::run(&options),
        Chore::Ci => ci::run(),
        Chore::Diff(options) => diff::run(&options),
        Chore::Fuzz(options) => fuzz::run(&options),
        Chore::Sequences(options) => sequences::run(&options),
        Chore::Miri(options) => miri::run(&options),
        Chore::Bench(options) => bench::run(&options),
        Chore::GrubOracle(options) => grub_oracle::run(&options),
        Chore::Disk(options) => disk::run(&options),
        Chore::Dist => dist::run(),
        Chore::Stacks(options) => stacks::run(&options),
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
