//! The commands that say why, and those that change something.
//!
//! Whoever takes something away, or opens a door for long (`quarantine add`, `allow add`), must say why: somebody else
//! will have to judge it later. The ways out (`release`, `hold`, `undo`, `allow remove`) may be taken without a word: at
//! three in the morning nothing may stand between a person and the brake. Who it was and when is on record all the same.

use clap::{Subcommand, ValueEnum};

use super::{
    Format,
    values::{self, About, Which},
};
use crate::model::Named;

/// What the audit log has where nobody said why.
pub const NO_REASON: &str = "no reason given";

/// `explain`
#[derive(Debug, clap::Args)]
pub struct ExplainArgs {
    /// How it is answered.
    #[command(flatten)]
    pub format: Format,
    /// Port (eth0.100), MAC in any notation, or both (eth0.100/0200.5e10.0001)
    #[arg(value_name = "PORT|MAC", value_parser = values::about)]
    pub what: About,
    /// Only on this port, of a MAC that is on several
    #[arg(long, value_name = "PORT", value_parser = values::port)]
    pub port: Option<String>,
}

/// `quarantine`
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// Who is in quarantine, since when, until when, and why
    #[command(after_help = "Example:\n  dhcp-guard quarantine list --json | jq '.quarantines[].covers'")]
    List(Format),
    /// Put a port, or one client on it, into quarantine for some time
    #[command(after_help = "Examples:\n  \
        dhcp-guard quarantine add eth0.100/0200.5e10.0001 --ttl 2h --reason 'floods, ticket 4711'\n  \
        dhcp-guard quarantine add tap7 --reason 'customer asked for it' --dry-run\n  \
        dhcp-guard quarantine add tap7 tap8 --max 2 --confirm 2 --reason 'same image, same fault'")]
    Add(QuarantineAddArgs),
    /// Let somebody out of quarantine
    #[command(after_help = "Examples:\n  dhcp-guard quarantine release 7\n  \
        dhcp-guard quarantine release eth0.100/0200.5e10.0001 --reason 'image is fixed'")]
    Release(ReleaseArgs),
}

/// `quarantine add`
#[derive(Debug, clap::Args)]
pub struct QuarantineAddArgs {
    /// Whom: a port (eth0.100), or a MAC on it (eth0.100/0200.5e10.0001)
    #[arg(required = true, value_name = "PORT[/MAC]", value_parser = values::named)]
    pub targets: Vec<Named>,
    /// Drop all their frames, not only DHCP
    #[arg(long)]
    pub isolate: bool,
    /// For how long: 90s, 10m, 1h30m [default: as long as an automatic one]
    #[arg(long, value_name = "TIME", value_parser = values::seconds)]
    pub ttl: Option<u64>,
    /// Why, in a few words
    #[arg(long, value_name = "TEXT", value_parser = values::reason)]
    pub reason: String,
    /// Of several machines: how many this may be at most
    #[arg(long, value_name = "N")]
    pub max: Option<usize>,
    /// Of several machines: how many this is, exactly
    #[arg(long, value_name = "N")]
    pub confirm: Option<usize>,
    /// How it is done.
    #[command(flatten)]
    pub how: How,
}

/// `quarantine release`
#[derive(Debug, clap::Args)]
pub struct ReleaseArgs {
    /// Number of the quarantine, or whom it covers
    #[arg(value_name = "ID|PORT[/MAC]", value_parser = values::which)]
    pub which: Which,
    /// Why.
    #[command(flatten)]
    pub why: Why,
    /// How it is done.
    #[command(flatten)]
    pub how: How,
}

/// `hold`
#[derive(Debug, clap::Args)]
pub struct HoldArgs {
    /// Whether automatic quarantine is on hold
    #[arg(value_enum, value_name = "on|off")]
    pub hold: OnOff,
    /// Why.
    #[command(flatten)]
    pub why: Why,
    /// How it is done.
    #[command(flatten)]
    pub how: How,
}

/// A switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// Begin no automatic quarantine; limits go on, those in quarantine stay there until their time is over
    On,
    /// Let automatic quarantine go on
    Off,
}

/// `undo`
#[derive(Debug, clap::Args)]
pub struct UndoArgs {
    /// Make everything as it was so long ago: 90s, 10m, 1h30m
    #[arg(long, value_name = "TIME", value_parser = values::seconds)]
    pub since: u64,
    /// Why.
    #[command(flatten)]
    pub why: Why,
    /// How it is done.
    #[command(flatten)]
    pub how: How,
}

/// `reload`
#[derive(Debug, clap::Args)]
pub struct ReloadArgs {
    /// Why.
    #[command(flatten)]
    pub why: Why,
    /// How it is done.
    #[command(flatten)]
    pub how: How,
}

/// `allow`
#[derive(Debug, Subcommand)]
pub enum AllowCommand {
    /// Who is allowed, by whom, until when, and why
    #[command(after_help = "Example:\n  dhcp-guard allow list")]
    List(Format),
    /// Let a port, or one client on it, pass whatever happens: no limit, no quarantine
    #[command(after_help = "Examples:\n  \
        dhcp-guard allow add eth0.100/0200.5e10.0001 --for 2h --reason 'boots 300 machines tonight'\n  \
        dhcp-guard allow add tap7 --reason 'test rig' --dry-run")]
    Add(AllowAddArgs),
    /// Not any more
    #[command(after_help = "Example:\n  dhcp-guard allow remove eth0.100/0200.5e10.0001")]
    Remove(AllowRemoveArgs),
}

