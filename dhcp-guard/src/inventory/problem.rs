//! What can be wrong with an inventory, in sentences: a file that cannot be used, or one row of it.

use std::{io, path::PathBuf};

use crate::mac::{Mac, MacError};

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
    /// CSV: the header cannot be used.
    #[error("the header of the inventory {} is not valid: {problem}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: HeaderProblem,
    },
    /// JSON: there is no list.
    #[error("the inventory {} is not a list of machines: {problem}", path.display())]
    NoList {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: ListProblem,
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

/// Why a JSON document has no list of machines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}; write [{{…}}, …] or {{\"machines\": [{{…}}, …]}}")]
pub struct ListProblem {
    /// Line of the file, from 1.
    pub line: u64,
    /// What stands there instead.
    pub reason: String,
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

/// What can be wrong with a row. A row is a line of CSV, or an item of a JSON list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowProblemKind {
    /// In the header, or in an item: nobody knows this column.
    #[error(
        "column `{0}` is ignored, use server_id, name, owner, interface, vlans, mac, switch, switch_port, zone, class, \
         protected"
    )]
    UnknownColumn(String),
    /// Not CSV, not UTF-8.
    #[error("{0}")]
    Csv(String),
    /// Not JSON, or not of the right kind.
    #[error("{0}")]
    Json(String),
    /// The row goes on over lines that look like rows.
    #[error("a quote is opened and not closed in this line")]
    OpenQuote,
    /// The file may have been cut off.
    #[error("the list has no end, so the file may be incomplete")]
    NoEnd,
    /// To go on would take too long.
    #[error("so much of the file is not valid that the rest of it is left out")]
    Hopeless,
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
    /// Nobody may be taken for unprotected by a typing error.
    #[error("protected is `{0}`, write yes or no; until then {1} counts as protected")]
    Protected(String, String),
    /// One row says yes, another one no.
    #[error("rows of {0} contradict each other about protected: it counts as protected")]
    ProtectedAndNot(String),
    /// The row cannot be used, and it was to protect somebody.
    #[error("this row was to protect {0}, and protects none of its ports and MACs until it is corrected")]
    ProtectsNothing(String),
    /// Another row of the same machine says otherwise; the first row counts.
    #[error("{what} `{value}` contradicts an earlier row of {server_id}, which says `{first}` and counts")]
    Contradicts {
        /// Column.
        what: &'static str,
        /// In this row.
        value: String,
        /// In the row that counts.
        first: String,
        /// Of which machine.
        server_id: String,
    },
    /// Somebody else has this port or MAC; the first row counts.
    #[error("{what} is {first}'s already, by an earlier row")]
    Taken {
        /// Port or MAC.
        what: String,
        /// Who has it.
        first: String,
    },
}
