//! From facts to findings: pure functions, one for each row of `doctor`, named after the row's id.
//!
//! * `host`: the kernel, our rights, the clock. `files`: pins and state. `settings`: configuration and inventory.
//! * `interface`: what is on a guarded interface, and how it is set up; `programs`: other programs there, and our own.
//! * `coverage`: whose frames never pass a guarded interface.
//!
//! Every check also says when all is well, so that a row that is missing means "not looked at".

mod coverage;
mod files;
mod host;
mod interface;
mod programs;
mod settings;
#[cfg(test)]
mod testing;

use super::facts::{Facts, Interface, Link};
use crate::{
    human::some_of,
    model::{Finding, Severity, Subject},
};

/// A check of the host as a whole.
type Check = fn(&Facts) -> Vec<Finding>;
/// A check of one interface that is there.
type LinkCheck = fn(&Facts, &Interface, &Link) -> Option<Finding>;

/// All that `doctor` looks at.
const OF_HOST: &[Check] = &[
    host::capabilities,
    host::kernel_btf,
    host::kernel_features,
    host::program,
    host::jit,
    host::clock,
    files::bpffs,
    files::state_dir,
    settings::interfaces,
    settings::config,
    settings::inventory,
    settings::rogue_servers,
    programs::agent,
    programs::replies,
    coverage::bypass_devices,
    coverage::unguarded_taps,
    coverage::vhost_user,
];
/// And on each interface.
const OF_LINK: &[LinkCheck] = &[
    interface::native_mode,
    interface::vlan_offload,
    interface::lro,
    interface::mtu,
    coverage::sriov_vfs,
    programs::other_xdp_program,
    programs::duplicate_links,
    programs::other_guard,
    programs::attached,
    programs::in_front,
];
/// What an agent asks before it guards. The rest it finds out by doing it, and says so itself.
const AT_START: (&[Check], &[LinkCheck]) = (
    &[host::jit, files::state_dir_at_start, files::bpffs, coverage::bypass_devices],
    &[interface::vlan_offload_at_start, interface::lro, interface::mtu, coverage::sriov_vfs],
);

/// All findings, in no particular order.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let up = facts.interfaces.iter().map(interface::interface_up);
    up.chain(run(facts, OF_HOST, OF_LINK)).collect()
}

/// Those that an agent asks for before it guards.
pub(super) fn at_start(facts: &Facts) -> Vec<Finding> {
    run(facts, AT_START.0, AT_START.1).collect()
}

fn run<'a>(
    facts: &'a Facts,
    of_host: &'a [Check],
    of_link: &'a [LinkCheck],
) -> impl Iterator<Item = Finding> + use<'a> {
    let links = facts.interfaces.iter().filter_map(|interface| Some((interface, interface.link.as_ref()?)));
    let of_links =
        links.flat_map(move |(interface, link)| of_link.iter().filter_map(move |f| f(facts, interface, link)));
    of_host.iter().flat_map(|check| check(facts)).chain(of_links)
}

/// The beginning of a finding: which check, about what.
struct Row {
    id: &'static str,
    subject: Subject,
}

impl Row {
    fn host(id: &'static str) -> Self {
        Self { id, subject: Subject::Host }
    }

    fn of(id: &'static str, interface: &Interface) -> Self {
        Self { id, subject: Subject::Interface(interface.name.clone()) }
    }

    fn file(id: &'static str, path: &std::path::Path) -> Self {
        Self { id, subject: Subject::File(path.display().to_string()) }
    }

    fn ok(self, what: impl Into<String>) -> Finding {
        self.finding(Severity::Ok, what.into(), None)
    }

    /// Something that nothing can be done about, or that need not be.
    fn note(self, what: impl Into<String>) -> Finding {
        self.finding(Severity::Info, what.into(), None)
    }

    fn info(self, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.finding(Severity::Info, what.into(), Some(remedy.into()))
    }

    fn weak(self, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.finding(Severity::Weak, what.into(), Some(remedy.into()))
    }

    fn blind(self, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.finding(Severity::Blind, what.into(), Some(remedy.into()))
    }

    fn finding(self, severity: Severity, what: String, remedy: Option<String>) -> Finding {
        Finding { id: self.id.to_owned(), severity, subject: self.subject, what, remedy }
    }
}
