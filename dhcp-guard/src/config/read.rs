//! From the text of a file to a configuration, with all that is wrong and the line it stands on.

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    io::{self, Read as _},
    ops::Range,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer},
};

use super::{Config, ConfigError, KeyPath, Problem, ProblemKind, Segment, keys};

impl Config {
    /// Reads and validates a file. A relative path of the inventory, the state or a secret counts from the file's folder, not from
    /// wherever the agent happens to be started.
    ///
    /// # Errors
    /// The file cannot be read, or is not valid; then with everything that is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes = bytes(path).map_err(|reason| ConfigError::Unreadable { path: path.to_owned(), reason })?;
        let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
        match String::from_utf8(bytes) {
            Ok(text) => {
                let mut config = Self::from_toml(&text).map_err(invalid)?;
                if let Some(folder) = path.parent() {
                    config.inventory = config.inventory.map(|inventory| folder.join(inventory));
                    config.state_dir = folder.join(config.state_dir);
                    config.pin_dir = folder.join(config.pin_dir);
                }
                let secret = config.actuators.webhook.as_mut().and_then(|webhook| webhook.secret_file.as_mut());
                if let (Some(secret), Some(folder)) = (secret, path.parent()) {
                    *secret = folder.join(&*secret);
                }
                Ok(config)
            }
            Err(e) => {
                let valid = String::from_utf8_lossy(&e.as_bytes()[..e.utf8_error().valid_up_to()]).into_owned();
                let offset = valid.len();
                Err(invalid(vec![syntax(&valid, offset, "the file is not UTF-8 text")]))
            }
        }
    }

    /// Reads and validates the text of a file.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the lines.
    pub fn from_toml(text: &str) -> Result<Self, Vec<Problem>> {
        let document = DeTable::parse(text)
            .map_err(|e| vec![syntax(text, e.span().map_or(0, |span| span.start), &one_line(e.message()))])?;
        let places = Places::of(document.get_ref());
        let (config, mut problems) = deserialize(document, &places);
        // After a type error a default stands in for the value, and would cause problems nobody made: then only what values are
        // on their own is said.
        let misread = problems.iter().any(|problem| matches!(problem.kind, ProblemKind::Type(_)));
        problems.extend(config.validate().into_iter().filter(|problem| !misread || problem.kind.is_of_one_value()));
        if problems.is_empty() {
            return Ok(config);
        }
        for problem in &mut problems {
            problem.line = places.start_of(&problem.key).map(|start| line(text, start));
        }
        problems.sort_by_key(|problem| problem.line);
        Err(problems)
    }
}

/// What is in a file. Opening a pipe that nobody writes to would wait for ever, and a device may never end.
fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if !kind.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Unknown keys, and values of the wrong type: all of them, by taking out what cannot be read and trying again.
fn deserialize(mut document: Spanned<DeTable<'_>>, places: &Places) -> (Config, Vec<Problem>) {
    let mut unknown = BTreeSet::new();
    let mut problems = Vec::new();
    let config = loop {
        let mut ignored = |path: serde_ignored::Path<'_>| _ = unknown.insert(KeyPath::from(&path));
        let deserializer = serde_ignored::Deserializer::new(Deserializer::from(document.clone()), &mut ignored);
        let error = match Config::deserialize(deserializer) {
            Ok(config) => break config,
            Err(error) => error,
        };
        let key = error.span().and_then(|span| places.at(&span)).unwrap_or_default();
        let removed = remove(document.get_mut(), &key);
        problems.push(Problem { line: None, key, kind: ProblemKind::Type(one_line(error.message())) });
        if !removed {
            break Config::default();
        }
    };
    problems.extend(unknown.into_iter().map(|key| {
        let nearest = keys::nearest_key(&key);
        Problem { line: None, key, kind: ProblemKind::UnknownKey { nearest } }
    }));
    (config, problems)
}

/// Takes the key out of the document, or, because the places of the others must not change, the whole array around it.
fn remove(table: &mut DeTable<'_>, path: &KeyPath) -> bool {
    let mut table = table;
    for (i, segment) in path.0.iter().enumerate() {
        let Segment::Key(key) = segment else { return false };
        let leads_on = matches!(path.0.get(i + 1), Some(Segment::Key(_)));
        if !leads_on {
            return table.remove(key.as_str()).is_some();
        }
        match table.get_mut(key.as_str()).map(Spanned::get_mut) {
            Some(DeValue::Table(inner)) => table = inner,
            _ => return false,
        }
    }
    false
}

