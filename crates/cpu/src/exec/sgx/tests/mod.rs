//! Tests of SGX on a processor: bare-metal guests whose kernel builds enclaves with ENCLS and
//! whose user enters them with ENCLU, through page tables.

mod bits;
mod breakpoints;
mod checks;
mod debugger;
mod entry;
mod excursion;
mod exited;
mod host;
mod lookups;
mod memory;
mod non_root;
mod patching;
mod pending;
mod restricted;
mod signature;
mod stepping;
mod threads;
