//! Which keys exist. There is no list of them: a configuration in which everything is set is serialized, and what comes
//! out is what goes in.

use serde_json::Value;

use super::{Config, KeyPath, KnownClient, Port, Segment};
use crate::mac::Mac;

/// A configuration with one of everything. JSON shows even the options that are not set.
pub(super) fn exemplar() -> Value {
    let port = Port { interface: "eth0".into(), vlans: vec![100], class: None, mode: None };
    let known = KnownClient { interface: "eth0".into(), vlans: vec![100], mac: Mac([2, 0, 0, 0, 0, 1]) };
    let config = Config { ports: vec![port], known_clients: vec![known], ..Config::default() };
    serde_json::to_value(config).unwrap_or_default()
}

/// The key that whoever wrote `unknown` probably meant: a similar one at that place, or the same one at another.
pub(super) fn nearest_key(unknown: &KeyPath) -> Option<String> {
    let (last, parent) = unknown.0.split_last()?;
    let Segment::Key(name) = last else { return None };
    let exemplar = exemplar();
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

/// One step into the exemplar. A name that it does not have is one that the user may choose (a class), so any member
/// shows what is below it; an array has one element.
fn step<'a>(value: &'a Value, segment: &Segment) -> Option<&'a Value> {
    match (value, segment) {
        (Value::Object(table), Segment::Key(key)) => table.get(key).or_else(|| table.values().next()),
        (Value::Array(elements), Segment::Index(_)) => elements.first(),
        _ => None,
    }
}

/// Where in the tables with fixed names (not in arrays: which element would it be?) a key of this name stands.
fn elsewhere(name: &str, value: &Value, at: &KeyPath) -> Option<KeyPath> {
    let table = value.as_object()?;
    if table.contains_key(name) {
        return Some(at.key(name));
    }
    table.iter().find_map(|(key, value)| elsewhere(name, value, &at.key(key)))
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
    fn the_exemplar_has_every_key_even_the_optional_ones() {
        let exemplar = exemplar();
        for pointer in ["/inventory", "/port/0/class", "/port/0/mode", "/known_client/0/vlans", "/class/vm/trusted"] {
            assert!(exemplar.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
