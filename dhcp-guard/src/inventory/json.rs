//! An inventory as JSON: a list of objects with the names of the CSV columns, bare or as `machines` of an object.
//!
//! Each item is read on its own, from where it begins: so each has its line, and one that is no JSON is skipped like a bad
//! row of CSV, and takes only itself out of the file. A parser of the whole document would stop at the first comma that is
//! missing.

use std::{collections::HashSet, fmt};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::{
    Inventory, ListProblem, RowProblem, RowProblemKind,
    build::Builder,
    cursor::{Cursor, NoJson},
    rows::{Column, Fields},
};

/// Reads the bytes of a file.
pub(super) fn read(text: &[u8]) -> Result<(Inventory, Vec<RowProblem>), ListProblem> {
    let mut cursor = Cursor::new(text);
    let mut items = Items::default();
    match cursor.peek() {
        None => {}
        Some(b'[') => {
            cursor.step();
            items.list(&mut cursor, true);
        }
        Some(b'{') => {
            cursor.step();
            find_machines(&mut cursor)?;
            items.list(&mut cursor, false);
        }
        Some(_) => return Err(cursor.no_list("there is neither a list nor an object")),
    }
    Ok(items.builder.finish())
}

/// Goes to the inside of the list `machines` of an object. Other keys are of no interest.
fn find_machines(cursor: &mut Cursor<'_>) -> Result<(), ListProblem> {
    loop {
        cursor.skip_commas();
        if matches!(cursor.peek(), None | Some(b'}')) {
            return Err(cursor.no_list("the object has no list `machines`"));
        }
        let key: String = cursor.value().map_err(|problem| cursor.no_list(&problem.reason))?;
        if cursor.peek() != Some(b':') {
            return Err(cursor.no_list("there is no colon after a key"));
        }
        cursor.step();
        match cursor.peek() {
            Some(b'[') if key == "machines" => {
                cursor.step();
                return Ok(());
            }
            _ if key == "machines" => return Err(cursor.no_list("`machines` is not a list")),
            _ => _ = cursor.value::<IgnoredAny>().map_err(|problem| cursor.no_list(&problem.reason))?,
        }
    }
}

#[derive(Default)]
struct Items {
    builder: Builder,
    unknown: HashSet<String>,
}

impl Items {
    /// From after the opening bracket to the closing one; `alone`: nothing may follow that.
    fn list(&mut self, cursor: &mut Cursor<'_>, alone: bool) {
        loop {
            cursor.skip_commas();
            let line = cursor.line;
            if cursor.is_hopeless() {
                return self.builder.problem(line, RowProblemKind::Hopeless);
            }
            let go_on = match cursor.peek() {
                None => {
                    self.builder.problem(line, RowProblemKind::NoEnd);
                    return;
                }
                Some(b']') => {
                    cursor.step();
                    if !alone || cursor.peek().is_none() {
                        return;
                    }
                    // A bracket too many must not hide what follows it.
                    self.bad(cursor.line, "something follows the end of the list");
                    cursor.peek() == Some(b'{') || cursor.resync()
                }
                Some(_) => self.item(cursor),
            };
            if !go_on {
                return;
            }
        }
    }

    /// One item, or what stands in the place of one. False: nothing can be made of the rest.
    fn item(&mut self, cursor: &mut Cursor<'_>) -> bool {
        let start = *cursor;
        if let Err(problem) = cursor.value::<IgnoredAny>() {
            self.bad(problem.line, &problem.reason);
            return cursor.resync();
        }
        match serde_json::from_slice::<Pairs>(&cursor.text[start.at..cursor.at]) {
            Ok(Pairs(pairs)) => {
                // With a bracket that is not closed, a bad item goes on over the items that follow it.
                if !self.row(start.line, &pairs) && pairs.iter().any(|(_, value)| has_items(value)) {
                    return cursor.retry(start);
                }
            }
            Err(error) => {
                let problem = NoJson::new(start.line, &error);
                self.bad(problem.line, &problem.reason);
                if cursor.text[start.at..cursor.at].iter().skip(1).any(|byte| *byte == b'{') {
                    return cursor.retry(start);
                }
            }
        }
        true
    }

    fn bad(&mut self, line: u64, reason: &str) {
        self.builder.problem(line, RowProblemKind::Json(format!("the item is not valid JSON: {reason}")));
    }

