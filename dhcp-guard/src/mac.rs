//! MAC addresses: read in the notations that network equipment prints, shown in one.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A MAC address in transmission order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// The text is not a MAC address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MAC address: write it as 02:00:5e:10:00:01, 02-00-5e-10-00-01 or 0200.5e10.0001")]
pub struct MacError(String);

impl Mac {
    /// Can be the source of a frame: neither all zeroes nor a group address (multicast, broadcast).
    #[must_use]
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        /// Separators, and how many digits stand between two of them.
        const NOTATIONS: [(char, usize); 3] = [(':', 2), ('-', 2), ('.', 4)];
        let hex = |group: &str| group.bytes().all(|b| b.is_ascii_hexdigit());
        NOTATIONS
            .iter()
            .filter(|(separator, width)| text.split(*separator).all(|group| group.len() == *width && hex(group)))
            .map(|(separator, _)| text.replace(*separator, ""))
            .find(|digits| digits.len() == 12)
            .and_then(|digits| u64::from_str_radix(&digits, 16).ok())
            .map(|value| {
                let [_, _, mac @ ..] = value.to_be_bytes();
                Self(mac)
            })
            .ok_or_else(|| MacError(text.to_owned()))
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notation_is_read_and_one_is_shown() {
        for text in ["02:00:5E:10:00:0a", "02-00-5e-10-00-0A", "0200.5e10.000a"] {
            let mac: Mac = text.parse().unwrap();
            assert_eq!(mac, Mac([2, 0, 0x5e, 0x10, 0, 10]), "{text}");
            assert_eq!(mac.to_string(), "02:00:5e:10:00:0a");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:0a:0b",
            "02:00:5e:10:00:g0",
            "2:0:5e:10:0:a",
            "02:00-5e:10:00:0a",
            "02005e10000a",
            "0200.5e10.000",
            "+2:00:5e:10:00:0a",
            " 02:00:5e:10:00:0a",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_unicast_can_be_a_source() {
        assert!(Mac([2, 0, 0, 0, 0, 1]).is_unicast());
        assert!(!Mac([0; 6]).is_unicast());
        assert!(!Mac([0xff; 6]).is_unicast());
        assert!(!Mac([1, 0, 0x5e, 0, 0, 1]).is_unicast());
    }

    #[test]
    fn serde_goes_through_the_text() {
        let mac: Mac = serde_json::from_str("\"0200.5e10.000a\"").unwrap();
        assert_eq!(serde_json::to_string(&mac).unwrap(), "\"02:00:5e:10:00:0a\"");
        assert!(serde_json::from_str::<Mac>("\"eth0\"").is_err());
    }
}
