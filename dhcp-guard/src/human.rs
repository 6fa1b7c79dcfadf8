//! Numbers and times as people read them.

use jiff::{SignedDuration, Timestamp};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// `1,234,567`
#[must_use]
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 port`, `2 ports`, `1,234 ports`; `one` is the singular, and the plural adds an s.
#[must_use]
pub fn counted(value: u64, one: &str) -> String {
    let plural = if value == 1 { "" } else { "s" };
    format!("{} {one}{plural}", count(value))
}

/// One line of so many characters at most, without anything that a terminal would obey.
#[must_use]
pub fn one_line(text: &str, longest: usize) -> String {
    let mut line: String = text.chars().take(longest).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(longest).is_some() {
        line.push('…');
    }
    line
}

/// Packets a second: `12 pps`, `12.3 k/s`, `4.1 M/s`.
#[must_use]
pub fn rate(pps: u64) -> String {
    // Rounded down: a rate is never shown as more than it is.
    let scaled = |unit: u64, name: &str| format!("{}.{} {name}/s", count(pps / unit), pps % unit * 10 / unit);
    match pps {
        0..10_000 => format!("{} pps", count(pps)),
        10_000..1_000_000 => scaled(1_000, "k"),
        _ => scaled(1_000_000, "M"),
    }
}

/// `12 s`, `3 min`, `5 h 12 min`, `3 d 4 h`
#[must_use]
pub fn duration(seconds: u64) -> String {
    let two = |big: u64, big_name: &str, small: u64, small_name: &str| match seconds % big / small {
        0 => format!("{} {big_name}", count(seconds / big)),
        rest => format!("{} {big_name} {rest} {small_name}", count(seconds / big)),
    };
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min", seconds / MINUTE),
        HOUR..DAY => two(HOUR, "h", MINUTE, "min"),
        _ => two(DAY, "d", HOUR, "h"),
    }
}

/// `12 s ago`; `now` for the present second and, because clocks get set, for the future.
#[must_use]
pub fn ago(now: Timestamp, then: Timestamp) -> String {
    match u64::try_from(now.duration_since(then).as_secs()) {
        Ok(seconds @ 1..) => format!("{} ago", duration(seconds)),
        _ => "now".to_owned(),
    }
}

/// How long until `then`: `12 s`, `3 min`; `now` if it has come.
#[must_use]
pub fn until(now: Timestamp, then: Timestamp) -> String {
    match u64::try_from(then.duration_since(now).as_secs()) {
        Ok(seconds @ 1..) => duration(seconds),
        _ => "now".to_owned(),
    }
}

/// The first few of many names.
#[must_use]
pub fn some_of<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const NAMED: usize = 4;
    let more = names.len().saturating_sub(NAMED);
    let named = names.take(NAMED).collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

/// What took moments: `40 ms`, `3.1 s`, `12 min`; nothing if it is backwards, because clocks get set.
#[must_use]
pub fn elapsed(time: SignedDuration) -> String {
    match u64::try_from(time.as_millis()).unwrap_or(0) {
        ms @ 0..1_000 => format!("{ms} ms"),
        ms @ 1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        ms => duration(ms / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_thousands_separators() {
        let shown = [0, 999, 1000, 12_345, 123_456, 1_234_567, u64::MAX].map(count);
        assert_eq!(shown, ["0", "999", "1,000", "12,345", "123,456", "1,234,567", "18,446,744,073,709,551,615"]);
        assert_eq!([0, 1, 2000].map(|n| counted(n, "port")), ["0 ports", "1 port", "2,000 ports"]);
    }

    #[test]
    fn rates_have_units() {
        let shown = [0, 12, 9_999, 10_000, 12_399, 999_999, 1_000_000, 4_190_000, 12_000_000].map(rate);
        assert_eq!(
            shown,
            ["0 pps", "12 pps", "9,999 pps", "10.0 k/s", "12.3 k/s", "999.9 k/s", "1.0 M/s", "4.1 M/s", "12.0 M/s"]
        );
    }

    #[test]
    fn durations_keep_what_matters() {
        let shown = [0, 59, 60, 3599, 3600, 18_720, 86_399, 86_400, 273_600].map(duration);
        assert_eq!(shown, ["0 s", "59 s", "1 min", "59 min", "1 h", "5 h 12 min", "23 h 59 min", "1 d", "3 d 4 h"]);
    }

    #[test]
    fn ago_is_relative_and_never_in_the_future() {
        let now: Timestamp = "2025-01-17T16:07:00Z".parse().unwrap();
        let at = |seconds| ago(now, now - SignedDuration::from_secs(seconds));
        assert_eq!([0, 1, 200, -5].map(at), ["now", "1 s ago", "3 min ago", "now"]);
    }

    #[test]
    fn until_never_is_in_the_past() {
        let now: Timestamp = "2025-01-17T16:07:00Z".parse().unwrap();
        let at = |seconds| until(now, now + SignedDuration::from_secs(seconds));
        assert_eq!([0, 1, 200, -5].map(at), ["now", "1 s", "3 min", "now"]);
    }

    #[test]
    fn moments_have_tenths() {
        let shown =
            [-1, 0, 999, 1_000, 10_290, 59_999, 60_000, 5_400_000].map(SignedDuration::from_millis).map(elapsed);
        assert_eq!(shown, ["0 ms", "0 ms", "999 ms", "1.0 s", "10.2 s", "59.9 s", "1 min", "1 h 30 min"]);
    }
}
