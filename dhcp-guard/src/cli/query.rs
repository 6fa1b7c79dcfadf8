//! `status`, `offenders`, `ports`, `clients`, `quarantine list`, `allow list`: ask the agent, leave out what was not
//! asked for, show the rest.

use jiff::Timestamp;

use super::{
    args::{ClientsArgs, Format, OffendersArgs, Place, PortsArgs, StatusArgs},
    output::Output,
    render,
    source::Source,
};
use crate::{
    agent::{picture::Picture, report},
    mac::Mac,
    model::{Allows, Clients, Offenders, Ports, Quarantines, Status},
};

/// Rows of a table, unless somebody asks for more.
const TABLE_ROWS: usize = 50;

pub(super) async fn status(source: &Source, args: &StatusArgs, out: &mut Output) -> anyhow::Result<()> {
    let status: Status = source.get("/v1/status", status_at_rest).await?;
    if args.format.json {
        return out.json(&status);
    }
    out.text(&render::status(&status, Timestamp::now(), out.style()))
}

/// Without an agent.
fn status_at_rest(picture: &Picture) -> Status {
    Status { agent_running: false, pid: 0, uptime_s: 0, ..report::status(picture) }
}

pub(super) async fn offenders(source: &Source, args: &OffendersArgs, out: &mut Output) -> anyhow::Result<()> {
    let mut answer: Offenders = source.get("/v1/offenders", report::offenders).await?;
    let total = answer.offenders.len();
    let keep = |mac: Option<&str>| args.mac.is_none_or(|wanted| mac.is_some_and(|mac| is(mac, wanted)));
    answer.offenders.retain(|o| args.place.has(&o.interface, &o.port) && keep(o.mac.as_deref()));
    if args.format.json {
        return out.json(&answer);
    }
    let now = Timestamp::now();
    let text = if !answer.offenders.is_empty() {
        render::offenders(&answer, now, out.style())
    } else if total > 0 {
        render::nothing_matches(total, "offender")
    } else {
        // Who was watched, so that "nobody" means something.
        render::no_offenders(&source.get("/v1/ports", report::ports).await?, now)
    };
    out.text(&text)
}

pub(super) async fn ports(source: &Source, args: &PortsArgs, out: &mut Output) -> anyhow::Result<()> {
    let mut answer: Ports = source.get("/v1/ports", report::ports).await?;
    let total = answer.ports.len();
    answer.ports.retain(|port| args.place.has(&port.interface, &port.port));
    if args.format.json {
        return out.json(&answer);
    }
    out.text(&match (answer.ports.is_empty(), total) {
        (true, 1..) => render::nothing_matches(total, "port"),
        _ => render::ports(&answer, source.is_at_rest(), Timestamp::now(), out.style()),
    })
}

pub(super) async fn clients(source: &Source, args: &ClientsArgs, out: &mut Output) -> anyhow::Result<()> {
    let mut answer: Clients = source.get("/v1/clients", report::clients).await?;
    let total = answer.clients.len();
    let keep = |mac: Option<&str>| args.mac.is_none_or(|wanted| mac.is_some_and(|mac| is(mac, wanted)));
    answer.clients.retain(|client| args.place.has(&client.interface, &client.port) && keep(client.mac.as_deref()));
    let matching = answer.clients.len();
    let rows = args.limit.unwrap_or(if args.format.json { usize::MAX } else { TABLE_ROWS });
    answer.clients.truncate(rows);
    if args.format.json {
        return out.json(&answer);
    }
    out.text(&match (matching, total) {
        (0, 1..) => render::nothing_matches(total, "client"),
        _ => render::clients(&answer, matching - answer.clients.len(), Timestamp::now(), out.style()),
    })
}

pub(super) async fn quarantines(source: &Source, format: Format, out: &mut Output) -> anyhow::Result<()> {
    let answer: Quarantines = source.get("/v1/quarantine", report::quarantines).await?;
    if format.json {
        return out.json(&answer);
    }
    out.text(&render::quarantines(&answer, Timestamp::now(), out.style()))
}

pub(super) async fn allows(source: &Source, format: Format, out: &mut Output) -> anyhow::Result<()> {
    let answer: Allows = source.get("/v1/allow", report::allowed).await?;
    if format.json {
        return out.json(&answer);
    }
    out.text(&render::allows(&answer, Timestamp::now(), out.style()))
}

impl Place {
    fn has(&self, interface: &str, port: &str) -> bool {
        let is = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
        is(&self.interface, interface) && is(&self.port, port)
    }
}

