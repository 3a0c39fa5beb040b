//! Whether a packet begins a key frame, by what its payload format says ahead of the picture: VP8 (RFC 7741), H.264
//! (RFC 6184), VP9 (RFC 9628), H.265 (RFC 7798). Nothing of the picture itself is read.

/// A payload format whose key frames are known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VideoCodec {
    /// RFC 7741
    Vp8,
    /// RFC 6184
    H264,
    /// RFC 9628
    Vp9,
    /// RFC 7798
    H265,
}

impl VideoCodec {
    /// Whether a decoder that has seen nothing before can begin with this payload.
    pub fn begins_key_frame(self, payload: &[u8]) -> bool {
        match self {
            VideoCodec::Vp8 => vp8(payload),
            VideoCodec::H264 => h264(payload),
            VideoCodec::Vp9 => vp9(payload),
            VideoCodec::H265 => h265(payload),
        }
        .unwrap_or(false)
    }
}

/// RFC 7741 §4.2: start of partition 0; §4.3: the inverse key frame bit of the picture's first octet.
fn vp8(payload: &[u8]) -> Option<bool> {
    let first = *payload.first()?;
    if first & 0x17 != 0x10 {
        return Some(false);
    }
    let mut at = 1;
    if first & 0x80 != 0 {
        let fields = *payload.get(at)?;
        at += 1;
        if fields & 0x80 != 0 {
            // PictureID, of two octets where the first one says so.
            at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
        }
        // TL0PICIDX; TID and KEYIDX share an octet.
        at += usize::from(fields & 0x40 != 0) + usize::from(fields & 0x30 != 0);
    }
    Some(payload.get(at)? & 1 == 0)
}

/// RFC 6184 §5.4: parameter sets, which go ahead of the picture, or the first slice of an IDR picture.
fn h264(payload: &[u8]) -> Option<bool> {
    const IDR: u8 = 5;
    const PARAMETERS: u8 = 7;
    let first = *payload.first()?;
    // The first macroblock's number, zero, is coded as one bit.
    let begins = |slice: Option<&u8>| slice.is_some_and(|octet| octet & 0x80 != 0);
    let unit = |unit: &[u8]| match unit.first().map(|octet| octet & 0x1f) {
        Some(PARAMETERS) => true,
        Some(IDR) => begins(unit.get(1)),
        _ => false,
    };
    Some(match first & 0x1f {
        24 => Sized { rest: payload.get(1..)? }.any(unit), // STAP-A, §5.7.1
        28 => {
            // FU-A, §5.8: start bit and the unit's type.
            let fragment = *payload.get(1)?;
            fragment & 0x80 != 0 && fragment & 0x1f == IDR && begins(payload.get(2))
        }
        _ => unit(payload),
    })
}

/// RFC 9628 §4.2: not predicted from other pictures, begin of a frame, lowest spatial layer.
fn vp9(payload: &[u8]) -> Option<bool> {
    let first = *payload.first()?;
    let (has_id, predicted, layered, begins) =
        (first & 0x80 != 0, first & 0x40 != 0, first & 0x20 != 0, first & 0x08 != 0);
    if predicted || !begins {
        return Some(false);
    }
    let mut at = 1;
    if has_id {
        at += if payload.get(at)? & 0x80 != 0 { 2 } else { 1 };
    }
    Some(!layered || payload.get(at)? >> 1 & 7 == 0)
}

/// RFC 7798 §4.4: parameter sets, or an IRAP picture's first slice.
fn h265(payload: &[u8]) -> Option<bool> {
    const IRAP: std::ops::RangeInclusive<u8> = 16..=21;
    const PARAMETERS: std::ops::RangeInclusive<u8> = 32..=33;
    let kind = |unit: &[u8]| unit.first().map(|octet| octet >> 1 & 0x3f);
    let unit = |unit: &[u8]| match kind(unit) {
        Some(kind) if PARAMETERS.contains(&kind) => true,
        // first_slice_segment_in_pic_flag
        Some(kind) if IRAP.contains(&kind) => unit.get(2).is_some_and(|octet| octet & 0x80 != 0),
        _ => false,
    };
    Some(match kind(payload)? {
        48 => Sized { rest: payload.get(2..)? }.any(unit), // aggregation packet, §4.4.2
        49 => {
            // Fragmentation unit, §4.4.3.
            let fragment = *payload.get(2)?;
            let first = payload.get(3).is_some_and(|octet| octet & 0x80 != 0);
            fragment & 0x80 != 0 && IRAP.contains(&(fragment & 0x3f)) && first
        }
        _ => unit(payload),
    })
}

/// Units with their sizes in two octets ahead of them.
struct Sized<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Sized<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (size, rest) = self.rest.split_first_chunk()?;
        let (unit, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*size)))?;
        self.rest = rest;
        Some(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn key_frames_are_told_from_others() {
        use VideoCodec::{H264, H265, Vp8, Vp9};
        for (codec, payload, begins) in [
            (Vp8, &[0x10, 0x00][..], true),
            (Vp8, &[0x10, 0x01], false),
            (Vp8, &[0x00, 0x00], false),            // not the start of a partition
            (Vp8, &[0x11, 0x00], false),            // the start of another one
            (Vp8, &[0x90, 0x80, 0x7f, 0x10], true), // PictureID of one octet
            (Vp8, &[0x90, 0x80, 0x80, 0x01, 0x11], false),
            (Vp8, &[0x90, 0xf0, 0x80, 1, 2, 0x60, 0x10], true), // with TL0PICIDX, TID and KEYIDX
            (Vp8, &[0x90, 0x80], false),                        // cut off
            (H264, &[0x67, 0x42], true),
            (H264, &[0x65, 0x88], true),
            (H264, &[0x65, 0x40], false), // a later slice
            (H264, &[0x41, 0x88], false),
            (H264, &[0x78, 0, 2, 0x67, 1, 0, 1, 0x68], true),
            (H264, &[0x78, 0, 2, 0x61, 1, 0, 9, 0x67], false), // longer than the packet
            (H264, &[0x7c, 0x85, 0x88], true),
            (H264, &[0x7c, 0x05, 0x88], false),
            (H264, &[0x7c, 0x81, 0x88], false),
            (Vp9, &[0x08, 1], true),
            (Vp9, &[0x48, 1], false),
            (Vp9, &[0x00, 1], false),
            (Vp9, &[0xa8, 0x80, 1, 0x00, 9], true),
            (Vp9, &[0xa8, 0x01, 0x02, 9], false), // an upper spatial layer
            (H265, &[0x40, 1, 0], true),          // VPS
            (H265, &[0x42, 1, 0], true),          // SPS
            (H265, &[0x26, 1, 0x80], true),       // IDR_W_RADL
            (H265, &[0x26, 1, 0x00], false),
            (H265, &[0x02, 1, 0x80], false),
            (H265, &[0x60, 1, 0, 2, 0x40, 1], true),
            (H265, &[0x62, 1, 0x93, 0x80], true),
            (H265, &[0x62, 1, 0x13, 0x80], false),
        ] {
            assert_eq!(codec.begins_key_frame(payload), begins, "{codec:?} {payload:02x?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_read_beyond_the_end(payload in prop::collection::vec(any::<u8>(), 0..40)) {
            for codec in [VideoCodec::Vp8, VideoCodec::H264, VideoCodec::Vp9, VideoCodec::H265] {
                codec.begins_key_frame(&payload);
            }
        }
    }
}
