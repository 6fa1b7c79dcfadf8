//! `doctor`: looks at this host, and says what makes the guard blind or weak there.

use super::{
    Outcome,
    args::{DoctorArgs, Global},
    output::Output,
    render, settings,
};
use crate::{config::Overrides, dataplane::hook::Hook, doctor};

pub(super) async fn doctor(global: &Global, args: DoctorArgs, out: &mut Output) -> anyhow::Result<Outcome> {
    let (config, file) = settings::config(global)?;
    let DoctorArgs { format, interfaces, state_dir, hook } = args;
    let overrides = Overrides { interfaces, state_dir, hook: hook.map(Hook::from), ..Overrides::default() };
    let config = overrides.over(config);
    let checkup = doctor::examine(&config, file.as_deref()).await?;
    if format.json {
        out.json(&checkup)?;
    } else {
        out.text(&render::checkup(&checkup, out.style()))?;
    }
    Ok(if checkup.is_healthy() { Outcome::Done } else { Outcome::No })
}
