//! `allow list`: who passes, whatever happens.

use jiff::Timestamp;

use super::{
    Style, Tone,
    table::{Align::Left, Cell, Table},
};
use crate::{
    human::{ago, until},
    model::{AllowReport, Allows},
};

pub(crate) fn allows(answer: &Allows, now: Timestamp, style: Style) -> String {
    if answer.allowed.is_empty() {
        return format!("nobody is on the allowlist (as of {})\n", ago(now, answer.as_of));
    }
    let columns = ["PORT", "MAC", "BY", "SINCE", "ENDS IN", "REASON"].map(|name| (name, Left));
    let mut table = Table::new(style, columns);
    for allowed in &answer.allowed {
        table.row(row(allowed, now));
    }
    table.render()
}

fn row(allowed: &AllowReport, now: Timestamp) -> [Cell; 6] {
    let missing = |word: &str| Cell::new(Tone::Dim, word);
    [
        allowed.who.port.as_str().into(),
        allowed.who.mac.as_deref().map_or_else(|| missing("(whole port)"), Into::into),
        allowed.by.as_str().into(),
        allowed.since.map_or_else(|| missing("-"), |since| ago(now, since).into()),
        allowed.expires_at.map_or_else(|| missing("never"), |end| until(now, end).into()),
        allowed.reason.as_deref().map_or_else(|| missing("-"), Into::into),
    ]
}

#[cfg(test)]
mod tests {
    use super::{super::samples::*, *};

    #[test]
    fn an_allowance_has_an_author_and_perhaps_an_end() {
        let configured = AllowReport {
            who: covered("tap7", None),
            by: "configuration".into(),
            reason: None,
            since: None,
            expires_at: None,
        };
        let answer = Allows { as_of: now(), allowed: vec![configured, an_allowance()] };
        assert_eq!(
            allows(&answer, now(), PLAIN),
            "\
PORT      MAC                BY             SINCE      ENDS IN     REASON
tap7      (whole port)       configuration  -          never       -
eth0.100  02:00:5e:10:00:01  alice          3 min ago  1 h 56 min  boots 300 machines tonight
"
        );
    }

    #[test]
    fn nobody_says_so() {
        let answer = Allows { as_of: before(1), allowed: vec![] };
        assert_eq!(allows(&answer, now(), PLAIN), "nobody is on the allowlist (as of 1 s ago)\n");
    }
}
