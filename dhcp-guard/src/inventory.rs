//! The inventory: a CSV file that gives ports and MACs the name of a machine.
//!
//! It is only used to tell people who somebody is. A row that cannot be used is listed and skipped; the others count.

use std::{
    collections::{HashMap, hash_map::Entry},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use csv::StringRecord;

use crate::{
    config::port_name,
    mac::{Mac, MacError},
};

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its stable id.
    pub server_id: String,
    /// Its name.
    pub name: Option<String>,
    /// Whose it is.
    pub owner: Option<String>,
}

/// All machines, by port and by MAC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    machines: Vec<Machine>,
    /// Indices into `machines`.
    by_port: HashMap<String, HashMap<Vec<u16>, usize>>,
    by_mac: HashMap<Mac, Vec<Claim>>,
}

/// Why there is no inventory.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The file cannot be read.
    #[error("cannot read the inventory {}: {reason}; correct `inventory` in the configuration", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// The header cannot be used.
    #[error("the header of the inventory {} is not valid: {problem}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: HeaderProblem,
    },
}

/// What is wrong with the header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderProblem {
    /// Nothing can be named.
    #[error("there is no column server_id, name the columns in the first line")]
    NoServerId,
    /// Which one counts?
    #[error("there are two columns {0}, remove one")]
    Twice(String),
    /// Not CSV, not UTF-8.
    #[error("{0}")]
    Csv(String),
}

/// A row, or a part of it, that does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {kind}")]
pub struct RowProblem {
    /// Line of the file, from 1.
    pub line: u64,
    /// What is wrong.
    pub kind: RowProblemKind,
}

/// What can be wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowProblemKind {
    /// In the header: nobody knows this column.
    #[error("column `{0}` is ignored, use server_id, name, owner, interface, vlans, mac")]
    UnknownColumn(String),
    /// Not CSV, not UTF-8.
    #[error("{0}")]
    Csv(String),
    /// Columns would be mixed up.
    #[error("there are {found} fields, the header has {expected}")]
    FieldCount {
        /// In this row.
        found: usize,
        /// In the header.
        expected: usize,
    },
    /// Nobody is named.
    #[error("server_id is empty")]
    NoServerId,
    /// Nothing is named.
    #[error("there is neither an interface nor a mac, so the row names nothing")]
    NamesNothing,
    /// VLANs of what?
    #[error("there are vlans without an interface")]
    VlansWithoutInterface,
    /// Not one or two VLAN ids.
    #[error("`{0}` is not a VLAN stack, write 100, or 100.20 with the outer id first")]
    Vlans(String),
    /// Not a MAC.
    #[error(transparent)]
    Mac(#[from] MacError),
    /// No machine sends from this MAC.
    #[error("{0} cannot be a machine's MAC, use a unicast address")]
    NotUnicast(Mac),
    /// Somebody else has this port or MAC; the first row counts.
    #[error("{what} is {first}'s already, by an earlier row")]
    Taken {
        /// Port or MAC.
        what: String,
        /// Who has it.
        first: String,
    },
}

impl Inventory {
    /// Reads a file. An empty one is an inventory that knows nobody.
    ///
    /// # Errors
    /// The file cannot be read, or its header does not say where the server ids are. Rows that are wrong are no error.
    pub fn load(path: &Path) -> Result<(Self, Vec<RowProblem>), InventoryError> {
        let unreadable = |reason| InventoryError::Unreadable { path: path.to_owned(), reason };
        let mut text = Vec::new();
        File::open(path).and_then(|mut file| file.read_to_end(&mut text)).map_err(unreadable)?;
        Self::from_csv(&text).map_err(|problem| InventoryError::Header { path: path.to_owned(), problem })
    }

    /// Loads what a configuration names, and says in sentences what is wrong with it. The inventory only names machines:
    /// whatever is wrong, the guard works.
    #[must_use]
    pub fn load_or_warn(path: Option<&Path>) -> (Self, Vec<String>) {
        let Some(path) = path else { return (Self::default(), Vec::new()) };
        match Self::load(path) {
            Ok((inventory, problems)) => {
                let warning = |problem: &RowProblem| format!("inventory {}: {problem}", path.display());
                (inventory, problems.iter().map(warning).collect())
            }
            Err(error) => (Self::default(), vec![format!("{:#}", anyhow::Error::new(error))]),
        }
    }

