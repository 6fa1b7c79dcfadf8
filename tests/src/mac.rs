//! Ethernet addresses.

use std::{fmt, str::FromStr};

use anyhow::{Context as _, Result, bail};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// To everyone.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The address of the lab's machine `index`: `02:00:00:00:00:NN`, counted from 1 because a station with an address
    /// of zeros would look like a mistake.
    #[must_use]
    pub fn machine(index: usize) -> Self {
        let number = u16::try_from(index + 1).expect("the lab has fewer than 65,535 machines");
        let [high, low] = number.to_be_bytes();
        Self([2, 0, 0, 0, high, low])
    }

    /// The address of a flood with several MACs: this one with its last two bytes replaced.
    #[must_use]
    pub fn with_index(self, index: u16) -> Self {
        let [a, b, c, d, ..] = self.0;
        let [high, low] = index.to_be_bytes();
        Self([a, b, c, d, high, low])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().with_context(|| format!("not a MAC address: {text}"))?;
            *byte = u8::from_str_radix(part, 16).with_context(|| format!("not a MAC address: {text}"))?;
        }
        if parts.next().is_some() {
            bail!("not a MAC address: {text}");
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let mac = Mac([2, 0, 0, 0, 0, 0xab]);
        assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
        assert!("02:00:00:00:00".parse::<Mac>().is_err());
        assert!("02:00:00:00:00:00:00".parse::<Mac>().is_err());
    }

    #[test]
    fn machines_and_indexes_differ() {
        assert_eq!(Mac::machine(255).to_string(), "02:00:00:00:01:00");
        assert_eq!(Mac([2, 1, 0, 0, 9, 9]).with_index(0x0102).to_string(), "02:01:00:00:01:02");
    }
}
