//! A row: its columns as text, wherever they came from, and what they mean. CSV and JSON differ in how they write a row
//! down, and in nothing else, so there is one place that judges it.

use super::{Machine, RowProblemKind, index::Outlet};
use crate::{governor::PortName, mac::Mac};

/// What a row can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    ServerId,
    Name,
    Owner,
    Interface,
    Vlans,
    Mac,
    Switch,
    SwitchPort,
    Zone,
    Class,
    Protected,
}

impl Column {
    /// In the order of their declaration.
    pub(super) const ALL: [(Self, &'static str); 11] = [
        (Self::ServerId, "server_id"),
        (Self::Name, "name"),
        (Self::Owner, "owner"),
        (Self::Interface, "interface"),
        (Self::Vlans, "vlans"),
        (Self::Mac, "mac"),
        (Self::Switch, "switch"),
        (Self::SwitchPort, "switch_port"),
        (Self::Zone, "zone"),
        (Self::Class, "class"),
        (Self::Protected, "protected"),
    ];

    /// The column of this name, in whatever case.
    pub(super) fn named(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(column, _)| *column)
    }

    pub(super) fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// A row as it is written, by column; what is empty is not there.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields([Option<String>; Column::ALL.len()]);

impl Fields {
    pub(super) fn set(&mut self, column: Column, text: &str) {
        let text = text.trim();
        self.0[column as usize] = (!text.is_empty()).then(|| text.to_owned());
    }

    pub(super) fn get(&self, column: Column) -> Option<&str> {
        self.0[column as usize].as_deref()
    }

    fn owned(&self, column: Column) -> Option<String> {
        self.get(column).map(str::to_owned)
    }

    /// What the row says about protection; none: nothing.
    pub(super) fn protection(&self) -> Option<Protection> {
        let text = self.get(Column::Protected)?;
        Some(match text.to_ascii_lowercase().as_str() {
            "true" | "yes" => Protection::Yes,
            "false" | "no" => Protection::No,
            _ => Protection::Unclear,
        })
    }
}

/// Whether a machine must never be put into quarantine.
///
/// What is neither yes nor no may be a yes with a typing error. To take it for a no would let a machine be cut off that
/// somebody meant to protect; to take it for a yes costs a sanction that a person can still impose once the row is
/// corrected. So it counts as yes, and is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    Yes,
    No,
    Unclear,
}

impl Protection {
    pub(super) fn protects(self) -> bool {
        self != Self::No
    }
}

/// A row that can be used.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) machine: Machine,
    pub(super) outlet: Outlet,
    pub(super) protection: Option<Protection>,
    pub(super) port: Option<PortName>,
    pub(super) macs: Vec<Mac>,
}

impl Row {
    pub(super) fn of(fields: &Fields) -> Result<Self, RowProblemKind> {
        let server_id = fields.owned(Column::ServerId).ok_or(RowProblemKind::NoServerId)?;
        let protection = fields.protection();
        let machine = Machine {
            server_id,
            name: fields.owned(Column::Name),
            owner: fields.owned(Column::Owner),
            zone: fields.owned(Column::Zone),
            class: fields.owned(Column::Class),
            protected: protection.is_some_and(Protection::protects),
        };
        let outlet = Outlet { switch: fields.owned(Column::Switch), switch_port: fields.owned(Column::SwitchPort) };
        let port = match (fields.owned(Column::Interface), fields.get(Column::Vlans)) {
            (Some(interface), vlans) => Some(PortName { interface, vlans: vlans.map_or(Ok(Vec::new()), parse_vlans)? }),
            (None, Some(_)) => return Err(RowProblemKind::VlansWithoutInterface),
            (None, None) => None,
        };
        let macs = fields.get(Column::Mac).map_or(Ok(Vec::new()), parse_macs)?;
        if port.is_none() && macs.is_empty() {
            return Err(RowProblemKind::NamesNothing);
        }
        Ok(Self { machine, outlet, protection, port, macs })
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