    /// Reads the bytes of a file, see [`Self::load`].
    ///
    /// # Errors
    /// The header does not say where the server ids are.
    pub fn from_csv(text: &[u8]) -> Result<(Self, Vec<RowProblem>), HeaderProblem> {
        let mut inventory = Self::default();
        let mut problems = Vec::new();
        let mut lines = Lines { text, offset: 0, line: 1 };
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .comment(Some(b'#'))
            // Rows are held against the header here: one of empty fields is a blank line, not an error.
            .flexible(true)
            .from_reader(text);
        let header = reader.headers().map_err(|e| HeaderProblem::Csv(e.to_string()))?.clone();
        if header.is_empty() {
            return Ok((inventory, problems));
        }
        let (columns, unknown) = Columns::of(&header)?;
        let line = lines.at(0);
        problems.extend(unknown.into_iter().map(|kind| RowProblem { line, kind }));
        let mut record = StringRecord::new();
        loop {
            let line = lines.at(reader.position().byte());
            let found = match reader.read_record(&mut record) {
                Ok(false) => return Ok((inventory, problems)),
                Ok(true) if record.iter().all(str::is_empty) => continue,
                Ok(true) => columns.row(&record).map(|row| inventory.add(row)),
                Err(e) => Err(csv_problem(&e)),
            };
            let kinds = found.unwrap_or_else(|kind| vec![kind]);
            problems.extend(kinds.into_iter().map(|kind| RowProblem { line, kind }));
        }
    }

    /// Who it is: whoever has the MAC there, whoever has it anywhere, or else whoever has the port for itself.
    #[must_use]
    pub fn machine(&self, interface: &str, vlans: &[u16], mac: Option<Mac>) -> Option<&Machine> {
        let here = |place: &Place| place.0 == interface && place.1 == vlans;
        let by_mac = || {
            let claims = self.by_mac.get(&mac?)?;
            let scoped = claims.iter().find(|claim| claim.place.as_ref().is_some_and(here));
            scoped.or_else(|| claims.iter().find(|claim| claim.place.is_none())).map(|claim| &claim.index)
        };
        let by_port = || self.by_port.get(interface)?.get(vlans);
        by_mac().or_else(by_port).and_then(|index| self.machines.get(*index))
    }

    /// Takes over what is not somebody else's already.
    fn add(&mut self, row: Row) -> Vec<RowProblemKind> {
        let index = self.machines.len();
        let mut taken = Vec::new();
        let server_id = row.machine.server_id.clone();
        self.machines.push(row.machine);
        let mut occupied = |by: usize, what: String| {
            let first = &self.machines[by].server_id;
            // The same machine in two rows: no contradiction.
            if *first != server_id {
                taken.push(RowProblemKind::Taken { what, first: first.clone() });
            }
        };
        // A row with MACs says whose those are, and perhaps where: it does not make the port, which others may share,
        // that machine's.
        if row.macs.is_empty()
            && let Some((interface, vlans)) = row.port.clone()
        {
            let what = || format!("port {}", port_name(&interface, &vlans));
            match self.by_port.entry(interface.clone()).or_default().entry(vlans.clone()) {
                Entry::Occupied(entry) => occupied(*entry.get(), what()),
                Entry::Vacant(entry) => _ = entry.insert(index),
            }
        }
        for mac in row.macs {
            let claims = self.by_mac.entry(mac).or_default();
            match claims.iter().find(|claim| claim.place == row.port) {
                Some(claim) => occupied(claim.index, mac.to_string()),
                None => claims.push(Claim { place: row.port.clone(), index }),
            }
        }
        taken
    }
}

/// An interface and VLANs.
type Place = (String, Vec<u16>);