/// `allow add`
#[derive(Debug, clap::Args)]
pub struct AllowAddArgs {
    /// Whom: a port (eth0.100), or a MAC on it (eth0.100/0200.5e10.0001)
    #[arg(value_name = "PORT[/MAC]", value_parser = values::named)]
    pub target: Named,
    /// For how long: 90s, 10m, 1h30m, 7d [default: for good]
    #[arg(long = "for", value_name = "TIME", value_parser = values::seconds)]
    pub for_s: Option<u64>,
    /// Why, in a few words
    #[arg(long, value_name = "TEXT", value_parser = values::reason)]
    pub reason: String,
    /// How it is done.
    #[command(flatten)]
    pub how: How,
}

/// `allow remove`
#[derive(Debug, clap::Args)]
pub struct AllowRemoveArgs {
    /// Whom: a port (eth0.100), or a MAC on it (eth0.100/0200.5e10.0001)
    #[arg(value_name = "PORT[/MAC]", value_parser = values::named)]
    pub target: Named,
    /// Why.
    #[command(flatten)]
    pub why: Why,
    /// How it is done.
    #[command(flatten)]
    pub how: How,
}

/// Why something is changed, where it may be left unsaid.
#[derive(Clone, Debug, clap::Args)]
pub struct Why {
    /// Why, in a few words
    #[arg(long, value_name = "TEXT", default_value = NO_REASON, value_parser = values::reason)]
    pub reason: String,
}

/// How something is changed.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct How {
    /// How it is answered.
    #[command(flatten)]
    pub format: Format,
    /// Only say what would happen
    #[arg(long)]
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{
        super::{Args, Command},
        *,
    };
    use crate::mac::Mac;

    const MAC: Mac = Mac([2, 0, 0x5e, 0x10, 0, 1]);

    fn parse(line: &str) -> Command {
        Args::try_parse_from(line.split(' ')).unwrap().command
    }

    fn error(line: &str) -> String {
        Args::try_parse_from(line.split(' ')).unwrap_err().to_string()
    }

    fn named(port: &str, mac: Option<Mac>) -> Named {
        Named { port: port.into(), mac }
    }

    #[test]
    fn a_quarantine_has_targets_a_time_and_a_reason() {
        let line = "dhcp-guard quarantine add tap7 eth0.100/0200.5e10.0001 --isolate --ttl 1h30m --reason x --max 3 --confirm 2";
        let Command::Quarantine { command: QuarantineCommand::Add(args) } = parse(line) else { panic!("{line}") };
        assert_eq!(args.targets, [named("tap7", None), named("eth0.100", Some(MAC))]);
        assert_eq!((args.ttl, args.max, args.confirm), (Some(5400), Some(3), Some(2)));
        assert!(args.isolate && !args.how.dry_run && args.reason == "x");
    }

    #[test]
    fn whoever_takes_something_away_says_whom_and_why() {
        for (line, missing) in [
            ("dhcp-guard quarantine add --reason x", "<PORT[/MAC]>..."),
            ("dhcp-guard quarantine add tap7", "--reason <TEXT>"),
            ("dhcp-guard allow add tap7", "--reason <TEXT>"),
            ("dhcp-guard quarantine release", "<ID|PORT[/MAC]>"),
            ("dhcp-guard undo", "--since <TIME>"),
            ("dhcp-guard hold", "<on|off>"),
            ("dhcp-guard explain", "<PORT|MAC>"),
        ] {
            let error = error(line);
            assert!(error.contains("required") && error.contains(missing), "{line}: {error}");
        }
        assert!(error("dhcp-guard quarantine add tap7/ --reason x").contains("the MAC is missing"));
        assert!(error("dhcp-guard undo --since 0m").contains("no time at all"));
    }

    #[test]
    fn the_ways_out_need_no_reason() {
        let Command::Hold(hold) = parse("dhcp-guard hold on") else { panic!() };
        assert_eq!((hold.hold, hold.why.reason.as_str()), (OnOff::On, NO_REASON));
        let Command::Undo(undo) = parse("dhcp-guard undo --since 10m --dry-run") else { panic!() };
        assert_eq!((undo.since, undo.how.dry_run, undo.why.reason.as_str()), (600, true, NO_REASON));
        for (line, which) in [
            ("dhcp-guard quarantine release 7", Which::Id(7)),
            ("dhcp-guard quarantine release tap7 --reason fixed", Which::Of(named("tap7", None))),
        ] {
            let Command::Quarantine { command: QuarantineCommand::Release(args) } = parse(line) else {
                panic!("{line}")
            };
            assert_eq!(args.which, which);
        }
        let line = "dhcp-guard allow remove eth0.100/0200.5e10.0001";
        let Command::Allow { command: AllowCommand::Remove(args) } = parse(line) else { panic!("{line}") };
        assert_eq!(args.target, named("eth0.100", Some(MAC)));
    }

    #[test]
    fn an_allowance_may_have_an_end() {
        let line = "dhcp-guard allow add tap7 --for 7d --reason x";
        let Command::Allow { command: AllowCommand::Add(args) } = parse(line) else { panic!("{line}") };
        assert_eq!((args.target, args.for_s), (named("tap7", None), Some(604_800)));
    }

    #[test]
    fn a_question_is_about_a_port_or_a_mac() {
        let Command::Explain(args) = parse("dhcp-guard explain 0200.5e10.0001 --port eth0.100 --json") else {
            panic!()
        };
        assert_eq!((args.what, args.port.as_deref()), (About { port: None, mac: Some(MAC) }, Some("eth0.100")));
        assert!(args.format.json);
    }
}
