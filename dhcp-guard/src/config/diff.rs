//! What is different between two configurations, key by key, and what of it has to wait for the next start.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Config;

/// Lines for the entries of one list; of more, only how many there are is told.
const LISTED: usize = 20;

/// Keys whose values the agent uses when it starts, and then no more: where its socket and its files are, who may use them,
/// how large the kernel's tables are, what the actuators are started with.
const AT_START: [&str; 8] = ["hook", "socket", "state_dir", "pin_dir", "api", "audit", "actuator", "capacity"];

/// What is different.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// What takes effect at once, one line each: `limits.client_burst: 20 → 30`.
    pub now: Vec<String>,
    /// What takes effect at the next start.
    pub at_start: Vec<String>,
}

impl Diff {
    /// From one configuration to another.
    #[must_use]
    pub fn between(old: &Config, new: &Config) -> Self {
        let values = |config: &Config| serde_json::to_value(config).unwrap_or_default();
        let (old, new) = (values(old), values(new));
        let mut diff = Self::default();
        let mut keys: Vec<&String> =
            [&old, &new].into_iter().filter_map(Value::as_object).flat_map(|t| t.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let lines = if AT_START.contains(&key.as_str()) { &mut diff.at_start } else { &mut diff.now };
            compare(key, &old[key], &new[key], lines);
        }
        diff
    }
}

impl Config {
    /// This one, but for what has to wait for the next start: there it stays with `running`.
    #[must_use]
    pub fn until_restart(self, running: &Self) -> Self {
        let running = running.clone();
        Self {
            socket: running.socket,
            hook: running.hook,
            state_dir: running.state_dir,
            pin_dir: running.pin_dir,
            access: running.access,
            audit: running.audit,
            actuators: running.actuators,
            capacity: running.capacity,
            ..self
        }
    }
}

fn compare(key: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Value::Object(before), Value::Object(after)) => {
            let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
            keys.sort();
            keys.dedup();
            for inner in keys {
                compare(&format!("{key}.{inner}"), &old[inner], &new[inner], lines);
            }
        }
        (old, new) if is_table_list(old) || is_table_list(new) => compare_lists(key, old, new, lines),
        (Value::Null, Value::Object(table)) => {
            for (inner, value) in table {
                compare(&format!("{key}.{inner}"), &Value::Null, value, lines);
            }
        }
        _ => lines.push(format!("{key}: {} → {}", shown(old), shown(new))),
    }
}

fn is_table_list(value: &Value) -> bool {
    value.as_array().is_some_and(|list| list.first().is_some_and(Value::is_object))
}

/// Lists of tables (ports, clients) have no order that matters.
fn compare_lists(key: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    let entries = |value: &Value| -> BTreeMap<String, usize> {
        let mut counted = BTreeMap::new();
        for entry in value.as_array().into_iter().flatten() {
            *counted.entry(shown(entry)).or_default() += 1;
        }
        counted
    };
    let (old, new) = (entries(old), entries(new));
    let only_in = |one: &BTreeMap<String, usize>, other: &BTreeMap<String, usize>| -> Vec<String> {
        one.iter().filter(|(entry, count)| other.get(*entry) != Some(*count)).map(|(entry, _)| entry.clone()).collect()
    };
    let (removed, added) = (only_in(&old, &new), only_in(&new, &old));
    if removed.len() + added.len() > LISTED {
        lines.push(format!("{key}: {} added, {} removed", added.len(), removed.len()));
        return;
    }
    lines.extend(removed.into_iter().map(|entry| format!("{key}: removed {entry}")));
    lines.extend(added.into_iter().map(|entry| format!("{key}: added {entry}")));
}

/// A value as people write it; a table as `interface = eth0, vlans = [100]`.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Object(table) => {
            let set = table.iter().filter(|(_, value)| !value.is_null());
            set.map(|(key, value)| format!("{key} = {}", shown(value))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::from_toml(text).unwrap()
    }

    fn diff(old: &str, new: &str) -> Diff {
        Diff::between(&config(old), &config(new))
    }

    #[test]
    fn nothing_is_different_from_itself() {
        let text = "interfaces = ['tap*']\n[[port]]\ninterface = 'eth0'\n[class.lab]\nrate_pps = 1\nburst = 1\n";
        assert_eq!(diff(text, text), Diff::default());
    }

    #[test]
    fn each_key_has_a_line() {
        let found = diff(
            "interfaces = ['eth0']",
            "interfaces = ['eth0', 'tap*']\nmode = 'monitor'\n[limits]\nclient_burst = 30\n[class.lab]\nrate_pps = 5\nburst = 9",
        );
        for line in [
            "interfaces: [eth0] → [eth0, tap*]",
            "mode: enforce → monitor",
            "limits.client_burst: 20 → 30",
            "class.lab.rate_pps: none → 5",
        ] {
            assert!(found.now.iter().any(|known| known == line), "{line} is not in {found:?}");
        }
        assert_eq!(found.at_start, [""; 0]);
    }

    #[test]
    fn entries_of_lists_come_and_go_in_any_order() {
        let port = |vlan: u16| format!("[[port]]\ninterface = 'eth0'\nvlans = [{vlan}]\n");
        let found = diff(&(port(1) + &port(2)), &(port(3) + &port(1)));
        assert_eq!(
            found.now,
            ["port: removed interface = eth0, vlans = [2]", "port: added interface = eth0, vlans = [3]"]
        );
        let many: String = (100..121).map(port).collect();
        assert_eq!(diff(&port(1), &many).now, ["port: 21 added, 1 removed"]);
        assert_eq!(diff(&many, "").now, ["port: 0 added, 21 removed"]);
    }

    #[test]
    fn what_waits_for_the_next_start_is_told_apart_and_stays_as_it_is() {
        let new = "state_dir = '/elsewhere'\nmode = 'monitor'\n[capacity]\nports = 7\n[api]\nreader_groups = ['noc']";
        let found = diff("", new);
        assert_eq!(found.now, ["mode: enforce → monitor"]);
        assert_eq!(
            found.at_start,
            [
                "api.reader_groups: [] → [noc]",
                "capacity.ports: 1024 → 7",
                "state_dir: /var/lib/dhcp-guard → /elsewhere"
            ]
        );
        let effective = config(new).until_restart(&config(""));
        assert_eq!(Diff::between(&config(""), &effective), Diff { at_start: vec![], ..found });
    }
}
