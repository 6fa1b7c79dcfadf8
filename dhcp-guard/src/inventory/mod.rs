//! The inventory: a file that gives ports and MACs the name of a machine.
//!
//! It tells people who somebody is, what else is the same machine's, so that one decision covers all of it, and who must
//! never be put into quarantine. It never makes anybody an offender. A row that cannot be used is listed with its line and
//! skipped, and the others count; a file that is empty knows nobody.
//!
//! * `csv`, `json` (with `cursor`): the two ways to write it. `rows`: what a row means, however it is written.
//! * `build`: rows become machines. [`index`]: who is where.
//! * [`target`]: what one decision covers, and who is protected.
//! * [`watch`]: reads the file again when it changes.
//! * [`problem`]: what can be wrong, in sentences.

pub mod index;
pub mod problem;
pub mod target;
pub mod watch;

mod build;
mod csv;
mod cursor;
mod json;
mod rows;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

pub use self::{
    index::{Found, Inventory},
    problem::{HeaderProblem, InventoryError, ListProblem, RowProblem, RowProblemKind},
};

/// No inventory is larger: a file that is, is another one.
const LARGEST: u64 = 64 << 20;

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its stable id.
    pub server_id: String,
    /// Its name.
    pub name: Option<String>,
    /// Whose it is.
    pub owner: Option<String>,
    /// The zone it is in.
    pub zone: Option<String>,
    /// The class of its ports, see [`Inventory::class_of`].
    pub class: Option<String>,
    /// Never to be put into quarantine.
    pub protected: bool,
}

impl Inventory {
    /// Reads a file: JSON if its name ends in `.json`, else CSV. An empty one is an inventory that knows nobody.
    ///
    /// # Errors
    /// The file cannot be read, its header does not say where the server ids are, or it has no list. Rows that are wrong
    /// are no error.
    pub fn load(path: &Path) -> Result<(Self, Vec<RowProblem>), InventoryError> {
        let text = read(path).map_err(|reason| InventoryError::Unreadable { path: path.to_owned(), reason })?;
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
            Self::from_json(&text).map_err(|problem| InventoryError::NoList { path: path.to_owned(), problem })
        } else {
            Self::from_csv(&text).map_err(|problem| InventoryError::Header { path: path.to_owned(), problem })
        }
    }

    /// Loads what a configuration names, and says in sentences what is wrong with it. The inventory only names machines:
    /// whatever is wrong, the guard works.
    #[must_use]
    pub fn load_or_warn(path: Option<&Path>) -> (Self, Vec<String>) {
        let Some(path) = path else { return (Self::default(), Vec::new()) };
        Self::load_in_sentences(path).unwrap_or_else(|error| (Self::default(), vec![error]))
    }

    /// [`Self::load`], with problems and error as sentences.
    fn load_in_sentences(path: &Path) -> Result<(Self, Vec<String>), String> {
        let (inventory, problems) = Self::load(path).map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
        let sentence = |problem: &RowProblem| format!("inventory {}: {problem}", path.display());
        Ok((inventory, problems.iter().map(sentence).collect()))
    }

    /// Reads the bytes of a CSV file, see [`Self::load`].
    ///
    /// # Errors
    /// The header does not say where the server ids are.
    pub fn from_csv(text: &[u8]) -> Result<(Self, Vec<RowProblem>), HeaderProblem> {
        csv::read(text)
    }

    /// Reads the bytes of a JSON file, see [`Self::load`].
    ///
    /// # Errors
    /// There is no list of machines.
    pub fn from_json(text: &[u8]) -> Result<(Self, Vec<RowProblem>), ListProblem> {
        json::read(text)
    }
}

/// A device or a pipe could go on for ever, or never begin.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other(format!("it is larger than {} MiB", LARGEST >> 20)));
    }
    Ok(text)
}
