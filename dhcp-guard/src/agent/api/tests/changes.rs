//! What can be changed: it reaches the decision loop as it was asked for, and once.

use serde_json::json;

use super::*;
use crate::model::{AllowRequest, HoldRequest, Named, QuarantineRequest, ReleaseRequest, UndoRequest};

fn named(port: &str, mac: Option<Mac>) -> Named {
    Named { port: port.into(), mac }
}

/// A document for each endpoint, with this id, and what the decision loop is to get.
fn all(id: Option<&str>) -> [(&'static str, Value, Change); 6] {
    let request_id = id.map(str::to_owned);
    let (reason, dry_run) = ("x".to_owned(), false);
    [
        (
            "/v1/quarantine/add",
            json!({ "targets": [{ "port": "eth0", "mac": MAC }], "action": "isolate", "ttl_s": 60, "max": 2,
                    "confirm": 1, "reason": " x ", "request_id": id }),
            Change::Quarantine(QuarantineRequest {
                targets: vec![named("eth0", Some(MAC))],
                action: Sanction::Isolate,
                ttl_s: Some(60),
                max: Some(2),
                confirm: Some(1),
                reason: reason.clone(),
                dry_run,
                request_id: request_id.clone(),
            }),
        ),
        (
            "/v1/quarantine/release",
            json!({ "id": 7, "reason": "x", "request_id": id }),
            Change::Release(ReleaseRequest {
                id: Some(7),
                target: None,
                reason: reason.clone(),
                dry_run,
                request_id: request_id.clone(),
            }),
        ),
        (
            "/v1/hold",
            json!({ "hold": true, "reason": "x", "request_id": id }),
            Change::Hold(HoldRequest { hold: true, reason: reason.clone(), dry_run, request_id: request_id.clone() }),
        ),
        (
            "/v1/undo",
            json!({ "since_s": 600, "reason": "x", "request_id": id }),
            Change::Undo(UndoRequest { since_s: 600, reason: reason.clone(), dry_run, request_id: request_id.clone() }),
        ),
        (
            "/v1/allow/add",
            json!({ "target": { "port": "eth0.100" }, "for_s": 60, "reason": "x", "request_id": id }),
            Change::Allow(AllowRequest {
                target: named("eth0.100", None),
                for_s: Some(60),
                reason: reason.clone(),
                dry_run,
                request_id: request_id.clone(),
            }),
        ),
        (
            "/v1/allow/remove",
            json!({ "target": { "port": "eth0.100" }, "reason": "x", "request_id": id }),
            Change::Disallow(AllowRequest {
                target: named("eth0.100", None),
                for_s: None,
                reason,
                dry_run,
                request_id,
            }),
        ),
    ]
}

#[tokio::test]
async fn every_change_reaches_the_loop_as_it_was_asked_for_and_by_whom() {
    let setup = setup().await;
    let me = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(me).unwrap().map(|user| user.name);
    let author = Author::Person { uid: me.as_raw(), user, pid: i32::try_from(std::process::id()).ok() };
    for (path, document, change) in all(None) {
        let (status, answer) = setup.post(path, document).await;
        assert_eq!((status, answer), (200, json!({ "dry_run": false, "changes": ["done"] })), "{path}");
        let reached = std::mem::take(&mut *setup.changes.lock().unwrap());
        assert_eq!(reached, [(change, author.clone())], "{path}");
    }
    assert_eq!(setup.recorded(), [], "what the loop decides, it puts on record itself");
}

#[tokio::test]
async fn a_release_may_be_by_whom_it_covers() {
    let setup = setup().await;
    let document = json!({ "id": null, "target": { "port": "eth0", "mac": "0200.5e10.0001" }, "reason": "x" });
    assert_eq!(setup.post("/v1/quarantine/release", document).await.0, 200);
    let [Change::Release(request)] = &setup.reached()[..] else { panic!() };
    assert_eq!(request.target, Some(named("eth0", Some(MAC))));
}

#[tokio::test]
async fn what_the_loop_refuses_is_told_by_status_and_on_record_there() {
    let says: [(Say, u16, &str); 2] = [
        (|_| Err(Denied::Rules("it is protected".into())), 409, "it is protected"),
        (|_| Err(Denied::Nonsense("no such port".into())), 400, "no such port"),
    ];
    for (say, expected, why) in says {
        let setup = setup_with(Access::default(), say).await;
        for (path, document, _) in all(Some("1")) {
            let (status, answer) = setup.post(path, document).await;
            assert_eq!((status, sentence(&answer).as_str()), (expected, why), "{path}");
        }
        assert_eq!(setup.reached().len(), 6, "what was refused may be tried again with its id");
        assert_eq!(setup.recorded(), []);
    }
}

#[tokio::test]
async fn a_loop_that_does_not_answer_is_on_record() {
    let setup = setup_with(Access::default(), |_| Err(Denied::Busy)).await;
    let (status, answer) = setup.post("/v1/hold", json!({ "hold": false, "reason": "x" })).await;
    assert!(status == 503 && sentence(&answer).contains("ask again"), "{answer}");
    let [record] = &setup.recorded()[..] else { panic!() };
    assert_eq!((record.action.as_str(), record.reason.as_str()), ("hold_off", "x"));
}

#[tokio::test]
async fn a_request_that_comes_again_is_refused() {
    let setup = setup().await;
    for (number, (path, _, _)) in all(None).into_iter().enumerate() {
        let id = format!("id-{number}");
        let (_, document, _) = all(Some(&id)).into_iter().nth(number).unwrap();
        assert_eq!(setup.post(path, &document).await.0, 200, "{path}");
        let (status, answer) = setup.post(path, &document).await;
        let start = format!("request {id} was carried out already at 20");
        assert_eq!(status, 409, "{path}: {answer}");
        assert!(
            sentence(&answer).starts_with(&start) && sentence(&answer).ends_with("Z; nothing was changed"),
            "{answer}"
        );
        assert_eq!(setup.reached().len(), 1, "{path}");
    }
    let recorded = setup.recorded();
    let actions: Vec<&str> = recorded.iter().map(|record| record.action.as_str()).collect();
    assert_eq!(actions, ["quarantine_add", "quarantine_end", "hold_on", "undo", "allow_add", "allow_end"]);
    assert!(recorded.iter().all(|record| record.refused.as_deref().is_some_and(|why| why.contains("already at"))));
    let subjects: Vec<String> = recorded.iter().flat_map(|record| &record.subjects).map(ToString::to_string).collect();
    assert_eq!(subjects.len(), 3, "{subjects:?}");
}

#[tokio::test]
async fn an_id_is_used_up_whatever_it_was_for() {
    let setup = setup().await;
    let [(path, document, _), (other_path, other, _), ..] = all(Some("same"));
    assert_eq!(setup.post(path, document).await.0, 200);
    assert_eq!(setup.post(other_path, other).await.0, 409);
}

#[tokio::test]
async fn a_dry_run_uses_up_no_id() {
    let setup = setup().await;
    let document = |dry_run: bool| json!({ "hold": true, "reason": "x", "request_id": "1", "dry_run": dry_run });
    for (dry_run, expected) in [(true, 200), (true, 200), (false, 200), (false, 409), (true, 200)] {
        assert_eq!(setup.post("/v1/hold", document(dry_run)).await.0, expected, "{dry_run}");
    }
}

#[tokio::test]
async fn of_two_that_are_the_same_and_in_flight_one_goes_through() {
    let setup = setup().await;
    let document = json!({ "hold": true, "reason": "x", "request_id": "1" });
    let brake = setup.brake.clone().lock_owned().await;
    let first = setup.post("/v1/hold", &document);
    let others = async {
        while setup.changes.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (status, answer) = setup.post("/v1/hold", &document).await;
        assert!(status == 409 && sentence(&answer).contains("carried out at this moment"), "{answer}");
        drop(brake);
    };
    let (first, ()) = tokio::join!(first, others);
    assert_eq!((first.0, setup.reached().len()), (200, 1));
    assert_eq!(setup.recorded().len(), 1);
    assert_eq!(setup.post("/v1/hold", &document).await.0, 409, "and afterwards none");
}

#[tokio::test]
async fn whoever_goes_away_does_not_make_it_undone() {
    let setup = setup().await;
    let document = json!({ "hold": true, "reason": "x", "request_id": "1" });
    let brake = setup.brake.clone().lock_owned().await;
    let (socket, bytes) = (setup.socket.clone(), request("POST", "/v1/hold", &document.to_string()));
    let connected = in_thread(move || {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(&bytes).unwrap();
        stream
    });
    let connected = connected.await;
    while setup.changes.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(connected);
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(brake);
    let (status, answer) = setup.post("/v1/hold", &document).await;
    assert_eq!((status, setup.reached().len()), (409, 1), "{answer}");
}

#[tokio::test]
async fn a_reload_is_asked_for_like_any_change_and_its_refusal_is_on_record() {
    const PATH: &str = "/v1/reload";
    let setup = setup().await;
    let body = json!({ "reason": " new limits ", "request_id": "1" });
    let expected = json!({ "dry_run": false, "changes": [format!("{}: new limits", nix::unistd::geteuid())] });
    assert_eq!(setup.post(PATH, &body).await, (200, expected));
    assert_eq!(setup.post(PATH, &body).await.0, 409, "not twice");
    let no = |dry_run: bool| json!({ "reason": "no", "dry_run": dry_run });
    let (status, answer) = setup.post(PATH, no(true)).await;
    assert_eq!((status, sentence(&answer).as_str()), (409, "line 3: nonsense"));
    assert_eq!(setup.recorded().len(), 1, "only what came twice");
    assert_eq!(setup.post(PATH, no(false)).await.0, 409);
    let records = setup.recorded();
    let last = records.last().unwrap();
    assert_eq!((last.action.as_str(), last.refused.as_deref()), ("reload", Some("line 3: nonsense")));
    assert!(setup.reached().is_empty(), "the decision loop has nothing to do with it");
}
