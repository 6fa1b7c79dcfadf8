//! Values that take more than one look: who, how long, why. What the agent would refuse is refused here already.

use crate::{
    mac::Mac,
    model::{
        Named,
        values::{self, LONGEST_S},
    },
};

/// Units of [`seconds`], in the order in which they may stand.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

/// Who a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Port name.
    pub port: Option<String>,
    /// Source MAC.
    pub mac: Option<Mac>,
}

/// Which quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// By its number.
    Id(u64),
    /// By whom it covers.
    Of(Named),
}

/// `PORT` or `PORT/MAC`. No interface has a slash in its name.
pub(super) fn named(text: &str) -> Result<Named, String> {
    if let Ok(mac) = text.parse::<Mac>() {
        return Err(format!(
            "a MAC alone is nobody in particular, because anybody can forge it: say on which port, as eth0.100/{mac}"
        ));
    }
    let (port, mac) = match text.split_once('/') {
        None => (text, None),
        Some((_, "")) => return Err(format!("the MAC is missing: without one leave out the slash of `{text}`")),
        Some((port, mac)) => (port, Some(mac.parse().map_err(|e: crate::mac::MacError| e.to_string())?)),
    };
    Ok(Named { port: self::port(port)?, mac })
}

/// A port name. Whether there is such a port the agent knows.
pub(super) fn port(text: &str) -> Result<String, String> {
    values::port(text).map(|()| text.to_owned())
}

/// A port, a MAC, or both.
pub(super) fn about(text: &str) -> Result<About, String> {
    if let Ok(mac) = text.parse() {
        return Ok(About { port: None, mac: Some(mac) });
    }
    let Named { port, mac } = named(text)?;
    Ok(About { port: Some(port), mac })
}

/// The number of a quarantine, or whom it covers.
pub(super) fn which(text: &str) -> Result<Which, String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map(Which::Id).map_err(|_| "no quarantine has so high a number".to_owned());
    }
    named(text).map(Which::Of)
}

/// `90s`, `10m`, `2h`, `1h30m`, `7d`, in seconds.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let refused = || format!("`{text}` is not a time: write it as 90s, 10m, 2h, 1h30m or 7d");
    let (mut total, mut rest, mut units) = (0_u64, text, UNITS.as_slice());
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let mut tail = tail.chars();
        let unit = tail.next().and_then(|unit| units.iter().position(|(name, _)| *name == unit));
        let unit = unit.ok_or_else(refused)?;
        let part = number.parse::<u64>().map_err(|_| refused())?.saturating_mul(units[unit].1);
        total = total.saturating_add(part);
        (rest, units) = (tail.as_str(), &units[unit + 1..]);
    }
    match total {
        0 if text.is_empty() => Err(refused()),
        0 => Err("no time at all: say at least 1s".to_owned()),
        1..=LONGEST_S => Ok(total),
        _ => Err(format!("`{text}` is more than ten years: say a shorter time")),
    }
}

/// One sentence for the audit log.
pub(super) fn reason(text: &str) -> Result<String, String> {
    values::reason(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0x5e, 0x10, 0, 1]);

    fn on(port: &str, mac: Option<Mac>) -> Named {
        Named { port: port.to_owned(), mac }
    }

    #[test]
    fn a_target_is_a_port_or_a_mac_on_one() {
        assert_eq!(named("eth0.100"), Ok(on("eth0.100", None)));
        for mac in ["02:00:5e:10:00:01", "0200.5E10.0001", "02-00-5e-10-00-01"] {
            assert_eq!(named(&format!("eth0.100/{mac}")), Ok(on("eth0.100", Some(MAC))), "{mac}");
        }
    }

    #[test]
    fn half_a_target_is_never_a_bigger_one() {
        for (text, why) in [
            ("", "the port is missing"),
            ("/", "the MAC is missing"),
            ("eth0/", "the MAC is missing"),
            ("/02:00:5e:10:00:01", "the port is missing"),
            ("02:00:5e:10:00:01", "say on which port, as eth0.100/02:00:5e:10:00:01"),
            ("0200.5e10.0001", "nobody in particular"),
            ("eth0/02:00:5e:10:00", "is not a MAC address"),
            ("eth0/x/02:00:5e:10:00:01", "is not a MAC address"),
            ("02:00:5e:10:00", "cannot be the name of a port"),
            ("eth0 eth1", "cannot be the name of a port"),
            ("eth*", "is a pattern"),
            (" ", "cannot be the name of a port"),
        ] {
            let error = named(text).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_question_may_be_about_a_mac_anywhere() {
        assert_eq!(about("0200.5e10.0001"), Ok(About { port: None, mac: Some(MAC) }));
        assert_eq!(about("eth0"), Ok(About { port: Some("eth0".into()), mac: None }));
        assert_eq!(about("eth0/0200.5e10.0001"), Ok(About { port: Some("eth0".into()), mac: Some(MAC) }));
        assert!(about("").is_err());
    }

    #[test]
    fn a_number_is_a_quarantine_s() {
        assert_eq!(which("7"), Ok(Which::Id(7)));
        assert_eq!(which("eth7"), Ok(Which::Of(on("eth7", None))));
        assert!(which("").is_err() && which("99999999999999999999").is_err());
    }

    #[test]
    fn times_have_units() {
        let read = ["1s", "90s", "10m", "2h", "1h30m", "7d", "1d2h3m4s", "0h5m"].map(seconds);
        assert_eq!(read, [1, 90, 600, 7200, 5400, 604_800, 93_784, 300].map(Ok));
    }

    #[test]
    fn nonsense_is_no_time() {
        for text in ["", "10", "m", "1.5h", "-10m", "10m1h", "5m5m", "10 m", " 10m", "10min", "1h30", "٣m", "+1s"] {
            let error = seconds(text).unwrap_err();
            assert!(error.ends_with("is not a time: write it as 90s, 10m, 2h, 1h30m or 7d"), "{text:?}: {error}");
        }
        for text in ["0s", "0h0m"] {
            assert_eq!(seconds(text), Err("no time at all: say at least 1s".to_owned()));
        }
        for text in ["3651d", "18446744073709551615d"] {
            assert!(seconds(text).unwrap_err().contains("ten years"), "{text}");
        }
    }

    #[test]
    fn a_reason_is_one_line() {
        assert_eq!(reason(" ticket 4711 "), Ok("ticket 4711".to_owned()));
        for text in ["", "  ", "two\nlines", "\u{1b}[2J", &"x".repeat(501)] {
            assert!(reason(text).is_err(), "{text:?}");
        }
    }
}
