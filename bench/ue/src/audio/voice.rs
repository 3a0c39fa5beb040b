//! A speech-like voice: a pitch that wanders, formants, syllables and pauses. Same seed, same voice.

use base::Entropy;

use super::SAMPLE_RATE;

/// `seconds` of voice at 8 kHz: about four syllables a second, one pause each two seconds.
pub fn voice(seed: u64, seconds: f64) -> Vec<i16> {
    let mut entropy = Entropy::from_number(seed);
    let rate = f64::from(SAMPLE_RATE);
    let count = (seconds * rate) as usize;
    let mut samples = Vec::with_capacity(count);
    let (mut phase, mut pitch, mut formants) = (0.0_f64, 120.0_f64, [500.0_f64, 1500.0, 2500.0]);
    let syllable = SAMPLE_RATE as usize / 4;
    for i in 0..count {
        if i % syllable == 0 {
            pitch = 95.0 + entropy.below(70) as f64;
            formants = [
                300.0 + entropy.below(500) as f64,
                900.0 + entropy.below(1300) as f64,
                2300.0 + entropy.below(700) as f64,
            ];
        }
        let pause = (i / syllable) % 8 == 7;
        phase += pitch / rate;
        let envelope = (std::f64::consts::PI * (i % syllable) as f64 / syllable as f64).sin();
        let mut value = 0.0;
        for harmonic in 1..=24 {
            let hz = pitch * f64::from(harmonic);
            if hz > 3500.0 {
                break;
            }
            let gain: f64 = formants.iter().map(|f| 1.0 / (1.0 + ((hz - f) / 110.0).powi(2))).sum();
            value += gain * (std::f64::consts::TAU * phase * f64::from(harmonic)).sin();
        }
        let breath = (entropy.below(2000) as f64 / 1000.0 - 1.0) * 0.02;
        let level = if pause { breath } else { value * envelope * 0.35 + breath };
        samples.push((level.clamp(-1.0, 1.0) * 20_000.0) as i16);
    }
    samples
}

/// The best normalised correlation of `heard` with `said` over delays up to `delay_max` samples, either way
/// round: 1.0 for the same sound, near 0 for another.
pub fn correlation(said: &[i16], heard: &[i16], delay_max: usize) -> f64 {
    let forward =
        (0..=delay_max.min(heard.len())).map(|delay| at_delay(said, heard.get(delay..).unwrap_or(&[])));
    let backward =
        (1..=delay_max.min(said.len())).map(|delay| at_delay(said.get(delay..).unwrap_or(&[]), heard));
    forward.chain(backward).fold(0.0, f64::max)
}

fn at_delay(said: &[i16], heard: &[i16]) -> f64 {
    let (mut product, mut a2, mut b2) = (0.0, 0.0, 0.0);
    for (a, b) in said.iter().zip(heard) {
        let (a, b) = (f64::from(*a), f64::from(*b));
        product += a * b;
        a2 += a * a;
        b2 += b * b;
    }
    if a2 == 0.0 || b2 == 0.0 { 0.0 } else { product / (a2 * b2).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::{ulaw_decode, ulaw_encode};

    #[test]
    fn a_voice_replays_and_differs_from_another() {
        assert_eq!(voice(1, 0.5), voice(1, 0.5));
        assert!(correlation(&voice(1, 1.0), &voice(2, 1.0), 400) < 0.5);
    }

    #[test]
    fn mu_law_and_a_delay_keep_the_correlation() {
        let said = voice(3, 1.0);
        let heard: Vec<i16> =
            std::iter::repeat_n(0, 100).chain(said.iter().map(|s| ulaw_decode(ulaw_encode(*s)))).collect();
        assert!(correlation(&said, &heard, 200) > 0.99);
    }

    #[test]
    fn it_is_loud_in_syllables_and_quiet_in_pauses() {
        let said = voice(4, 2.0);
        let power = |s: &[i16]| s.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / s.len() as f64;
        assert!(power(&said[0..2000]) > 100.0 * power(&said[14_000..16_000]));
    }
}
