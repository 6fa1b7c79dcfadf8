//! Promises that hold whatever is in the file: nothing makes the reader panic, and no bad row takes a good one away.

use proptest::prelude::*;

use super::{Inventory, Machine, RowProblemKind};
use crate::governor::{PortName, Subject};

/// A line, or an item, of a file.
#[derive(Clone, Debug)]
enum Line {
    /// A machine that must be there.
    Good(u8),
    /// Whatever is not one.
    Bad(String),
}

fn lines(bad: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<Line>> {
    let line = prop_oneof![any::<u8>().prop_map(Line::Good), bad.prop_map(Line::Bad)];
    prop::collection::vec(line, 0..12)
}

/// Text without line ends, with many of those characters that mean something.
fn csv_noise() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::string::string_regex(r#"[",#; a0é-]{0,16}"#).unwrap(),
        prop::string::string_regex(r"[^\r\n]{0,24}").unwrap(),
        prop::string::string_regex(r#"bad,"?tap7"?,100,[",0:]{0,8},(yes|no|x"|)"#).unwrap(),
    ]
}

/// Items with something wrong, and good ones that were cut off anywhere.
fn json_noise() -> impl Strategy<Value = String> {
    let whole =
        r#"{"server_id": "bad", "interface": "tap7", "vlans": [1, 2], "macs": ["02:00:00:00:00:01"], "x": {"y": 1}}"#;
    let broken = [
        "",
        "7",
        "null",
        "[]",
        "{}",
        "\"",
        "{",
        "[",
        "{\"a\": [1",
        "nul",
        "-",
        "\\",
        "{\"server_id\": {}}",
        ",",
        ":",
        "{\"server_id\": \"bad\", \"protected\": 3}",
        "\u{0}",
        "é",
        "{\"\\u\": 1}",
        "1e999",
        "[[[[[[",
    ];
    let broken = broken.map(str::to_owned).to_vec();
    prop_oneof![
        prop::sample::select(broken),
        (0..whole.len()).prop_map(|end| whole[..end].to_owned()),
        prop::string::string_regex(r#"[",:\\ a0é{-]{0,16}"#).unwrap(),
    ]
}

fn port(number: u8) -> PortName {
    PortName { interface: format!("eth{number}"), vlans: vec![100] }
}

/// Everything that can be asked for, about somebody who may be in it.
fn ask(inventory: &Inventory) {
    let guarded = [port(0), port(1), PortName { interface: "tap7".into(), vlans: vec![] }];
    for port in &guarded {
        let subject = Subject { port: port.clone(), client: None };
        assert!(inventory.target_of(&subject, &guarded).subjects.contains(&subject));
        let _ = (inventory.protected(&subject), inventory.class_of(&port.interface, &port.vlans));
    }
}

fn has_all(inventory: &Inventory, lines: &[Line]) -> Result<(), TestCaseError> {
    for line in lines {
        let Line::Good(number) = line else { continue };
        let machine = inventory.machine(&port(*number).interface, &[100], None);
        prop_assert_eq!(machine.map(|m: &Machine| m.server_id.clone()), Some(format!("em-{number}")));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let csv = [&b"server_id,interface,vlans,mac,protected\n"[..], &bytes].concat();
        let json = [&b"[{\"server_id\": "[..], &bytes].concat();
        for text in [&bytes, &csv, &json] {
            let found = [Inventory::from_csv(text).ok(), Inventory::from_json(text).ok()];
            found.iter().flatten().for_each(|(inventory, _)| ask(inventory));
        }
    }

    #[test]
    fn no_text_of_json_characters_makes_it_panic(text in r#"[\[\]{}",:\\ \n0-9a.e-]{0,80}"#) {
        for text in [text.clone(), format!("[{text}"), format!("{{\"machines\": [{text}")] {
            if let Ok((inventory, _)) = Inventory::from_json(text.as_bytes()) {
                ask(&inventory);
            }
        }
    }

    #[test]
    fn a_bad_row_never_removes_a_good_one(lines in lines(csv_noise()), crlf in any::<bool>()) {
        let mut text = "server_id,interface,vlans,mac,protected\n".to_owned();
        for line in &lines {
            text += &match line {
                Line::Good(number) => format!("em-{number},eth{number},100,,"),
                Line::Bad(noise) => noise.clone(),
            };
            text += if crlf { "\r\n" } else { "\n" };
        }
        has_all(&Inventory::from_csv(text.as_bytes()).unwrap().0, &lines)?;
    }

    #[test]
    fn a_bad_item_never_removes_a_good_one(lines in lines(json_noise()), wrapped in any::<bool>()) {
        let items: Vec<String> = lines
            .iter()
            .map(|line| match line {
                Line::Good(n) => format!(r#"{{"server_id": "em-{n}", "interface": "eth{n}", "vlans": [100]}}"#),
                Line::Bad(noise) => noise.clone(),
            })
            .collect();
        let list = format!("[{}]", items.join(",\n"));
        let text = if wrapped { format!("{{\"machines\": {list}}}") } else { list };
        has_all(&Inventory::from_json(text.as_bytes()).unwrap().0, &lines)?;
    }
}

/// Brackets and quotes that nobody closes, where each attempt to go on reads the rest of the file: given up in time.
#[test]
fn nonsense_does_not_go_on_for_ever() {
    let json = format!("[{}", ",{\"a\":[1\n".repeat(50_000));
    let csv = format!("server_id,mac\n{}", "x,\"a\n".repeat(20_000));
    for problems in [Inventory::from_json(json.as_bytes()).unwrap().1, Inventory::from_csv(csv.as_bytes()).unwrap().1] {
        assert_eq!(problems.last().map(|problem| &problem.kind), Some(&RowProblemKind::Hopeless));
    }
}
