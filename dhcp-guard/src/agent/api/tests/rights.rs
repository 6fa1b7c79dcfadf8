//! Who may do what, as real users. Credentials are a thread's, so a thread can become somebody else; only root's can.

use std::os::unix::fs::PermissionsExt as _;

use nix::unistd::{Group, geteuid};
use serde_json::json;

use super::*;

const NOBODY: u32 = 65_534;
const SOMEBODY: u32 = 54_321;

/// What an answer to this user, with this primary group and these others, is.
async fn ask_as(setup: &Setup, uid: u32, groups: &[u32], method: &str, path: &str) -> (u16, Value) {
    let body = json!({ "hold": true, "reason": "by night" }).to_string();
    let (socket, request) = (setup.socket.clone(), request(method, path, &body));
    let groups = groups.to_vec();
    in_thread(move || {
        become_user(uid, &groups);
        talk(&socket, &request)
    })
    .await
}

/// The thread, not the process, as the C library would have it.
fn become_user(uid: u32, groups: &[u32]) {
    let primary = groups[0];
    let others = &groups[1..];
    // SAFETY: the kernel reads as many groups as it is told of, and all three change nothing but this thread's rights.
    let results = unsafe {
        [
            libc::syscall(libc::SYS_setgroups, others.len(), others.as_ptr()),
            libc::syscall(libc::SYS_setresgid, primary, primary, primary),
            libc::syscall(libc::SYS_setresuid, uid, uid, uid),
        ]
    };
    assert_eq!(results, [0; 3]);
}

fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("skipped: only root can be somebody else");
    }
    is_root
}

/// Two groups that every system has, and their names.
fn groups() -> [(String, u32); 2] {
    let named = |name: &str| Group::from_name(name).unwrap().map(|group| (group.name, group.gid.as_raw()));
    let mut found = ["daemon", "bin", "sys", "adm", "mail", "users"].into_iter().filter_map(named);
    [found.next().unwrap(), found.next().unwrap()]
}

fn mode(socket: &Path) -> u32 {
    std::fs::metadata(socket).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn without_groups_the_socket_decides_who_asks_and_only_the_owner_changes() {
    let setup = setup().await;
    assert_eq!(mode(&setup.socket), 0o660);
    assert_eq!(setup.post("/v1/hold", json!({ "hold": true, "reason": "x" })).await.0, 200, "the agent's own user");
    if !is_root() {
        return;
    }
    setup.reached();
    // Root's group may open the socket.
    assert_eq!(ask_as(&setup, NOBODY, &[0], "GET", "/v1/status").await.0, 200);
    let (status, answer) = ask_as(&setup, NOBODY, &[0], "POST", "/v1/hold").await;
    assert!(status == 403 && sentence(&answer).contains("uid 65534 may not change anything here: be root"), "{answer}");
    assert_eq!(setup.reached(), []);
    let [record] = &setup.recorded()[..] else { panic!() };
    let Some(Author::Person { uid: NOBODY, user, pid }) = &record.author else { panic!("{record:?}") };
    assert_eq!((user.as_deref(), *pid), (Some("nobody"), i32::try_from(std::process::id()).ok()));
    assert_eq!((record.action.as_str(), record.reason.as_str()), ("hold_on", "by night"));
    assert!(record.refused.as_deref().is_some_and(|why| why.ends_with("nothing was changed")), "{record:?}");
}

#[tokio::test]
async fn with_groups_every_request_is_decided_by_them() {
    if !is_root() {
        return;
    }
    let [(operators, operator), (readers, reader)] = groups();
    let access = Access { operator_groups: vec![operators.clone()], reader_groups: vec![readers.clone()] };
    let setup = setup_with(access, done).await;
    assert_eq!(mode(&setup.socket), 0o666);
    // More groups than fit at first, so that the kernel is asked twice.
    let many = |last: u32| (1_000_000..1_000_100).chain([last]).collect::<Vec<u32>>();
    for (uid, groups, question, change) in [
        (0, vec![SOMEBODY], 200, 200),
        (SOMEBODY, vec![operator], 200, 200),
        (SOMEBODY, vec![SOMEBODY, operator], 200, 200),
        (SOMEBODY, many(operator), 200, 200),
        (SOMEBODY, vec![reader, operator], 200, 200),
        (SOMEBODY, vec![reader], 200, 403),
        (SOMEBODY, many(reader), 200, 403),
        (NOBODY, vec![NOBODY], 403, 403),
        (NOBODY, many(0), 403, 403),
        // A uid is no gid.
        (operator, vec![SOMEBODY], 403, 403),
    ] {
        let who = format!("{uid} {:?}", groups.last());
        for path in ["/v1/status", "/v1/quarantine", "/v1/allow", "/v1/explain?port=eth0", "/v1/events"] {
            assert_eq!(ask_as(&setup, uid, &groups, "GET", path).await.0, question, "{who} {path}");
        }
        for endpoint in Endpoint::ALL {
            let (status, answer) = ask_as(&setup, uid, &groups, "POST", endpoint.path()).await;
            // The document is a hold's: elsewhere it gets as far as being wrong.
            let expected = if change == 200 && endpoint != Endpoint::Hold { 400 } else { change };
            assert_eq!(status, expected, "{who} {endpoint:?} {answer}");
        }
        assert_eq!(setup.reached().len(), usize::from(change == 200), "{who}");
    }
    for path in ["/", "/v1/hold", "/v1/events/follow"] {
        let (status, answer) = ask_as(&setup, NOBODY, &[NOBODY], "GET", path).await;
        let expected = format!("uid 65534 may not ask here: be root, or join one of the groups {operators}, {readers}");
        assert_eq!((status, sentence(&answer)), (403, expected), "{path}");
    }
}

#[tokio::test]
async fn whoever_may_not_change_is_told_nothing_else() {
    if !is_root() {
        return;
    }
    let [(operators, _), _] = groups();
    let setup = setup_with(Access { operator_groups: vec![operators], reader_groups: vec![] }, done).await;
    let long = "x".repeat(100_000);
    for body in ["", "{", long.as_str()] {
        let (socket, request) = (setup.socket.clone(), request("POST", "/v1/hold", body));
        let answer = in_thread(move || {
            become_user(NOBODY, &[NOBODY]);
            talk(&socket, &request)
        });
        let (status, answer) = answer.await;
        assert!(status == 403 && sentence(&answer).contains("may not change anything"), "{answer}");
    }
    assert_eq!(setup.recorded().len(), 3);
}

#[tokio::test]
async fn a_group_that_there_is_not_opens_the_socket_to_nobody() {
    if !is_root() {
        return;
    }
    let access = Access { operator_groups: vec!["no-such-group-here".into()], reader_groups: vec![] };
    let setup = setup_with(access, done).await;
    assert_eq!(mode(&setup.socket), 0o666);
    assert_eq!(ask_as(&setup, NOBODY, &[NOBODY, 0], "GET", "/v1/status").await.0, 403);
    assert_eq!(ask_as(&setup, 0, &[0], "POST", "/v1/hold").await.0, 200);
}
