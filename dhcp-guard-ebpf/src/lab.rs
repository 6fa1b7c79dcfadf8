//! Traffic and control programs of the lab: two empty programs to measure against, a flood generator, and one
//! that no kernel takes.
//!
//! None of this is shipped. On any other target than BPF this is an empty program, so that the whole workspace can be
//! checked without a BPF linker.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
#[path = "lab/control.rs"]
mod control;
#[cfg(target_arch = "bpf")]
#[path = "lab/flood.rs"]
mod flood;
#[cfg(target_arch = "bpf")]
#[path = "lab/rejected.rs"]
mod rejected;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

// Nothing in this object can panic: a reachable loop would be refused by the verifier.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// What the kernel lets GPL programs do, and what everybody may do with the source.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
