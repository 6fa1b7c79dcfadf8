//! How answers look. Pure functions from the answer and the present time to text; every text ends with a line end.

mod allows;
mod changed;
mod checkup;
mod clients;
mod events;
mod explain;
mod offenders;
mod ports;
mod quarantines;
#[cfg(test)]
pub(super) mod samples;
mod status;
mod table;
mod words;

pub(super) use self::{
    allows::allows,
    changed::changed,
    checkup::checkup,
    clients::clients,
    events::{event, events, missed_events},
    explain::{explained, nobody_to_explain},
    offenders::{no_offenders, offenders},
    ports::ports,
    quarantines::quarantines,
    status::status,
};
use crate::human::counted;

/// What the reader's side can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// Escape sequences for colours.
    pub(super) color: bool,
}

/// What a text means to the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tone {
    /// Nothing in particular.
    Plain,
    /// Somebody should do something.
    Bad,
    /// Somebody should know.
    Warn,
    /// All is well.
    Good,
    /// There if one looks for it.
    Dim,
}

impl Style {
    /// The text in the colour of its tone.
    fn paint(self, tone: Tone, text: &str) -> String {
        use anstyle::{AnsiColor, Effects};
        let style = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Bad => AnsiColor::Red.on_default().effects(Effects::BOLD),
            Tone::Warn => AnsiColor::Yellow.on_default(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Dim => anstyle::Style::new().effects(Effects::DIMMED),
        };
        if self.color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// There are some, and the filters leave none.
pub(super) fn nothing_matches(total: usize, one: &str) -> String {
    format!("no {one} matches ({} in all)\n", counted(total as u64, one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_only_where_it_is_wanted() {
        assert_eq!(Style { color: false }.paint(Tone::Bad, "x"), "x");
        assert_eq!(Style { color: true }.paint(Tone::Warn, "x"), "\u{1b}[33mx\u{1b}[0m");
        assert_eq!(Style { color: true }.paint(Tone::Plain, "x"), "x");
    }

    #[test]
    fn filters_that_leave_nothing_say_so() {
        assert_eq!(nothing_matches(1, "port"), "no port matches (1 port in all)\n");
    }
}
