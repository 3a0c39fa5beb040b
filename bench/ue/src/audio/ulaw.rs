//! G.711 mu-law, one octet a sample (ITU-T G.711 table 2; RFC 3551 §4.5.14).

const BIAS: i32 = 0x84;
const CLIP: i32 = 32_635;

/// One 16-bit sample as mu-law.
pub fn ulaw_encode(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = i32::from(sample).abs().min(CLIP) + BIAS;
    // The segment is the position of the highest bit, counted from bit 7.
    let segment = (31 - magnitude.leading_zeros() as i32 - 7).clamp(0, 7);
    let mantissa = (magnitude >> (segment + 3)) & 0x0f;
    !(sign | (segment << 4) as u8 | mantissa as u8)
}

/// One mu-law octet as a 16-bit sample.
pub fn ulaw_decode(octet: u8) -> i16 {
    let bits = !octet;
    let segment = i32::from(bits >> 4 & 7);
    let magnitude = (((i32::from(bits & 0x0f) << 3) + BIAS) << segment) - BIAS;
    (if bits & 0x80 == 0 { magnitude } else { -magnitude }) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_points_of_the_table() {
        for (octet, sample) in
            [(0xff, 0), (0x80, 32_124), (0x00, -32_124), (0xfe, 8), (0x7e, -8), (0xf0, 120)]
        {
            assert_eq!(ulaw_decode(octet), sample, "{octet:#x}");
        }
    }

    #[test]
    fn every_octet_survives_a_round_trip() {
        for octet in 0..=255u8 {
            // 0x7f is the negative zero: the encoder has only one zero.
            let expected = if octet == 0x7f { 0xff } else { octet };
            assert_eq!(ulaw_encode(ulaw_decode(octet)), expected, "{octet:#x}");
        }
    }

    #[test]
    fn the_error_stays_within_half_a_step() {
        for sample in (-32_000..32_000).step_by(7) {
            let step = 8 << (i32::from(!ulaw_encode(sample) >> 4 & 7) + 1);
            let error = (i32::from(sample) - i32::from(ulaw_decode(ulaw_encode(sample)))).abs();
            assert!(error <= step / 2, "{sample}: {error}");
        }
    }
}
