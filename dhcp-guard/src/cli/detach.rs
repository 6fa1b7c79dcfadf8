//! `detach`: takes the guard off, deliberately.

use std::path::Path;

use anyhow::{Context as _, bail};

use super::{Outcome, output::Output};
use crate::dataplane::{
    clsact, interface,
    pins::{PinError, PinFolder},
};

pub(super) fn detach(pin_dir: &Path, out: &mut Output) -> anyhow::Result<Outcome> {
    let found = PinFolder::peek(pin_dir);
    if found.with_context(|| format!("cannot look into the pin folder {}", pin_dir.display()))?.is_none() {
        out.text(&format!("no guard is pinned in {}: nothing to take off\n", pin_dir.display()))?;
        tell_of_unpinned(out)?;
        return Ok(Outcome::Done);
    }
    let pins = match PinFolder::open(pin_dir) {
        Ok(pins) => pins,
        Err(PinError::InUse(_)) => bail!(
            "cannot take the guard off while its agent runs, which would put it on again: stop the agent first (`systemctl \
             stop dhcp-guard`)"
        ),
        Err(error) => return Err(error.into()),
    };
    let cleared = pins.clear().with_context(|| format!("cannot look into the pin folder {}", pin_dir.display()))?;
    let name = |index: &u32| interface::name_of(*index).ok().flatten().unwrap_or_else(|| format!("interface {index}"));
    let names: Vec<String> = cleared.off.iter().map(name).collect();
    match (names.as_slice(), cleared.left.as_slice()) {
        ([], []) => out.text("no interface was guarded; what was kept of an earlier guard is removed\n")?,
        ([], _) => {}
        (names, _) => out.text(&format!("the guard is off: {}\n", names.join(", ")))?,
    }
    if !cleared.left.is_empty() {
        let left: Vec<String> = cleared.left.iter().map(ToString::to_string).collect();
        let what = if names.is_empty() { "nothing" } else { "not all" };
        bail!("{what} of what is pinned in {} is off: {}", pin_dir.display(), left.join("; "));
    }
    tell_of_unpinned(out)?;
    Ok(Outcome::Done)
}

/// A filter of tc outlives its pin. Whose it is then cannot be told, so that it is left to people.
fn tell_of_unpinned(out: &mut Output) -> anyhow::Result<()> {
    for filter in clsact::left_over() {
        out.text(&format!("{filter}\n"))?;
    }
    Ok(())
}
