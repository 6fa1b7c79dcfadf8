//! Gathering the facts. Nothing here judges, and nothing changes the host: programs are loaded to see whether the kernel
//! takes them, and never attached.
//!
//! * `links`: interfaces, by netlink; `xdp_features`: what their drivers say of XDP.
//! * `files`: the folders for pins and state. `agent`: who answers on the socket. `vhost_user`: guests past the kernel.

mod agent;
mod files;
mod links;
mod vhost_user;
mod xdp_features;

use std::path::Path;

use aya::programs::{SchedClassifier, TcAttachType};

use self::links::Found;
use super::facts::{Clock, Facts, Interface, Kernel, Program, Wanted};
use crate::{
    agent::links::meant,
    config::{Config, port_name},
    dataplane::{DataPlane, Spec, clock, clsact, features, interface, load::missing_capabilities, probe},
    inventory::Inventory,
};

/// Everything; takes about a second.
///
/// # Errors
/// The kernel does not say which interfaces there are.
pub(super) async fn all(config: &Config, file: Option<&Path>) -> anyhow::Result<Facts> {
    let mut facts = at_start(config, file).await?;
    facts.wanted.warnings = config.warnings();
    facts.wanted.inventory =
        config.inventory.as_ref().map(|path| (path.clone(), Inventory::load_or_warn(Some(path)).1));
    facts.kernel.features = features::all(&facts.kernel.release);
    facts.kernel.program = program(&facts.kernel);
    for interface in &mut facts.interfaces {
        let Some(link) = &mut interface.link else { continue };
        link.tcx_in = tcx(&interface.name, TcAttachType::Ingress);
        link.tcx_out = tcx(&interface.name, TcAttachType::Egress);
        link.clsact_in = filters(link.ifindex, TcAttachType::Ingress);
        link.clsact_out = filters(link.ifindex, TcAttachType::Egress);
    }
    facts.pins = Some(files::pins(&config.pin_dir));
    facts.agent = Some(agent::on(&config.socket).await);
    facts.vhost_user = vhost_user::processes();
    facts.clock = Some(Clock { ticks_per_s: clock::ticks_per_s(), measured: probe::measured_ticks_per_s() });
    Ok(facts)
}

/// See [`super::are_pins_hidden`].
pub(super) fn are_pins_hidden(dir: &Path) -> bool {
    files::is_shadowed(dir)
}

/// What an agent can afford to find out before it guards: milliseconds.
///
/// # Errors
/// The kernel does not say which interfaces there are.
pub(super) async fn at_start(config: &Config, file: Option<&Path>) -> anyhow::Result<Facts> {
    let links = links::all().await?;
    let names = links.iter().map(|found| (found.device.ifindex, found.device.name.clone())).collect();
    let meant = meant(&config.interfaces, &names);
    let mut interfaces = Vec::new();
    for name in meant.interfaces.iter().map(|(_, name)| name).chain(&meant.missing) {
        interfaces.push(interface_called(name, &links).await);
    }
    let (guarded, others): (Vec<_>, Vec<_>) = links.iter().partition(|found| config.wants(&found.device.name));
    Ok(Facts {
        wanted: wanted(config, file, &interfaces, meant.idle),
        kernel: kernel(),
        interfaces,
        devices: others.into_iter().map(|found| found.device.clone()).collect(),
        state_dir: Some(files::state_dir(&config.state_dir)),
        // Whether they can be pinned it finds out; whether what is pinned outlives it, it cannot.
        pins: Some(files::pins(&config.pin_dir)).filter(|pins| pins.shadowed),
        guarded_controllers: guarded.into_iter().filter_map(|found| found.device.controller).collect(),
        ..Facts::default()
    })
}

