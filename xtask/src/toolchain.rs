//! The BPF toolchain: the pinned compiler, its library sources, and a linker with the same LLVM.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{
    process,
    setup::{Report, State},
    workspace::Workspace,
};

/// The linker whose LLVM is the pinned compiler's; see `rust-toolchain.toml`.
const BPF_LINKER: &str = "0.10.4";

/// A component of the toolchain, and the file in the sysroot that shows that it is there.
pub(crate) struct Component {
    name: &'static str,
    witness: &'static str,
}

/// The sources of `core`, which has no prebuilt form for the BPF target.
pub(crate) const RUST_SRC: Component =
    Component { name: "rust-src", witness: "lib/rustlib/src/rust/library/core/Cargo.toml" };
/// Needed to lint only.
pub(crate) const CLIPPY: Component = Component { name: "clippy", witness: "bin/cargo-clippy" };
/// Needed to lint only.
pub(crate) const RUSTFMT: Component = Component { name: "rustfmt", witness: "bin/cargo-fmt" };

/// What compiling the BPF programs takes; installs what is missing.
pub(crate) fn ensure(workspace: &Workspace, report: &mut Report) -> Result<()> {
    components(workspace, &[RUST_SRC], report)?;
    linker(workspace, report)
}

/// Adds the components that the toolchain lacks.
///
/// rustup would do it by itself from `rust-toolchain.toml`, but not where automatic installs are switched off, and not
/// for a toolchain that did not come from rustup.
pub(crate) fn components(workspace: &Workspace, wanted: &[Component], report: &mut Report) -> Result<()> {
    let channel = pinned(workspace)?;
    let sysroot = sysroot(workspace, &channel)?;
    for Component { name, witness } in wanted {
        let present = || sysroot.join(witness).exists();
        if present() {
            report.add(State::Ok, *name);
            continue;
        }
        let add = format!("rustup component add --toolchain {channel} {name}");
        process::run(Command::new("rustup").args(add.split(' ').skip(1))).with_context(|| {
            format!(
                "the component {name} of Rust {channel} is missing in {}; install rustup, then `{add}`",
                sysroot.display()
            )
        })?;
        ensure!(present(), "`{add}` did not bring {}", sysroot.join(witness).display());
        report.add(State::Installed, *name);
    }
    Ok(())
}

/// The channel that `rust-toolchain.toml` pins.
fn pinned(workspace: &Workspace) -> Result<String> {
    let file = workspace.root().join("rust-toolchain.toml");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    channel(&text).map(Into::into).ok_or_else(|| anyhow!("{} names no channel", file.display()))
}

/// `channel` of the table `[toolchain]`. The file is ours and small: a TOML parser would be most of this program.
fn channel(toml: &str) -> Option<&str> {
    let mut lines = toml.lines().map(str::trim).skip_while(|line| *line != "[toolchain]").skip(1);
    lines.by_ref().take_while(|line| !line.starts_with('[')).find_map(|line| {
        let (key, value) = line.split_once('=')?;
        let value = value.trim().strip_prefix('"')?;
        (key.trim() == "channel").then(|| value.split_once('"').map(|(channel, _)| channel))?
    })
}

/// The sysroot of the compiler in use, which has to be the pinned one: any other comes with another LLVM.
fn sysroot(workspace: &Workspace, channel: &str) -> Result<PathBuf> {
    let rustc = |argument: &[&str]| {
        process::ask(Command::new("rustc").args(argument).current_dir(workspace.root()))
            .ok_or_else(|| anyhow!("rustc {} does not run; `rustup toolchain install {channel}`", argument.join(" ")))
    };
    let version = rustc(&["--version"])?;
    ensure!(
        is_version(&version, channel),
        "`{version}` is in use, the project needs {channel}; run it through rustup, without `+toolchain` or RUSTUP_TOOLCHAIN"
    );
    rustc(&["--print", "sysroot"]).map(PathBuf::from)
}

/// Whether the compiler that calls itself `rustc 1.95.0 (…)` is the one of the channel `1.95.0`. Channels that are no
/// plain version cannot be compared and count as right.
fn is_version(rustc: &str, channel: &str) -> bool {
    let plain = channel.chars().all(|c| c.is_ascii_digit() || c == '.');
    !plain || rustc.split(' ').nth(1) == Some(channel)
}

/// Installs the linker under the target directory, so that no other project gets it or loses its own.
fn linker(workspace: &Workspace, report: &mut Report) -> Result<()> {
    let what = format!("bpf-linker {BPF_LINKER}");
    let tools = workspace.tools();
    let program = tools.join("bin/bpf-linker");
    if answers(&program, &what) {
        report.add(State::Ok, what);
        return Ok(());
    }
    eprintln!("installing {what} into {}: a minute or two, once", tools.display());
    let build = tools.join("build");
    let mut install = workspace.cargo(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--force"]);
    process::run(install.arg("--root").arg(&tools).arg("--target-dir").arg(&build)).context(
        "cannot install the BPF linker; check the access to the crate registry and run `cargo xtask setup` again",
    )?;
    // An interrupted build is resumed; a finished one is only in the way.
    fs::remove_dir_all(&build).with_context(|| format!("cannot remove {}", build.display()))?;
    ensure!(answers(&program, &what), "{} is installed but does not say `{what}`", program.display());
    report.add(State::Installed, what);
    Ok(())
}

/// Whether the program runs and is this version.
fn answers(program: &Path, version: &str) -> bool {
    process::ask(Command::new(program).arg("--version")).is_some_and(|answer| answer == version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_of_the_toolchain_table() {
        let check = |toml, expected| assert_eq!(channel(toml), expected, "{toml}");
        check("# why\n[toolchain]\nchannel = \"1.95.0\" # pinned\nprofile = \"minimal\"\n", Some("1.95.0"));
        check("[toolchain]\ncomponents = [\"clippy\"]\n  channel=\"stable\"\n", Some("stable"));
        check("[other]\nchannel = \"1.0.0\"\n", None);
        check("[toolchain]\nprofile = \"minimal\"\n[other]\nchannel = \"1.0.0\"\n", None);
        check("[toolchain]\nchannel = 1\n", None);
        check("", None);
    }

    #[test]
    fn the_pinned_channel_can_be_read() {
        assert!(channel(include_str!("../../rust-toolchain.toml")).is_some());
    }

    #[test]
    fn version_of_the_compiler_in_use() {
        assert!(is_version("rustc 1.95.0 (0123abcde 2026-04-14)", "1.95.0"));
        assert!(!is_version("rustc 1.95.1 (0123abcde 2026-04-14)", "1.95.0"));
        assert!(!is_version("rustc 1.98.0-nightly (0123abcde 2026-05-19)", "1.95.0"));
        assert!(is_version("rustc 1.98.0-nightly (0123abcde 2026-05-19)", "nightly-2026-05-20"));
        assert!(!is_version("", "1.95.0"));
    }
}
