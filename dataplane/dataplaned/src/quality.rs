//! How the media of legs was that have ended, as histograms: one observation a leg, by kind of media. What was on its way
//! here is apart from what the peer reports of its own reception.

use contract::LegCounters;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

use crate::metrics::full;

const MEDIA: [&str; 2] = ["audio", "video"];
const WAYS: [&str; 2] = ["in", "out"];
const WHATS: [&str; 6] = ["lost_in", "lost_out", "reordered", "duplicate", "retransmitted", "policed"];

#[derive(Debug)]
pub(crate) struct Quality {
    loss: HistogramVec,
    jitter: HistogramVec,
    round_trip: HistogramVec,
    score: HistogramVec,
    seconds: HistogramVec,
    packets: IntCounterVec,
}

impl Quality {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let histogram = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            let options = HistogramOpts::new(full(name), help).buckets(buckets.to_vec());
            let vec = HistogramVec::new(options, labels)?;
            registry.register(Box::new(vec.clone()))?;
            prometheus::Result::Ok(vec)
        };
        let both = ["media", "way"];
        let packets = IntCounterVec::new(
            Opts::new(
                full("leg_packets_total"),
                "RTP packets of legs that have ended, by what became of them.",
            ),
            &["media", "what"],
        )?;
        registry.register(Box::new(packets.clone()))?;
        let quality = Quality {
            loss: histogram(
                "leg_loss_ratio",
                "Lost packets of a leg over its life.",
                &both,
                &[0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3],
            )?,
            jitter: histogram(
                "leg_jitter_seconds",
                "Interarrival jitter of a leg at its end.",
                &both,
                &[0.001, 0.003, 0.01, 0.02, 0.04, 0.08, 0.16],
            )?,
            round_trip: histogram(
                "leg_round_trip_seconds",
                "Round trip between here and a leg's peer, as last known.",
                &["media"],
                &[0.005, 0.01, 0.03, 0.1, 0.2, 0.4, 0.8],
            )?,
            score: histogram(
                "leg_mos",
                "Mean opinion score of a leg's audio, estimated by the E-model (ITU-T G.107).",
                &["way"],
                &[1.5, 2.0, 2.5, 3.0, 3.5, 3.8, 4.0, 4.2, 4.4],
            )?,
            seconds: histogram(
                "leg_seconds",
                "How long a leg was up.",
                &["media"],
                &[1.0, 10.0, 60.0, 300.0, 1800.0, 7200.0],
            )?,
            packets,
        };
        for media in MEDIA {
            quality.round_trip.with_label_values(&[media]);
            quality.seconds.with_label_values(&[media]);
            WHATS.iter().for_each(|what| quality.packets.with_label_values(&[media, what]).inc_by(0));
            for way in WAYS {
                quality.loss.with_label_values(&[media, way]);
                quality.jitter.with_label_values(&[media, way]);
            }
        }
        WAYS.iter().for_each(|way| drop(quality.score.with_label_values(&[way])));
        Ok(quality)
    }

    /// A leg has ended.
    pub(crate) fn take(&self, leg: &LegCounters) {
        let media = if leg.video { "video" } else { "audio" };
        self.seconds.with_label_values(&[media]).observe(leg.up_ms as f64 / 1000.0);
        if leg.round_trip_us > 0 {
            self.round_trip.with_label_values(&[media]).observe(f64::from(leg.round_trip_us) / 1e6);
        }
        let ways = [
            ("in", leg.packets_in, leg.lost, leg.jitter_us, leg.mos_centi),
            ("out", leg.packets_out, leg.lost_out, leg.jitter_out_us, leg.mos_out_centi),
        ];
        for (way, packets, lost, jitter_us, score) in ways {
            // What came is without what was lost; what was sent is with it. Where nothing went there is nothing to say.
            let all = if way == "in" { packets + lost } else { packets };
            if packets == 0 {
                continue;
            }
            self.loss.with_label_values(&[media, way]).observe(lost as f64 / all as f64);
            self.jitter.with_label_values(&[media, way]).observe(f64::from(jitter_us) / 1e6);
            if score > 0 {
                self.score.with_label_values(&[way]).observe(f64::from(score) / 100.0);
            }
        }
        let counts = [leg.lost, leg.lost_out, leg.reordered, leg.duplicates, leg.retransmitted, leg.policed];
        for (what, count) in WHATS.iter().zip(counts) {
            self.packets.with_label_values(&[media, what]).inc_by(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::{Encoder as _, TextEncoder};

    #[test]
    fn a_leg_is_one_observation_by_its_kind() {
        let registry = Registry::new();
        let quality = Quality::new(&registry).unwrap();
        let text = |registry: &Registry| {
            let mut text = Vec::new();
            TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        assert!(
            text(&registry).contains("weir_dataplane_leg_loss_ratio_count{media=\"video\",way=\"out\"} 0")
        );
        quality.take(&LegCounters {
            packets_in: 98,
            lost: 2,
            jitter_us: 5000,
            mos_centi: 410,
            round_trip_us: 80_000,
            up_ms: 2000,
            reordered: 3,
            ended: true,
            ..LegCounters::default()
        });
        let after = text(&registry);
        for line in [
            "leg_loss_ratio_bucket{media=\"audio\",way=\"in\",le=\"0.01\"} 0",
            "leg_loss_ratio_bucket{media=\"audio\",way=\"in\",le=\"0.03\"} 1",
            "leg_loss_ratio_count{media=\"audio\",way=\"out\"} 0",
            "leg_mos_bucket{way=\"in\",le=\"4.2\"} 1",
            "leg_mos_bucket{way=\"in\",le=\"4\"} 0",
            "leg_round_trip_seconds_count{media=\"audio\"} 1",
            "leg_packets_total{media=\"audio\",what=\"reordered\"} 3",
        ] {
            assert!(after.contains(&format!("weir_dataplane_{line}")), "{line} in\n{after}");
        }
    }
}
