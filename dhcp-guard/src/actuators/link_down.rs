//! Sets the interface down for as long as its port is in quarantine.
//!
//! The bluntest of all: it takes the whole cable. So it refuses wherever more than the one machine would lose by it.
//!
//! Who has set an interface down must be known when it is to be set up again, perhaps by another agent, after a crash. So
//! it is written on the interface itself: an alternative name, `dhcp-guard-down-<quarantine>-<index>`, which everybody can
//! see with `ip link`, and which goes with the interface. An interface that was down already gets none, and stays down.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use rtnetlink::{
    LinkUnspec,
    packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, Prop},
};
use tokio::task::JoinSet;

use super::{Actuator, Concerned, Done, Failure, Job, Work};
use crate::config::ActuatorName;

/// How the marks begin.
const MARK: &str = "dhcp-guard-down-";
/// The kernel answers within milliseconds; a card's driver may take its time.
const LIMIT: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkDown;

impl LinkDown {
    /// Sets up what was set down, by this agent or an earlier one, for quarantines that there are no more: those that are
    /// not in `in_force`. For the start, once the saved quarantines are known. Answers the names of the interfaces.
    ///
    /// # Errors
    /// [`Failure::Failed`] if the kernel refuses.
    pub async fn release_forgotten(&self, interfaces: &[String], in_force: &[u64]) -> Result<Vec<String>, Failure> {
        let netlink = Netlink::open()?;
        let mut released = Vec::new();
        for link in netlink.links(interfaces).await? {
            let forgotten = link.marks.iter().filter(|mark| mark.quarantine.is_none_or(|id| !in_force.contains(&id)));
            let forgotten: Vec<_> = forgotten.cloned().collect();
            if !forgotten.is_empty() && netlink.release(&link, &forgotten).await? {
                released.push(link.name);
            }
        }
        Ok(released)
    }

    /// Those of the interfaces that are, or should be, down for a quarantine.
    ///
    /// # Errors
    /// [`Failure::Failed`] if the kernel does not answer.
    pub async fn held(&self, interfaces: &[String]) -> Result<Vec<String>, Failure> {
        let links = Netlink::open()?.links(interfaces).await?;
        Ok(links.into_iter().filter(|link| !link.marks.is_empty()).map(|link| link.name).collect())
    }

    async fn set_down(&self, job: &Job) -> Done {
        let wanted = job.interfaces.iter().filter(|interface| interface.actuators.contains(&self.name()));
        let (mut remarks, mut refused, mut allowed) = (Vec::new(), Vec::new(), Vec::new());
        for interface in wanted {
            match refusal(job, interface) {
                Some(reason) => refused.push(format!("{} {reason}", interface.interface)),
                None => allowed.push(interface.interface.clone()),
            }
        }
        if !allowed.is_empty() {
            let netlink = Netlink::open()?;
            let links = netlink.links(&allowed).await?;
            let missing = |name: &&String| !links.iter().any(|link| link.name == **name);
            refused.extend(allowed.iter().filter(missing).map(|name| format!("there is no interface {name}")));
            for link in links {
                remarks.extend(netlink.take(&link, job.report.id).await?);
            }
        }
        if refused.is_empty() { Ok(joined(&remarks)) } else { Err(Failure::Refused(refused.join("; "))) }
    }

    async fn set_up(&self, job: &Job) -> Done {
        let covered = job.report.covers.iter().map(|covered| &covered.interface);
        let names: Vec<String> = covered.chain(job.interfaces.iter().map(|one| &one.interface)).cloned().collect();
        let netlink = Netlink::open()?;
        let mut remarks = Vec::new();
        for link in netlink.links(&names).await? {
            let ours = link.marks.iter().filter(|mark| mark.quarantine == Some(job.report.id));
            let ours: Vec<_> = ours.cloned().collect();
            if ours.is_empty() {
                remarks.push(format!("{} was not set down for this", link.name));
            } else if !netlink.release(&link, &ours).await? {
                remarks.push(format!("{} stays down for another quarantine", link.name));
            }
        }
        Ok(joined(&remarks))
    }
}

