//! The machine around the processors: memory map, boot, ACPI, devices, accelerators and the
//! `cloister` command line.

pub mod acpi;
pub mod boot;
pub mod cli;
pub mod config;
pub mod cpuid;
pub mod devices;
pub mod layout;
pub mod memory;
pub mod size;
pub mod terminal;
