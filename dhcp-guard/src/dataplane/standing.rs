//! The orders that stand, by name. Ports get other slots when their interface comes back, or is called otherwise: then
//! whatever was ordered about the name holds where the name leads by now.

use std::{collections::BTreeMap, slice};

use super::{DataPlane, Error, orders::SlotOf};
use crate::governor::{Sanction, Subject};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// By number: whom, what, until which tick.
    pub(super) quarantines: BTreeMap<u64, (Vec<Subject>, Sanction, u64)>,
    /// Until which tick.
    pub(super) allowed: BTreeMap<Subject, u64>,
}

impl DataPlane {
    /// Carries out again every order that stands, after names have come to lead to other slots: ports that are there again
    /// are in quarantine again, and those that are called otherwise are not.
    ///
    /// # Errors
    /// [`Error::Map`] if a table is full or the kernel refuses. The rest is carried out all the same.
    pub fn carry_out_again(&mut self, slot_of: SlotOf<'_>) -> Result<(), Error> {
        let quarantines = self.carried.standing.quarantines.clone();
        let allowed = self.carried.standing.allowed.clone();
        let mut touched = Vec::new();
        for (id, (subjects, sanction, until)) in quarantines {
            let places = self.places(&subjects, slot_of);
            touched.extend(self.carried.impose(id, &places, sanction, until));
        }
        for (subject, until) in allowed {
            let places = self.places(slice::from_ref(&subject), slot_of);
            touched.extend(self.carried.allow(&subject, &places, until));
        }
        self.write(&touched)
    }
}