impl Actuator for LinkDown {
    fn name(&self) -> ActuatorName {
        ActuatorName::LinkDown
    }

    fn timeout(&self) -> Duration {
        LIMIT
    }

    fn impose<'a>(&'a self, job: &'a Job) -> Work<'a> {
        Box::pin(self.set_down(job))
    }

    fn lift<'a>(&'a self, job: &'a Job) -> Work<'a> {
        Box::pin(self.set_up(job))
    }
}

/// Why an interface must not be set down; goes on from its name.
fn refusal(job: &Job, interface: &Concerned) -> Option<&'static str> {
    let mut covered = job.report.covers.iter().filter(|covered| covered.interface == interface.interface);
    let whole_untagged_port = covered.any(|covered| covered.mac.is_none() && covered.vlans.is_empty());
    if !whole_untagged_port {
        Some("is not in quarantine as a whole, only clients or a VLAN of it are")
    } else if !interface.one_machine {
        Some("is not known to be one machine's alone")
    } else if interface.ports != 1 {
        Some("has other ports, which would lose their link too")
    } else if interface.default_route {
        Some("has the host's default route")
    } else {
        None
    }
}

fn joined(remarks: &[String]) -> Option<String> {
    (!remarks.is_empty()).then(|| remarks.join("; "))
}

/// An alternative name that says who has set an interface down.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    name: String,
    /// None: it cannot be read, so nobody will ever lift it.
    quarantine: Option<u64>,
}

/// An interface as the kernel has it.
#[derive(Clone, Debug)]
struct Link {
    index: u32,
    name: String,
    up: bool,
    marks: Vec<Mark>,
}

impl Link {
    fn of(message: &LinkMessage) -> Self {
        let (mut name, mut marks) = (String::new(), Vec::new());
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(it) => name.clone_from(it),
                LinkAttribute::PropList(all) => marks.extend(all.iter().filter_map(Mark::of)),
                _ => {}
            }
        }
        Self { index: message.header.index, name, up: message.header.flags.contains(LinkFlags::Up), marks }
    }
}

impl Mark {
    fn new(quarantine: u64, link: &Link) -> Self {
        Self { name: format!("{MARK}{quarantine}-{}", link.index), quarantine: Some(quarantine) }
    }

    fn of(property: &Prop) -> Option<Self> {
        let Prop::AltIfName(name) = property else { return None };
        let id = name.strip_prefix(MARK)?.split('-').next()?;
        Some(Self { name: name.clone(), quarantine: id.parse().ok() })
    }
}

/// A connection to the kernel, for one job.
struct Netlink {
    handle: rtnetlink::Handle,
    /// Dropped with this, and then stopped.
    _connection: JoinSet<()>,
}

impl Netlink {
    fn open() -> Result<Self, Failure> {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(|e| Failure::Failed(format!("cannot use netlink: {e}")))?;
        let mut task = JoinSet::new();
        task.spawn(connection);
        Ok(Self { handle, _connection: task })
    }

    /// Those of the interfaces that there are.
    async fn links(&self, names: &[String]) -> Result<Vec<Link>, Failure> {
        let all = self.handle.link().get().execute().map_ok(|message| Link::of(&message));
        let named = all.try_filter(|link| std::future::ready(names.contains(&link.name)));
        named.try_collect().await.map_err(|e| Failure::Failed(format!("cannot list the interfaces: {e}")))
    }

    /// Sets it down, unless it is; with a mark, unless somebody else has set it down. What somebody has set up meanwhile
    /// goes down again: the quarantine is what counts. A remark, if nothing is done.
    async fn take(&self, link: &Link, quarantine: u64) -> Result<Option<String>, Failure> {
        if !link.up && link.marks.is_empty() {
            return Ok(Some(format!("{} was down already, and will stay so", link.name)));
        }
        let mark = Mark::new(quarantine, link);
        let is_new = !link.marks.contains(&mark);
        if is_new {
            // Before it is down: a mark too many is found and taken away, a mark too few strands a machine.
            self.mark(link, &mark).await?;
        }
        if link.up
            && let Err(failure) = self.set(link, false).await
        {
            if is_new {
                self.unmark(link, &mark).await?;
            }
            return Err(failure);
        }
        Ok(None)
    }

