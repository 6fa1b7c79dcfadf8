//! Where things are: the sources, the target directory, cargo.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

/// The variable that tells tests, demo and benchmarks which agent to start.
pub(crate) const AGENT_VARIABLE: &str = "DHCP_GUARD_BIN";
/// The same for the agent of another version, to upgrade to.
pub(crate) const OTHER_AGENT_VARIABLE: &str = "DHCP_GUARD_OTHER_BIN";
/// The same for this program.
pub(crate) const XTASK_VARIABLE: &str = "DHCP_GUARD_XTASK";

/// The workspace that this program belongs to.
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
    cargo: OsString,
}

impl Workspace {
    /// Asks cargo, because the target directory may come from the environment or from any configuration file.
    pub(crate) fn find() -> Result<Self> {
        // The cargo that runs this program, not the one in PATH: rustup may have been told to take another toolchain.
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let manifest =
            Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()))
                .join("Cargo.toml");
        let output = Command::new(&cargo)
            .args(["metadata", "--no-deps", "--offline", "--format-version=1", "--manifest-path"])
            .arg(&manifest)
            .output()
            .with_context(|| format!("cannot run {}; install Rust with rustup", cargo.display()))?;
        ensure!(
            output.status.success(),
            "cargo cannot read {}: {}",
            manifest.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")?;
        let folder = |name: &str| {
            metadata[name].as_str().map(PathBuf::from).ok_or_else(|| anyhow!("cargo metadata has no `{name}`"))
        };
        Ok(Self { root: folder("workspace_root")?, target: folder("target_directory")?, cargo })
    }

    /// The folder with the workspace's `Cargo.toml`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target directory.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// The build scripts look for the project's own linker here.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The target directory of the build scripts that compile the BPF programs.
    pub(crate) fn bpf_target(&self) -> PathBuf {
        self.target.join("bpf")
    }

    /// A cargo command in the root of the workspace.
    pub(crate) fn cargo<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(&self, args: I) -> Command {
        let mut command = Command::new(&self.cargo);
        // A relative CARGO_TARGET_DIR means the caller's folder, which is not where this command runs.
        command.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target).args(args);
        command
    }
}
