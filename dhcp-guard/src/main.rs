//! The `dhcp-guard` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    dhcp_guard::cli::main()
}