    /// Takes the marks away, and sets it up if they were the last. False: it stays down.
    async fn release(&self, link: &Link, marks: &[Mark]) -> Result<bool, Failure> {
        let last = link.marks.iter().all(|mark| marks.contains(mark));
        if last && !link.up {
            self.set(link, true).await?;
        }
        for mark in marks {
            self.unmark(link, mark).await?;
        }
        Ok(last)
    }

    async fn set(&self, link: &Link, up: bool) -> Result<(), Failure> {
        let message = LinkUnspec::new_with_index(link.index);
        let message = if up { message.up() } else { message.down() }.build();
        let direction = if up { "up" } else { "down" };
        self.handle.link().change(message).execute().await.map_err(|e| cannot(&format!("set it {direction}"), link, &e))
    }

    async fn mark(&self, link: &Link, mark: &Mark) -> Result<(), Failure> {
        let request = self.handle.link().property_add(link.index).alt_ifname(&[&mark.name]);
        request.execute().await.map_err(|e| cannot("mark it", link, &e))
    }

    async fn unmark(&self, link: &Link, mark: &Mark) -> Result<(), Failure> {
        let request = self.handle.link().property_del(link.index).alt_ifname(&[&mark.name]);
        request.execute().await.map_err(|e| cannot("take the mark away", link, &e))
    }
}

