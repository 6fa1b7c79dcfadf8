//! Commands: shown before they run, judged afterwards.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Variables that are plumbing and would only hide the command that a reader may want to repeat.
const PLUMBING: &[&str] = &["CARGO_TARGET_DIR"];

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        let (name, value) = (name.to_string_lossy(), value?.to_string_lossy());
        (!PLUMBING.contains(&&*name)).then(|| format!("{name}={}", quoted(&value)))
    });
    // Cargo's full path says nothing; its name is what one types.
    let program = std::path::Path::new(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned();
    let arguments = command.get_args().map(|argument| quoted(&argument.to_string_lossy()));
    variables.chain([program]).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Quotes for a POSIX shell, only where needed.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Runs the command with its output on standard error, since standard output belongs to the task's own answer.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = line(command);
    eprintln!("+ {shown}");
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot run `{shown}`"))?;
    ensure!(status.success(), "`{shown}` failed ({status})");
    Ok(())
}

/// The standard output of a command that is only a question; None when it cannot answer.
pub(crate) fn ask(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted_into_a_shell() {
        let mut command = Command::new("/toolchain/bin/cargo");
        command.args(["test", "--", "it's"]).env("RUSTDOCFLAGS", "-D warnings").env("CARGO_TARGET_DIR", "/t");
        assert_eq!(line(&command), r"RUSTDOCFLAGS='-D warnings' cargo test -- 'it'\''s'");
    }
}
