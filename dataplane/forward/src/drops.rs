//! Why a packet or a request was not passed on. Closed, because each is a metric label.

macro_rules! drops {
    ($($(#[doc = $doc:literal])+ $name:ident => $label:literal,)*) => {
        /// Why something that arrived went no further.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Drop { $($(#[doc = $doc])+ $name,)* }

        impl Drop {
            /// Every reason.
            pub const ALL: &'static [Drop] = &[$(Drop::$name,)*];

            /// The label in metrics and logs.
            pub const fn label(self) -> &'static str {
                match self { $(Drop::$name => $label,)* }
            }

            /// What it means, in words for people.
            pub const fn meaning(self) -> &'static str {
                match self { $(Drop::$name => concat!($($doc),+).trim_ascii(),)* }
            }
        }
    };
}

drops! {
    /// A datagram on a socket that belongs to no leg (any more).
    NoLeg => "no_leg",
    /// A datagram without an octet.
    Empty => "empty",
    /// Shorter than its fixed header.
    Short => "short",
    /// RTP or RTCP of another version than 2.
    Version => "version",
    /// CSRC list, extension or padding beyond the end of the packet.
    Header => "header",
    /// RTCP whose lengths or first packet do not fit (RFC 3550 §A.2).
    Rtcp => "rtcp",
    /// STUN where no ICE was agreed, or that asks for nothing.
    Stun => "stun",
    /// STUN that does not parse, or whose FINGERPRINT is wrong.
    StunMalformed => "stun_malformed",
    /// A check without USERNAME or MESSAGE-INTEGRITY, or with another credential (RFC 8489 §9.1.3).
    StunUnauthentic => "stun_unauthentic",
    /// A check that was another address's.
    StunReplayed => "stun_replayed",
    /// An authentic check that cannot be: unknown attributes, or a conflict of roles.
    StunRefused => "stun_refused",
    /// DTLS where none was agreed, or after its handshake has failed.
    Dtls => "dtls",
    /// DTLS from an address without a check, or other than the announced one.
    DtlsStranger => "dtls_stranger",
    /// More DTLS of one leg than a handshake needs.
    DtlsTooMany => "dtls_too_many",
    /// None of the protocols of RFC 7983.
    Foreign => "foreign",
    /// Not from the address that the leg has learned or was told.
    Source => "source",
    /// From near the announced address while that one may still speak.
    Candidate => "candidate",
    /// Nothing learned, and the window to learn in is over.
    Window => "window",
    /// SRTP or SRTCP that its key does not authenticate, or a leg's whose key is not known yet (RFC 3711 §3.3).
    SrtpUnauthentic => "srtp_unauthentic",
    /// SRTP or SRTCP that was there already, or is older than the replay window (RFC 3711 §3.3.2).
    SrtpReplayed => "srtp_replayed",
    /// A packet that no target's key would protect: its index was used, or its table of sources is full.
    SrtpUnsent => "srtp_unsent",
    /// Over the bandwidth that the leg agreed.
    Bandwidth => "bandwidth",
    /// The leg's direction does not let its peer send.
    Direction => "direction",
    /// On a transport that several lines share, and of none of them by its MID, its SSRC or its payload type (RFC 9143 §9.2).
    Bundle => "bundle",
    /// A payload type that the leg did not agree.
    Payload => "payload",
    /// More synchronisation sources than a leg may have.
    Sources => "sources",
    /// No path leads on from the leg.
    NoPath => "no_path",
    /// There are paths, but no target may be sent to now (not known, or its direction says no).
    NoTarget => "no_target",
    /// The mode chose another source.
    NotSelected => "not_selected",
    /// Its source was chosen, and is passed on from its next key frame.
    KeyFrame => "key_frame",
    /// Too old or a duplicate by its sequence number, where a mode keeps order.
    Late => "late",
    /// Another shard's mailbox had no room for what was to be handed over to it.
    OutpostFull => "outpost_full",
    /// Handed over by another shard for a leg that is not known here (yet, or any more).
    OutpostUnknown => "outpost_unknown",
    /// A packet that another shard handed over and that went to nobody here.
    OutpostUnsent => "outpost_unsent",
    /// The outbox had no room: the driver did not check it.
    Outbox => "outbox",
    /// MSRP bytes that do not parse; the connection is closed.
    MsrpMalformed => "msrp_malformed",
    /// A connection ended within a request's header block, or before a request that waited could be judged.
    MsrpUnfinished => "msrp_unfinished",
    /// What came on a connection with TLS is no TLS, or was altered; the connection is closed.
    MsrpTls => "msrp_tls",
    /// An MSRP header block over the limit.
    MsrpTooLong => "msrp_too_long",
    /// A request for a session that is not here (481).
    MsrpNoSession => "msrp_no_session",
    /// A request for a session that is bound to another connection (506).
    MsrpOtherConnection => "msrp_other_connection",
    /// A request with a method that is not known (501).
    MsrpMethod => "msrp_method",
    /// A request that the leg or the room does not allow (403, 404, 413, 415, 428).
    MsrpRefused => "msrp_refused",
    /// A duplicate of a message that was accepted already.
    MsrpDuplicate => "msrp_duplicate",
    /// A chunk of a message that is not open (any more).
    MsrpStray => "msrp_stray",
    /// A response or report that answers nothing of ours.
    MsrpUnasked => "msrp_unasked",
    /// An IMDN that another device of the same recipient has sent already.
    MsrpImdnAgain => "msrp_imdn_again",
    /// A message that found no path or no receiver.
    MsrpNoTarget => "msrp_no_target",
    /// A copy for a receiver that was congested.
    MsrpCongested => "msrp_congested",
    /// A copy for a room's member who has no connection, beyond what may be held for him.
    MsrpHeldFull => "msrp_held_full",
    /// A copy that was held for a member for as long as may be, and no connection came.
    MsrpHeldLate => "msrp_held_late",
    /// A copy for a tap: it was too slow, gone for too long, or wanted no more of it.
    MsrpTap => "msrp_tap",
    /// A copy that waited on disk for a slow receiver, and the disk failed.
    MsrpSpill => "msrp_spill",
    /// A copy of a message to several that was not out yet when an answer to it was overdue (RFC 4975 §7.1.1).
    MsrpUnanswered => "msrp_unanswered",
    /// A request that the relay's rules do not let pass: an AUTH without TLS or for too long or short a time (403, 423),
    /// a session's URI used by another peer than its first, or a next hop where none may be (403).
    MsrpRelayRefused => "msrp_relay_refused",
    /// A chunk whose source was lost while the relay passed it on.
    MsrpRelayLost => "msrp_relay_lost",
    /// A table was full.
    MsrpLimit => "msrp_limit",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_differ_and_indices_are_dense() {
        let labels: std::collections::BTreeSet<_> = Drop::ALL.iter().map(|d| d.label()).collect();
        assert_eq!(labels.len(), Drop::ALL.len());
        assert_eq!(Drop::Empty.meaning(), "A datagram without an octet.");
        assert!(Drop::ALL.iter().enumerate().all(|(i, d)| *d as usize == i));
    }
}
