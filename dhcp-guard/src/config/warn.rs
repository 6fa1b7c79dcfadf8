//! What is permitted and probably not meant.

use std::collections::BTreeSet;

use super::{Class, Config, KeyPath, is_pattern, share};

impl Config {
    /// What is permitted and probably not meant: one sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        [self.all_interfaces(), self.unguarded_interfaces(), self.limits_in_vain(), self.classes_over_the_host()]
            .concat()
    }

    /// Bridges and bonds would be guarded together with their members, and whatever is counted twice is limited twice.
    fn all_interfaces(&self) -> Vec<String> {
        let all = self.interfaces.iter().any(|word| word.chars().all(|c| c == '*') && !word.is_empty());
        let warning = "interfaces: `*` is every interface but lo, also bridges and bonds together with their members: name \
                       the ones that machines are behind";
        all.then(|| warning.to_owned()).into_iter().collect()
    }

    fn unguarded_interfaces(&self) -> Vec<String> {
        fn all<'a>(
            name: &'static str,
            interfaces: impl Iterator<Item = &'a String>,
        ) -> impl Iterator<Item = (KeyPath, &'a String)> {
            interfaces.enumerate().map(move |(i, interface)| (KeyPath::from([name]).index(i), interface))
        }
        all("port", self.ports.iter().map(|port| &port.interface))
            .chain(all("known_client", self.known_clients.iter().map(|client| &client.interface)))
            .chain(all("allow", self.allowed.iter().map(|allow| &allow.interface)))
            // Whether two patterns have a name in common is not for a warning to find out.
            .filter(|(_, interface)| !is_pattern(interface) && !self.wants(interface))
            .map(|(key, interface)| {
                format!("{key}: interface {interface} is not guarded unless it is named in `interfaces` or with -i")
            })
            .collect()
    }

    fn limits_in_vain(&self) -> Vec<String> {
        let in_vain = |(name, class): (&String, &Class)| match class.without_effect().as_slice() {
            [] => None,
            keys => Some(format!(
                "class.{name}: {} without effect, because the class is trusted and only its own limit applies",
                match keys {
                    [one] => format!("{one} is"),
                    several => format!("{} are", several.join(", ")),
                }
            )),
        };
        self.classes.iter().filter_map(in_vain).collect()
    }

    /// Classes in use whose ports can have all that the host has, or want more: then one port's flood is everybody's.
    fn classes_over_the_host(&self) -> Vec<String> {
        let used = self.ports.iter().filter_map(|port| port.class.as_ref()).chain([&self.default_class]);
        let used: BTreeSet<&String> = used.collect();
        used.into_iter()
            .filter_map(|name| self.classes.get(name).map(|class| (name, class)))
            .filter(|(_, class)| !class.trusted)
            .filter_map(|(name, class)| self.over_the_host(name, class))
            .collect()
    }

    fn over_the_host(&self, name: &str, class: &Class) -> Option<String> {
        let host = self.host.rate_pps;
        if class.rate_pps > host {
            return Some(format!(
                "class.{name}: one port may send {} pps, but all untrusted ports together only {host} pps (host.rate_pps)",
                class.rate_pps
            ));
        }
        let percent = class.strangers_share_percent.unwrap_or(self.limits.strangers_share_percent);
        let strangers = share((class.rate_pps, class.burst), percent).0;
        let of_host = share((host, self.host.burst), self.host.strangers_share_percent).0;
        (strangers >= of_host).then(|| {
            format!(
                "class.{name}: strangers on one port may send {strangers} pps, and on all untrusted ports together \
                 {of_host} pps (host.rate_pps, host.strangers_share_percent): a flood on one such port would shut out the \
                 strangers on all others"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn warnings(text: &str) -> Vec<String> {
        let config = Config::from_toml(text).unwrap();
        config.warnings()
    }

    #[test]
    fn the_defaults_have_none() {
        assert!(warnings("").is_empty());
    }

    #[test]
    fn an_interface_that_is_not_guarded() {
        let text = "
            interfaces = ['eth1']
            [[port]]
            interface = 'eth0'
            [[port]]
            interface = 'eth1'
            [[known_client]]
            interface = 'eth0'
            mac = '0200.5e10.0001'
            [[allow]]
            interface = 'eth0'";
        let all = warnings(text);
        assert_eq!(all.len(), 3, "{all:?}");
        for (warning, key) in all.iter().zip(["port[0]", "known_client[0]", "allow[0]"]) {
            assert!(warning.starts_with(&format!("{key}: interface eth0 is not guarded")), "{warning}");
        }
        assert!(warnings(&text.replace("['eth1']", "['eth1', 'eth0']")).is_empty());
    }

    #[test]
    fn an_interface_that_a_pattern_means_is_guarded() {
        assert!(
            warnings("interfaces = ['tap*']\n[[port]]\ninterface = 'tap7'\n[[allow]]\ninterface = 'v*'").is_empty()
        );
        assert_eq!(warnings("interfaces = ['tap*']\n[[port]]\ninterface = 'eth7'").len(), 1);
        let all = warnings("interfaces = ['*']\n[[port]]\ninterface = 'eth7'");
        assert!(all.len() == 1 && all[0].starts_with("interfaces: `*` is every interface but lo"), "{all:?}");
    }

    #[test]
    fn limits_that_a_trusted_class_does_not_apply() {
        assert_eq!(
            warnings("[class.relay]\nrate_pps = 1\nburst = 1\ntrusted = true\nclient_burst = 1\nnew_clients_per_s = 1"),
            [
                "class.relay: client_burst, new_clients_per_s are without effect, because the class is trusted and only its \
              own limit applies"
            ]
        );
    }

    #[test]
    fn a_class_that_may_send_more_than_the_host() {
        let class = "[class.big]\nrate_pps = 500\nburst = 1\n[[port]]\ninterface = 'eth0'\nclass = 'big'\n";
        let text = format!("interfaces = ['eth0']\n{class}");
        assert_eq!(
            warnings(&text),
            ["class.big: one port may send 500 pps, but all untrusted ports together only 200 pps (host.rate_pps)"]
        );
        let all = warnings(&format!("{text}[host]\nrate_pps = 500"));
        assert_eq!(all.len(), 1);
        assert!(all[0].contains("strangers on one port may send 250 pps, and on all untrusted"), "{all:?}");
        assert!(warnings(&format!("{text}[host]\nrate_pps = 501")).is_empty());
        assert!(warnings("[class.big]\nrate_pps = 500\nburst = 1").is_empty(), "nobody has it");
        assert!(warnings(&text.replace("burst = 1", "burst = 1\ntrusted = true")).is_empty());
    }
}