fn cannot(what: &str, link: &Link, error: &rtnetlink::Error) -> Failure {
    Failure::Failed(format!("interface {}: cannot {what}: {error}", link.name))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sched::{CloneFlags, unshare};
    use rtnetlink::LinkVeth;

    use super::*;
    use crate::{
        actuators::{What, testing::job},
        model::Covered,
    };

    /// Runs it on a thread of its own in a network namespace of its own, with the interfaces tap0 and tap1, both up.
    fn in_a_namespace(work: impl AsyncFnOnce(Netlink) + Send) {
        let body = || {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                eprintln!("skipped: no network namespace for this user ({error})");
                return;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let netlink = Netlink::open().unwrap();
                let pair = LinkVeth::new("tap0", "tap1").up().build();
                netlink.handle.link().add(pair).execute().await.unwrap();
                for name in ["tap0", "tap1"] {
                    netlink.set(&link(&netlink, name).await, true).await.unwrap();
                }
                work(netlink).await;
            });
        };
        thread::scope(|scope| scope.spawn(body).join()).unwrap();
    }

    async fn link(netlink: &Netlink, name: &str) -> Link {
        netlink.links(&[name.to_owned()]).await.unwrap().remove(0)
    }

    async fn state(netlink: &Netlink) -> (bool, usize) {
        let link = link(netlink, "tap0").await;
        (link.up, link.marks.len())
    }

    #[test]
    fn down_and_up_again_however_often_it_is_asked_for() {
        in_a_namespace(async |netlink| {
            for _ in 0..2 {
                assert_eq!(LinkDown.impose(&job(What::Impose, 7)).await, Ok(None));
                assert_eq!(state(&netlink).await, (false, 1));
            }
            assert!(link(&netlink, "tap1").await.up);
            assert_eq!(LinkDown.lift(&job(What::Lift, 7)).await, Ok(None));
            assert_eq!(state(&netlink).await, (true, 0));
            assert_eq!(LinkDown.lift(&job(What::Lift, 7)).await, Ok(Some("tap0 was not set down for this".into())));
            assert_eq!(state(&netlink).await, (true, 0));
        });
    }

    #[test]
    fn what_somebody_else_set_down_stays_down() {
        in_a_namespace(async |netlink| {
            netlink.set(&link(&netlink, "tap0").await, false).await.unwrap();
            let remark = LinkDown.impose(&job(What::Impose, 7)).await;
            assert_eq!(remark, Ok(Some("tap0 was down already, and will stay so".into())));
            assert_eq!(LinkDown.lift(&job(What::Lift, 7)).await, Ok(Some("tap0 was not set down for this".into())));
            assert_eq!(state(&netlink).await, (false, 0));
        });
    }

    #[test]
    fn it_stays_down_until_the_last_of_two_quarantines_has_ended() {
        in_a_namespace(async |netlink| {
            LinkDown.impose(&job(What::Impose, 7)).await.unwrap();
            LinkDown.impose(&job(What::Impose, 77)).await.unwrap();
            let remark = LinkDown.lift(&job(What::Lift, 7)).await;
            assert_eq!(remark, Ok(Some("tap0 stays down for another quarantine".into())));
            assert_eq!(state(&netlink).await, (false, 1));
            assert_eq!(LinkDown.lift(&job(What::Lift, 77)).await, Ok(None));
            assert_eq!(state(&netlink).await, (true, 0));
        });
    }

    #[test]
    fn what_an_agent_left_down_is_found_by_the_next_one() {
        in_a_namespace(async |netlink| {
            LinkDown.impose(&job(What::Impose, 7)).await.unwrap();
            let release = async |names: &[&str], in_force: &[u64]| {
                let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
                LinkDown.release_forgotten(&names, in_force).await.unwrap()
            };
            let both = ["tap0", "tap1"].map(ToOwned::to_owned);
            assert_eq!(LinkDown.held(&both).await.unwrap(), ["tap0"]);
            assert!(release(&["tap0"], &[7]).await.is_empty(), "it is in force");
            assert!(release(&["tap1"], &[]).await.is_empty(), "not ours");
            assert_eq!(state(&netlink).await, (false, 1));
            assert_eq!(release(&["tap0", "tap1"], &[8]).await, ["tap0"]);
            assert_eq!(state(&netlink).await, (true, 0));
        });
    }

    #[test]
    fn it_refuses_where_others_would_lose_by_it() {
        fn refused(change: impl FnOnce(&mut Job)) -> String {
            let mut job = job(What::Impose, 7);
            change(&mut job);
            refusal(&job, &job.interfaces[0]).unwrap_or("not refused").to_owned()
        }
        assert_eq!(refused(|_| ()), "not refused");
        assert!(refused(|job| job.interfaces[0].ports = 2).contains("other ports"));
        assert!(refused(|job| job.interfaces[0].default_route = true).contains("default route"));
        assert!(refused(|job| job.interfaces[0].one_machine = false).contains("one machine's"));
        assert!(refused(|job| job.report.covers[0].vlans = vec![5]).contains("only clients or a VLAN"));
        assert!(refused(|job| job.report.covers[0].mac = Some("02:00:00:00:00:01".into())).contains("only clients"));
        assert!(refused(|job| job.report.covers.clear()).contains("only clients"));
    }

    #[test]
    fn a_refusal_names_the_interface_and_does_not_spare_the_others() {
        in_a_namespace(async |netlink| {
            let mut both = job(What::Impose, 7);
            let other = Covered { interface: "tap1".into(), ..both.report.covers[0].clone() };
            both.report.covers.push(other);
            both.interfaces.push(Concerned { interface: "tap1".into(), ports: 2, ..both.interfaces[0].clone() });
            both.interfaces.push(Concerned { interface: "lo".into(), actuators: vec![], ..both.interfaces[0].clone() });
            assert_eq!(
                LinkDown.impose(&both).await.unwrap_err().to_string(),
                "refused: tap1 has other ports, which would lose their link too"
            );
            assert_eq!((link(&netlink, "tap0").await.up, link(&netlink, "tap1").await.up), (false, true));
            both.interfaces[0].interface = "gone".into();
            both.report.covers[0].interface = "gone".into();
            let failure = LinkDown.impose(&both).await.unwrap_err().to_string();
            assert!(failure.contains("there is no interface gone"), "{failure}");
        });
    }
}
