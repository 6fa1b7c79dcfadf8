//! The `dhcp-guard` binary.
fn main() {}
