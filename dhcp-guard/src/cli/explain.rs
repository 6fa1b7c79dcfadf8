//! `explain`: why a port or client stands where it stands.

use std::path::Path;

use anyhow::bail;
use jiff::Timestamp;

use super::{
    Outcome,
    args::{About, ExplainArgs},
    output::Output,
    render,
};
use crate::{
    client::{Client, with_query},
    model::Explained,
};

/// The answer is "no" if there is nobody to explain.
pub(super) async fn explain(socket: &Path, args: &ExplainArgs, out: &mut Output) -> anyhow::Result<Outcome> {
    let about = about(args)?;
    let answer: Explained = Client::new(socket).get(&path(&about)).await?;
    if args.format.json {
        out.json(&answer)?;
    } else if answer.subjects.is_empty() {
        out.text(&render::nobody_to_explain(about.port.as_deref(), about.mac))?;
    } else {
        out.text(&render::explained(&answer, Timestamp::now(), out.style()))?;
    }
    Ok(if answer.subjects.is_empty() { Outcome::No } else { Outcome::Done })
}

fn about(args: &ExplainArgs) -> anyhow::Result<About> {
    let About { port, mac } = args.what.clone();
    match (port, &args.port) {
        (Some(one), Some(other)) if one != *other => {
            bail!("cannot explain port {one} on port {other}: name a MAC with --port, or leave --port out")
        }
        (port, other) => Ok(About { port: port.or_else(|| other.clone()), mac }),
    }
}

fn path(about: &About) -> String {
    let mac = about.mac.map(|mac| mac.to_string());
    let query: Vec<_> = [("port", about.port.as_deref()), ("mac", mac.as_deref())]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect();
    with_query("/v1/explain", &query)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{
        super::{
            args::{Args, Command},
            fake_agent::Agent,
            render::samples,
        },
        *,
    };

    fn args(line: &str) -> ExplainArgs {
        match Args::try_parse_from(["dhcp-guard", "explain"].into_iter().chain(line.split(' '))).unwrap().command {
            Command::Explain(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_question_becomes_a_query() {
        for (line, path) in [
            ("eth0.100", "/v1/explain?port=eth0.100"),
            ("0200.5E10.0001", "/v1/explain?mac=02:00:5e:10:00:01"),
            ("0200.5E10.0001 --port eth0", "/v1/explain?port=eth0&mac=02:00:5e:10:00:01"),
            ("eth0/0200.5e10.0001", "/v1/explain?port=eth0&mac=02:00:5e:10:00:01"),
            ("eth0 --port eth0", "/v1/explain?port=eth0"),
        ] {
            let answer = Explained { as_of: samples::now(), subjects: vec![samples::an_explanation()] };
            let agent = Agent::new().with("/v1/explain", &answer);
            let asked = agent.asked();
            let (_dir, socket) = agent.serve();
            let (mut out, written) = Output::buffer();
            assert_eq!(explain(&socket, &args(line), &mut out).await.unwrap(), Outcome::Done);
            assert_eq!(asked.once().0, path, "{line}");
            assert!(written.text().starts_with("client 02:00:5e:10:00:01 on port eth0.100"), "{}", written.text());
        }
        assert!(about(&args("eth0 --port eth1")).unwrap_err().to_string().starts_with("cannot explain port eth0 on"));
    }

    #[tokio::test]
    async fn nobody_to_explain_is_a_no() {
        let answer = Explained { as_of: samples::now(), subjects: vec![] };
        for (line, expected) in [("eth9", "nobody to explain: "), ("eth9 --json", "{")] {
            let (_dir, socket) = Agent::new().with("/v1/explain", &answer).serve();
            let (mut out, written) = Output::buffer();
            assert_eq!(explain(&socket, &args(line), &mut out).await.unwrap(), Outcome::No);
            assert!(written.text().starts_with(expected), "{}", written.text());
        }
    }
}
