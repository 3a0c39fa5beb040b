//! How good speech sounds, by the E-model (ITU-T G.107): R from the codec, loss and delay, and the mean opinion score that
//! goes with it. Of the model's many inputs those that a middlebox does not see have their default values, so R begins at
//! 93.2 (G.107 table 3), and the delay's part is the usual two straight lines instead of the curve of G.107 §3.5.
//! Wideband codecs are put on the narrowband scale: an estimate to compare calls by, no measurement.

/// What a codec costs (ITU-T G.113 appendix I): its equipment impairment, and how robust it is against loss.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Impairment {
    /// Ie.
    pub equipment: f32,
    /// Bpl, for losses that come singly; with the concealment that is usual for the codec.
    pub robustness: f32,
}

/// What is not known is taken for a codec that costs little and hides loss moderately.
const UNKNOWN: Impairment = Impairment { equipment: 5.0, robustness: 10.0 };

/// By encoding name (RFC 4855), however it is written.
const CODECS: [(&str, Impairment); 14] = [
    ("PCMU", of(0.0, 25.1)),
    ("PCMA", of(0.0, 25.1)),
    ("G722", of(0.0, 10.0)),
    ("G729", of(11.0, 19.0)),
    ("G723", of(15.0, 16.1)),
    ("G728", of(7.0, 17.0)),
    ("GSM", of(20.0, 43.0)),
    ("GSM-EFR", of(5.0, 10.0)),
    ("ILBC", of(11.0, 32.0)),
    ("AMR", of(5.0, 10.0)),
    ("AMR-WB", of(2.0, 12.0)),
    ("EVS", of(0.0, 18.0)),
    ("OPUS", of(0.0, 20.0)),
    ("SPEEX", of(11.0, 10.0)),
];

const fn of(equipment: f32, robustness: f32) -> Impairment {
    Impairment { equipment, robustness }
}

impl Impairment {
    /// Of the codec with that encoding name.
    pub fn of_name(name: &str) -> Self {
        CODECS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or(UNKNOWN, |(_, cost)| *cost)
    }

    /// Of a static payload type (RFC 3551 §6).
    pub fn of_payload(payload_type: u8) -> Self {
        Impairment::of_name(match payload_type {
            0 => "PCMU",
            3 => "GSM",
            4 => "G723",
            8 => "PCMA",
            9 => "G722",
            15 => "G728",
            18 => "G729",
            _ => "",
        })
    }
}

/// What a stretch of speech went through.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Passage {
    /// The codec's part.
    pub codec: Impairment,
    /// Lost, of all packets: 0..=1.
    pub loss: f32,
    /// From mouth to ear, ms.
    pub delay_ms: f32,
}

impl Passage {
    /// The rating R, 0..=100.
    pub fn rating(&self) -> f32 {
        let loss = self.loss.clamp(0.0, 1.0) * 100.0;
        // G.107 §3.6: Ie,eff = Ie + (95 - Ie) * Ppl / (Ppl / BurstR + Bpl), losses coming singly (BurstR = 1).
        let Impairment { equipment, robustness } = self.codec;
        let effective = equipment + (95.0 - equipment) * loss / (loss + robustness);
        let delay = self.delay_ms.max(0.0);
        let late = 0.024 * delay + 0.11 * (delay - 177.3).max(0.0);
        (93.2 - late - effective).clamp(0.0, 100.0)
    }

    /// The mean opinion score, 1.0..=4.5 (G.107 annex B), in hundredths.
    pub fn score_centi(&self) -> u32 {
        let r = self.rating();
        let score = 1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6;
        (score.clamp(1.0, 4.5) * 100.0).round() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn score(name: &str, loss: f32, delay_ms: f32) -> u32 {
        Passage { codec: Impairment::of_name(name), loss, delay_ms }.score_centi()
    }

    #[test]
    fn known_calls_have_their_scores() {
        // G.107 annex B: R of 93.2 is a MOS of 4.41.
        assert_eq!(score("pcmu", 0.0, 0.0), 441);
        // G.113 I: G.729 begins at R 82.2, MOS 4.10.
        assert_eq!(score("G729", 0.0, 0.0), 410);
        assert_eq!(
            Passage { codec: Impairment::of_payload(18), loss: 0.0, delay_ms: 0.0 }.score_centi(),
            410
        );
        // Half of it gone, nobody understands anything.
        assert!(score("PCMA", 0.5, 150.0) < 200);
        assert!(score("PCMU", 0.0, 400.0) < score("PCMU", 0.0, 150.0) - 50, "more than 177 ms hurts");
        assert_eq!(Impairment::of_name("something new"), UNKNOWN);
    }

    proptest! {
        #[test]
        fn worse_never_sounds_better(codec in 0..CODECS.len(), loss in 0.0..1.0f32, more in 0.0..1.0f32, delay in 0.0..2000.0f32, later in 0.0..500.0f32) {
            let codec = CODECS[codec].1;
            let at = |loss, delay_ms| Passage { codec, loss, delay_ms };
            let (here, lossier, slower) =
                (at(loss, delay), at((loss + more).min(1.0), delay), at(loss, delay + later));
            prop_assert!((100..=450).contains(&here.score_centi()));
            prop_assert!(lossier.rating() <= here.rating());
            prop_assert!(slower.rating() <= here.rating());
        }
    }
}
