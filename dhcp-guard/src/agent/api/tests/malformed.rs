//! Requests that make no sense: they change nothing, are answered with one sentence, and are on record.

use serde_json::json;

use super::*;

const ADD: &str = "/v1/quarantine/add";
const RELEASE: &str = "/v1/quarantine/release";
const ALLOW: &str = "/v1/allow/add";

/// Every one is refused with this status and these words, never reaches the loop, and is on record once.
async fn refused(setup: &Setup, cases: &[(&str, String, u16, &str)]) {
    let before = setup.recorded().len();
    for (path, body, expected, why) in cases {
        let shown: String = body.chars().take(200).collect();
        let (status, answer) = setup.post(path, body).await;
        assert_eq!(status, *expected, "{path} {shown}: {answer}");
        assert!(sentence(&answer).contains(why), "{path} {shown}: {answer}");
    }
    assert_eq!(setup.reached(), []);
    let recorded = setup.recorded();
    assert_eq!(recorded.len() - before, cases.len());
    for (record, (path, _, _, why)) in recorded[before..].iter().zip(cases) {
        let refused = record.refused.as_deref().unwrap();
        assert!(refused.contains(why), "{path}: {refused}");
        assert!(matches!(record.author, Some(Author::Person { .. })), "{record:?}");
    }
}

