//! Who is at the other end of the control API's socket, as the kernel says, and what they may do.
//!
//! The kernel notes user, groups and process when somebody connects, and nobody can say otherwise. Rights go by the groups
//! that the *process* has, not by the group file: whoever gave them up, or was started without them, does not have them.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    sync::Arc,
    thread,
    time::Duration,
};

use nix::unistd::{Group, Uid, User, geteuid};
use tokio::{
    net::UnixStream,
    sync::{Semaphore, oneshot},
    time::timeout,
};

use crate::{config::Access, governor::Author};

/// The uid that nobody has.
const NO_UID: u32 = u32::MAX;
/// More groups than most users have; when they are more, the kernel says how many.
const USUAL_GROUPS: usize = 64;
/// How long the system may take to say how a user is called. It may have to ask another machine.
const NAME_DEADLINE: Duration = Duration::from_secs(1);
/// Users that are looked up at the same time, at most.
const LOOKUPS: usize = 4;

/// A process that has connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its groups, the primary one first.
    pub groups: Arc<[u32]>,
    /// Its number; none: it is not one of this process namespace.
    pub pid: Option<i32>,
}

impl Peer {
    /// Whom the kernel names. If it names nobody: a user without any right.
    pub(super) fn of(stream: &UnixStream) -> Self {
        let Ok(credentials) = stream.peer_cred() else {
            return Self { uid: NO_UID, groups: Arc::new([]), pid: None };
        };
        // A kernel that does not know the others (before 4.13) still knows the primary one.
        let others = supplementary_groups(stream.as_fd()).unwrap_or_default();
        let groups = [credentials.gid()].into_iter().chain(others).collect();
        Self { uid: credentials.uid(), groups, pid: credentials.pid().filter(|pid| *pid > 0) }
    }
}

/// The groups beside the primary one, of whoever connected.
fn supplementary_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; USUAL_GROUPS];
    loop {
        let room = size_of_val(groups.as_slice());
        // A socket's option is never larger than the groups that a process can have: 65,536.
        let mut size = libc::socklen_t::try_from(room).map_err(io::Error::other)?;
        // SAFETY: the socket is open, the kernel writes at most `size` bytes into `groups`, and it writes whole u32.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut size,
            )
        };
        let count = usize::try_from(size).map_err(io::Error::other)? / size_of::<u32>();
        let error = io::Error::last_os_error();
        match result {
            0 => {
                groups.truncate(count);
                return Ok(groups);
            }
            _ if error.raw_os_error() == Some(libc::ERANGE) && count > groups.len() => groups.resize(count, 0),
            _ => return Err(error),
        }
    }
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Nothing.
    None,
    /// Ask.
    Read,
    /// Ask, and change.
    Change,
}

/// Who may do what.
#[derive(Clone, Debug)]
pub struct Rights {
    access: Access,
    operators: Vec<u32>,
    readers: Vec<u32>,
    own_uid: u32,
}

impl Rights {
    /// Looks the groups up. May take as long as the system takes for that, so at the start. A group that there is not gives
    /// nobody any right, and is a sentence.
    #[must_use]
    pub fn new(access: &Access) -> (Self, Vec<String>) {
        Self::with(access, |name| Ok(Group::from_name(name)?.map(|group| group.gid.as_raw())))
    }

    fn with(access: &Access, gid_of: impl Fn(&str) -> io::Result<Option<u32>>) -> (Self, Vec<String>) {
        let mut warnings = Vec::new();
        let mut look_up = |key: &str, names: &[String]| {
            let mut gids = Vec::new();
            for name in names {
                let why = match gid_of(name) {
                    Ok(Some(gid)) => {
                        gids.push(gid);
                        continue;
                    }
                    Ok(None) => "there is no such group".to_owned(),
                    Err(e) => format!("the system cannot tell ({e})"),
                };
                warnings.push(format!(
                    "api.{key}: group {name} gives nobody any right, because {why}: make it, and start the agent again"
                ));
            }
            gids
        };
        let operators = look_up("operator_groups", &access.operator_groups);
        let readers = look_up("reader_groups", &access.reader_groups);
        (Self { access: access.clone(), operators, readers, own_uid: geteuid().as_raw() }, warnings)
    }

    /// What this one may do.
    #[must_use]
    pub fn of(&self, peer: &Peer) -> Right {
        let is_in = |gids: &[u32]| peer.groups.iter().any(|gid| gids.contains(gid));
        if peer.uid == 0 || peer.uid == self.own_uid || is_in(&self.operators) {
            return Right::Change;
        }
        // Without groups the socket's permissions have said already who may ask.
        if !self.access.is_by_group() || is_in(&self.readers) { Right::Read } else { Right::None }
    }

    /// One sentence for somebody who lacks this right.
    #[must_use]
    pub fn sentence(&self, peer: &Peer, lacking: Right) -> String {
        let uid = peer.uid;
        let (operators, readers) = (&self.access.operator_groups, &self.access.reader_groups);
        if lacking == Right::Change {
            let join = match operators.as_slice() {
                [] => "or have a group of yours named in `operator_groups` of the agent's configuration".to_owned(),
                names => format!("or join {}", groups(names.iter())),
            };
            return format!("uid {uid} may not change anything here: be root, {join}; nothing was changed");
        }
        format!("uid {uid} may not ask here: be root, or join {}", groups(operators.iter().chain(readers)))
    }
}

