//! What the command line accepts.

mod change;
mod values;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use self::{
    change::{
        AllowAddArgs, AllowCommand, AllowRemoveArgs, ExplainArgs, HoldArgs, How, NO_REASON, OnOff, QuarantineAddArgs,
        QuarantineCommand, ReleaseArgs, ReloadArgs, UndoArgs, Why,
    },
    values::{About, Which},
};
use crate::{dataplane::hook::Hook, mac::Mac, model::Mode};

/// Finds and stops DHCP floods on the host, at the interface, and says who it was.
#[derive(Debug, Parser)]
#[command(
    name = "dhcp-guard",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 done, 1 the answer is no, 2 wrong usage or an error (one sentence on stderr)."
)]
pub struct Args {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Global {
    /// Socket of the agent [default: the configuration's, /run/dhcp-guard/agent.sock]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Common options")]
    pub socket: Option<PathBuf>,
    /// Configuration file [default: /etc/dhcp-guard/dhcp-guard.toml if it exists]
    #[arg(long, global = true, value_name = "PATH", help_heading = "Common options")]
    pub config: Option<PathBuf>,
    /// Folder on a BPF file system where the guard outlives its agent [default: the configuration's, /sys/fs/bpf/dhcp-guard]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Common options")]
    pub pin_dir: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Guard interfaces: the agent
    #[command(after_help = "Examples:\n  dhcp-guard run -i eth0\n  dhcp-guard run -i eth0 -i tap7 --mode monitor")]
    Run(RunArgs),
    /// Take the guard off all interfaces; it stays on them when the agent is stopped
    #[command(after_help = "Example:\n  systemctl stop dhcp-guard && dhcp-guard detach")]
    Detach,
    /// What is guarded, what is wrong, what was dropped
    #[command(after_help = "Example:\n  dhcp-guard status --json | jq .warnings")]
    Status(StatusArgs),
    /// Who is, or lately was, over their limit
    #[command(after_help = "Examples:\n  dhcp-guard offenders\n  dhcp-guard offenders --port eth0.100 --json")]
    Offenders(OffendersArgs),
    /// Ports, with class, limit and counters
    #[command(after_help = "Example:\n  dhcp-guard ports --interface eth0")]
    Ports(PortsArgs),
    /// Clients, with counters
    #[command(after_help = "Examples:\n  dhcp-guard clients -n 10\n  dhcp-guard clients --mac 0200.5e10.0001")]
    Clients(ClientsArgs),
    /// Why a port or client stands where it stands, with the numbers
    #[command(
        after_help = "Examples:\n  dhcp-guard explain eth0.100\n  dhcp-guard explain 0200.5e10.0001 --port eth0.100"
    )]
    Explain(ExplainArgs),
    /// Show who is in quarantine, put somebody there, let somebody out
    Quarantine {
        /// Which of them.
        #[command(subcommand)]
        command: QuarantineCommand,
    },
    /// Stop all automatic quarantine, or let it go on
    #[command(
        after_help = "Examples:\n  dhcp-guard hold on --reason 'DHCP server is being moved'\n  dhcp-guard hold off"
    )]
    Hold(HoldArgs),
    /// Make quarantines, hold and allowlist as they were
    #[command(after_help = "Examples:\n  dhcp-guard undo --since 10m --dry-run\n  \
        dhcp-guard undo --since 10m --reason 'wrong machines'")]
    Undo(UndoArgs),
    /// Show the allowlist, add to it, take from it
    Allow {
        /// Which of them.
        #[command(subcommand)]
        command: AllowCommand,
    },
    /// What happened, oldest first
    #[command(after_help = "Examples:\n  dhcp-guard events -n 5\n  dhcp-guard events --follow --json | jq .message")]
    Events(EventsArgs),
    /// Let the agent read its configuration again: all of it is checked, then all of it is in force, or nothing changes
    #[command(after_help = "Examples:\n  dhcp-guard reload --dry-run\n  dhcp-guard reload --reason 'new limits'")]
    Reload(ReloadArgs),
    /// What makes the guard blind or weak on this host, and what to do about it
    #[command(
        after_help = "Examples:\n  dhcp-guard doctor\n  dhcp-guard doctor -i eth0 --json | jq '.findings[] | select(.severity != \"ok\")'\n\n\
        Exit codes: 0 nothing is blind or weak, 1 something is, 2 wrong usage or an error."
    )]
    Doctor(DoctorArgs),
    /// Check or show the configuration
    Config {
        /// Which of both.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print a script that completes commands and options in a shell
    #[command(after_help = "Example:\n  dhcp-guard completions bash > /etc/bash_completion.d/dhcp-guard")]
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page of dhcp-guard, or write those of all commands
    #[command(after_help = "Examples:\n  dhcp-guard man | man -l -\n  dhcp-guard man --dir /usr/local/share/man/man8")]
    Man(ManArgs),
}

