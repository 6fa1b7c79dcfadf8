//! Builds the XDP program that the agent embeds.

#[path = "../dhcp-guard-ebpf/build_object.rs"]
mod build_object;

fn main() {
    build_object::build("dhcp-guard-xdp");
}
