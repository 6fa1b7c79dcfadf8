//! `packaging/dhcp-guard.toml` documents every key, and says the truth.

use serde_json::Value;

use super::*;
use crate::human::count;

const REFERENCE: &str = include_str!("../../../packaging/dhcp-guard.toml");

/// What the file says once every key is taken out of its comment. Prose has a blank after the `#`, keys have not.
fn uncommented() -> String {
    REFERENCE
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.is_empty() && !key.starts_with(' ') => key,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn as_it_stands_it_is_the_defaults() {
    assert_eq!(Config::from_toml(REFERENCE).unwrap(), Config::default());
}

#[test]
fn uncommented_it_still_is_the_defaults_but_for_what_has_none() {
    let uncommented = Config::from_toml(&uncommented()).unwrap();
    let Config { inventory, ports, known_clients, allowed, classes, actuators, .. } = uncommented.clone();
    assert!(inventory.is_some() && actuators.command.is_some() && actuators.webhook.is_some());
    assert_eq!((ports.len(), known_clients.len(), allowed.len()), (1, 1, 1));
    let built_in: BTreeMap<_, _> = classes
        .iter()
        .filter(|(name, _)| *name != keys::EXEMPLARY_CLASS)
        .map(|(n, c)| (n.clone(), c.clone()))
        .collect();
    assert_eq!((built_in, classes.len()), (Config::default().classes, 5));
    let unchanged = Config { inventory, ports, known_clients, allowed, classes, actuators, ..Config::default() };
    assert_eq!(uncommented, unchanged);
}

/// A built-in class leaves out what it does not set; a class of one's own shows everything.
#[test]
fn it_has_every_key() {
    fn compare(expected: &Value, written: &Value, at: &str) {
        match (expected, written) {
            (Value::Object(expected), Value::Object(written)) => {
                for (key, value) in expected.iter().filter(|(_, value)| !value.is_null()) {
                    let written = written.get(key).unwrap_or_else(|| panic!("{at}.{key} is not documented"));
                    compare(value, written, &format!("{at}.{key}"));
                }
            }
            (Value::Array(expected), Value::Array(written)) if expected.first().is_some_and(Value::is_object) => {
                compare(&expected[0], &written[0], &format!("{at}[]"));
            }
            _ => {}
        }
    }
    let written: toml::Table = uncommented().parse().unwrap();
    let expected = serde_json::to_value(keys::exemplar()).unwrap();
    compare(&expected, &serde_json::to_value(written).unwrap(), "");
}

#[test]
fn it_tells_every_range() {
    for (path, _, range) in keys::exemplar().numbers() {
        let Some(Segment::Key(key)) = path.0.last() else { panic!("{path}") };
        let range = format!("{} to {}.", count((*range.start()).into()), count((*range.end()).into()));
        // In the comment right above the key, or in the line that explains it for all tables that have it.
        let told = REFERENCE.split("\n\n").any(|paragraph| {
            let about = paragraph.contains(&format!("\n#{key} =")) || paragraph.contains(&format!("\n# {key}: "));
            about && paragraph.contains(&range)
        });
        assert!(told, "{path}: {range}");
    }
}