/// `run`
#[derive(Debug, Default, clap::Args)]
pub struct RunArgs {
    /// Interface to guard, or a pattern ('tap*'), instead of those of the configuration; repeat it for several
    #[arg(short, long = "interface", value_name = "IF")]
    pub interfaces: Vec<String>,
    /// Where frames are judged, whatever the configuration says
    #[arg(long, value_enum)]
    pub hook: Option<HookArg>,
    /// What happens to packets over a limit on every port, whatever the configuration says
    #[arg(long, value_enum)]
    pub mode: Option<ModeArg>,
    /// Folder for what survives a restart and for the audit log [default: the configuration's, /var/lib/dhcp-guard]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Folder on a BPF file system for the pinned maps and links by which the guard outlives the agent [default: the
    /// configuration's, /sys/fs/bpf/dhcp-guard]
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,
    /// Guard although `dhcp-guard doctor` finds that the guard would be blind for some packets
    #[arg(long)]
    pub even_if_blind: bool,
    /// Also log from inside the kernel's program: each state change it sees
    #[arg(long)]
    pub debug_kernel: bool,
}

/// `doctor`
#[derive(Debug, Default, clap::Args)]
pub struct DoctorArgs {
    /// How it is answered.
    #[command(flatten)]
    pub format: Format,
    /// Interface to look at, instead of those of the configuration; repeat it for several
    #[arg(short, long = "interface", value_name = "IF")]
    pub interfaces: Vec<String>,
    /// Folder for what survives a restart [default: the configuration's, /var/lib/dhcp-guard]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where frames are to be judged, whatever the configuration says
    #[arg(long, value_enum)]
    pub hook: Option<HookArg>,
}

/// [`Hook`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HookArg {
    /// In the driver, or in XDP's generic mode
    Xdp,
    /// Where the network stack begins; clsact on kernels before 6.6
    Tcx,
    /// At the same place, as a filter of tc
    Clsact,
    /// For each interface what is right there
    Auto,
}

impl From<HookArg> for Hook {
    fn from(hook: HookArg) -> Self {
        match hook {
            HookArg::Xdp => Self::Xdp,
            HookArg::Tcx => Self::Tcx,
            HookArg::Clsact => Self::Clsact,
            HookArg::Auto => Self::Auto,
        }
    }
}

/// [`Mode`] on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// Count them as "would drop" and let them pass
    Monitor,
    /// Drop them
    Enforce,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Monitor => Self::Monitor,
            ModeArg::Enforce => Self::Enforce,
        }
    }
}

/// How a query is answered.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Format {
    /// One JSON document: exact numbers, RFC 3339 times
    #[arg(long)]
    pub json: bool,
}

/// Which place a query is about.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Place {
    /// Only this interface
    #[arg(long, value_name = "IF")]
    pub interface: Option<String>,
    /// Only this port: eth0, eth0.100, eth0.100.20
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,
}

/// `status`
#[derive(Debug, Default, clap::Args)]
pub struct StatusArgs {
    /// How it is answered.
    #[command(flatten)]
    pub format: Format,
}

