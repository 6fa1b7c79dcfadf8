//! The closed lists that the counters are kept for. Their order is part of the map layout
//! ([`crate::layout::LAYOUT_VERSION`]).

/// Declares a closed list: a field-less enum with its count, all members in order, and their stable names.
macro_rules! closed_list {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// All members, in the order of their index.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// How many members there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The stable snake_case name, as JSON shows it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The place in a counter row, `0..COUNT`.
            #[must_use]
            #[inline(always)]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

closed_list! {
    /// Why a DHCP packet was passed or dropped. Every DHCP packet on a guarded interface ends in exactly one of these,
    /// so the counters of all reasons add up to the DHCP packets seen.
    Reason {
        /// Passed: the client or its port is on the allowlist.
        PassAllowed => "pass_allowed",
        /// Passed: a known client within its limit.
        PassKnown => "pass_known",
        /// Passed: a stranger within its limit and the strangers' share of its port.
        PassStranger => "pass_stranger",
        /// Passed: from a trusted port within that port's limit.
        PassTrusted => "pass_trusted",
        /// Passed: a server's message (to port 68 or 546) from a port that is not trusted. Reported as a rogue server.
        PassServer => "pass_server",
        /// Passed: the interface has no port configured, so there is no limit to hold it against.
        PassNoPort => "pass_no_port",
        /// Dropped: the client or its port is in quarantine.
        DropQuarantine => "drop_quarantine",
        /// Dropped: the client (port and source MAC) is over its own limit.
        DropClientLimit => "drop_client_limit",
        /// Dropped: the strangers' share of the port is spent.
        DropStrangerShare => "drop_stranger_share",
        /// Dropped: the share of the port that DISCOVERs and Solicits may take is spent.
        DropDiscoverShare => "drop_discover_share",
        /// Dropped: the port is over its limit.
        DropPortLimit => "drop_port_limit",
        /// Dropped: the untrusted ports of the host, together, are over the host's budget, or strangers over their share
        /// of it.
        DropHostLimit => "drop_host_limit",
        /// Dropped: a server's message from a port that is not trusted, while others are.
        DropRogueServer => "drop_rogue_server",
        /// Dropped: the message names another hardware address than the frame it came in.
        DropChaddrMismatch => "drop_chaddr_mismatch",
        /// Dropped: the source MAC is a group address or zero, which nobody can send from (IEEE 802-2014 clause 8.2).
        DropMalformed => "drop_malformed",
        /// `monitor` mode: passed, and `enforce` would have dropped it as [`Reason::DropQuarantine`].
        WouldDropQuarantine => "would_drop_quarantine",
        /// `monitor` mode: passed, and `enforce` would have dropped it as [`Reason::DropClientLimit`].
        WouldDropClientLimit => "would_drop_client_limit",
        /// `monitor` mode: passed, and `enforce` would have dropped it as [`Reason::DropStrangerShare`].
        WouldDropStrangerShare => "would_drop_stranger_share",
        /// `monitor` mode: passed, and `enforce` would have dropped it as [`Reason::DropDiscoverShare`].
        WouldDropDiscoverShare => "would_drop_discover_share",
        /// `monitor` mode: passed, and `enforce` would have dropped it as [`Reason::DropPortLimit`].
        WouldDropPortLimit => "would_drop_port_limit",
        /// `monitor` mode: passed, and `enforce` would have dropped it as [`Reason::DropHostLimit`].
        WouldDropHostLimit => "would_drop_host_limit",
        /// `monitor` mode: passed, and `enforce` would have dropped it as [`Reason::DropRogueServer`].
        WouldDropRogueServer => "would_drop_rogue_server",
        /// `monitor` mode: passed, and `enforce` would have dropped it as [`Reason::DropChaddrMismatch`].
        WouldDropChaddrMismatch => "would_drop_chaddr_mismatch",
        /// `monitor` mode: passed, and `enforce` would have dropped it as [`Reason::DropMalformed`].
        WouldDropMalformed => "would_drop_malformed",
    }
}

/// Where the drops begin, and where what `monitor` mode makes of them does: the list is three runs, passes, drops, and
/// the same drops again as they would have been. A test holds it to that.
const FIRST_DROP: usize = Reason::DropQuarantine as usize;
const FIRST_WOULD_DROP: usize = Reason::WouldDropQuarantine as usize;

impl Reason {
    /// What `monitor` mode counts instead of this reason.
    #[must_use]
    #[inline(always)]
    pub const fn monitored(self) -> Self {
        match self {
            Self::DropQuarantine => Self::WouldDropQuarantine,
            Self::DropClientLimit => Self::WouldDropClientLimit,
            Self::DropStrangerShare => Self::WouldDropStrangerShare,
            Self::DropDiscoverShare => Self::WouldDropDiscoverShare,
            Self::DropPortLimit => Self::WouldDropPortLimit,
            Self::DropHostLimit => Self::WouldDropHostLimit,
            Self::DropRogueServer => Self::WouldDropRogueServer,
            Self::DropChaddrMismatch => Self::WouldDropChaddrMismatch,
            Self::DropMalformed => Self::WouldDropMalformed,
            other => other,
        }
    }

    /// The packet did not get through.
    #[must_use]
    #[inline(always)]
    pub const fn is_drop(self) -> bool {
        Self::is_drop_at(self.index())
    }

    /// The same for the reason with this index.
    #[must_use]
    #[inline(always)]
    pub const fn is_drop_at(index: usize) -> bool {
        index >= FIRST_DROP && index < FIRST_WOULD_DROP
    }

    /// The packet was against a rule: dropped, or passed only because of `monitor` mode.
    #[must_use]
    #[inline(always)]
    pub const fn is_excess(self) -> bool {
        self.index() >= FIRST_DROP
    }

    /// The packet was against a rule and passed because of `monitor` mode.
    #[must_use]
    #[inline(always)]
    pub const fn is_would_drop(self) -> bool {
        self.index() >= FIRST_WOULD_DROP
    }
}

closed_list! {
    /// DHCPv4 message types (option 53, RFC 2132 section 9.6), where the index of DISCOVER to INFORM is the value on the
    /// wire; then DHCPv6 message types (RFC 8415 section 7.3), in the order of theirs.
    MessageType {
        /// No message type could be read: plain BOOTP (RFC 951), a truncated packet, or no DHCP at all on a DHCP port.
        None => "none",
        /// DHCPDISCOVER (1).
        Discover => "discover",
        /// DHCPOFFER (2).
        Offer => "offer",
        /// DHCPREQUEST (3).
        Request => "request",
        /// DHCPDECLINE (4).
        Decline => "decline",
        /// DHCPACK (5).
        Ack => "ack",
        /// DHCPNAK (6).
        Nak => "nak",
        /// DHCPRELEASE (7).
        Release => "release",
        /// DHCPINFORM (8).
        Inform => "inform",
        /// Any later type (FORCERENEW, lease queries, ...).
        Other => "other",
        /// Solicit (1).
        V6Solicit => "v6_solicit",
        /// Advertise (2).
        V6Advertise => "v6_advertise",
        /// Request (3).
        V6Request => "v6_request",
        /// Confirm (4).
        V6Confirm => "v6_confirm",
        /// Renew (5).
        V6Renew => "v6_renew",
        /// Rebind (6).
        V6Rebind => "v6_rebind",
        /// Reply (7).
        V6Reply => "v6_reply",
        /// Release (8).
        V6Release => "v6_release",
        /// Decline (9).
        V6Decline => "v6_decline",
        /// Reconfigure (10).
        V6Reconfigure => "v6_reconfigure",
        /// Information-request (11).
        V6InformationRequest => "v6_information_request",
        /// Relay-forward (12).
        V6RelayForward => "v6_relay_forward",
        /// Relay-reply (13).
        V6RelayReply => "v6_relay_reply",
        /// Any later DHCPv6 type (lease queries, failover, ...).
        V6Other => "v6_other",
    }
}

impl MessageType {
    /// From the value of option 53. `0` is no type.
    #[must_use]
    #[inline(always)]
    pub const fn from_wire_v4(value: u8) -> Self {
        match value {
            0 => Self::None,
            1 => Self::Discover,
            2 => Self::Offer,
            3 => Self::Request,
            4 => Self::Decline,
            5 => Self::Ack,
            6 => Self::Nak,
            7 => Self::Release,
            8 => Self::Inform,
            _ => Self::Other,
        }
    }

    /// From the first byte of a DHCPv6 message. `0` is reserved: no type.
    #[must_use]
    #[inline(always)]
    pub const fn from_wire_v6(value: u8) -> Self {
        match value {
            0 => Self::None,
            1 => Self::V6Solicit,
            2 => Self::V6Advertise,
            3 => Self::V6Request,
            4 => Self::V6Confirm,
            5 => Self::V6Renew,
            6 => Self::V6Rebind,
            7 => Self::V6Reply,
            8 => Self::V6Release,
            9 => Self::V6Decline,
            10 => Self::V6Reconfigure,
            11 => Self::V6InformationRequest,
            12 => Self::V6RelayForward,
            13 => Self::V6RelayReply,
            _ => Self::V6Other,
        }
    }

    /// Only servers send it, to clients or to relays.
    #[must_use]
    #[inline(always)]
    pub const fn is_of_server(self) -> bool {
        let v4 = matches!(self, Self::Offer | Self::Ack | Self::Nak);
        v4 || matches!(self, Self::V6Advertise | Self::V6Reply | Self::V6Reconfigure | Self::V6RelayReply)
    }
}

closed_list! {
    /// What is worth counting about a DHCP packet besides its verdict.
    Note {
        /// Came through a relay: policed by the relay's and the client's address in the message.
        Relayed => "relayed",
        /// The hardware address in the message differs from the frame's source (not through a relay).
        ChaddrMismatch => "chaddr_mismatch",
        /// Came with VLANs that have no port of their own; its interface's default port took it.
        UnknownVlan => "unknown_vlan",
        /// From a client without an entry: counted here, and not for its MAC.
        Untracked => "untracked",
        /// Not a DHCP packet: any other frame that an `isolate` quarantine dropped.
        IsolatedFrame => "isolated_frame",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_the_place_in_all() {
        assert!(Note::ALL.iter().enumerate().all(|(i, n)| n.index() == i));
        assert!(Reason::ALL.iter().enumerate().all(|(i, r)| r.index() == i));
        assert!(MessageType::ALL.iter().enumerate().all(|(i, t)| t.index() == i));
    }

    #[test]
    fn a_reason_is_one_of_pass_drop_or_would_drop_and_its_name_says_which() {
        for reason in Reason::ALL {
            assert_eq!(reason.is_drop(), reason.name().starts_with("drop_"), "{reason:?}");
            assert_eq!(reason.is_would_drop(), reason.name().starts_with("would_drop_"), "{reason:?}");
        }
    }

    #[test]
    fn monitor_turns_each_drop_into_its_would_drop_and_leaves_the_rest() {
        for reason in Reason::ALL {
            let monitored = reason.monitored();
            assert!(!monitored.is_drop());
            if reason.is_drop() {
                assert_eq!(monitored.name(), std::format!("would_{}", reason.name()));
            } else {
                assert_eq!(monitored, *reason);
            }
        }
    }

    #[test]
    fn message_types_follow_the_wire() {
        for (value, kind) in MessageType::ALL.iter().enumerate().take(9) {
            assert_eq!(MessageType::from_wire_v4(u8::try_from(value).unwrap()), *kind);
        }
        assert_eq!(MessageType::from_wire_v4(255), MessageType::Other);
        let before_v6 = MessageType::Other.index();
        for value in 1..=13 {
            let kind = MessageType::from_wire_v6(value);
            assert_eq!(kind.index(), before_v6 + usize::from(value));
            assert!(kind.name().starts_with("v6_"));
        }
        assert_eq!(MessageType::from_wire_v6(0), MessageType::None);
        assert_eq!(MessageType::from_wire_v6(14), MessageType::V6Other);
    }

    extern crate std;
}
