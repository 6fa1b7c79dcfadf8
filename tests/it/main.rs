//! The integration tests: real servers, real clients, real floods.

mod changes;
mod errors;
mod fixtures;
mod flooded;
mod guard;
mod kernel;
mod lab;
mod package;
mod quarantine;
mod reference;
mod service;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::var_os(lab::VICTIM).is_some() {
        return lab::victim();
    }
    if std::env::var_os(kernel::replies::VICTIM).is_some() {
        return kernel::replies::victim();
    }
    if let Some(root) = std::env::var_os(tests::clean_root::INIT) {
        return tests::clean_root::become_init(&root);
    }
    if let Err(error) = tests::cleanup::on_signals() {
        eprintln!("cannot prepare for Ctrl-C: {error:#}");
        return ExitCode::FAILURE;
    }
    let trials = [
        fixtures::trials(),
        flooded::trials(),
        reference::trials(),
        kernel::trials(),
        lab::trials(),
        guard::trials(),
        quarantine::trials(),
        errors::trials(),
        service::trials(),
        package::trials(),
    ];
    tests::harness::run(trials.into_iter().flatten().collect())
}
