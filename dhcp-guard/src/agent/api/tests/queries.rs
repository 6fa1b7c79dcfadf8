//! What can be asked.

use serde_json::json;

use super::*;

#[tokio::test]
async fn the_loop_s_part_of_the_picture_is_in_the_status() {
    let setup = setup().await;
    let (status, answer) = setup.get("/v1/status").await;
    assert_eq!((status, &answer["hold"], &answer["quarantined"]), (200, &json!(true), &json!(2)), "{answer}");
    assert!(answer["warnings"].as_array().unwrap().contains(&json!("a cap holds one back")), "{answer}");
}

#[tokio::test]
async fn quarantines_and_allowlist_are_those_of_the_picture() {
    let setup = setup().await;
    let (status, answer) = setup.get("/v1/quarantine").await;
    assert_eq!((status, &answer["hold"], &answer["quarantines"][0]["id"]), (200, &json!("root: moving"), &json!(7)));
    assert_eq!(serde_json::from_value::<Timestamp>(answer["as_of"].clone()).unwrap(), now());
    let (status, answer) = setup.get("/v1/allow").await;
    assert_eq!((status, &answer["allowed"][0]["by"]), (200, &json!("configuration")), "{answer}");
}

#[tokio::test]
async fn what_was_decided_about_somebody_is_their_state() {
    let setup = setup().await;
    let (_, clients) = setup.get("/v1/clients").await;
    assert_eq!(clients["clients"][0]["state"], "quarantined", "{clients}");
    let (_, offenders) = setup.get("/v1/offenders").await;
    assert_eq!(offenders["offenders"][0]["state"], "quarantined", "{offenders}");
    let (_, ports) = setup.get("/v1/ports").await;
    let states = [&ports["ports"][0], &ports["ports"][1]].map(|port| (port["port"].clone(), port["state"].clone()));
    assert_eq!(states, [(json!("eth0.100"), json!("held_back")), (json!("eth0"), json!("normal"))], "trouble first");
}

#[tokio::test]
async fn explanations_come_from_the_loop() {
    let setup = setup().await;
    for (query, port, mac) in [
        ("port=eth0.100", Some("eth0.100"), None),
        ("mac=0200.5E10.0001", None, Some(MAC)),
        ("mac=02:00:5e:10:00:01&port=a%26b", Some("a&b"), Some(MAC)),
    ] {
        let (status, answer) = setup.get(&format!("/v1/explain?{query}")).await;
        assert_eq!((status, &answer["subjects"]), (200, &json!([])), "{query}: {answer}");
        let about = About { port: port.map(str::to_owned), mac };
        assert_eq!(std::mem::take(&mut *setup.explained.lock().unwrap()), [about], "{query}");
    }
}

#[tokio::test]
async fn a_question_about_nobody_or_with_more_to_it_is_refused() {
    let setup = setup().await;
    for (query, why) in [
        ("", "nobody is to be explained"),
        ("?", "nobody is to be explained"),
        ("?port=", "the port is missing"),
        ("?mac=", "is not a MAC address"),
        ("?mac=02:00:5e:10:00", "`02:00:5e:10:00` is not a MAC address"),
        ("?port=eth0&vlan=3", "each once"),
        ("?port=eth0&port=eth1", "each once"),
        ("?name=eth0", "each once"),
    ] {
        let (status, answer) = setup.get(&format!("/v1/explain{query}")).await;
        assert!(status == 400 && sentence(&answer).contains(why), "{query}: {status} {answer}");
    }
    assert!(setup.explained.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_parameter_that_there_is_not_is_never_ignored() {
    let setup = setup().await;
    let whole = ["status", "offenders", "ports", "clients", "quarantine", "allow", "events/follow"];
    for path in whole {
        let (status, answer) = setup.get(&format!("/v1/{path}?port=eth0")).await;
        assert_eq!(
            (status, sentence(&answer)),
            (400, format!("/v1/{path} has no parameters: ask for /v1/{path} alone"))
        );
    }
    for path in &whole[..6] {
        assert_eq!(setup.get(&format!("/v1/{path}?")).await.0, 200, "{path}");
    }
    for query in ["limits=3", "limit=3&port=eth0", "limit=x"] {
        let (status, answer) = setup.get(&format!("/v1/events?{query}")).await;
        assert!(status == 400 && sentence(&answer).contains("no other parameter"), "{query}: {answer}");
    }
    assert_eq!(setup.get("/v1/events?limit=3").await.0, 200);
    assert_eq!(setup.recorded(), [], "questions are not on record");
}

#[tokio::test]
async fn a_loop_that_has_ended_explains_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    let requests = requests::channel().0;
    let _stop = serve_at(&socket, Access::default(), requests, audit::Handle::nowhere()).await;
    let (status, answer) = in_thread(move || talk(&socket, &request("GET", "/v1/explain?port=eth0", ""))).await;
    assert!(status == 503 && sentence(&answer).contains("busy or stopping"), "{answer}");
}

#[tokio::test]
async fn whoever_asks_for_something_else_is_told_what_there_is() {
    let setup = setup().await;
    let (status, answer) = setup.get("/").await;
    for path in ["/v1/explain", "/v1/quarantine", "/v1/allow"].into_iter().chain(Endpoint::ALL.map(Endpoint::path)) {
        assert!(status == 404 && sentence(&answer).contains(path), "{path}: {answer}");
    }
    let (status, answer) = setup.get("/v1/hold").await;
    assert_eq!((status, sentence(&answer).as_str()), (405, "this is a change (POST), not a question"));
}
