//! Interfaces by pattern: `tap*` is every interface whose name begins so, `tap?` with one more character. A word without
//! `*` and `?` is a name, and nothing else.

use wildmatch::WildMatch;

use super::Config;

/// The loopback interface is on every host, and no pattern is meant for it: whoever wants it guarded names it.
const LOOPBACK: &str = "lo";

/// Whether this is a pattern, and not a name.
#[must_use]
pub fn is_pattern(word: &str) -> bool {
    word.contains(['*', '?'])
}

/// Whether a name or pattern of the configuration is that of an interface.
#[must_use]
pub fn names(word: &str, interface: &str) -> bool {
    word == interface || (is_pattern(word) && interface != LOOPBACK && WildMatch::new(word).matches(interface))
}

impl Config {
    /// Whether an interface of this name is to be guarded.
    #[must_use]
    pub fn wants(&self, interface: &str) -> bool {
        self.interfaces.iter().any(|word| names(word, interface))
    }

    /// The interfaces that are named, and not only meant by a pattern.
    pub fn named_interfaces(&self) -> impl Iterator<Item = &String> {
        self.interfaces.iter().filter(|word| !is_pattern(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_and_patterns_are_not_for_the_loopback() {
        for (word, matching, others) in [
            ("eth0", &["eth0"][..], &["eth01", "eth", "lo"][..]),
            ("tap*", &["tap", "tap0", "tap12a"], &["ta", "vtap0", "lo"]),
            ("tap?", &["tap0"], &["tap", "tap12"]),
            ("*", &["eth0", "tap0", "low"], &["lo"]),
            ("l?", &["l0"], &["lo"]),
            ("lo", &["lo"], &["low"]),
            ("v*.1?0", &["vlan.100", "v.120"], &["vlan.200"]),
        ] {
            assert!(matching.iter().all(|name| names(word, name)), "{word}");
            assert!(!others.iter().any(|name| names(word, name)), "{word}");
        }
        assert!(!is_pattern("eth0.100") && is_pattern("tap*") && is_pattern("tap?"));
    }
}
