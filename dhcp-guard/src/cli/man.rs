//! `man`: the manual pages, made from the command line's own definition and from the documented configuration, so that
//! they cannot say anything else.

use std::{fs, path::Path};

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};

use super::{
    args::{Args, ManArgs},
    output::Output,
};

/// Administrators' commands.
const COMMANDS: &str = "8";
const MANUAL: &str = "dhcp-guard";
/// Documents every key.
const REFERENCE: &str = include_str!("../../../packaging/dhcp-guard.toml");

/// Prints the page of `dhcp-guard` itself, or writes all pages into a folder.
pub(super) fn man(args: &ManArgs, out: &mut Output) -> anyhow::Result<()> {
    let Some(folder) = &args.dir else {
        let (_, page) = page(Args::command())?;
        return out.text(&page);
    };
    for (name, page) in pages()? {
        write(folder, &name, &page)?;
    }
    Ok(())
}

fn write(folder: &Path, name: &str, page: &str) -> anyhow::Result<()> {
    let path = folder.join(name);
    fs::write(&path, page).with_context(|| format!("cannot write the manual page {}", path.display()))
}

/// All pages, with the names of their files.
fn pages() -> anyhow::Result<Vec<(String, String)>> {
    let mut command = Args::command();
    command.build();
    let mut pages = Vec::new();
    add_pages(&command, &mut pages)?;
    pages.push(("dhcp-guard.toml.5".into(), configuration_page()));
    Ok(pages)
}

/// A command's page and those of its own commands.
fn add_pages(command: &Command, pages: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    pages.push(page(command.clone())?);
    command.get_subcommands().try_for_each(|command| add_pages(command, pages))
}

fn page(command: Command) -> anyhow::Result<(String, String)> {
    let source = concat!("dhcp-guard ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command).section(COMMANDS).manual(MANUAL).source(source);
    let mut page = Vec::new();
    man.render(&mut page)?;
    Ok((man.get_filename(), String::from_utf8(page)?))
}

/// dhcp-guard.toml(5). Prose has a blank after the `#`, keys have not, and what is indented is a list.
fn configuration_page() -> String {
    let mut page = Roff::new();
    page.control("TH", ["DHCP-GUARD.TOML", "5", "", concat!("dhcp-guard ", env!("CARGO_PKG_VERSION")), MANUAL]);
    page.control("SH", ["NAME"]);
    page.text([roman("dhcp-guard.toml - configuration of dhcp-guard(8)")]);
    page.control("SH", ["DESCRIPTION"]);
    for line in REFERENCE.lines() {
        match line.strip_prefix("# ") {
            Some(prose) => {
                if prose.starts_with(' ') {
                    page.control("br", []);
                }
                page.text([roman(prose.trim())]);
            }
            None if line.is_empty() || line == "#" => {
                page.control("PP", []);
            }
            None if line.starts_with('[') => {
                page.control("SS", [line]);
            }
            None => {
                page.control("br", []);
                page.text([bold(line.strip_prefix('#').unwrap_or(line))]);
            }
        }
    }
    page.control("SH", ["FILES"]);
    page.text([roman("/etc/dhcp-guard/dhcp-guard.toml")]);
    page.control("SH", ["SEE ALSO"]);
    page.text([roman("dhcp-guard(8), dhcp-guard-run(8), dhcp-guard-config-check(8)")]);
    page.to_roff()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_the_configuration_have_a_page() {
        let pages = pages().unwrap();
        let page = |name: &str| pages.iter().find(|(file, _)| file == name).map(|(_, page)| page.as_str());
        for (name, word) in [
            ("dhcp-guard.8", "Exit codes"),
            ("dhcp-guard-run.8", "state"),
            ("dhcp-guard-quarantine-add.8", "ttl"),
            ("dhcp-guard.toml.5", "offender_windows = 3"),
            ("dhcp-guard.toml.5", ".SS [limits]"),
        ] {
            let text = page(name).unwrap_or_else(|| panic!("no page {name}"));
            assert!(text.contains(word), "{name} does not say {word:?}: {text}");
        }
    }

    #[test]
    fn they_are_written_into_the_folder_or_a_sentence_says_why_not() {
        let folder = tempfile::tempdir().unwrap();
        let args = |dir: &Path| ManArgs { dir: Some(dir.to_owned()) };
        man(&args(folder.path()), &mut Output::stdout()).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), pages().unwrap().len());
        let error = man(&args(&folder.path().join("none")), &mut Output::stdout()).unwrap_err().to_string();
        assert!(error.starts_with("cannot write the manual page "), "{error}");
    }
}
