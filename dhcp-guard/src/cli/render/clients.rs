//! `clients`: who sends DHCP.

use jiff::Timestamp;

use super::{
    Style, Tone,
    table::{Align, Cell, Table},
    words,
};
use crate::{
    human::{ago, count, rate},
    model::{ClientReport, Clients, KnownBy},
};

/// The clients of the answer, and how many more there are.
pub(crate) fn clients(answer: &Clients, more: usize, now: Timestamp, style: Style) -> String {
    use Align::{Left, Right};
    if answer.clients.is_empty() && more == 0 {
        return format!("no clients: nobody has sent DHCP to a server yet (as of {})\n", ago(now, answer.as_of));
    }
    let columns = [
        ("STATE", Left),
        ("MAC", Left),
        ("PORT", Left),
        ("MACHINE", Left),
        ("WHO", Left),
        ("RATE", Right),
        ("PACKETS", Right),
        ("DROPPED", Right),
        ("FIRST SEEN", Left),
        ("LAST SEEN", Left),
    ];
    let mut table = Table::new(style, columns);
    let seen = |at: Option<Timestamp>| at.map_or_else(|| Cell::new(Tone::Dim, "never"), |at| ago(now, at).into());
    for client in &answer.clients {
        table.row([
            words::state(client.state),
            words::client(client.mac.as_deref(), client.peer.as_deref(), client.relay.as_deref()),
            client.port.as_str().into(),
            words::machine(client.server_id.as_deref(), None),
            who(client).into(),
            rate(client.rate_pps).into(),
            count(client.packets).into(),
            words::dropped(client.dropped, client.would_drop),
            seen(client.first_seen),
            seen(client.last_seen),
        ]);
    }
    let mut text = table.render();
    if more > 0 {
        let all = answer.clients.len() + more;
        let line = format!("… and {} more (`-n {all}` shows all)", count(more as u64));
        text += &style.paint(Tone::Dim, &line);
        text.push('\n');
    }
    text
}

fn who(client: &ClientReport) -> &'static str {
    match client.known_by {
        Some(KnownBy::Learned) => "learned",
        Some(KnownBy::Configuration) => "known",
        None => "stranger",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::samples::*, *};
    use crate::model::State;

    #[test]
    fn a_client_has_a_place_and_counts() {
        let stranger = ClientReport {
            mac: Some("02:00:5e:10:00:01".into()),
            known: false,
            known_by: None,
            state: State::Offender,
            packets: 1_234_567,
            dropped: 1_234_500,
            rate_pps: 4000,
            server_id: Some("em-17".into()),
            ..a_client()
        };
        let relayed = ClientReport { relay: Some("10.0.0.1".into()), known_by: Some(KnownBy::Learned), ..a_client() };
        let (peer, relay) = (Some("::dead:beef".into()), Some("dhcpv6".into()));
        let silent =
            ClientReport { first_seen: None, last_seen: None, packets: 0, mac: None, peer, relay, ..a_client() };
        let answer = Clients { as_of: now(), clients: vec![stranger, a_client(), relayed, silent] };
        assert_eq!(
            clients(&answer, 123, now(), PLAIN),
            "\
STATE     MAC                                 PORT  MACHINE  WHO            RATE    PACKETS    DROPPED  FIRST SEEN  LAST SEEN
offender  02:00:5e:10:00:01                   eth0  em-17    stranger  4,000 pps  1,234,567  1,234,500  2 h ago     12 s ago
normal    02:00:5e:10:00:02                   eth0  -        known         0 pps         12          0  2 h ago     12 s ago
normal    02:00:5e:10:00:02 (relay 10.0.0.1)  eth0  -        learned       0 pps         12          0  2 h ago     12 s ago
normal    ::dead:beef (relay dhcpv6)          eth0  -        known         0 pps          0          0  never       never
… and 123 more (`-n 127` shows all)
"
        );
    }

    #[test]
    fn none_says_why() {
        let answer = Clients { as_of: now(), clients: vec![] };
        assert_eq!(clients(&answer, 0, now(), PLAIN), "no clients: nobody has sent DHCP to a server yet (as of now)\n");
    }
}
