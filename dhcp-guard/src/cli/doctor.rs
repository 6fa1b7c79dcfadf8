//! `doctor`: looks at this host, and says what makes the guard blind or weak there.

use super::{
    Outcome,
    args::{DoctorArgs, Global},
    output::Output,
    render, settings,
};
use crate::doctor;

pub(super) async fn doctor(global: &Global, args: DoctorArgs, out: &mut Output) -> anyhow::Result<Outcome> {
    let (mut config, file) = settings::config(global)?;
    if !args.interfaces.is_empty() {
        config.interfaces = args.interfaces;
    }
    if let Some(folder) = args.state_dir {
        config.state_dir = folder;
    }
    if let Some(hook) = args.hook {
        config.hook = hook.into();
    }
    let checkup = doctor::examine(&config, file.as_deref()).await?;
    if args.format.json {
        out.json(&checkup)?;
    } else {
        out.text(&render::checkup(&checkup, out.style()))?;
    }
    Ok(if checkup.is_healthy() { Outcome::Done } else { Outcome::No })
}