#[tokio::test]
async fn what_is_no_document() {
    let setup = setup().await;
    let hold = r#"{ "hold": true, "reason": "x" }"#;
    let mut cases = Vec::new();
    for endpoint in Endpoint::ALL {
        cases.push((endpoint.path(), String::new(), 400, "the request is empty"));
        cases.push((endpoint.path(), "{}".to_owned(), 400, "missing field"));
    }
    for (body, why) in [
        ("{", "EOF while parsing"),
        ("null", "it must be an object"),
        ("[]", "it must be an object"),
        ("[true, \"x\", false, null]", "it must be an object"),
        ("\"hold\"", "it must be an object"),
        ("hold=true&reason=x", "expected value"),
        (&hold.replace('}', ", }"), "trailing comma"),
        (&format!("{hold}{hold}"), "trailing characters"),
        (&hold.replace("true", "1"), "invalid type: integer `1`, expected a boolean"),
        (&hold.replace("true", "\"true\""), "expected a boolean"),
        (&hold.replace("true", "null"), "expected a boolean"),
        (&hold.replace("\"x\"", "7"), "expected a string"),
        (&hold.replace("\"hold\": true", "\"hold\": true, \"hold\": false"), "duplicate field `hold`"),
        (&hold.replace("\"hold\"", "\"Hold\""), "unknown field `Hold`"),
        (&hold.replace('}', ", \"dryrun\": true }"), "unknown field `dryrun`"),
        (&hold.replace('}', ", \"dry_run\": 1 }"), "expected a boolean"),
        (&hold.replace('}', ", \"\\u001b[2J\\n\": 1 }"), "unknown field `\u{fffd}[2J\u{fffd}`"),
        (&format!("{}1{}", "[".repeat(500), "]".repeat(500)), "not understood"),
    ] {
        cases.push(("/v1/hold", body.to_owned(), 400, why));
    }
    refused(&setup, &cases).await;
    let actions: Vec<String> = setup.recorded().into_iter().map(|record| record.action).collect();
    assert_eq!(
        actions[..6],
        ["quarantine_add"; 2].into_iter().chain(["quarantine_end"; 2]).chain(["hold"; 2]).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn what_names_nobody_everybody_or_half_of_somebody() {
    let setup = setup().await;
    let add = |targets: Value| json!({ "targets": targets, "reason": "x", "request_id": "1" }).to_string();
    let one = |port: &str| json!([{ "port": port }]);
    let mut cases = Vec::new();
    for (targets, why) in [
        (json!([]), "nobody is not everybody"),
        (json!(null), "invalid type: null"),
        (json!("eth0"), "expected a sequence"),
        (json!("*"), "expected a sequence"),
        (json!(["eth0"]), "expected struct Named"),
        (json!([["eth0", null]]), "a target is an object"),
        (json!([null]), "expected struct Named"),
        (json!([{}]), "missing field `port`"),
        (json!([{ "mac": MAC }]), "missing field `port`"),
        (json!([{ "port": "eth0", "mac": "" }]), "is not a MAC address"),
        (json!([{ "port": "eth0", "mac": "*" }]), "is not a MAC address"),
        (json!([{ "port": "eth0", "mac": "ff:ff:ff:ff:ff:ff" }]), "cannot be a client's MAC"),
        (json!([{ "port": "eth0", "mac": "00:00:00:00:00:00" }]), "cannot be a client's MAC"),
        (json!([{ "port": "eth0", "macs": [MAC] }]), "unknown field `macs`"),
        (json!([{ "port": "eth0" }, { "port": "*" }]), "`*` is a pattern"),
        (one("*"), "`*` is a pattern"),
        (one("eth*"), "`eth*` is a pattern"),
        (one("eth?"), "is a pattern"),
        (one(""), "the port is missing"),
        (one(" "), "cannot be the name of a port"),
        (one("eth0\n"), "cannot be the name of a port"),
        (one("/"), "cannot be the name of a port"),
    ] {
        cases.push((ADD, add(targets), 400, why));
    }
    for (target, why) in [
        (json!({ "port": "*" }), "is a pattern"),
        (json!({ "port": "" }), "the port is missing"),
        (json!({ "port": "eth0", "mac": "01:00:5e:00:00:01" }), "cannot be a client's MAC"),
        (json!(["eth0", null]), "a target is an object"),
    ] {
        for path in [ALLOW, "/v1/allow/remove", RELEASE] {
            cases.push((path, json!({ "target": target, "reason": "x" }).to_string(), 400, why));
        }
    }
    cases.push((RELEASE, json!({ "reason": "x" }).to_string(), 400, "the request names nobody"));
    let both = json!({ "id": 7, "target": { "port": "eth0" }, "reason": "x" });
    cases.push((RELEASE, both.to_string(), 400, "both an id and a target"));
    cases.push((RELEASE, json!({ "id": -1, "reason": "x" }).to_string(), 400, "expected u64"));
    cases.push((RELEASE, json!({ "id": "7", "reason": "x" }).to_string(), 400, "expected u64"));
    refused(&setup, &cases).await;
}

#[tokio::test]
async fn several_targets_need_an_id() {
    let setup = setup().await;
    let mut document =
        json!({ "targets": [{ "port": "eth0" }, { "port": "eth0.100" }], "max": 2, "confirm": 2, "reason": "x" });
    refused(&setup, &[(ADD, document.to_string(), 400, "a request with 2 targets needs a request_id")]).await;
    document["request_id"] = json!("1");
    assert_eq!(setup.post(ADD, document).await.0, 200);
}

#[tokio::test]
async fn reasons_times_and_ids_that_are_none() {
    let setup = setup().await;
    let hold = |reason: &str| json!({ "hold": true, "reason": reason }).to_string();
    let id = |id: Value| json!({ "hold": true, "reason": "x", "request_id": id }).to_string();
    let long = "x".repeat(501);
    let mut cases = vec![
        ("/v1/hold", json!({ "hold": true }).to_string(), 400, "missing field `reason`"),
        ("/v1/hold", json!({ "hold": true, "reason": null }).to_string(), 400, "expected a string"),
        ("/v1/hold", hold(""), 400, "the reason is empty"),
        ("/v1/hold", hold(" \t"), 400, "the reason is empty"),
        ("/v1/hold", hold(&long), 400, "one line of at most 500 characters"),
        ("/v1/hold", hold("two\nlines"), 400, "one line"),
        ("/v1/hold", hold("\u{1b}[2J"), 400, "one line"),
        ("/v1/hold", id(json!("")), 400, "1 to 64 visible ASCII characters"),
        ("/v1/hold", id(json!("a b")), 400, "visible ASCII"),
        ("/v1/hold", id(json!("é")), 400, "visible ASCII"),
        ("/v1/hold", id(json!("x".repeat(65))), 400, "1 to 64"),
        ("/v1/hold", id(json!(7)), 400, "expected a string"),
    ];
    for (ttl, why) in [(json!(0), "no time at all"), (json!(u64::MAX), "ten years"), (json!(1.5), "expected u64")] {
        let (add, allow) = (
            json!({ "targets": [{ "port": "eth0" }], "ttl_s": ttl, "reason": "x" }),
            json!({ "target": { "port": "eth0" }, "for_s": ttl, "reason": "x" }),
        );
        cases.push((ADD, add.to_string(), 400, why));
        cases.push((ALLOW, allow.to_string(), 400, why));
        cases.push(("/v1/undo", json!({ "since_s": ttl, "reason": "x" }).to_string(), 400, why));
    }
    let for_s = json!({ "target": { "port": "eth0" }, "for_s": 60, "reason": "x" });
    cases.push(("/v1/allow/remove", for_s.to_string(), 400, "leave for_s out"));
    let action = json!({ "targets": [{ "port": "eth0" }], "action": "kill", "reason": "x" });
    cases.push((ADD, action.to_string(), 400, "unknown variant `kill`, expected `mute` or `isolate`"));
    refused(&setup, &cases).await;
    let recorded = setup.recorded();
    assert!(recorded.iter().all(|record| record.reason.chars().count() <= 501), "cut");
    assert_eq!(recorded[6].reason, "\u{fffd}[2J", "nothing that a terminal would obey");
}

#[tokio::test]
async fn what_is_too_long() {
    let setup = setup().await;
    let targets: Vec<Value> =
        (0..10_000).map(|n| json!({ "port": format!("eth0.{}", n % 4094 + 1), "mac": MAC })).collect();
    let document = json!({ "targets": targets, "max": 10_000, "confirm": 10_000, "reason": "x", "request_id": "1" });
    let padded = |length: usize| {
        let hold = json!({ "hold": true, "reason": "x" }).to_string();
        format!("{hold}{}", " ".repeat(length - hold.len()))
    };
    let cases = [
        (ADD, document.to_string(), 413, "the request is longer than 65536 bytes"),
        ("/v1/hold", padded(65_537), 413, "longer than"),
        ("/v1/hold", padded(1_000_000), 413, "longer than"),
    ];
    refused(&setup, &cases).await;
    assert_eq!(setup.post("/v1/hold", padded(65_536)).await.0, 200, "as long as it may be");
}

#[tokio::test]
async fn what_is_in_the_address_or_goes_elsewhere() {
    let setup = setup().await;
    let hold = json!({ "hold": true, "reason": "x" }).to_string();
    let cases = [
        ("/v1/hold?dry_run=true", hold.clone(), 400, "its parameters in its document"),
        ("/v1/hold/", hold.clone(), 404, "there is nothing here"),
        ("/v1/quarantine", hold.clone(), 405, "can only be asked"),
        ("/v1/status", hold.clone(), 405, "can only be asked"),
        ("/", hold, 404, "there is nothing here"),
    ];
    refused(&setup, &cases).await;
    let (status, _) = setup.send("DELETE", "/v1/quarantine/add", "").await;
    assert_eq!(status, 405);
    let actions: Vec<String> = setup.recorded().into_iter().map(|record| record.action).collect();
    assert_eq!(actions, ["hold_on", "unknown", "unknown", "unknown", "unknown", "unknown"]);
}

#[tokio::test]
async fn what_breaks_off_or_never_comes() {
    let setup = setup().await;
    let whole = request("POST", "/v1/hold", &json!({ "hold": true, "reason": "x" }).to_string());
    let half = whole[..whole.len() - 5].to_vec();
    let (socket, bytes) = (setup.socket.clone(), half.clone());
    // It goes away without waiting for an answer.
    in_thread(move || UnixStream::connect(socket).unwrap().write_all(&bytes).unwrap()).await;
    let socket = setup.socket.clone();
    let (status, answer) = in_thread(move || talk(&socket, &half)).await;
    assert!(status == 408 && sentence(&answer).contains("not complete after 5 s"), "{answer}");
    assert_eq!(setup.reached(), []);
    let refused: Vec<String> = setup.recorded().into_iter().filter_map(|record| record.refused).collect();
    assert_eq!(
        refused,
        [
            "cannot change the hold: the request broke off",
            "cannot change the hold: the request was not complete after 5 s"
        ]
    );
}

#[tokio::test]
async fn garbage_in_a_loop_does_not_fill_the_log() {
    let setup = setup().await;
    for _ in 0..300 {
        assert_eq!(setup.post("/v1/hold", "{").await.0, 400);
    }
    assert_eq!(setup.recorded().len(), 100);
}
