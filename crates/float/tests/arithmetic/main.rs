//! Tests against independent implementations: LLVM's APFloat, and the host's own FPU.

mod apfloat;
#[cfg(target_arch = "x86_64")]
mod host_sse;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod host_sse_unmasked;
#[cfg(target_arch = "x86_64")]
mod host_table;
#[cfg(target_arch = "x86_64")]
mod host_x87;
#[cfg(target_arch = "x86_64")]
mod host_x87_transcendental;
mod samples;
mod special;
#[cfg(target_arch = "x86_64")]
mod x87_processor;
