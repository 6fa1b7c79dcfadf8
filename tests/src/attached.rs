//! Which programs are on interfaces, by which hook, whoever has put them there. And what somebody else does to the guard's
//! place: `bpftool link detach`, without bpftool.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use dhcp_guard::dataplane::{
    hook::{Hook, Way},
    interface::{index_of, program_name},
    load, replies, tcx,
};
use serde_json::Value;

use crate::{netns::Netns, program::current_hook};

/// A program on an interface's way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where.
    pub interface: String,
    /// By which hook.
    pub way: Way,
    /// Its kernel id.
    pub program: u32,
    /// Its name in the kernel.
    pub name: String,
}

impl Attached {
    /// Whether it is the guard, of whatever agent.
    #[must_use]
    pub fn is_guard(&self) -> bool {
        [load::PROGRAM, tcx::PROGRAM].contains(&self.name.as_str())
    }

    /// As the agent names what is in its way.
    #[must_use]
    pub fn named(&self) -> String {
        let hook = match self.way {
            Way::Native | Way::Generic => "XDP",
            Way::Tcx => "TCX",
            Way::Clsact => "clsact",
        };
        format!("the {hook} program {} (id {})", self.name, self.program)
    }
}

/// All programs on the way in of a namespace's interfaces, interface by interface.
pub fn programs(netns: &Netns) -> Result<Vec<Attached>> {
    let links: Value = serde_json::from_str(&netns.exec(&["ip", "-json", "link", "show"])?)?;
    let links = links.as_array().context("`ip -json link` did not answer a list")?;
    let mut found = Vec::new();
    for link in links {
        let interface = link["ifname"].as_str().context("an interface without a name")?;
        found.extend(by_xdp(interface, &link["xdp"])?);
        found.extend(by_clsact(netns, interface)?);
        found.extend(
            netns
                .run(|| by_tcx(interface, TcAttachType::Ingress))?
                .with_context(|| format!("the TCX programs on `{interface}`"))?,
        );
    }
    Ok(found)
}

/// As `ip` has it, which has no more than one.
fn by_xdp(interface: &str, xdp: &Value) -> Result<Option<Attached>> {
    let way = match xdp["mode"].as_u64() {
        None => return Ok(None),
        Some(1) => Way::Native,
        Some(2) => Way::Generic,
        Some(_) => bail!("`{interface}` has XDP programs in a way that nobody here uses: {xdp}"),
    };
    let program = u32::try_from(xdp["prog"]["id"].as_u64().context("an XDP program without an id")?)?;
    Ok(Some(Attached { interface: interface.to_owned(), way, program, name: program_name(program) }))
}

/// Of an interface in the calling thread's namespace.
fn by_tcx(interface: &str, direction: TcAttachType) -> Result<Vec<Attached>> {
    let programs = match SchedClassifier::query_tcx(interface, direction) {
        Ok((_, programs)) => programs,
        // The interface has gone since it was listed; or it is an older kernel.
        Err(_) if !index_of(interface)?.is_some_and(|ifindex| tcx::is_offered(ifindex).unwrap_or(true)) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error.into()),
    };
    let attached = |(program, name): (u32, &str)| Attached {
        interface: interface.to_owned(),
        way: Way::Tcx,
        program,
        name: name.to_owned(),
    };
    Ok(programs.iter().map(|one| attached((one.id(), one.name_as_str().unwrap_or_default()))).collect())
}

/// The same of filters of tc, as `tc` has them.
fn by_clsact(netns: &Netns, interface: &str) -> Result<Vec<Attached>> {
    let text = netns.exec(&["tc", "-json", "filter", "show", "dev", interface, "ingress"])?;
    let filters: Vec<Value> = serde_json::from_str(&text).with_context(|| format!("not a list: {text}"))?;
    let attached = |filter: &Value| {
        let options = &filter["options"];
        Some(Attached {
            interface: interface.to_owned(),
            way: Way::Clsact,
            program: u32::try_from(options["prog"]["id"].as_u64()?).ok()?,
            name: options["bpf_name"].as_str()?.to_owned(),
        })
    };
    Ok(filters.iter().filter_map(attached).collect())
}

/// The guards on a namespace's interfaces, which must be at the hook that the test is about, and no more than one each.
pub fn guards(netns: &Netns) -> Result<Vec<Attached>> {
    let mut guards = programs(netns)?;
    guards.retain(Attached::is_guard);
    for guard in &guards {
        let right = match current_hook() {
            None | Some(Hook::Auto) => true,
            Some(Hook::Xdp) => matches!(guard.way, Way::Native | Way::Generic),
            Some(Hook::Tcx) => guard.way == Way::Tcx,
            Some(Hook::Clsact) => guard.way == Way::Clsact,
        };
        ensure!(right, "guarded by another hook: {guard:?}");
        let on_it = guards.iter().filter(|other| other.interface == guard.interface).count();
        ensure!(on_it == 1, "guarded {on_it} times: {guards:?}");
    }
    Ok(guards)
}

