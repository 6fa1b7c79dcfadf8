//! STUB, to be replaced by the agent itself: the two items below are what the command line calls.

use std::path::PathBuf;

use crate::config::Config;

/// What `dhcp-guard run` was told beyond the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The configuration file in force; none: defaults.
    pub config_path: Option<PathBuf>,
    /// Print the kernel program's debug messages.
    pub debug_kernel: bool,
}

/// Guards until it is told to stop.
///
/// # Errors
/// Always: this is a stub.
pub async fn run(config: Config, options: Options) -> anyhow::Result<()> {
    anyhow::bail!("cannot guard {} {options:?}: this build has no agent", config.interfaces.join(", "))
}
