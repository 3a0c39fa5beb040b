//! Which protocol a datagram on a media port belongs to (RFC 7983 §7, RFC 5761 §4).

/// The protocol of a datagram by its first octets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// RTP.
    Rtp,
    /// RTCP, recognised by its packet type 192..=223 (RFC 5761 §4).
    Rtcp,
    /// STUN: 0..=3.
    Stun,
    /// ZRTP: 16..=19.
    Zrtp,
    /// DTLS: 20..=63.
    Dtls,
    /// TURN channel: 64..=79.
    Turn,
    /// Nothing that may share the port.
    Foreign,
    /// No octet at all.
    Empty,
}

/// Looks at the first two octets. Says nothing about whether the rest is well formed.
#[inline]
pub fn kind(bytes: &[u8]) -> Kind {
    match bytes {
        [] => Kind::Empty,
        // RFC 5761 §4: with RTP payload types 64-95 forbidden, the second octet tells RTCP from RTP.
        [128..=191, 192..=223, ..] => Kind::Rtcp,
        [128..=191, ..] => Kind::Rtp,
        [0..=3, ..] => Kind::Stun,
        [16..=19, ..] => Kind::Zrtp,
        [20..=63, ..] => Kind::Dtls,
        [64..=79, ..] => Kind::Turn,
        _ => Kind::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_octet_has_the_kind_of_rfc_7983() {
        for first in 0..=255u8 {
            let expected = match first {
                0..=3 => Kind::Stun,
                16..=19 => Kind::Zrtp,
                20..=63 => Kind::Dtls,
                64..=79 => Kind::Turn,
                128..=191 => Kind::Rtp,
                _ => Kind::Foreign,
            };
            assert_eq!(kind(&[first, 0]), expected, "{first}");
        }
        assert_eq!(kind(&[]), Kind::Empty);
    }

    #[test]
    fn the_second_octet_tells_rtcp_from_rtp() {
        for second in 0..=255u8 {
            let expected = if (192..=223).contains(&second) { Kind::Rtcp } else { Kind::Rtp };
            assert_eq!(kind(&[0x80, second]), expected);
        }
        assert_eq!(kind(&[0x80]), Kind::Rtp);
    }
}