fn is(mac: &str, wanted: Mac) -> bool {
    mac.parse() == Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{fake_agent::Agent, render::samples},
        *,
    };
    use crate::model::{ClientReport, Offender, PortReport};

    const JSON: Format = Format { json: true };

    fn some_offenders() -> Offenders {
        let port = Offender { mac: None, interface: "tap7".into(), port: "tap7".into(), ..samples::an_offender() };
        Offenders { as_of: samples::now(), offenders: vec![samples::an_offender(), port] }
    }

    #[tokio::test]
    async fn offenders_are_filtered_by_place_and_mac() {
        let (_dir, socket) = Agent::new().with("/v1/offenders", some_offenders()).serve();
        let all = Place::default();
        let tap7 = Place { interface: Some("tap7".into()), port: None };
        let vlan = Place { interface: None, port: Some("eth0.100".into()) };
        let mac = "0200.5E10.0001".parse().ok();
        for (place, mac, ports) in [
            (all.clone(), None, vec!["eth0.100", "tap7"]),
            (all, mac, vec!["eth0.100"]),
            (tap7.clone(), None, vec!["tap7"]),
            (vlan, None, vec!["eth0.100"]),
            (tap7, mac, vec![]),
        ] {
            let (mut out, written) = Output::buffer();
            let args = OffendersArgs { format: JSON, place, mac };
            offenders(&Source::agent(&socket), &args, &mut out).await.unwrap();
            let answer: Offenders = serde_json::from_str(&written.text()).unwrap();
            assert_eq!(answer.offenders.iter().map(|o| o.port.as_str()).collect::<Vec<_>>(), ports, "{args:?}");
        }
    }

    #[tokio::test]
    async fn no_offenders_is_told_from_none_that_match() {
        let (_dir, socket) = Agent::new().with("/v1/offenders", some_offenders()).serve();
        let (mut out, written) = Output::buffer();
        let place = Place { interface: Some("eth9".into()), port: None };
        offenders(&Source::agent(&socket), &OffendersArgs { place, ..OffendersArgs::default() }, &mut out)
            .await
            .unwrap();
        assert_eq!(written.text(), "no offender matches (2 offenders in all)\n");

        let none = Offenders { as_of: samples::now(), offenders: vec![] };
        let ports = Ports { as_of: samples::now(), ports: vec![samples::a_port()] };
        let (_dir, socket) = Agent::new().with("/v1/offenders", none).with("/v1/ports", ports).serve();
        let (mut out, written) = Output::buffer();
        offenders(&Source::agent(&socket), &OffendersArgs::default(), &mut out).await.unwrap();
        let text = written.text();
        assert!(text.starts_with("no offenders: nobody is over their limit (2 clients, 1 port watched"), "{text}");
    }

    #[tokio::test]
    async fn ports_are_filtered_by_place() {
        let other = PortReport { port: "eth0.100".into(), ..samples::a_port() };
        let answer = Ports { as_of: samples::now(), ports: vec![samples::a_port(), other] };
        let (_dir, socket) = Agent::new().with("/v1/ports", answer).serve();
        let (mut out, written) = Output::buffer();
        let place = Place { interface: None, port: Some("eth0.100".into()) };
        ports(&Source::agent(&socket), &PortsArgs { place, ..PortsArgs::default() }, &mut out).await.unwrap();
        let text = written.text();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains(" eth0.100 "), "{text}");
    }

    #[tokio::test]
    async fn clients_are_limited_in_tables_and_on_demand() {
        let clients_of = |n: u8| {
            (0..n).map(|i| ClientReport { mac: Some(format!("02:00:00:00:00:{i:02x}")), ..samples::a_client() })
        };
        let answer = Clients { as_of: samples::now(), clients: clients_of(60).collect() };
        let (_dir, socket) = Agent::new().with("/v1/clients", answer).serve();
        let shown = async |args: ClientsArgs| {
            let (mut out, written) = Output::buffer();
            clients(&Source::agent(&socket), &args, &mut out).await.unwrap();
            written.text()
        };
        let table = shown(ClientsArgs::default()).await;
        assert_eq!(table.lines().count(), 1 + 50 + 1, "{table}");
        assert!(table.ends_with("… and 10 more (`-n 60` shows all)\n"), "{table}");
        assert_eq!(shown(ClientsArgs { limit: Some(100), ..ClientsArgs::default() }).await.lines().count(), 61);
        let mac = "02:00:00:00:00:3b".parse().ok();
        assert_eq!(shown(ClientsArgs { mac, ..ClientsArgs::default() }).await.lines().count(), 2);
        let document = |text: String| serde_json::from_str::<Clients>(&text).unwrap().clients.len();
        assert_eq!(document(shown(ClientsArgs { format: JSON, ..ClientsArgs::default() }).await), 60);
        let limit = Some(3);
        assert_eq!(document(shown(ClientsArgs { format: JSON, limit, ..ClientsArgs::default() }).await), 3);
    }

    #[tokio::test]
    async fn status_is_shown_as_table_and_as_json() {
        let (_dir, socket) = Agent::new().with("/v1/status", samples::a_status()).serve();
        let (mut out, written) = Output::buffer();
        status(&Source::agent(&socket), &StatusArgs::default(), &mut out).await.unwrap();
        assert!(written.text().starts_with("guarding eth0 (native), enforce, up 3 min: 1 offender"));
        let (mut out, written) = Output::buffer();
        status(&Source::agent(&socket), &StatusArgs { format: JSON }, &mut out).await.unwrap();
        assert_eq!(serde_json::from_str::<Status>(&written.text()).unwrap().interfaces, [samples::an_interface()]);
    }

    #[tokio::test]
    async fn lists_are_shown_as_table_and_as_json() {
        let quarantines = samples::some_quarantines();
        let allowed = Allows { as_of: samples::now(), allowed: vec![samples::an_allowance()] };
        let agent = Agent::new().with("/v1/quarantine", &quarantines).with("/v1/allow", &allowed);
        let (_dir, socket) = agent.serve();
        let shown = async |format: Format| {
            let (mut out, written) = Output::buffer();
            super::quarantines(&Source::agent(&socket), format, &mut out).await.unwrap();
            let first = written.text();
            let (mut out, written) = Output::buffer();
            allows(&Source::agent(&socket), format, &mut out).await.unwrap();
            (first, written.text())
        };
        let tables = shown(Format::default()).await;
        assert!(tables.0.starts_with("ID  ACTION") && tables.1.starts_with("PORT  "), "{tables:?}");
        let documents = shown(JSON).await;
        assert_eq!(serde_json::from_str::<Quarantines>(&documents.0).unwrap(), quarantines);
        assert_eq!(serde_json::from_str::<Allows>(&documents.1).unwrap(), allowed);
    }
}
