//! How many frames each interface received, as its driver counts them.
//!
//! The program does not count frames that are not DHCP: that would be the dearest thing it does with them. The kernel's
//! own counters of an interface include what XDP drops.

use std::{collections::HashMap, fs, io};

/// Frames received since the interface exists, by name, of all interfaces in this thread's network namespace.
///
/// # Errors
/// If procfs is not there.
pub fn frames() -> io::Result<HashMap<String, u64>> {
    // Not sysfs: that shows the network namespace it was mounted in.
    fs::read_to_string("/proc/thread-self/net/dev").map(|text| parse(&text))
}

/// Two lines of headings, then `name: bytes packets …`.
fn parse(text: &str) -> HashMap<String, u64> {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        Some((name.trim().to_owned(), numbers.split_whitespace().nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_the_second_number() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs\n    \
                    lo: 8634208    9121    0    0    0     0          0         0  8634208    9121    0\n\
                    eth0.100:12 3 0 0 0 0 0 0 1 1 0\n";
        let frames = parse(text);
        assert_eq!((frames.len(), frames["lo"], frames["eth0.100"]), (2, 9121, 3));
    }
}
