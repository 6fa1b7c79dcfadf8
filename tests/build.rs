//! Builds the traffic and control programs of the lab.

#[path = "../dhcp-guard-ebpf/build_object.rs"]
mod build_object;

fn main() {
    build_object::build("lab");
}
