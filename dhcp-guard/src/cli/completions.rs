//! `completions`: what a shell needs to complete the commands and options of `dhcp-guard`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{args::Args, output::Output};

pub(super) fn completions(shell: Shell, out: &mut Output) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "dhcp-guard", &mut script);
    out.text(&String::from_utf8(script)?)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in Shell::value_variants() {
            let (mut out, written) = Output::buffer();
            completions(*shell, &mut out).unwrap();
            let script = written.text();
            assert!(script.contains("dhcp-guard") && script.contains("quarantine"), "{shell}: {script}");
        }
    }
}
