//! The closed lists that the counters are kept for. Their order is part of the map layout
//! ([`crate::layout::LAYOUT_VERSION`]).

/// Declares a closed list: a field-less enum with its count, all members in order, and their stable names.
macro_rules! closed_list {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
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
        /// Passed: a known client within its limit.
        PassKnown => "pass_known",
        /// Passed: a stranger within its limit and the strangers' share of its port.
        PassStranger => "pass_stranger",
        /// Passed: from a trusted port within that port's limit.
        PassTrusted => "pass_trusted",
        /// Passed: a server's message (to port 68) from a port that is not trusted. Reported as a rogue server.
        PassServer => "pass_server",
        /// Passed: the interface has no port configured, so there is no limit to hold it against.
        PassNoPort => "pass_no_port",
        /// Dropped: the client (port and source MAC) is over its own limit.
        DropClientLimit => "drop_client_limit",
        /// Dropped: the strangers' share of the port is spent.
        DropStrangerShare => "drop_stranger_share",
        /// Dropped: the port is over its limit.
        DropPortLimit => "drop_port_limit",
        /// `monitor` mode: passed, and `enforce` would have dropped it as [`Reason::DropClientLimit`].
        WouldDropClientLimit => "would_drop_client_limit",
        /// `monitor` mode: passed, and `enforce` would have dropped it as [`Reason::DropStrangerShare`].
        WouldDropStrangerShare => "would_drop_stranger_share",
        /// `monitor` mode: passed, and `enforce` would have dropped it as [`Reason::DropPortLimit`].
        WouldDropPortLimit => "would_drop_port_limit",
    }
}

impl Reason {
    /// What `monitor` mode counts instead of this reason.
    #[must_use]
    #[inline(always)]
    pub const fn monitored(self) -> Self {
        match self {
            Self::DropClientLimit => Self::WouldDropClientLimit,
            Self::DropStrangerShare => Self::WouldDropStrangerShare,
            Self::DropPortLimit => Self::WouldDropPortLimit,
            other => other,
        }
    }

    /// The packet did not get through.
    #[must_use]
    #[inline(always)]
    pub const fn is_drop(self) -> bool {
        matches!(self, Self::DropClientLimit | Self::DropStrangerShare | Self::DropPortLimit)
    }

    /// The packet was over a limit: dropped, or passed only because of `monitor` mode.
    #[must_use]
    #[inline(always)]
    pub const fn is_excess(self) -> bool {
        self.is_drop() || self.is_would_drop()
    }

    /// The packet was over a limit and passed because of `monitor` mode.
    #[must_use]
    #[inline(always)]
    pub const fn is_would_drop(self) -> bool {
        matches!(self, Self::WouldDropClientLimit | Self::WouldDropStrangerShare | Self::WouldDropPortLimit)
    }
}

closed_list! {
    /// DHCPv4 message types (option 53, RFC 2132 section 9.6). The index of DISCOVER to INFORM is the value on the wire.
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
    }
}

impl MessageType {
    /// From the value of option 53. `0` is no type.
    #[must_use]
    #[inline(always)]
    pub const fn from_wire(value: u8) -> Self {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_the_place_in_all() {
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
            assert_eq!(MessageType::from_wire(u8::try_from(value).unwrap()), *kind);
        }
        assert_eq!(MessageType::from_wire(255), MessageType::Other);
    }

    extern crate std;
}
