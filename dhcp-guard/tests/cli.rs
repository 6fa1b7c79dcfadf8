//! The binary as scripts see it: exit codes, and what goes to which stream.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output},
    thread,
};

fn dhcp_guard() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dhcp-guard"));
    command.env_remove("RUST_LOG");
    command
}

fn run(args: &[&str]) -> Output {
    dhcp_guard().args(args).output().expect("the binary runs")
}

/// The one line on stderr of a command that failed with exit code 2 and printed nothing else.
fn error(args: &[&str]) -> String {
    complaint(2, args)
}

/// The same with another exit code.
fn complaint(code: i32, args: &[&str]) -> String {
    let output = run(args);
    let stderr = String::from_utf8(output.stderr).expect("errors are text");
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{args:?}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    stderr.trim_end().to_owned()
}

/// Answers every request on `socket` with `body`.
fn serve(socket: &Path, body: String) {
    serve_status(socket, "200 OK", body);
}

/// The same with another status.
fn serve_status(socket: &Path, status: &'static str, body: String) {
    let listener = UnixListener::bind(socket).expect("the folder is new");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("somebody asks");
            _ = stream.read(&mut [0; 1024]);
            // Whoever asked may have gone.
            _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
}

#[test]
fn help_and_version_are_answers() {
    for args in [["--help"], ["--version"]] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
    let version = run(&["--version"]).stdout;
    assert_eq!(String::from_utf8(version).unwrap(), concat!("dhcp-guard ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn every_error_is_one_sentence_and_exit_code_2() {
    assert!(error(&["statsu"]).starts_with("dhcp-guard: unrecognized subcommand 'statsu'"));
    assert!(error(&["clients", "--mac", "x"]).contains("is not a MAC address"));
    for command in [
        "status",
        "offenders",
        "ports",
        "clients",
        "events",
        "explain eth0",
        "quarantine list",
        "quarantine add eth0 --reason x",
        "quarantine release 7",
        "hold on",
        "undo --since 10m",
        "allow list",
        "allow add eth0 --reason x",
        "allow remove eth0",
    ] {
        let args: Vec<&str> = command.split(' ').chain(["--socket", "/nowhere/agent.sock"]).collect();
        assert_eq!(
            error(&args),
            "dhcp-guard: no agent answers on /nowhere/agent.sock: start one with `dhcp-guard run -i IF`, or name its \
             socket with --socket"
        );
    }
    assert_eq!(
        error(&["config", "check", "--config", "/nowhere/a.toml"]),
        "dhcp-guard: cannot read the configuration /nowhere/a.toml: No such file or directory (os error 2); name a \
         file with --config"
    );
}

#[test]
fn a_bad_configuration_stops_the_agent_and_makes_the_check_say_no() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.toml");
    fs::write(&file, "mod = 'monitor'\n").unwrap();
    let file = file.to_str().unwrap();
    let problem = "line 1: mod: there is no such key, did you mean `mode`?";

    let check = run(&["config", "check", "--config", file]);
    assert_eq!(check.status.code(), Some(1));
    assert!(String::from_utf8(check.stdout).unwrap().contains(problem));
    let error = error(&["run", "-i", "eth0", "--config", file]);
    assert_eq!(error, format!("dhcp-guard: the configuration {file} is not valid: {problem}"));
}

#[test]
fn without_an_interface_there_is_nothing_to_guard() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("empty.toml");
    fs::write(&file, "").unwrap();
    let error = error(&["run", "--config", file.to_str().unwrap()]);
    assert!(error.starts_with("dhcp-guard: nothing to guard: name an interface with -i IF"), "{error}");
}

#[test]
fn a_refusal_by_the_rules_is_a_no_and_any_other_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let body = r#"{"error": "port eth0 is protected: it is the host's own"}"#;
    for (status, code, said) in [
        ("409 Conflict", 1, "dhcp-guard: refused: port eth0 is protected: it is the host's own"),
        ("403 Forbidden", 2, "dhcp-guard: port eth0 is protected: it is the host's own"),
        ("400 Bad Request", 2, "dhcp-guard: port eth0 is protected: it is the host's own"),
    ] {
        let socket = dir.path().join(format!("{code}{}.sock", &status[..3]));
        serve_status(&socket, status, body.to_owned());
        let args = ["quarantine", "add", "eth0", "--reason", "x", "--socket", socket.to_str().unwrap()];
        assert_eq!(complaint(code, &args), said, "{status}");
    }
}

#[test]
fn nobody_to_explain_is_a_no() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    serve(&socket, r#"{"as_of": "2025-01-17T15:23:41Z", "subjects": []}"#.to_owned());
    let output = run(&["explain", "eth9", "--socket", socket.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, "nobody to explain: there is no port eth9; `dhcp-guard ports` lists them\n");
}

#[test]
fn half_a_target_is_a_wrong_command_line() {
    for target in ["", "eth0/", "/02:00:5e:10:00:01", "02:00:5e:10:00:01"] {
        for change in ["quarantine add", "quarantine release", "allow add", "allow remove"] {
            let args: Vec<&str> = change.split(' ').chain([target, "--reason", "x"]).collect();
            let said = error(&args);
            assert!(said.starts_with("dhcp-guard: ") && said.contains("; `--help` lists what is possible"), "{said}");
        }
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("agent.sock");
    serve(&socket, r#"{"as_of": "2025-01-17T15:23:41Z", "offenders": []}"#.to_owned());
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let command = ["offenders", "--json", "--socket", socket.to_str().unwrap()];
    let output = dhcp_guard().args(command).stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