    /// Whether the row can be used.
    fn row(&mut self, line: u64, pairs: &[(String, Value)]) -> bool {
        let mut fields = Fields::default();
        let mut broken = None;
        let mut seen = HashSet::new();
        for (key, value) in pairs {
            let column = if key.eq_ignore_ascii_case("macs") { Some(Column::Mac) } else { Column::named(key) };
            let Some(column) = column else {
                // Every item has it, probably: once is enough.
                if self.unknown.insert(key.clone()) {
                    self.builder.problem(line, RowProblemKind::UnknownColumn(key.clone()));
                }
                continue;
            };
            if !seen.insert(column as usize) && !value.is_null() {
                broken.get_or_insert(RowProblemKind::Json(format!("{} is there twice", column.name())));
            }
            match text_of(column, key, value) {
                Ok(text) => fields.set(column, &text),
                Err(kind) => _ = broken.get_or_insert(kind),
            }
        }
        self.builder.row(line, &fields, broken)
    }
}

/// Whether a list has objects in it that look like items.
fn has_items(value: &Value) -> bool {
    let parts = value.as_array().map_or(&[][..], Vec::as_slice);
    parts.iter().any(|part| part.get("server_id").is_some() || has_items(part))
}

/// A value as a CSV file would have it.
fn text_of(column: Column, key: &str, value: &Value) -> Result<String, RowProblemKind> {
    let wrong = |wanted: &str| Err(RowProblemKind::Json(format!("{key} is `{value}`, write {wanted}")));
    match (column, value) {
        (_, Value::Null) => Ok(String::new()),
        // Whatever it is: what is neither yes nor no counts as yes, see `Protection`.
        (Column::Protected, Value::String(text)) => Ok(text.clone()),
        (Column::Protected, other) => Ok(other.to_string()),
        // A list that came out empty must not make a whole port, which others may share, this machine's.
        (Column::Mac, Value::Array(macs)) if macs.is_empty() => wrong("one MAC or several, or leave it out"),
        (Column::Mac, Value::String(text)) if text.trim().is_empty() => wrong("one MAC or several, or leave it out"),
        (Column::Mac | Column::Vlans, Value::Array(parts)) => {
            let parts: Option<Vec<String>> = parts.iter().map(scalar).collect();
            let separator = if column == Column::Vlans { "." } else { " " };
            parts.map_or_else(|| wrong("a list of strings or whole numbers"), |parts| Ok(parts.join(separator)))
        }
        (Column::Vlans, _) => scalar(value).map_or_else(|| wrong("[100, 20] or \"100.20\""), Ok),
        _ => scalar(value).map_or_else(|| wrong("a string"), Ok),
    }
}

/// A string, or a whole number: as a number, the VLANs 100.20 would be 100.2.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

