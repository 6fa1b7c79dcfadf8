//! What single values of a request must satisfy: the command line and the control API hold to the same.
//!
//! What is empty, half there or everybody is refused: an unset variable in somebody's script must never name more than was
//! meant.

/// No time of a request is longer; seconds, ten years. What is longer was not meant.
pub const LONGEST_S: u64 = 10 * 365 * 86_400;
/// Characters of a reason; more is no sentence.
pub const LONGEST_REASON: usize = 500;
/// Characters of a request's id.
pub const LONGEST_ID: usize = 64;
/// An interface's 15, and two VLAN ids with their dots.
const LONGEST_PORT: usize = 15 + 2 * 5;

/// Whether this can be the name of one port. Whether there is such a port the agent knows.
///
/// # Errors
/// One sentence.
pub fn port(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("the port is missing: `dhcp-guard ports` lists them".to_owned());
    }
    let shown = text.escape_debug();
    if text.contains(['*', '?', '[', ']', '{', '}']) {
        return Err(format!("`{shown}` is a pattern: write the name of one port, as `dhcp-guard ports` lists it"));
    }
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if text.contains(forbidden) || text.len() > LONGEST_PORT {
        return Err(format!("`{shown}` cannot be the name of a port: write it as eth0, eth0.100 or eth0.100.20"));
    }
    Ok(())
}

/// A reason, which the audit log keeps: one line, without the blanks around it.
///
/// # Errors
/// One sentence.
pub fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("the reason is empty: say in a few words why".to_owned());
    }
    if text.contains(char::is_control) || text.chars().count() > LONGEST_REASON {
        return Err(format!("a reason is one line of at most {LONGEST_REASON} characters"));
    }
    Ok(text.to_owned())
}

/// How long something lasts, or how long ago it was: 1 s to ten years.
///
/// # Errors
/// One sentence.
pub fn seconds(seconds: u64) -> Result<(), String> {
    match seconds {
        0 => Err("no time at all: say at least 1 s".to_owned()),
        1..=LONGEST_S => Ok(()),
        _ => Err(format!("{seconds} s is more than ten years: say a shorter time")),
    }
}

/// The id of a request, by which the agent knows one that comes twice: 1 to 64 visible characters of ASCII.
///
/// # Errors
/// One sentence.
pub fn request_id(text: &str) -> Result<(), String> {
    if (1..=LONGEST_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(format!("a request_id is 1 to {LONGEST_ID} visible ASCII characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_one_name() {
        for name in ["eth0", "eth0.100.20", "fifteen-letters.4094.4094", "br-ü"] {
            assert_eq!(port(name), Ok(()), "{name}");
        }
        for (name, why) in [
            ("", "the port is missing"),
            ("*", "`*` is a pattern: write the name of one port"),
            ("eth*", "is a pattern"),
            ("eth?", "is a pattern"),
            ("eth[0-9]", "is a pattern"),
            ("{eth0,eth1}", "is a pattern"),
            ("eth0/", "cannot be the name of a port"),
            ("eth0 eth1", "cannot be the name of a port"),
            ("eth0\n", "`eth0\\n` cannot be the name of a port"),
            (" ", "cannot be the name of a port"),
            ("02:00:5e:10:00:01", "cannot be the name of a port"),
            ("sixteen-letters-.4094.4094", "cannot be the name of a port"),
        ] {
            let error = port(name).unwrap_err();
            assert!(error.contains(why) && !error.contains('\n'), "{name:?}: {error}");
        }
    }

    #[test]
    fn a_reason_is_one_line() {
        assert_eq!(reason(" ticket 4711 "), Ok("ticket 4711".to_owned()));
        assert!(reason(&"ü".repeat(500)).is_ok());
        for text in ["", "  ", "two\nlines", "\u{1b}[2J", &"x".repeat(501)] {
            assert!(reason(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn times_are_neither_nothing_nor_for_ever() {
        assert_eq!([seconds(1), seconds(LONGEST_S)], [Ok(()), Ok(())]);
        for (time, why) in [(0, "at least 1 s"), (LONGEST_S + 1, "ten years"), (u64::MAX, "ten years")] {
            assert!(seconds(time).unwrap_err().contains(why), "{time}");
        }
    }

    #[test]
    fn an_id_is_visible() {
        for id in ["1", "!~", &"x".repeat(64)] {
            assert_eq!(request_id(id), Ok(()), "{id}");
        }
        for id in ["", " ", "a b", "a\n", "ü", &"x".repeat(65)] {
            assert!(request_id(id).is_err(), "{id:?}");
        }
    }
}
