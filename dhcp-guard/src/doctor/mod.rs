//! What makes the guard blind or weak on this host, and what to do about it.
//!
//! * [`facts`]: what is known of a host: plain data. `gather`: where it comes from.
//! * `checks`: from facts to findings: pure functions, one for each row.
//!
//! `doctor` shows all of it; an agent asks for a few at its start ([`before_guarding`]).

pub mod facts;

mod checks;
mod gather;

use std::path::Path;

use jiff::Timestamp;

use crate::{
    config::Config,
    model::{Checkup, Finding, Severity},
};

/// Looks at everything; takes about a second.
///
/// # Errors
/// The kernel does not say which interfaces there are.
pub async fn examine(config: &Config, file: Option<&Path>) -> anyhow::Result<Checkup> {
    let facts = gather::all(config, file).await?;
    Ok(checkup(checks::all(&facts), Timestamp::now()))
}

/// What an agent must know before it guards: blind and weak findings, worst first, without those that it finds out by
/// itself. Takes milliseconds.
///
/// # Errors
/// The kernel does not say which interfaces there are.
pub async fn before_guarding(config: &Config, file: Option<&Path>) -> anyhow::Result<Vec<Finding>> {
    let facts = gather::at_start(config, file).await?;
    let mut findings = checks::at_start(&facts);
    findings.retain(|finding| finding.severity <= Severity::Weak);
    findings.sort_by_key(|finding| finding.severity);
    Ok(findings)
}

/// Whether a BPF file system belongs where the pin folder is to be, and another mount hides it from this process: then what an
/// agent mounts there itself, and pins, ends with the mount namespace.
#[must_use]
pub fn are_pins_hidden(dir: &Path) -> bool {
    gather::are_pins_hidden(dir)
}

fn checkup(mut findings: Vec<Finding>, as_of: Timestamp) -> Checkup {
    findings.sort_by(|a, b| (a.severity, &a.subject, &a.id).cmp(&(b.severity, &b.subject, &b.id)));
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count() as u64;
    Checkup {
        as_of,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        blind: count(Severity::Blind),
        weak: count(Severity::Weak),
        findings,
    }
}

impl Checkup {
    /// Nothing is blind or weak.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.blind == 0 && self.weak == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Subject;

    #[test]
    fn the_worst_comes_first_and_is_counted() {
        let finding = |id: &str, severity, subject| Finding {
            id: id.into(),
            severity,
            subject,
            what: String::new(),
            remedy: None,
        };
        let eth0 = || Subject::Interface("eth0".into());
        let findings = vec![
            finding("a", Severity::Ok, Subject::Host),
            finding("b", Severity::Weak, eth0()),
            finding("c", Severity::Weak, Subject::Host),
            finding("d", Severity::Blind, eth0()),
            finding("e", Severity::Info, Subject::Host),
        ];
        let checkup = checkup(findings, Timestamp::UNIX_EPOCH);
        let ids: Vec<_> = checkup.findings.iter().map(|finding| finding.id.as_str()).collect();
        assert_eq!((ids.concat().as_str(), checkup.blind, checkup.weak), ("dcbea", 1, 2));
        assert!(!checkup.is_healthy());
        let json = serde_json::to_value(&checkup.findings[0]).unwrap();
        assert_eq!(json["severity"], "blind");
        assert_eq!(json["subject"], serde_json::json!({ "kind": "interface", "name": "eth0" }));
    }
}
