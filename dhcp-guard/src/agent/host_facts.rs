//! What the host itself lives on, read from the kernel now and then: its own MACs, its gateways, the way to them. All of
//! it is protected: to take the DHCP of a gateway away is to take it away from everybody behind it.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use futures_util::TryStreamExt as _;
use log::warn;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        link::{InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo, LinkMessage},
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage},
    },
};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{governor::PortName, mac::Mac};

/// Between two readings. Routes and neighbours change rarely, and a host may have very many of them.
const PERIOD: Duration = Duration::from_secs(30);
/// How long one reading may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// They were read. Until then nobody can tell who is protected.
    pub known: bool,
    /// Of all interfaces of this network namespace.
    pub own_macs: HashSet<Mac>,
    /// Of the next hops of default routes, as far as the host has met them.
    pub gateways: HashSet<Mac>,
    /// Where the frames of default routes come and go: interfaces with the VLANs that they have there, outer first.
    pub default_route: HashSet<PortName>,
}

/// A link, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Link {
    name: String,
    mac: Option<Mac>,
    /// A VLAN device: what it is on top of, and the VLAN id that its frames have there.
    lower: Option<(u32, u16)>,
    /// What is on top of it: its bridge or bond.
    controller: Option<u32>,
    is_bridge: bool,
}

/// What the kernel says, in the parts that matter here.
#[derive(Clone, Debug, Default)]
struct Answers {
    links: HashMap<u32, Link>,
    hops: Vec<Hop>,
    neighbours: HashMap<(u32, IpAddr), Mac>,
    /// Bridge ports on which a MAC was seen.
    seen: HashSet<(u32, Mac)>,
}

/// The facts now, or none if the kernel does not answer; then again and again until nobody is interested any more.
pub async fn watch() -> watch::Receiver<Arc<HostFacts>> {
    let (sender, receiver) = watch::channel(Arc::new(read_in_time().await.unwrap_or_default()));
    tokio::spawn(async move {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        while !sender.is_closed() {
            ticks.tick().await;
            // What is not known now was so a moment ago.
            if let Some(facts) = read_in_time().await {
                sender.send_replace(Arc::new(facts));
            }
        }
    });
    receiver
}

async fn read_in_time() -> Option<HostFacts> {
    match timeout(DEADLINE, read()).await {
        Ok(Ok(facts)) => Some(facts),
        Ok(Err(error)) => {
            warn!("cannot read the host's own addresses and routes, which are to be protected: {error}");
            None
        }
        Err(_) => {
            warn!("the kernel does not say in time what the host's own addresses and routes are");
            None
        }
    }
}

async fn read() -> anyhow::Result<HostFacts> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let facts = ask(&handle).await;
    connection.abort();
    Ok(facts?)
}

async fn ask(handle: &Handle) -> Result<HostFacts, rtnetlink::Error> {
    let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
    let v4 = handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
    let mut hops: Vec<Hop> =
        v4.try_filter_map(|route| async move { Ok(hops(&route)) }).try_collect::<Vec<_>>().await?.concat();
    let v6 = handle.route().get(RouteMessageBuilder::<Ipv6Addr>::new().build()).execute();
    hops.extend(
        v6.try_filter_map(|route| async move { Ok(self::hops(&route)) }).try_collect::<Vec<_>>().await?.concat(),
    );
    let links = links.iter().map(|link| (link.header.index, describe(link))).collect();
    let mut answers = Answers { links, hops, ..Answers::default() };
    // Nobody needs the neighbours where there is no gateway, and there may be many.
    if !answers.hops.is_empty() {
        let all: Vec<_> = handle.neighbours().get().execute().try_collect().await?;
        answers.neighbours = all.iter().filter_map(neighbour).collect();
        let bridges = handle.neighbours().get().set_address_family(AddressFamily::Bridge).execute();
        let bridges: Vec<_> = bridges.try_collect().await?;
        answers.seen = bridges.iter().filter_map(|entry| Some((entry.header.ifindex, lladdr(entry)?))).collect();
    }
    Ok(facts(&answers))
}

/// Where a default route goes: the interface, and the gateway there.
type Hop = (u32, Option<IpAddr>);

fn facts(answers: &Answers) -> HostFacts {
    let gateway = |(index, gateway): &Hop| answers.neighbours.get(&(*index, (*gateway)?)).copied();
    let gateways: HashSet<Mac> = answers.hops.iter().filter_map(gateway).collect();
    let mut ways: HashSet<(u32, Vec<u16>)> = answers.hops.iter().map(|(index, _)| (*index, Vec::new())).collect();
    // Down, layer by layer: a VLAN on a bond on two cards is three.
    loop {
        let below = ways.iter().flat_map(|way| answers.below(way, &gateways));
        let more: Vec<_> = below.filter(|way| way.1.len() <= 2 && !ways.contains(way)).collect();
        if more.is_empty() {
            break;
        }
        ways.extend(more);
    }
    let name =
        |(index, vlans): (u32, Vec<u16>)| Some(PortName { interface: answers.links.get(&index)?.name.clone(), vlans });
    let own_macs = answers.links.values().filter_map(|link| link.mac).collect();
    HostFacts { known: true, own_macs, gateways, default_route: ways.into_iter().filter_map(name).collect() }
}

