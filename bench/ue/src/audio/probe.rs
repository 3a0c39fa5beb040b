//! The probe that a test packet carries: sender, sequence number and time, in the lowest bits of its mu-law
//! samples, so that the sound survives and a middlebox that rewrites headers cannot touch it.

/// Samples that a probe needs.
pub const PROBE_SAMPLES: usize = 144;
const MAGIC: u16 = 0x5745;

/// What one packet says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    /// Which source.
    pub source: u16,
    /// Packets that the source sent before this one.
    pub sequence: u32,
    /// Nanoseconds since the epoch when it was sent.
    pub sent_ns: u64,
}

impl Probe {
    /// Writes the probe; false if the payload is too short.
    pub fn write(&self, payload: &mut [u8]) -> bool {
        let Some(samples) = payload.get_mut(..PROBE_SAMPLES) else { return false };
        let value = u128::from(MAGIC) << 112
            | u128::from(self.source) << 96
            | u128::from(self.sequence) << 64
            | u128::from(self.sent_ns);
        let check = fold(value);
        for (i, sample) in samples.iter_mut().enumerate() {
            let bit = if i < 128 { (value >> (127 - i)) as u8 & 1 } else { (check >> (143 - i)) as u8 & 1 };
            *sample = (*sample & 0xfe) | bit;
        }
        true
    }

    /// Reads the probe; `None` where there is none.
    pub fn read(payload: &[u8]) -> Option<Probe> {
        let samples = payload.get(..PROBE_SAMPLES)?;
        let (head, tail) = samples.split_at(128);
        let value = head.iter().fold(0u128, |v, s| v << 1 | u128::from(s & 1));
        let check = tail.iter().fold(0u16, |v, s| v << 1 | u16::from(s & 1));
        if (value >> 112) as u16 != MAGIC || check != fold(value) {
            return None;
        }
        Some(Probe { source: (value >> 96) as u16, sequence: (value >> 64) as u32, sent_ns: value as u64 })
    }
}

fn fold(value: u128) -> u16 {
    (0..8).fold(0x1d0f_u16, |sum, i| sum.rotate_left(3) ^ (value >> (16 * i)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{correlation, ulaw_decode, ulaw_encode, voice};

    #[test]
    fn it_is_read_back_and_the_sound_survives() {
        let said = voice(5, 0.5);
        let mut heard = Vec::new();
        for (n, frame) in said.chunks_exact(160).enumerate() {
            let mut payload: Vec<u8> = frame.iter().map(|s| ulaw_encode(*s)).collect();
            let probe = Probe { source: 7, sequence: n as u32, sent_ns: u64::MAX - n as u64 };
            assert!(probe.write(&mut payload));
            assert_eq!(Probe::read(&payload), Some(probe));
            heard.extend(payload.iter().map(|o| ulaw_decode(*o)));
        }
        assert!(correlation(&said, &heard, 0) > 0.98);
    }

    #[test]
    fn silence_and_damage_are_no_probe() {
        assert_eq!(Probe::read(&[0xff; 160]), None);
        assert_eq!(Probe::read(&[0; 20]), None);
        let mut payload = [0xff; 160];
        Probe { source: 1, sequence: 2, sent_ns: 3 }.write(&mut payload);
        payload[100] ^= 1;
        assert_eq!(Probe::read(&payload), None);
    }
}