fn syntax(text: &str, offset: usize, message: &str) -> Problem {
    let before = text.get(..offset).unwrap_or(text);
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let kind = ProblemKind::Syntax { column, message: message.to_owned() };
    Problem { line: Some(line(text, offset)), key: KeyPath::default(), kind }
}

fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(", ")
}

/// Where each key and each value stands in the text.
struct Places(Vec<Place>);

struct Place {
    path: KeyPath,
    /// Where the key, or the array element, begins. Which line that is costs a walk through the text: only for problems.
    start: usize,
    value: Range<usize>,
}

impl Places {
    fn of(document: &DeTable<'_>) -> Self {
        let mut places = Self(Vec::new());
        places.add_table(&KeyPath::default(), document);
        places
    }

    fn add_table(&mut self, at: &KeyPath, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = at.key(key.get_ref());
            self.add(&path, key.span().start, value);
        }
    }

    fn add(&mut self, path: &KeyPath, start: usize, value: &Spanned<DeValue<'_>>) {
        self.0.push(Place { path: path.clone(), start, value: value.span() });
        match value.get_ref() {
            DeValue::Table(table) => self.add_table(path, table),
            DeValue::Array(elements) => {
                for (i, element) in elements.iter().enumerate() {
                    self.add(&path.index(i), element.span().start, element);
                }
            }
            _ => {}
        }
    }

    /// Where a key begins; if it is not in the file, the nearest one around it that is.
    fn start_of(&self, path: &KeyPath) -> Option<usize> {
        let mut path = path.clone();
        while !path.0.is_empty() {
            if let Some(place) = self.0.iter().find(|place| place.path == path) {
                return Some(place.start);
            }
            path.0.pop();
        }
        None
    }

    /// The innermost key whose value has this span in it.
    fn at(&self, span: &Range<usize>) -> Option<KeyPath> {
        let around = |place: &&Place| place.value.start <= span.start && span.end <= place.value.end;
        self.0.iter().filter(around).max_by_key(|place| place.path.0.len()).map(|place| place.path.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn problems(text: &str) -> Vec<String> {
        Config::from_toml(text).unwrap_err().iter().map(Problem::to_string).collect()
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        for path in [pipe.as_path(), Path::new("/dev/zero")] {
            let error = Config::load(path).unwrap_err().to_string();
            assert!(error.contains("it is not a regular file; name a file with --config"), "{error}");
        }
    }

    #[test]
    fn a_relative_path_is_beside_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("dhcp-guard.toml");
        fs::write(&file, "inventory = \"machines.csv\"\nstate_dir = \"state\"\n").unwrap();
        let config = Config::load(&file).unwrap();
        assert_eq!(config.inventory, Some(dir.path().join("machines.csv")));
        assert_eq!(config.state_dir, dir.path().join("state"));
        fs::write(&file, "inventory = \"/etc/machines.csv\"\n").unwrap();
        let config = Config::load(&file).unwrap();
        assert_eq!(config.inventory, Some("/etc/machines.csv".into()));
        assert_eq!(config.state_dir, Path::new("/var/lib/dhcp-guard"));
    }

    #[test]
    fn a_relative_secret_is_beside_the_file_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("dhcp-guard.toml");
        fs::write(&file, "[actuator.webhook]\nurl = \"http://noc/\"\nsecret_file = \"noc.secret\"\n").unwrap();
        let webhook = Config::load(&file).unwrap().actuators.webhook.unwrap();
        assert_eq!(webhook.secret_file, Some(dir.path().join("noc.secret")));
    }

    #[test]
    fn an_unknown_actuator_is_refused_in_one_sentence() {
        assert_eq!(
            problems("[class.mine]\nrate_pps = 1\nburst = 1\nactuators = ['link_up']\nquarantine = 'mutes'"),
            [
                "line 4: class.mine.actuators[0]: unknown variant `link_up`, expected one of `link_down`, `command`, `webhook`",
                "line 5: class.mine.quarantine: unknown variant `mutes`, expected one of `off`, `mute`, `isolate`",
            ]
        );
    }

    #[test]
    fn a_syntax_error_has_line_and_column() {
        let problems = problems("mode = 'monitor'\n\n[limits\n");
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("line 3, column 8: "), "{problems:?}");
    }

    #[test]
    fn all_unknown_keys_are_reported_with_line_and_neighbour() {
        let text = "
inteface = ['eth0']
client_burst = 3
[limits]
client_rat_pps = 3
[class.of-mine]
rate_pps = 1
burst = 1
brust = 2
[[port]]
interface = 'eth0'
[[port]]
interface = 'eth1'
vlan = [3]
";
        assert_eq!(
            problems(text),
            [
                "line 2: inteface: there is no such key, did you mean `interfaces`?",
                "line 3: client_burst: there is no such key, did you mean `limits.client_burst`?",
                "line 5: limits.client_rat_pps: there is no such key, did you mean `client_rate_pps`?",
                "line 9: class.of-mine.brust: there is no such key, did you mean `burst`?",
                "line 14: port[1].vlan: there is no such key, did you mean `vlans`?",
            ]
        );
    }

    #[test]
    fn all_wrong_types_are_reported_and_cause_no_others() {
        let text = "
default_class = 'mine'
mode = 'enfore'
unknown_thing = 1
[limits]
client_rate_pps = 'two'
client_burst = -1
[class.mine]
rate_pps = 1
[[known_client]]
interface = 'eth0'
mac = 'eth0'
";
        let problems = problems(text);
        assert_eq!(problems.len(), 6, "{problems:#?}");
        for (problem, start, word) in [
            (&problems[0], "line 3: mode: ", "monitor"),
            (&problems[1], "line 4: unknown_thing: ", "no such key"),
            (&problems[2], "line 6: limits.client_rate_pps: ", "two"),
            (&problems[3], "line 7: limits.client_burst: ", "-1"),
            (&problems[4], "line 8: class.mine: ", "burst"),
            (&problems[5], "line 12: known_client[0].mac: ", "is not a MAC address"),
        ] {
            assert!(problem.starts_with(start) && problem.contains(word), "{problem}");
            assert!(!problem.contains('\n'), "{problem}");
        }
    }

    #[test]
    fn values_out_of_range_are_said_beside_wrong_types() {
        let text = "mode = 'enfore'\n[limits]\nclient_burst = 0\n[host]\nburst = 'x'\nrate_pps = 0\n";
        let problems = problems(text);
        assert_eq!(problems.len(), 4, "{problems:#?}");
        assert_eq!(problems[1], "line 3: limits.client_burst: 0 is out of range, use 1 to 1,000,000");
        assert_eq!(problems[3], "line 6: host.rate_pps: 0 is out of range, use 1 to 1,000,000");
    }

    #[test]
    fn problems_of_values_have_lines() {
        let text = "[limits]\n\nclient_burst = 0\n[[port]]\ninterface = 'eth0'\nvlans = [0]\nclass = 'meta'\n";
        assert_eq!(
            problems(text),
            [
                "line 3: limits.client_burst: 0 is out of range, use 1 to 1,000,000",
                "line 6: port[0].vlans[0]: 0 is not a VLAN id, use 1 to 4094",
                "line 7: port[0].class: there is no class `meta`, did you mean `metal`?",
            ]
        );
    }

    #[test]
    fn files_are_read_or_the_error_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        let error = Config::load(&file).unwrap_err();
        assert!(matches!(&error, ConfigError::Unreadable { path, .. } if *path == file));
        assert!(error.to_string().contains("a.toml"));

        fs::write(&file, "interfaces = ['eth0']\n").unwrap();
        assert_eq!(Config::load(&file).unwrap().interfaces, ["eth0"]);

        fs::write(&file, "mode = 'no'\nfoo = 1\n").unwrap();
        let error = Config::load(&file).unwrap_err();
        assert!(matches!(&error, ConfigError::Invalid { problems, .. } if problems.len() == 2), "{error}");
        assert!(!error.to_string().contains('\n'));

        fs::write(&file, b"mode = 'enforce'\n# \xff\n").unwrap();
        assert!(Config::load(&file).unwrap_err().to_string().contains("line 2, column 3: the file is not UTF-8"));
    }
}
