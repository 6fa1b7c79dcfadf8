//! From rows to an inventory: several rows with one server id are one machine, the first of two that contradict each
//! other counts, and a row that cannot be used takes nothing away from the others.

use std::collections::HashMap;

use super::{
    Inventory, RowProblem, RowProblemKind,
    index::{Claim, Entry, Outlet, Stake},
    rows::{Column, Fields, Protection, Row},
};
use crate::{governor::PortName, mac::Mac};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Builder {
    inventory: Inventory,
    by_id: HashMap<String, usize>,
    problems: Vec<RowProblem>,
    /// Line of the row that is being added.
    line: u64,
}

impl Builder {
    pub(super) fn finish(self) -> (Inventory, Vec<RowProblem>) {
        (self.inventory, self.problems)
    }

    /// Lists something that is wrong.
    pub(super) fn problem(&mut self, line: u64, kind: RowProblemKind) {
        self.problems.push(RowProblem { line, kind });
    }

    /// Adds a row, or lists why not; `broken`: what was wrong with it already when it was read.
    /// Whether it could be used.
    pub(super) fn row(&mut self, line: u64, fields: &Fields, broken: Option<RowProblemKind>) -> bool {
        self.line = line;
        let row = broken.map_or_else(|| Row::of(fields), Err);
        let usable = row.is_ok();
        match row {
            Ok(row) => self.add(row, fields),
            Err(kind) => self.skip(kind, fields),
        }
        usable
    }

    /// A row that cannot be used names nobody, but its word that a machine is protected still counts, for whatever other
    /// rows say is that machine's. What only this row names is lost, and that is said.
    fn skip(&mut self, kind: RowProblemKind, fields: &Fields) {
        self.tell(kind);
        if let Some(server_id) = fields.get(Column::ServerId)
            && let Some(protection) = fields.protection().filter(|protection| protection.protects())
        {
            self.tell(RowProblemKind::ProtectsNothing(server_id.to_owned()));
            let index = self.entry(server_id);
            self.protect(index, protection);
        }
    }

    fn tell(&mut self, kind: RowProblemKind) {
        self.problem(self.line, kind);
    }

    /// Takes over what is not somebody else's already.
    fn add(&mut self, row: Row, fields: &Fields) {
        let machine = self.entry(&row.machine.server_id);
        self.merge(machine, &row);
        if let Some(protection) = row.protection {
            if protection == Protection::Unclear {
                let text = fields.get(Column::Protected).unwrap_or_default().to_owned();
                self.tell(RowProblemKind::Protected(text, row.machine.server_id.clone()));
            }
            self.protect(machine, protection);
        }
        let outlet = (row.outlet != Outlet::default()).then(|| self.outlet(row.outlet));
        let stake = Stake { machine, outlet };
        // A row with MACs says whose those are, and perhaps where: it does not make the port, which others may share,
        // that machine's.
        match row.port {
            Some(port) if row.macs.is_empty() => self.add_port(stake, port),
            place => {
                if let Some(port) = &place {
                    self.add_guest(machine, port);
                }
                row.macs.into_iter().for_each(|mac| self.add_mac(stake, mac, place.as_ref()));
            }
        }
    }

    /// The machine with this id, new or not.
    fn entry(&mut self, server_id: &str) -> usize {
        let next = self.inventory.entries.len();
        let index = *self.by_id.entry(server_id.to_owned()).or_insert(next);
        if index == next {
            let mut entry = Entry::default();
            server_id.clone_into(&mut entry.machine.server_id);
            self.inventory.entries.push(entry);
        }
        index
    }

    /// What one row says of a machine, added to what others say.
    fn merge(&mut self, machine: usize, row: &Row) {
        let known = &mut self.inventory.entries[machine].machine;
        let new = &row.machine;
        let said = [
            (Column::Name, &mut known.name, &new.name),
            (Column::Owner, &mut known.owner, &new.owner),
            (Column::Zone, &mut known.zone, &new.zone),
            (Column::Class, &mut known.class, &new.class),
        ];
        let contradictions: Vec<_> = said
            .into_iter()
            .filter_map(|(column, known, new)| merge_text(column, known, new.as_ref(), &row.machine.server_id))
            .collect();
        contradictions.into_iter().for_each(|kind| self.tell(kind));
    }

    /// One word for protection is enough, whatever other rows say, and it is told where they disagree.
    fn protect(&mut self, machine: usize, protection: Protection) {
        let entry = &mut self.inventory.entries[machine];
        let before = entry.said;
        entry.said.0 |= protection.protects();
        entry.said.1 |= !protection.protects();
        entry.machine.protected = entry.said.0;
        if entry.said == (true, true) && before != entry.said {
            let server_id = entry.machine.server_id.clone();
            self.tell(RowProblemKind::ProtectedAndNot(server_id));
        }
    }