/// `group noc`, `one of the groups noc, staff`
fn groups<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    let which = if names.len() == 1 { "group" } else { "one of the groups" };
    format!("{which} {}", names.join(", "))
}

/// The names of users.
#[derive(Clone, Debug)]
pub struct Names(Arc<Semaphore>);

impl Default for Names {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LOOKUPS)))
    }
}

impl Names {
    /// The author of what this process asks for. The system is asked on a thread of its own, because that may take for
    /// ever; without an answer in time the number has to do.
    pub async fn author(&self, peer: &Peer) -> Author {
        let user = timeout(NAME_DEADLINE, self.user(peer.uid)).await.ok().flatten();
        Author::Person { uid: peer.uid, user, pid: peer.pid }
    }

    async fn user(&self, uid: u32) -> Option<String> {
        let permit = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let (found, name) = oneshot::channel();
        let body = move || {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            drop(permit);
            // Nobody may be waiting any more.
            let _ = found.send(user.map(|user| user.name));
        };
        thread::Builder::new().name("user-name".into()).spawn(body).ok()?;
        name.await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::{getegid, getgroups};

    use super::*;

    fn access(operators: &[&str], readers: &[&str]) -> Access {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Access { operator_groups: owned(operators), reader_groups: owned(readers) }
    }

    /// With an agent that runs as user 7.
    fn rights(access: &Access) -> (Rights, Vec<String>) {
        let (rights, warnings) = Rights::with(access, |name| match name {
            "noc" => Ok(Some(100)),
            "staff" => Ok(Some(200)),
            "far" => Err(io::Error::other("no route")),
            _ => Ok(None),
        });
        (Rights { own_uid: 7, ..rights }, warnings)
    }

    fn peer(uid: u32, groups: &[u32]) -> Peer {
        Peer { uid, groups: groups.into(), pid: None }
    }

    #[test]
    fn without_groups_whoever_connects_may_ask_and_only_the_owner_may_change() {
        let rights = rights(&access(&[], &[])).0;
        let of = [(0, 1), (7, 1), (1000, 0), (1000, 100)].map(|(uid, gid)| rights.of(&peer(uid, &[gid])));
        assert_eq!(of, [Right::Change, Right::Change, Right::Read, Right::Read]);
    }

    #[test]
    fn with_groups_they_decide() {
        let (rights, warnings) = rights(&access(&["noc"], &["staff"]));
        assert_eq!(warnings, [""; 0]);
        let of = |uid, groups: &[u32]| rights.of(&peer(uid, groups));
        assert_eq!([of(0, &[1]), of(7, &[1])], [Right::Change; 2]);
        assert_eq!([of(1000, &[100]), of(1000, &[1, 2, 100]), of(1000, &[200, 100])], [Right::Change; 3]);
        assert_eq!([of(1000, &[200]), of(1000, &[1, 200])], [Right::Read; 2]);
        assert_eq!([of(1000, &[]), of(1000, &[1]), of(100, &[1]), of(NO_UID, &[])], [Right::None; 4]);
    }

    #[test]
    fn a_group_that_there_is_not_gives_nobody_any_right_and_is_a_warning() {
        let (rights, warnings) = rights(&access(&["nco"], &["far"]));
        assert_eq!(rights.of(&peer(1000, &[0, 1, 100, 200])), Right::None);
        assert_eq!(
            warnings,
            [
                "api.operator_groups: group nco gives nobody any right, because there is no such group: make it, and start \
                 the agent again",
                "api.reader_groups: group far gives nobody any right, because the system cannot tell (no route): make it, \
                 and start the agent again",
            ]
        );
        assert_eq!(Rights::new(&access(&["root"], &["no-such-group-here"])).1.len(), 1);
    }

    #[test]
    fn the_refusal_says_who_may() {
        let peer = peer(1000, &[]);
        let said = |operators: &[&str], readers: &[&str], lacking| {
            rights(&access(operators, readers)).0.sentence(&peer, lacking)
        };
        assert_eq!(
            said(&["noc"], &[], Right::Change),
            "uid 1000 may not change anything here: be root, or join group noc; nothing was changed"
        );
        assert!(said(&[], &["staff"], Right::Change).contains("named in `operator_groups` of the agent's"));
        assert_eq!(
            said(&["noc"], &["staff"], Right::Read),
            "uid 1000 may not ask here: be root, or join one of the groups noc, staff"
        );
    }

    #[tokio::test]
    async fn the_kernel_says_who_connected() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one);
        assert_eq!((peer.uid, peer.pid), (geteuid().as_raw(), i32::try_from(std::process::id()).ok()));
        let mut expected = vec![getegid().as_raw()];
        expected.extend(getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw));
        assert_eq!(*peer.groups, *expected);
    }

    #[tokio::test]
    async fn users_have_names_if_the_system_knows_them() {
        let author = async |uid| Names::default().author(&peer(uid, &[])).await;
        assert_eq!(author(0).await, Author::Person { uid: 0, user: Some("root".into()), pid: None });
        assert_eq!(author(NO_UID).await, Author::Person { uid: NO_UID, user: None, pid: None });
    }

    #[tokio::test]
    async fn a_system_that_does_not_answer_costs_the_name_and_nothing_more() {
        let names = Names::default();
        let busy = names.0.acquire_many(4).await.unwrap();
        assert_eq!(names.author(&peer(0, &[])).await, Author::Person { uid: 0, user: None, pid: None });
        drop(busy);
        assert_eq!(names.0.available_permits(), LOOKUPS);
    }
}