impl Answers {
    /// Where the frames of an interface come and go one layer down.
    fn below(&self, (index, vlans): &(u32, Vec<u16>), gateways: &HashSet<Mac>) -> Vec<(u32, Vec<u16>)> {
        let Some(link) = self.links.get(index) else { return Vec::new() };
        let carrier =
            link.lower.map(|(lower, vlan)| (lower, [vlan].into_iter().chain(vlans.iter().copied()).collect()));
        // All of a bond's members are the way; of a bridge's, the one that the gateway is behind.
        let leads_there = |member: &u32| gateways.iter().any(|gateway| self.seen.contains(&(*member, *gateway)));
        let members = self.links.iter().filter(|(_, other)| other.controller == Some(*index));
        let members = members.map(|(member, _)| *member).filter(|member| !link.is_bridge || leads_there(member));
        carrier.into_iter().chain(members.map(|member| (member, vlans.clone()))).collect()
    }
}

fn describe(message: &LinkMessage) -> Link {
    let mut link = Link::default();
    let (mut lower, mut vlan) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(bytes) => link.mac = mac(bytes),
            LinkAttribute::Link(index) => lower = Some(*index),
            LinkAttribute::Controller(above) => link.controller = Some(*above),
            LinkAttribute::LinkInfo(infos) => {
                link.is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                vlan = infos.iter().find_map(vlan_id);
            }
            _ => {}
        }
    }
    // Others name something else there: a veth its other end, which is in another namespace as a rule.
    link.lower = lower.zip(vlan);
    link
}

fn vlan_id(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(data)) = info else { return None };
    data.iter().find_map(|data| if let InfoVlan::Id(id) = data { Some(*id) } else { None })
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    <[u8; 6]>::try_from(bytes).ok().filter(|bytes| *bytes != [0; 6]).map(Mac)
}

/// The hops of a default route; none for any other.
fn hops(route: &RouteMessage) -> Option<Vec<Hop>> {
    if route.header.destination_prefix_length != 0 {
        return None;
    }
    let of = |attributes: &[RouteAttribute]| {
        attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
            _ => None,
        })
    };
    let mut hops = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => hops.push((*index, of(&route.attributes))),
            RouteAttribute::MultiPath(all) => {
                hops.extend(all.iter().map(|hop| (hop.interface_index, of(&hop.attributes))));
            }
            _ => {}
        }
    }
    Some(hops)
}

fn neighbour(message: &NeighbourMessage) -> Option<((u32, IpAddr), Mac)> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(it)) => Some(IpAddr::V4(*it)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(it)) => Some(IpAddr::V6(*it)),
        _ => None,
    });
    Some(((message.header.ifindex, address?), lladdr(message)?))
}

fn lladdr(message: &NeighbourMessage) -> Option<Mac> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => mac(bytes),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, last: u8) -> Link {
        Link { name: name.into(), mac: Some(Mac([2, 0, 0, 0, 0, last])), ..Link::default() }
    }

    fn port(interface: &str, vlans: &[u16]) -> PortName {
        PortName { interface: interface.into(), vlans: vlans.into() }
    }

    const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    const ROUTER: Mac = Mac([2, 0, 0, 0, 1, 1]);

    #[test]
    fn the_way_to_the_gateway_goes_down_to_the_cards() {
        // eth0 and eth1 in bond0, bond0.100 on it with the route; tap7 is elsewhere.
        let answers = Answers {
            links: HashMap::from([
                (1, Link { controller: Some(3), ..link("eth0", 1) }),
                (2, Link { controller: Some(3), ..link("eth1", 2) }),
                (3, link("bond0", 3)),
                (4, Link { lower: Some((3, 100)), ..link("bond0.100", 4) }),
                (5, link("tap7", 5)),
            ]),
            hops: vec![(4, Some(GATEWAY))],
            neighbours: HashMap::from([
                ((4, GATEWAY), ROUTER),
                ((5, GATEWAY), Mac([2, 0, 0, 0, 1, 2])),
                ((4, IpAddr::from([10, 0, 0, 2])), Mac([2, 0, 0, 0, 1, 3])),
            ]),
            seen: HashSet::new(),
        };
        let facts = facts(&answers);
        let expected = [port("bond0.100", &[]), port("bond0", &[100]), port("eth0", &[100]), port("eth1", &[100])];
        assert_eq!(facts.default_route, expected.into());
        assert_eq!(facts.gateways, HashSet::from([ROUTER]), "by interface and address");
        assert_eq!(facts.own_macs.len(), 5);
    }

    #[test]
    fn of_a_bridge_only_the_member_that_the_gateway_is_behind_is_the_way() {
        let member = |name: &str, last| Link { controller: Some(9), ..link(name, last) };
        let answers = Answers {
            links: HashMap::from([
                (1, member("eth0", 1)),
                (2, member("tap1", 2)),
                (9, Link { is_bridge: true, ..link("br0", 9) }),
            ]),
            hops: vec![(9, Some(GATEWAY))],
            neighbours: HashMap::from([((9, GATEWAY), ROUTER)]),
            seen: HashSet::from([(1, ROUTER), (2, Mac([2, 0, 0, 0, 7, 7]))]),
        };
        assert_eq!(facts(&answers).default_route, [port("br0", &[]), port("eth0", &[])].into());
    }

    #[test]
    fn interfaces_in_a_circle_end() {
        let links = HashMap::from([
            (1, Link { lower: Some((2, 5)), ..link("a", 1) }),
            (2, Link { lower: Some((1, 6)), ..link("b", 2) }),
        ]);
        let circle = facts(&Answers { links, hops: vec![(1, None)], ..Answers::default() });
        assert_eq!(circle.default_route, [port("a", &[]), port("b", &[5]), port("a", &[6, 5])].into());
    }

    #[tokio::test]
    async fn the_kernel_answers() {
        let facts = read().await.unwrap();
        assert!(facts.default_route.len() <= 1000);
    }
}