fn wanted(config: &Config, file: Option<&Path>, interfaces: &[Interface], idle_patterns: Vec<String>) -> Wanted {
    let guarded = config.ports.iter().filter(|port| config.wants(&port.interface));
    let on_vlans = guarded.clone().filter(|port| !port.vlans.is_empty());
    let name = |port: &crate::config::Port| (port.interface.clone(), port_name(&port.interface, &port.vlans));
    let trusted = guarded.clone().any(|port| config.rules_of(&port.interface, &port.vlans).trusted)
        || interfaces.iter().any(|interface| config.rules_of(&interface.name, &[]).trusted);
    Wanted {
        file: file.map(Path::to_owned),
        vlan_ports: on_vlans.map(name).collect(),
        trusted,
        hook: config.hook,
        idle_patterns,
        ..Wanted::default()
    }
}

fn kernel() -> Kernel {
    Kernel {
        release: features::release(),
        missing_capabilities: missing_capabilities(),
        btf: Some(Path::new("/sys/kernel/btf/vmlinux").exists()),
        jit: probe::jit(),
        ..Kernel::default()
    }
}

/// Whether the kernel takes the program. Without the rights the answer would only be about the rights, and on a kernel that is
/// too old about its age, which are rows of their own.
fn program(kernel: &Kernel) -> Option<Result<(), String>> {
    let lacks = kernel.features.iter().any(|feature| feature.needed && feature.present == Some(false));
    let may = kernel.missing_capabilities.is_empty() && !lacks;
    may.then(|| DataPlane::load(&Spec::default()).map(drop).map_err(|error| format!("{:#}", anyhow::Error::new(error))))
}

async fn interface_called(name: &str, links: &[Found]) -> Interface {
    let mut link = links.iter().find(|found| found.device.name == name).map(|found| found.link.clone());
    if let Some(link) = &mut link {
        link.hook = interface::find(name).await.map(|found| found.facts).unwrap_or_default();
        link.lro = interface::merges_packets(name);
        link.xdp_features = xdp_features::of(link.ifindex);
        if let Some(xdp) = &mut link.xdp {
            xdp.program.name = interface::known_name(xdp.program.id).unwrap_or_default();
        }
    }
    Interface { name: name.to_owned(), link }
}

/// The programs on one way of an interface; none where the kernel has no TCX, or does not say.
fn tcx(interface: &str, way: TcAttachType) -> Option<Vec<Program>> {
    let (_, programs) = SchedClassifier::query_tcx(interface, way).ok()?;
    let describe = |info: &aya::programs::ProgramInfo| Program {
        id: info.id(),
        name: info.name_as_str().unwrap_or_default().to_owned(),
    };
    Some(programs.iter().map(describe).collect())
}

/// The filters of tc on one way of an interface.
fn filters(ifindex: u32, way: TcAttachType) -> Option<Vec<Program>> {
    let programs = clsact::programs_on(ifindex, way)?;
    Some(programs.into_iter().map(|(id, name)| Program { id, name }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_answers() {
        let config = Config { interfaces: vec!["lo".into(), "no-such".into()], ..Config::default() };
        let facts = at_start(&config, None).await.unwrap();
        assert!(facts.interfaces[0].link.as_ref().is_some_and(|link| link.ifindex == 1 && link.mtu > 0), "{facts:?}");
        assert_eq!((facts.interfaces[1].link.as_ref(), facts.kernel.release.is_empty()), (None, false));
    }

    #[test]
    fn a_trusted_class_is_trusted_wherever_it_comes_from() {
        let config = |text: &str| wanted(&Config::from_toml(text).unwrap(), None, &[], vec![]);
        assert!(!config("interfaces = ['eth0']\n[[port]]\ninterface = 'eth1'\nclass = 'trusted'\n").trusted);
        assert!(config("interfaces = ['eth0']\n[[port]]\ninterface = 'eth0'\nclass = 'trusted'\n").trusted);
        let vlan = config("interfaces = ['eth0']\n[[port]]\ninterface = 'eth0'\nvlans = [7, 8]\nclass = 'trusted'\n");
        assert_eq!((vlan.trusted, vlan.vlan_ports), (true, vec![("eth0".into(), "eth0.7.8".into())]));
    }
}