/// An object with its keys as they are written: a map would let the second of two `protected` win, without a word.
struct Pairs(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the keys server_id, interface, mac and so on")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac::Mac;

    fn list(text: &str) -> (Inventory, Vec<String>) {
        let (inventory, problems) = read(text.as_bytes()).unwrap();
        (inventory, problems.iter().map(RowProblem::to_string).collect())
    }

    fn id<'a>(inventory: &'a Inventory, interface: &str, vlans: &[u16], last: Option<u8>) -> Option<&'a str> {
        let mac = last.map(|last| Mac([2, 0, 0, 0, 0, last]));
        inventory.machine(interface, vlans, mac).map(|machine| machine.server_id.as_str())
    }

    #[test]
    fn an_item_says_what_a_row_does() {
        let text = r#"[
            {"server_id": "em-1", "name": "web", "owner": "alice", "interface": "eth0", "vlans": [100, 20],
             "switch": "sw-a", "switch_port": 7, "zone": "par1", "class": "metal", "protected": true},
            {"server_id": 42, "mac": "02:00:00:00:00:01", "protected": null},
            {"Server_ID": "em-3", "interface": "eth0", "vlans": "100", "macs": ["02:00:00:00:00:02", "0200.0000.0003"]},
            {"server_id": "em-4", "interface": "eth0", "vlans": 100, "protected": "no", "owner": null},
            {"server_id": "em-5", "interface": "eth5", "vlans": []}
        ]"#;
        for text in
            [text.to_owned(), format!("\u{feff}{{\"version\": {{\"a\": [1]}}, \"machines\": {text}, \"z\": 1}}\n")]
        {
            let (inventory, problems) = list(&text);
            assert_eq!(problems, Vec::<String>::new());
            let found = inventory.find("eth0", &[100, 20], None).unwrap();
            assert_eq!((found.switch, found.switch_port), (Some("sw-a"), Some("7")));
            let machine = found.machine;
            assert_eq!((machine.zone.as_deref(), machine.class.as_deref()), (Some("par1"), Some("metal")));
            assert!(machine.protected);
            assert_eq!(id(&inventory, "eth9", &[], Some(1)), Some("42"));
            assert_eq!(id(&inventory, "eth0", &[100], Some(3)), Some("em-3"));
            assert_eq!(id(&inventory, "eth0", &[100], None), Some("em-4"));
            assert_eq!(id(&inventory, "eth5", &[], None), Some("em-5"));
        }
    }

    #[test]
    fn bad_items_are_listed_with_their_line_and_the_rest_counts() {
        let (inventory, problems) = list(
            r#"[
            {"server_id": "em-2", "interface": "eth2", "vlans": 100.20},
            {"server_id": "em-3", "interface": "eth3", "macs": []},
            {"server_id": "em-4", "interface": "eth4", "rack": {"row": [1, {"x": 2}]}},
            {"server_id": "em-5" "interface": "eth5"},
            {"server_id": "em-6", "interface": "eth6"}, 7, "em-7", null, ["em-8"],
            {"server_id": "em-9,
             "interface": "eth9"},
            {"server_id": "em-10", "interface": "eth10", "rack": 1, "protected": "perhaps"},
            {"server_id": "em-11", "interface": "eth11",
            {"server_id": "em-12", "interface": "eth12"},
            {"server_id": "em-13", "interface": "eth13", "protected": true, "protected": false},
            {"server_id": "em-14", "interface": "eth14", "name": true},
            {"interface": "eth15"}]
            "#,
        );
        let starts = [
            "line 2: vlans is `100.2`, write [100, 20] or",
            "line 3: macs is `[]`, write one MAC",
            "line 4: column `rack` is ignored",
            "line 5: the item is not valid JSON: expected `,` or `}`",
            "line 6: the item is not valid JSON: invalid type: integer `7`, expected an object",
            "line 6: the item is not valid JSON: invalid type: string",
            "line 6: the item is not valid JSON: invalid type: null",
            "line 6: the item is not valid JSON: invalid type: sequence",
            "line 7: the item is not valid JSON: control character",
            "line 9: protected is `perhaps`, write yes or no; until then em-10",
            "line 11: the item is not valid JSON: key must be a string",
            "line 12: protected is there twice",
            "line 13: name is `true`, write a string",
            "line 14: server_id is empty",
        ];
        for (problem, start) in problems.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem}\n{start}\n{problems:#?}");
        }
        assert_eq!(problems.len(), starts.len(), "{problems:#?}");
        for good in [4, 6, 10, 12] {
            let (server_id, interface) = (format!("em-{good}"), format!("eth{good}"));
            assert_eq!(id(&inventory, &interface, &[], None), Some(server_id.as_str()));
        }
        assert!(inventory.machine("eth10", &[], None).unwrap().protected);
    }

    #[test]
    fn an_empty_file_or_list_knows_nobody() {
        for text in ["", " \n", "\u{feff}", "[]", "{\"machines\": []}", "[\n,]"] {
            assert_eq!(list(text), (Inventory::default(), vec![]), "{text:?}");
        }
    }

    #[test]
    fn without_a_list_there_is_no_inventory() {
        for (text, problem) in [
            ("server_id,mac\n", "line 1: there is neither a list nor an object; write"),
            ("\n{}", "line 2: the object has no list `machines`; write"),
            ("{\"server_id\": \"em-1\",\n\"interface\": \"eth0\"}", "line 2: the object has no list `machines`; write"),
            ("{\"machines\": {}}", "line 1: `machines` is not a list; write"),
            ("{\"machines\" []}", "line 1: there is no colon after a key; write"),
            ("{\"a\": ", "line 1: there is nothing; write"),
            ("{1: 2}", "line 1: invalid type: integer `1`, expected a string; write"),
        ] {
            let error = read(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(problem), "{error}");
        }
    }

    #[test]
    fn a_file_that_was_cut_off_is_not_taken_for_a_whole_one() {
        let whole = "[{\"server_id\": \"em-1\", \"interface\": \"eth0\"},\n{\"server_id\": \"em-2\"";
        for (end, problem) in [
            ("", "line 2: the item is not valid JSON: EOF while parsing an object"),
            (", \"interface\": \"eth1\"}", "line 2: the list has no end, so the file may be incomplete"),
        ] {
            let (inventory, problems) = list(&format!("{whole}{end}"));
            assert_eq!(problems, [problem]);
            assert_eq!(id(&inventory, "eth0", &[], None), Some("em-1"));
        }
    }

    #[test]
    fn a_bracket_too_many_hides_nobody() {
        let (inventory, problems) = list(
            "[{\"server_id\": \"em-1\", \"interface\": \"eth1\"}],\n{\"server_id\": \"em-2\", \"interface\": \"eth2\"}]",
        );
        assert_eq!(problems, ["line 1: the item is not valid JSON: something follows the end of the list"]);
        assert_eq!(id(&inventory, "eth2", &[], None), Some("em-2"));
    }
}