/// `offenders`
#[derive(Debug, Default, clap::Args)]
pub struct OffendersArgs {
    /// How it is answered.
    #[command(flatten)]
    pub format: Format,
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Only this source MAC, in any notation
    #[arg(long)]
    pub mac: Option<Mac>,
}

/// `ports`
#[derive(Debug, Default, clap::Args)]
pub struct PortsArgs {
    /// How it is answered.
    #[command(flatten)]
    pub format: Format,
    /// Where.
    #[command(flatten)]
    pub place: Place,
}

/// `clients`
#[derive(Debug, Default, clap::Args)]
pub struct ClientsArgs {
    /// How it is answered.
    #[command(flatten)]
    pub format: Format,
    /// Where.
    #[command(flatten)]
    pub place: Place,
    /// Only this source MAC, in any notation
    #[arg(long)]
    pub mac: Option<Mac>,
    /// At most so many, those over their limit first [default: 50, with --json all]
    #[arg(short = 'n', long = "limit", value_name = "N")]
    pub limit: Option<usize>,
}

/// `events`
#[derive(Debug, Default, clap::Args)]
pub struct EventsArgs {
    /// How it is answered; with --follow one document a line.
    #[command(flatten)]
    pub format: Format,
    /// Go on with new events as they happen
    #[arg(short, long)]
    pub follow: bool,
    /// The latest so many [default: 50, with --follow 10]
    #[arg(short = 'n', long = "limit", value_name = "N")]
    pub limit: Option<usize>,
}

/// `config`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say everything that is wrong with the file; exit code 1 if anything is
    #[command(after_help = "Example:\n  dhcp-guard config check --config /tmp/new.toml")]
    Check(Format),
    /// Print the configuration that `run` would use, as TOML, defaults included
    #[command(after_help = "Example:\n  dhcp-guard config show > dhcp-guard.toml")]
    Show(Format),
}

/// `man`
#[derive(Debug, Default, clap::Args)]
pub struct ManArgs {
    /// Write all pages into this folder, which must be there
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Args {
        Args::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn run_takes_several_interfaces() {
        let args =
            parse("dhcp-guard run -i eth0 --interface tap7 --mode monitor --hook tcx --state-dir s --debug-kernel");
        let Command::Run(run) = args.command else { panic!("{args:?}") };
        assert_eq!(run.interfaces, ["eth0", "tap7"]);
        assert_eq!((run.mode.map(Mode::from), run.hook.map(Hook::from)), (Some(Mode::Monitor), Some(Hook::Tcx)));
        assert_eq!(run.state_dir, Some("s".into()));
        assert!(run.debug_kernel);
    }

    #[test]
    fn common_options_stand_before_or_after_the_command() {
        for line in ["dhcp-guard --socket /s --config /c status", "dhcp-guard status --config /c --socket /s"] {
            let global = parse(line).global;
            assert_eq!((global.socket, global.config), (Some("/s".into()), Some("/c".into())), "{line}");
        }
    }

    #[test]
    fn every_query_has_json() {
        let queries = ["doctor", "status", "offenders", "ports", "clients", "events", "config check", "config show"];
        for query in queries.into_iter().chain(["explain eth0", "quarantine list", "allow list"]) {
            parse(&format!("dhcp-guard {query} --json"));
        }
    }

    #[test]
    fn every_change_has_json_and_can_be_tried() {
        for change in [
            "quarantine add tap7 --reason x",
            "quarantine release 7",
            "hold off",
            "undo --since 10m",
            "allow add tap7 --reason x",
            "allow remove tap7",
            "reload",
        ] {
            parse(&format!("dhcp-guard {change} --json --dry-run"));
        }
    }

    #[test]
    fn a_mac_is_read_in_any_notation() {
        let args = parse("dhcp-guard clients --mac 0200.5E10.0001 -n 3");
        let Command::Clients(clients) = args.command else { panic!("{args:?}") };
        assert_eq!(clients.mac, Some(Mac([2, 0, 0x5e, 0x10, 0, 1])));
        assert_eq!(clients.limit, Some(3));
    }
}
