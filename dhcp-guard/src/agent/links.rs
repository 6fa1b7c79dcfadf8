//! Which interfaces there are, as the kernel tells it by netlink; and which of them the configuration means.
//!
//! The kernel tells of each change, unless it does so faster than we listen; then, and now and then in any case, all of them
//! are asked for again. Who wants to know gets what a short burst of changes comes to.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use log::warn;
use rtnetlink::{
    Handle, MulticastGroup, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage},
    },
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use crate::config::{is_pattern, names};

/// How long after the first change of a burst it is told what it came to.
const BURST: Duration = Duration::from_millis(50);
/// Between two readings of everything, which should bring nothing new.
const RESYNC: Duration = Duration::from_secs(30);
/// Before the kernel is asked again after it did not answer.
const RETRY: Duration = Duration::from_secs(1);

/// The names of this network namespace's interfaces, by kernel index.
pub type Links = BTreeMap<u32, String>;

/// What the configuration means by its names and patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meant {
    /// Index and name of those that there are, in the configuration's order; each once.
    pub interfaces: Vec<(u32, String)>,
    /// Names that no interface has.
    pub missing: Vec<String>,
    /// Patterns that no interface's name matches.
    pub idle: Vec<String>,
}

/// What the configuration's names and patterns mean among these interfaces.
#[must_use]
pub fn meant(words: &[String], links: &Links) -> Meant {
    let mut meant = Meant::default();
    for word in words {
        let mut matching = links.iter().filter(|(_, name)| names(word, name)).peekable();
        if matching.peek().is_none() {
            let nobody = if is_pattern(word) { &mut meant.idle } else { &mut meant.missing };
            nobody.push(word.clone());
        }
        for (ifindex, name) in matching {
            if !meant.interfaces.iter().any(|(known, _)| known == ifindex) {
                meant.interfaces.push((*ifindex, name.clone()));
            }
        }
    }
    meant
}

/// The interfaces now, and from now on.
///
/// # Errors
/// The kernel does not answer.
pub async fn watch() -> anyhow::Result<watch::Receiver<Arc<Links>>> {
    let source = Source::open().await.context("cannot ask the kernel which interfaces there are")?;
    let (sender, receiver) = watch::channel(Arc::new(source.links.clone()));
    tokio::spawn(follow(source, sender));
    Ok(receiver)
}

type Message = NetlinkMessage<RouteNetlinkMessage>;

/// A connection to the kernel, and what it has told.
struct Source {
    handle: Handle,
    messages: BoxStream<'static, Message>,
    connection: JoinHandle<()>,
    links: Links,
}

impl Source {
    async fn open() -> anyhow::Result<Self> {
        let (connection, handle, messages) = new_multicast_connection(&[MulticastGroup::Link])?;
        let connection = tokio::spawn(connection);
        // What changes meanwhile waits among the messages.
        let links = dump(&handle).await.inspect_err(|_| connection.abort())?;
        Ok(Self { handle, messages: messages.map(|(message, _)| message).boxed(), connection, links })
    }

    /// Tells of changes until the kernel tells of none any more, or nobody wants to know.
    async fn listen(&mut self, told: &watch::Sender<Arc<Links>>) {
        let mut resync = interval(RESYNC);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        resync.tick().await;
        let mut burst_ends: Option<Instant> = None;
        loop {
            let is_complete = tokio::select! {
                message = self.messages.next() => match message {
                    Some(message) => {
                        burst_ends.get_or_insert_with(|| Instant::now() + BURST);
                        self.take(message)
                    }
                    None => return,
                },
                () = async { sleep_until(burst_ends.unwrap_or_else(Instant::now)).await }, if burst_ends.is_some() => {
                    burst_ends = None;
                    tell(&self.links, told);
                    true
                }
                _ = resync.tick() => false,
                () = told.closed() => return,
            };
            if !is_complete {
                let Ok(links) = dump(&self.handle).await else { return };
                self.links = links;
                burst_ends.get_or_insert_with(Instant::now);
            }
        }
    }

    /// False: messages were lost.
    fn take(&mut self, message: Message) -> bool {
        match message.payload {
            NetlinkPayload::Overrun(_) => return false,
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)) if is_whole(&message) => {
                add(&mut self.links, &message);
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)) if is_whole(&message) => {
                self.links.remove(&message.header.index);
            }
            _ => {}
        }
        true
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// A bridge tells of its ports in the same words, and that one leaves it as if it were deleted.
fn is_whole(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

/// Tells until nobody wants to know any more.
async fn follow(mut source: Source, told: watch::Sender<Arc<Links>>) {
    loop {
        source.listen(&told).await;
        source = loop {
            if told.is_closed() {
                return;
            }
            warn!("the kernel does not tell any more which interfaces there are: it is asked again");
            match Source::open().await {
                Ok(source) => break source,
                Err(_) => sleep(RETRY).await,
            }
        };
        tell(&source.links, &told);
    }
}

/// Everything, asked for.
async fn dump(handle: &Handle) -> Result<Links, rtnetlink::Error> {
    let all: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
    let mut links = Links::new();
    all.iter().for_each(|message| add(&mut links, message));
    Ok(links)
}

fn tell(links: &Links, told: &watch::Sender<Arc<Links>>) {
    told.send_if_modified(|known| {
        let is_new = **known != *links;
        if is_new {
            *known = Arc::new(links.clone());
        }
        is_new
    });
}

fn add(links: &mut Links, message: &LinkMessage) {
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    if let Some(name) = name {
        links.insert(message.header.index, name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(all: &[(u32, &str)]) -> Links {
        all.iter().map(|(ifindex, name)| (*ifindex, (*name).into())).collect()
    }

    fn words(all: &[&str]) -> Vec<String> {
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_and_patterns_mean_each_interface_once() {
        let links = links(&[(1, "lo"), (2, "eth0"), (5, "tap1"), (9, "tap0")]);
        let meant = meant(&words(&["tap0", "tap*", "eth0", "eth1", "veth*", "*"]), &links);
        let names: Vec<_> = meant.interfaces.iter().map(|(ifindex, name)| (*ifindex, name.as_str())).collect();
        assert_eq!(names, [(9, "tap0"), (5, "tap1"), (2, "eth0")]);
        assert_eq!((meant.missing, meant.idle), (words(&["eth1"]), words(&["veth*"])));
    }

    #[test]
    fn nothing_means_nothing() {
        assert_eq!(meant(&[], &links(&[(2, "eth0")])), Meant::default());
    }

    #[tokio::test]
    async fn the_kernel_tells() {
        let links = watch().await.unwrap().borrow().clone();
        assert!(links.get(&1).is_some_and(|name| name == "lo"), "{links:?}");
    }
}
