//! `doctor`: looks at this host, and says what makes the guard blind or weak there.

use super::{
    Outcome,
    args::{DoctorArgs, Global},
    output::Output,
    render, settings,
};
use crate::{config::Config, doctor};

pub(super) async fn doctor(global: &Global, args: DoctorArgs, out: &mut Output) -> anyhow::Result<Outcome> {
    let (mut config, file) = settings::config(global)?;
    let Config { interfaces, state_dir, .. } = &mut config;
    if !args.interfaces.is_empty() {
        *interfaces = args.interfaces;
    }
    if let Some(folder) = args.state_dir {
        *state_dir = folder;
    }
    let checkup = doctor::examine(&config, file.as_deref(), &args.pin_dir).await?;
    if args.format.json {
        out.json(&checkup)?;
    } else {
        out.text(&render::checkup(&checkup, out.style()))?;
    }
    Ok(if checkup.is_healthy() { Outcome::Done } else { Outcome::No })
}
