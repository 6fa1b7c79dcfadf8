//! The integration tests: real servers, real clients, real floods.

mod errors;
mod fixtures;
mod guard;
mod kernel;
mod lab;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os(lab::VICTIM).is_some() {
        return lab::victim();
    }
    let trials = [fixtures::trials(), kernel::trials(), lab::trials(), guard::trials(), errors::trials()];
    tests::harness::run(trials.into_iter().flatten().collect())
}
