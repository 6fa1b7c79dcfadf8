//! The configuration and the inventory.

use std::path::Path;

use super::Row;
use crate::{config::DEFAULT_FILE, doctor::facts::Facts, model::Finding};

pub(super) fn interfaces(facts: &Facts) -> Vec<Finding> {
    let row = Row::file("interfaces", file(facts));
    if facts.interfaces.is_empty() && !facts.wanted.idle_patterns.is_empty() {
        let patterns = super::some_of(facts.wanted.idle_patterns.iter().map(String::as_str));
        return vec![row.note(format!("no interface matches {patterns}; those that appear are guarded then"))];
    }
    if facts.interfaces.is_empty() {
        let remedy = format!("name one: `dhcp-guard run -i IF`, or `interfaces` in {}", file(facts).display());
        return vec![row.blind("no interface is to be guarded", remedy)];
    }
    let names = super::some_of(facts.interfaces.iter().map(|interface| interface.name.as_str()));
    vec![row.ok(format!("to be guarded: {names}"))]
}

pub(super) fn config(facts: &Facts) -> Vec<Finding> {
    let row = || Row::file("config", file(facts));
    if facts.wanted.warnings.is_empty() {
        return vec![row().ok("the configuration says nothing that is probably not meant")];
    }
    let remedy = format!("edit {}, then `dhcp-guard config check`", file(facts).display());
    facts.wanted.warnings.iter().map(|warning| row().weak(warning.clone(), remedy.clone())).collect()
}

pub(super) fn inventory(facts: &Facts) -> Vec<Finding> {
    /// `config check` lists them all.
    const LISTED: usize = 20;
    let Some((path, problems)) = &facts.wanted.inventory else { return Vec::new() };
    let row = || Row::file("inventory", path);
    if problems.is_empty() {
        return vec![row().ok("every row of the inventory is used")];
    }
    let remedy = format!("mend {}, then `dhcp-guard config check`; the agent reads it again by itself", path.display());
    let listed = problems.iter().take(LISTED).map(|problem| row().weak(problem.clone(), remedy.clone()));
    let more = problems.len().saturating_sub(LISTED);
    let and_more = (more > 0).then(|| row().weak(format!("and {more} more problems"), remedy.clone()));
    listed.chain(and_more).collect()
}

/// Nothing that makes the guard weaker than it was asked to be; but many do not know.
pub(super) fn rogue_servers(facts: &Facts) -> Vec<Finding> {
    let row = Row::file("rogue_servers", file(facts));
    if facts.wanted.trusted {
        return vec![row.ok("a guarded port is trusted: the servers are there, or said not to be rogues")];
    }
    vec![row.info(
        "no guarded port is trusted, so that rogue DHCP servers are reported and not dropped",
        format!(
            "where servers answer through a guarded port, give it class = \"trusted\" in {}",
            file(facts).display()
        ),
    )]
}

/// The configuration file, or where it would be.
fn file(facts: &Facts) -> &Path {
    facts.wanted.file.as_deref().unwrap_or(Path::new(DEFAULT_FILE))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, healthy, rows, with};
    use super::*;
    use crate::model::Severity::{Blind, Info, Weak};

    const FILE: &str = "/etc/dhcp-guard/dhcp-guard.toml";

    #[test]
    fn nothing_to_guard() {
        let none = with(|facts| facts.interfaces.clear());
        check("interfaces", &none, Blind, FILE, &["no interface", "`dhcp-guard run -i IF`", FILE]);
        let mut yet = none;
        yet.wanted.idle_patterns = vec!["tap*".into()];
        check("interfaces", &yet, Info, FILE, &["no interface matches tap*"]);
    }

    #[test]
    fn what_is_wrong_with_the_files() {
        let warned = with(|facts| facts.wanted.warnings = vec!["port[0]: odd".into()]);
        check("config", &warned, Weak, FILE, &["port[0]: odd", "`dhcp-guard config check`"]);
        let problems = with(|facts| facts.wanted.inventory = Some(("/i.csv".into(), vec!["line 2: odd".into()])));
        check("inventory", &problems, Weak, "/i.csv", &["line 2: odd", "mend /i.csv"]);
        let none = with(|facts| facts.wanted.inventory = None);
        assert_eq!(rows("inventory", &none), []);
    }

    #[test]
    fn an_inventory_full_of_nonsense_is_not_listed_row_by_row() {
        let facts = with(|facts| facts.wanted.inventory = Some(("/i.csv".into(), vec!["odd".into(); 100])));
        let rows = rows("inventory", &facts);
        assert_eq!((rows.len(), rows[20].what.as_str()), (21, "and 80 more problems"));
    }

    #[test]
    fn no_trusted_port() {
        let facts = with(|facts| facts.wanted.trusted = false);
        check("rogue_servers", &facts, Info, FILE, &["reported and not dropped", "class = \"trusted\""]);
    }

    #[test]
    fn without_a_file_the_default_one_is_named() {
        let facts = Facts { interfaces: vec![], ..with(|facts| facts.wanted.file = None) };
        check("interfaces", &facts, Blind, DEFAULT_FILE, &[]);
        assert_eq!(rows("config", &healthy()).len(), 1);
    }
}
