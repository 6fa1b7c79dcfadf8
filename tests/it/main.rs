//! The integration tests: real servers, real clients, real floods.

mod bond;
mod changes;
mod clsact;
mod doctor;
mod errors;
mod fixtures;
mod flooded;
mod guard;
mod hook;
mod kernel;
mod lab;
mod lifecycle;
mod package;
mod peer;
mod quarantine;
mod reference;
mod refused;
mod reload;
mod sabotage;
mod service;
mod trunk;
mod vm;

use std::process::ExitCode;

use tests::harness::on_both_hooks;

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
        on_both_hooks(fixtures::trials),
        on_both_hooks(flooded::trials),
        on_both_hooks(reference::trials),
        on_both_hooks(kernel::trials),
        lab::trials(),
        on_both_hooks(guard::trials),
        on_both_hooks(quarantine::trials),
        refused::trials(),
        on_both_hooks(peer::trials),
        hook::trials(),
        clsact::trials(),
        on_both_hooks(trunk::trials),
        on_both_hooks(bond::trials),
        on_both_hooks(errors::trials),
        on_both_hooks(doctor::trials),
        on_both_hooks(lifecycle::trials),
        on_both_hooks(reload::trials),
        service::trials(),
        package::trials(),
        sabotage::trials(),
        vm::trials(),
    ];
    tests::harness::run(trials.into_iter().flatten().collect())
}
