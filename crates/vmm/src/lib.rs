//! The machine around the processors: memory map, ACPI, devices, accelerators and the
//! `cloister` command line.

#![warn(clippy::tests_outside_test_module)]
#![cfg_attr(not(test), warn(unused_crate_dependencies, clippy::cast_possible_truncation))]

pub mod accel;
pub mod acpi;
pub mod attestation;
pub mod chardev;
pub mod cli;
pub mod complaint;
pub mod config;
pub mod cpu_flags;
pub mod cpuid;
pub mod daemon;
pub mod disk;
pub mod epc_command;
pub mod epc_report;
pub mod exec;
pub mod files;
pub mod gdb;
mod host_file;
pub mod info;
pub mod invocation;
pub mod layout;
pub mod log;
pub mod machine;
pub mod memory;
pub mod net;
pub mod nodes;
pub mod oci;
pub mod own_file;
pub mod pidfile;
pub mod platform_dir;
pub mod ps;
pub mod qemu;
pub mod qmp;
pub mod register;
pub mod sandbox;
pub mod seed;
mod serving;
pub mod shares;
mod side_process;
pub mod size;
pub mod standard;
pub mod terminal;
pub mod vsock;