/// Whose a MAC is: on one port, or wherever it shows up.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    place: Option<Place>,
    /// Index into `machines`.
    index: usize,
}

/// One row that can be used.
struct Row {
    machine: Machine,
    port: Option<Place>,
    macs: Vec<Mac>,
}

/// Line numbers for ever larger offsets into a text.
struct Lines<'a> {
    text: &'a [u8],
    offset: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of the first row at or after `offset`; the reader skips line ends and comments without saying so.
    fn at(&mut self, offset: u64) -> u64 {
        let target = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut comment = false;
        while let Some(byte) = self.text.get(self.offset) {
            comment = *byte != b'\n' && (comment || *byte == b'#');
            if self.offset >= target && !comment && !matches!(byte, b'\r' | b'\n') {
                break;
            }
            self.line += u64::from(*byte == b'\n');
            self.offset += 1;
        }
        self.line
    }
}

/// Where each column is.
struct Columns {
    count: usize,
    server_id: usize,
    name: Option<usize>,
    owner: Option<usize>,
    interface: Option<usize>,
    vlans: Option<usize>,
    mac: Option<usize>,
}

impl Columns {
    fn of(header: &StringRecord) -> Result<(Self, Vec<RowProblemKind>), HeaderProblem> {
        // Spreadsheets begin a file with a byte order mark.
        let mut left: Vec<(usize, String)> = header
            .iter()
            .map(|name| name.trim_start_matches('\u{feff}').trim().to_ascii_lowercase())
            .enumerate()
            .collect();
        let mut take = |name: &str| {
            let mut found = left.extract_if(.., |(_, column)| column == name).map(|(index, _)| index);
            let first = found.next();
            if found.next().is_some() { Err(HeaderProblem::Twice(name.to_owned())) } else { Ok(first) }
        };
        let columns = Self {
            count: header.len(),
            server_id: take("server_id")?.ok_or(HeaderProblem::NoServerId)?,
            name: take("name")?,
            owner: take("owner")?,
            interface: take("interface")?,
            vlans: take("vlans")?,
            mac: take("mac")?,
        };
        Ok((columns, left.into_iter().map(|(_, name)| RowProblemKind::UnknownColumn(name)).collect()))
    }

    fn row(&self, record: &StringRecord) -> Result<Row, RowProblemKind> {
        let (found, expected) = (record.len(), self.count);
        if found != expected {
            return Err(RowProblemKind::FieldCount { found, expected });
        }
        let field = |column: Option<usize>| column.and_then(|i| record.get(i)).filter(|text| !text.is_empty());
        let server_id = field(Some(self.server_id)).ok_or(RowProblemKind::NoServerId)?.to_owned();
        let owned = |column| field(column).map(str::to_owned);
        let machine = Machine { server_id, name: owned(self.name), owner: owned(self.owner) };
        let port = match (owned(self.interface), field(self.vlans)) {
            (Some(interface), vlans) => Some((interface, vlans.map_or(Ok(Vec::new()), parse_vlans)?)),
            (None, Some(_)) => return Err(RowProblemKind::VlansWithoutInterface),
            (None, None) => None,
        };
        let macs = field(self.mac).map_or(Ok(Vec::new()), parse_macs)?;
        if port.is_none() && macs.is_empty() {
            return Err(RowProblemKind::NamesNothing);
        }
        Ok(Row { machine, port, macs })
    }
}

/// `100`, `100.20`
fn parse_vlans(text: &str) -> Result<Vec<u16>, RowProblemKind> {
    let id = |text: &str| text.parse().ok().filter(|id| (1..4095).contains(id));
    let ids: Option<Vec<u16>> = text.split('.').map(id).collect();
    ids.filter(|ids| ids.len() <= 2).ok_or_else(|| RowProblemKind::Vlans(text.to_owned()))
}

/// One or several, with blanks or semicolons between them.
fn parse_macs(text: &str) -> Result<Vec<Mac>, RowProblemKind> {
    text.split([' ', ';'])
        .filter(|text| !text.is_empty())
        .map(|text| {
            let mac: Mac = text.parse()?;
            if mac.is_unicast() { Ok(mac) } else { Err(RowProblemKind::NotUnicast(mac)) }
        })
        .collect()
}

