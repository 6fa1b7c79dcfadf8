//! Which keys exist. There is no list of them: a configuration in which everything is set is serialized, and what comes
//! out is what goes in.

use serde_json::Value;

use super::{
    Access, ActuatorName, Actuators, Allow, AutoQuarantine, Class, Command, Config, KeyPath, KnownClient, Port,
    Segment, Webhook,
};
use crate::{mac::Mac, model::Mode};

/// Name of the class, in [`exemplar`], in which everything is set.
pub(super) const EXEMPLARY_CLASS: &str = "mine";

/// A configuration with one of everything, and with everything set.
pub(super) fn exemplar() -> Config {
    let (interface, vlans, mac) = ("eth0".to_owned(), vec![100], Mac([2, 0, 0, 0, 0, 1]));
    let class = Class {
        rate_pps: 10,
        burst: 50,
        trusted: false,
        mode: Some(Mode::Monitor),
        client_rate_pps: Some(2),
        client_burst: Some(20),
        client_v6_rate_pps: Some(1),
        client_v6_burst: Some(20),
        strangers_share_percent: Some(50),
        discover_share_percent: Some(100),
        new_clients_per_s: Some(128),
        drop_chaddr_mismatch: false,
        quarantine: AutoQuarantine::Mute,
        actuators: vec![ActuatorName::LinkDown, ActuatorName::Command, ActuatorName::Webhook],
    };
    let mut config = Config {
        inventory: Some("inventory.csv".into()),
        ports: vec![Port {
            interface: interface.clone(),
            vlans: vlans.clone(),
            class: Some(EXEMPLARY_CLASS.to_owned()),
            mode: Some(Mode::Monitor),
        }],
        known_clients: vec![KnownClient { interface: interface.clone(), vlans: vlans.clone(), mac }],
        allowed: vec![Allow { interface, vlans, mac: Some(mac) }],
        access: Access { operator_groups: vec!["noc".to_owned()], reader_groups: vec!["staff".to_owned()] },
        actuators: actuators(),
        ..Config::default()
    };
    config.classes.insert(EXEMPLARY_CLASS.to_owned(), class);
    config
}

fn actuators() -> Actuators {
    Actuators {
        command: Some(Command { argv: vec!["/usr/local/bin/quarantine".to_owned()], timeout_s: 10 }),
        webhook: Some(Webhook {
            url: "http://noc.example:8080/dhcp-guard".to_owned(),
            secret_file: Some("webhook.secret".into()),
            timeout_s: 5,
            attempts: 4,
        }),
    }
}

fn all_keys() -> Value {
    serde_json::to_value(exemplar()).unwrap_or_default()
}

/// The key that whoever wrote `unknown` probably meant: a similar one at that place, or the same one at another.
pub(super) fn nearest_key(unknown: &KeyPath) -> Option<String> {
    let (last, parent) = unknown.0.split_last()?;
    let Segment::Key(name) = last else { return None };
    let exemplar = all_keys();
    let siblings = parent.iter().try_fold(&exemplar, step)?.as_object()?;
    nearest(name, siblings.keys().map(String::as_str))
        .or_else(|| elsewhere(name, &exemplar, &KeyPath::default()).map(|path| path.to_string()))
}

/// The candidate that is the fewest edits away from `name`, if it is like it at all; one that says more, such as the
/// unit (`client_rate_pps` for `client_rate`), comes before any other.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    let says_more = |candidate: &str| candidate.strip_prefix(name).is_some_and(|rest| rest.starts_with('_'));
    candidates
        .map(|candidate| (!says_more(candidate), strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(is_other, edits, candidate)| !is_other || *edits <= 1 + candidate.len() / 4)
        .min_by_key(|(is_other, edits, _)| (*is_other, *edits))
        .map(|(.., candidate)| candidate.to_owned())
}

/// One step into the exemplar. A name that it does not have is one that the user may choose (a class); an array has one
/// element.
fn step<'a>(value: &'a Value, segment: &Segment) -> Option<&'a Value> {
    match (value, segment) {
        (Value::Object(table), Segment::Key(key)) => table.get(key).or_else(|| table.get(EXEMPLARY_CLASS)),
        (Value::Array(elements), Segment::Index(_)) => elements.first(),
        _ => None,
    }
}

/// Where in the tables with fixed names (not in arrays and classes: which one would it be?) a key of this name stands.
fn elsewhere(name: &str, value: &Value, at: &KeyPath) -> Option<KeyPath> {
    let table = value.as_object()?;
    if table.contains_key(name) {
        return Some(at.key(name));
    }
    let fixed = table.iter().filter(|(key, _)| *key != "class");
    fixed.into_iter().find_map(|(key, value)| elsewhere(name, value, &at.key(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_keys_find_their_neighbour() {
        let cases = [
            (KeyPath::from(["inteface"]), Some("interfaces")),
            (KeyPath::from(["limits", "client_rat_pps"]), Some("client_rate_pps")),
            (KeyPath::from(["port"]).index(7).key("vlan"), Some("vlans")),
            (KeyPath::from(["port"]).index(0).key("clas"), Some("class")),
            (KeyPath::from(["known_client"]).index(0).key("mca"), Some("mac")),
            (KeyPath::from(["class", "of-my-own", "brust"]), Some("burst")),
            (KeyPath::from(["limits", "client_rate"]), Some("client_rate_pps")),
            (KeyPath::from(["class", "of-my-own", "client_rate"]), Some("client_rate_pps")),
            (KeyPath::from(["allow"]).index(0).key("interfaces"), Some("interface")),
            (KeyPath::from(["known_clients"]), Some("known_client")),
            (KeyPath::from(["actuator", "webhook", "timeout"]), Some("timeout_s")),
            (KeyPath::from(["api", "operators_groups"]), Some("operator_groups")),
            (KeyPath::from(["quarantine", "longest"]), Some("longest_s")),
            (KeyPath::from(["zzz"]), None),
        ];
        for (path, nearest) in cases {
            assert_eq!(nearest_key(&path).as_deref(), nearest, "{path}");
        }
    }

    #[test]
    fn a_key_in_the_wrong_table_finds_the_right_one() {
        assert_eq!(nearest_key(&KeyPath::from(["client_burst"])).as_deref(), Some("limits.client_burst"));
        assert_eq!(nearest_key(&KeyPath::from(["limits", "remember_s"])).as_deref(), Some("detection.remember_s"));
    }

    #[test]
    fn everything_is_set_in_the_exemplar() {
        fn unset(value: &Value, at: &str) -> Vec<String> {
            match value {
                Value::Null => vec![at.to_owned()],
                Value::Object(table) => {
                    table.iter().flat_map(|(key, value)| unset(value, &format!("{at}/{key}"))).collect()
                }
                Value::Array(elements) => elements.iter().flat_map(|value| unset(value, at)).collect(),
                _ => Vec::new(),
            }
        }
        let mut keys = all_keys();
        keys["class"] = keys["class"][EXEMPLARY_CLASS].clone();
        assert_eq!(unset(&keys, ""), Vec::<String>::new());
        for (array, name) in [("port", "class"), ("known_client", "mac"), ("allow", "mac")] {
            assert!(keys[array][0].get(name).is_some(), "{array}");
        }
        assert_eq!(exemplar().validate(), []);
    }
}
