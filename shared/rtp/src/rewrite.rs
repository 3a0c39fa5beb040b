//! Rewriting of the fixed header: everything after it stays where it is, so that a driver can send the new twelve
//! octets and then the old rest.

/// Octets of the fixed header.
pub const HEAD_BYTES: usize = 12;

/// What a packet's fixed header becomes. Version, padding, extension and CSRC count stay (the rest of the packet
/// is not touched); so does the marker, unless `marker` is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patch {
    /// The new payload type.
    pub payload_type: u8,
    /// Set the marker: first packet of a talk spurt as the receiver hears it.
    pub marker: bool,
    /// The new sequence number.
    pub sequence: u16,
    /// The new timestamp.
    pub timestamp: u32,
    /// The new source.
    pub ssrc: u32,
}

impl Patch {
    /// The new header in place of `head`.
    #[inline]
    pub const fn apply(&self, head: &[u8; HEAD_BYTES]) -> [u8; HEAD_BYTES] {
        let [first, second, ..] = *head;
        let marker = if self.marker { 0x80 } else { second & 0x80 };
        let [s0, s1] = self.sequence.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [c0, c1, c2, c3] = self.ssrc.to_be_bytes();
        [first, marker | (self.payload_type & 0x7f), s0, s1, t0, t1, t2, t3, c0, c1, c2, c3]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RtpView;

    #[test]
    fn only_what_the_patch_names_changes() {
        let packet = [0xb1, 0xe0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 9, 9, 9, 9, 0xbe, 0xde, 0, 0, 5, 1];
        let before = RtpView::parse(&packet).unwrap();
        let patch =
            Patch { payload_type: 8, marker: false, sequence: 0xfffe, timestamp: 0xdead_beef, ssrc: 77 };
        let mut after = packet;
        after[..HEAD_BYTES].copy_from_slice(&patch.apply(before.head()));
        let view = RtpView::parse(&after).unwrap();
        assert_eq!(
            (view.payload_type(), view.marker(), view.sequence(), view.timestamp(), view.ssrc()),
            (8, true, 0xfffe, 0xdead_beef, 77)
        );
        assert_eq!(view.payload(), before.payload());
        assert!(view.csrcs().eq(before.csrcs()));
        let marked = Patch { marker: true, ..patch }.apply(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(marked[1], 0x88);
    }
}