fn csv_problem(error: &csv::Error) -> RowProblemKind {
    match error.kind() {
        csv::ErrorKind::Utf8 { .. } => RowProblemKind::Csv("the row is not UTF-8 text".to_owned()),
        _ => RowProblemKind::Csv(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn read(text: &str) -> (Inventory, Vec<String>) {
        let (inventory, problems) = Inventory::from_csv(text.as_bytes()).unwrap();
        (inventory, problems.iter().map(RowProblem::to_string).collect())
    }

    fn id(machine: Option<&Machine>) -> Option<&str> {
        machine.map(|machine| machine.server_id.as_str())
    }

    #[test]
    fn names_by_mac_then_by_port() {
        let (inventory, problems) = read(
            "mac,server_id,owner,name,vlans,interface
             02:00:00:00:00:01; 0200.0000.0002,em-1,alice,web,,
             ,em-2,,,100.20,eth0
             ,em-3,,,,eth0
            ",
        );
        assert!(problems.is_empty(), "{problems:?}");
        let web = Machine { server_id: "em-1".into(), name: Some("web".into()), owner: Some("alice".into()) };
        assert_eq!(inventory.machine("eth9", &[], Some(MAC)), Some(&web));
        assert_eq!(inventory.machine("eth0", &[100, 20], Some(Mac([2, 0, 0, 0, 0, 2]))), Some(&web), "MAC wins");
        assert_eq!(id(inventory.machine("eth0", &[100, 20], Some(Mac([2, 0, 0, 0, 0, 3])))), Some("em-2"));
        assert_eq!(id(inventory.machine("eth0", &[100, 20], None)), Some("em-2"));
        assert_eq!(id(inventory.machine("eth0", &[], None)), Some("em-3"));
        assert_eq!(inventory.machine("eth0", &[100], None), None);
        assert_eq!(inventory.machine("eth1", &[], None), None);
    }

    #[test]
    fn bad_rows_are_listed_with_their_line_and_the_rest_counts() {
        let (inventory, problems) = read(
            "server_id,interface,vlans,mac,rack\n\
             em-1,eth0,4095,,\n\
             ,eth0,,,\n\
             em-3,,,,\n\
             em-4,,100,,\n\
             em-5,,,02:00:00:00:00:01 nonsense,\n\
             em-6,,,ff:ff:ff:ff:ff:ff,\n\
             em-7,eth0\n\
             # a comment\n\
             em-8,eth0,1.2.3,,\n\
             em-9,eth0,,,r1\n",
        );
        let starts = [
            "line 1: column `rack` is ignored",
            "line 2: `4095` is not a VLAN stack",
            "line 3: server_id is empty",
            "line 4: there is neither",
            "line 5: there are vlans without",
            "line 6: `nonsense` is not a MAC",
            "line 7: ff:ff:ff:ff:ff:ff cannot",
            "line 8: there are 2 fields, the header has 5",
            "line 10: `1.2.3` is not a VLAN stack",
        ];
        assert_eq!(problems.len(), starts.len(), "{problems:#?}");
        for (problem, start) in problems.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem}");
        }
        assert_eq!(id(inventory.machine("eth0", &[], None)), Some("em-9"));
        assert_eq!(inventory.machine("", &[], Some(MAC)), None, "a bad row is skipped as a whole");
    }

    #[test]
    fn the_first_of_two_owners_wins() {
        let (inventory, problems) = read(
            "server_id,interface,mac\n\
             em-1,eth0,02:00:00:00:00:01\n\
             em-2,eth0,02:00:00:00:00:01 02:00:00:00:00:02\n\
             em-1,eth0,02:00:00:00:00:01\n\
             em-3,eth1,\n\
             em-4,eth1,\n",
        );
        assert_eq!(
            problems,
            [
                "line 3: 02:00:00:00:00:01 is em-1's already, by an earlier row",
                "line 6: port eth1 is em-3's already, by an earlier row",
            ],
            "the same machine in two rows is no contradiction"
        );
        assert_eq!(id(inventory.machine("eth0", &[], Some(MAC))), Some("em-1"));
        assert_eq!(id(inventory.machine("eth0", &[], Some(Mac([2, 0, 0, 0, 0, 2])))), Some("em-2"));
        assert_eq!(id(inventory.machine("eth1", &[], None)), Some("em-3"));
    }

    #[test]
    fn machines_that_share_a_port_do_not_answer_for_each_other() {
        let (inventory, problems) = read(
            "server_id,interface,mac\n\
             em-1,eth0,02:00:00:00:00:01\n\
             em-2,eth0,02:00:00:00:00:02\n\
             em-3,,02:00:00:00:00:03\n",
        );
        assert_eq!(problems, Vec::<String>::new());
        let machine = |interface, last| id(inventory.machine(interface, &[], Some(Mac([2, 0, 0, 0, 0, last]))));
        assert_eq!([1, 2, 3].map(|last| machine("eth0", last)), [Some("em-1"), Some("em-2"), Some("em-3")]);
        assert_eq!(
            [1, 2, 3].map(|last| machine("eth1", last)),
            [None, None, Some("em-3")],
            "only where it is said to be"
        );
        assert_eq!(machine("eth0", 9), None, "a stranger on a port of others");
        assert_eq!(id(inventory.machine("eth0", &[], None)), None, "the port is nobody's");
    }

    #[test]
    fn an_empty_file_knows_nobody() {
        for text in ["", "\n\n", "server_id,mac\n"] {
            assert_eq!(read(text), (Inventory::default(), vec![]), "{text:?}");
        }
    }

    #[test]
    fn without_a_usable_header_there_is_no_inventory() {
        let problem = |text: &str| Inventory::from_csv(text.as_bytes()).unwrap_err();
        assert_eq!(problem("em-1,eth0,02:00:00:00:00:01\n"), HeaderProblem::NoServerId);
        assert_eq!(problem("server_id,mac,MAC\n"), HeaderProblem::Twice("mac".into()));
    }

    #[test]
    fn lines_are_counted_over_whatever_is_skipped() {
        let text = "server_id,name,interface\r\n# a #comment, with a comma\r\n\r\n,,\r\nem-1,\"two\r\nlines # here\",eth0\r\n,,eth1";
        let (inventory, problems) = read(text);
        assert_eq!(problems, ["line 7: server_id is empty"]);
        assert_eq!(id(inventory.machine("eth0", &[], None)), Some("em-1"));
    }

    #[test]
    fn spreadsheets_are_understood() {
        let (inventory, problems) = read("\u{feff}Server_ID,Name,Interface\r\n\"em-1\",\"a, b\",eth0\r\n");
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(inventory.machine("eth0", &[], None).unwrap().name.as_deref(), Some("a, b"));
    }

    #[test]
    fn a_row_that_is_not_text_is_skipped() {
        let (inventory, problems) = Inventory::from_csv(b"server_id,interface\n\xff,eth0\nem-2,eth0\n").unwrap();
        assert_eq!(
            problems.iter().map(RowProblem::to_string).collect::<Vec<_>>(),
            ["line 2: the row is not UTF-8 text"]
        );
        assert_eq!(id(inventory.machine("eth0", &[], None)), Some("em-2"));
    }

    #[test]
    fn files_are_read_or_the_error_names_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("inventory.csv");
        assert!(Inventory::load(&file).unwrap_err().to_string().contains("inventory.csv"));
        std::fs::write(&file, "server_id,interface\nem-1,eth0\n").unwrap();
        let (inventory, problems) = Inventory::load(&file).unwrap();
        assert!(problems.is_empty());
        assert_eq!(id(inventory.machine("eth0", &[], None)), Some("em-1"));
        std::fs::write(&file, "name\n").unwrap();
        let error = Inventory::load(&file).unwrap_err();
        assert!(error.to_string().contains("inventory.csv is not valid: there is no column server_id"), "{error}");
    }
}