/// The names of the interfaces that are guarded, in their order.
pub fn guarded(netns: &Netns) -> Result<Vec<String>> {
    let mut names: Vec<String> = guards(netns)?.into_iter().map(|guard| guard.interface).collect();
    names.sort();
    Ok(names)
}

/// The guard on an interface.
pub fn guard(netns: &Netns, interface: &str) -> Result<Attached> {
    let found = guards(netns)?.into_iter().find(|guard| guard.interface == interface);
    found.with_context(|| format!("there is no guard on `{interface}`"))
}

/// The kernel id of the link that holds the guard on an interface. It stays the same for as long as the guard is never taken
/// off, whatever programs take each other's place.
pub fn link(netns: &Netns, interface: &str) -> Result<u32> {
    Ok(holder(netns, &guard(netns, interface)?)?.1)
}

/// Takes the guard off an interface, as somebody else would.
pub fn take_off(netns: &Netns, interface: &str) -> Result<()> {
    let guard = guard(netns, interface)?;
    match guard.way {
        Way::Native | Way::Generic | Way::Tcx => {
            let (link, _) = holder(netns, &guard)?;
            call(Command::Detach, &mut Attr { first: u32::try_from(link.as_raw_fd())?, ..Attr::default() })?;
        }
        Way::Clsact => _ = netns.exec(&["tc", "filter", "delete", "dev", interface, "ingress"])?,
    }
    Ok(())
}

/// Takes off an interface what sees replies leave.
pub fn take_off_replies(netns: &Netns, interface: &str) -> Result<()> {
    let (link, _) = holder(netns, &replies(netns, interface)?.context("nothing sees replies leave")?)?;
    call(Command::Detach, &mut Attr { first: u32::try_from(link.as_raw_fd())?, ..Attr::default() })?;
    Ok(())
}

/// What sees replies leave an interface.
pub fn replies(netns: &Netns, interface: &str) -> Result<Option<Attached>> {
    let on_it = netns.run(|| by_tcx(interface, TcAttachType::Egress))??;
    Ok(on_it.into_iter().find(|program| program.name == replies::PROGRAM))
}

/// The link that holds a program, and the link's id.
fn holder(netns: &Netns, held: &Attached) -> Result<(OwnedFd, u32)> {
    let ifindex = netns.ifindex(&held.interface)?;
    let mut id = 0;
    loop {
        let mut attr = Attr { first: id, ..Attr::default() };
        call(Command::GetNextId, &mut attr).with_context(|| format!("no link holds {held:?}"))?;
        id = attr.second;
        let Ok(fd) = call(Command::GetFdById, &mut Attr { first: id, ..Attr::default() }) else { continue };
        // SAFETY: the kernel has just opened it, for nobody else.
        let link = unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd)?) };
        let number = u32::try_from(link.as_raw_fd())?;
        let mut info = Info::default();
        let address = (&raw mut info) as u64;
        call(Command::GetInfoByFd, &mut Attr { first: number, second: size_of::<Info>() as u32, address })?;
        // The same index may be another interface's in another namespace, but not with this program.
        if [XDP, TCX].contains(&info.kind) && (info.ifindex, info.program) == (ifindex, held.program) {
            return Ok((link, id));
        }
    }
}

/// `enum bpf_cmd` (include/uapi/linux/bpf.h).
#[derive(Clone, Copy)]
#[repr(i32)]
enum Command {
    GetInfoByFd = 15,
    GetFdById = 30,
    GetNextId = 31,
    Detach = 34,
}

/// `BPF_LINK_TYPE_XDP`, `BPF_LINK_TYPE_TCX`.
const XDP: u32 = 6;
const TCX: u32 = 11;

/// The part of `union bpf_attr` that these commands take.
#[repr(C)]
#[derive(Default)]
struct Attr {
    /// An id or a descriptor.
    first: u32,
    /// The next id, or the length of what is asked for.
    second: u32,
    address: u64,
}

/// `struct bpf_link_info` as far as XDP and TCX have the same.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    ifindex: u32,
    rest: [u32; 19],
}

fn call(command: Command, attr: &mut Attr) -> io::Result<i64> {
    // SAFETY: what these commands read and write is in `attr`, or where its address says, for which the caller has room.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_int, std::ptr::from_mut(attr), size_of::<Attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