    fn outlet(&mut self, outlet: Outlet) -> usize {
        self.inventory.outlets.push(outlet);
        self.inventory.outlets.len() - 1
    }

    fn add_port(&mut self, stake: Stake, port: PortName) {
        let here = self.inventory.by_port.entry(port.interface.clone()).or_default();
        let owners = &mut here.entry(port.vlans.clone()).or_default().owners;
        let mine = owners.iter_mut().find(|owner| owner.machine == stake.machine);
        match (mine.map(|mine| *mine), owners.first().copied()) {
            (Some(mine), _) => {
                let merged = self.merge_outlets(mine, stake);
                self.set_port_outlet(&port, stake.machine, merged);
            }
            (None, first) => {
                owners.push(stake);
                match first {
                    Some(first) => self.taken(first, format!("port {port}")),
                    None => self.inventory.entries[stake.machine].ports.push(port),
                }
            }
        }
    }

    fn set_port_outlet(&mut self, port: &PortName, machine: usize, outlet: Option<usize>) {
        let here = self.inventory.by_port.get_mut(&port.interface).and_then(|here| here.get_mut(&port.vlans));
        let owner = here.and_then(|here| here.owners.iter_mut().find(|owner| owner.machine == machine));
        if let Some(owner) = owner {
            owner.outlet = outlet;
        }
    }

    fn add_guest(&mut self, machine: usize, port: &PortName) {
        let here = self.inventory.by_port.entry(port.interface.clone()).or_default();
        let guests = &mut here.entry(port.vlans.clone()).or_default().guests;
        // Rows of one machine usually follow each other; the same one twice does no harm.
        if guests.last() != Some(&machine) {
            guests.push(machine);
        }
    }

    fn add_mac(&mut self, stake: Stake, mac: Mac, place: Option<&PortName>) {
        let claims = self.inventory.by_mac.entry(mac).or_default();
        let mut same = claims.iter_mut().enumerate().filter(|(_, claim)| claim.place.as_ref() == place);
        let first = same.next().map(|(index, claim)| (index, claim.stake));
        let mine = first.filter(|(_, first)| first.machine == stake.machine).or_else(|| {
            same.map(|(index, claim)| (index, claim.stake)).find(|(_, other)| other.machine == stake.machine)
        });
        if let Some((index, mine)) = mine {
            let outlet = self.merge_outlets(mine, stake);
            if let Some(claim) = self.inventory.by_mac.get_mut(&mac).and_then(|claims| claims.get_mut(index)) {
                claim.stake.outlet = outlet;
            }
            return;
        }
        claims.push(Claim { place: place.cloned(), stake });
        match first {
            Some((_, first)) => self.taken(first, mac.to_string()),
            None => self.inventory.entries[stake.machine].macs.push((mac, place.cloned())),
        }
    }

    fn taken(&mut self, first: Stake, what: String) {
        let first = self.inventory.entries[first.machine].machine.server_id.clone();
        self.tell(RowProblemKind::Taken { what, first });
    }

    /// Two rows of one machine about the same port or MAC: the switch port of both.
    fn merge_outlets(&mut self, first: Stake, second: Stake) -> Option<usize> {
        let (Some(known), Some(new)) = (first.outlet, second.outlet) else { return first.outlet.or(second.outlet) };
        let mut merged = self.inventory.outlets[known].clone();
        // Not taken: other MACs of that row have it, too.
        let new = self.inventory.outlets[new].clone();
        let server_id = self.inventory.entries[first.machine].machine.server_id.clone();
        let contradictions = [
            merge_text(Column::Switch, &mut merged.switch, new.switch.as_ref(), &server_id),
            merge_text(Column::SwitchPort, &mut merged.switch_port, new.switch_port.as_ref(), &server_id),
        ];
        contradictions.into_iter().flatten().for_each(|kind| self.tell(kind));
        Some(self.outlet(merged))
    }
}

/// Takes over what was not known yet; what contradicts is not taken over.
fn merge_text(
    column: Column,
    known: &mut Option<String>,
    new: Option<&String>,
    server_id: &str,
) -> Option<RowProblemKind> {
    match (known.as_ref(), new) {
        (None, _) => *known = new.cloned(),
        (Some(first), Some(value)) if first != value => {
            return Some(RowProblemKind::Contradicts {
                what: column.name(),
                value: value.clone(),
                first: first.clone(),
                server_id: server_id.to_owned(),
            });
        }
        _ => {}
    }
    None
}
