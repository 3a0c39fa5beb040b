//! What a leg says and hears by RTCP, apart from its row: only reports, feedback and control read it.
//!
//! The round trip to a peer (RFC 3550 §6.4.1, RFC 3611 §4.5): each report that goes to it is remembered with the moment at
//! which it left; the peer's echo of it, less the time that it waited there, is the way there and back. That needs
//! nobody's clock but ours, and whoever echoes what was never sent changes nothing. Of reports that pass a relay the same
//! is remembered, so the round trip is the one between here and the peer.

use std::time::Duration;

use base::Instant;
use rtp::{Block, Dlrr, Impairment, Reception};

use super::bandwidth::Arrivals;

/// Reports remembered per leg.
const SENT_MAX: usize = 32;
/// Streams whose reception by the peer is remembered.
const FAR_MAX: usize = 32;
/// Peers' clocks remembered for DLRR.
const CLOCKS_MAX: usize = 4;

/// What the peer agreed to (see `RtcpAgreed` in the contract).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Agreed {
    pub(crate) nack: bool,
    pub(crate) pli: bool,
    pub(crate) fir: bool,
    pub(crate) tmmbr: bool,
    pub(crate) remb: bool,
    pub(crate) transport_wide: bool,
    pub(crate) reduced: bool,
    pub(crate) extended: bool,
}

impl Agreed {
    pub(crate) fn of(contract: Option<&contract::RtcpAgreed>) -> Self {
        contract.map_or_else(Agreed::default, |agreed| Agreed {
            nack: agreed.nack,
            pli: agreed.pli,
            fir: agreed.fir,
            tmmbr: agreed.tmmbr,
            remb: agreed.remb,
            transport_wide: agreed.transport_wide,
            reduced: agreed.reduced,
            extended: agreed.extended,
        })
    }

    /// The AVPF profile (RFC 4585): its intervals may be shorter.
    pub(crate) const fn is_early(self) -> bool {
        self.nack || self.pli || self.fir || self.tmmbr || self.remb || self.transport_wide
    }
}

/// What the peer says of a stream that it is sent.
#[derive(Clone, Copy, Debug)]
struct Far {
    block: Block,
    at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Report {
    ssrc: u32,
    middle: u32,
    at: Instant,
}

/// What came from the peer, whoever of its sources sent it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Reached {
    pub(crate) distinct: u64,
    pub(crate) missing: u64,
    pub(crate) reordered: u64,
    pub(crate) duplicates: u64,
}

impl Reached {
    pub(crate) fn add(&mut self, reception: &Reception) {
        self.distinct += u64::from(reception.distinct());
        self.missing += u64::from(reception.missing());
        self.reordered += u64::from(reception.reordered());
        self.duplicates += u64::from(reception.duplicates());
    }
}

/// What the receiver said that it can take, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Estimate {
    pub(crate) bits_per_second: u64,
    pub(crate) at: Instant,
}

#[derive(Debug)]
pub(crate) struct Talk {
    pub(crate) agreed: Agreed,
    /// Of the leg's audio, where control named its codec.
    pub(crate) codec: Option<Impairment>,
    /// Of the leg, as control put it; 0: nobody knows.
    pub(crate) kbps: u32,
    /// Grows with the reports: most legs of a relay have a handful.
    sent: Vec<Report>,
    next: usize,
    pub(crate) round_trip: Option<Duration>,
    far: Vec<Far>,
    /// Under which SSRCs the peer's RTCP was passed on to legs with keys.
    reporters: Vec<u32>,
    /// Lost of streams that are not in `far` any more.
    far_lost: u64,
    /// Clocks of the peer's sources that only receive (RFC 3611 §4.4).
    clocks: Vec<Report>,
    /// Mean octets of our compounds, for their interval.
    pub(crate) size: u32,
    /// The peer's last FIR for each source (RFC 5104 §4.3.1.1): who asks, for whom, and its number.
    firs: Vec<(u32, u32, u8)>,
    /// Of sources that are gone.
    pub(crate) heard: Reached,
    /// What the peer can receive: by REMB or TMMBR, and by the losses of transport-wide feedback.
    pub(crate) asked: Option<Estimate>,
    pub(crate) by_loss: Option<Estimate>,
    pub(crate) arrivals: Arrivals,
    /// What its source was last told to keep below.
    pub(crate) told: Option<Estimate>,
    /// When it was last summed up for it what its receivers can take.
    pub(crate) summed_at: Option<Instant>,
    /// Packets that its peer has been asked for again: source, number, when.
    again: Vec<(u32, u16, Instant)>,
    pub(crate) policed: u64,
    pub(crate) retransmitted: u64,
}

impl Talk {
    pub(crate) fn new() -> Self {
        Talk {
            agreed: Agreed::default(),
            codec: None,
            kbps: 0,
            sent: Vec::new(),
            next: 0,
            round_trip: None,
            far: Vec::new(),
            reporters: Vec::new(),
            far_lost: 0,
            clocks: Vec::new(),
            size: 128,
            firs: Vec::new(),
            heard: Reached::default(),
            asked: None,
            by_loss: None,
            arrivals: Arrivals::new(),
            told: None,
            summed_at: None,
            again: Vec::new(),
            policed: 0,
            retransmitted: 0,
        }
    }

    /// What control put.
    pub(crate) fn put(&mut self, rtp: &contract::RtpLeg) {
        self.agreed = Agreed::of(rtp.rtcp.as_deref());
        let codec = rtp.rtcp.as_ref().map_or("", |agreed| agreed.codec.as_str());
        self.codec = (!codec.is_empty()).then(|| Impairment::of_name(codec));
        self.kbps = rtp.bandwidth_kbps;
    }

    /// A report with a clock in it goes to the peer.
    pub(crate) fn sent(&mut self, ssrc: u32, middle: u32, at: Instant) {
        let report = Report { ssrc, middle, at };
        match self.sent.get_mut(self.next) {
            Some(place) => *place = report,
            None => self.sent.push(report),
        }
        self.next = (self.next + 1) % SENT_MAX;
    }

    /// The peer echoes a report: of which source, its clock's middle bits, and how long it waited, in 1/65536 s.
    fn echo(&mut self, ssrc: u32, middle: u32, delay: u32, now: Instant) {
        if middle == 0 {
            return;
        }
        let known = self.sent.iter().find(|r| r.ssrc == ssrc && r.middle == middle);
        if let Some(sent) = known {
            let waited = Duration::from_nanos(u64::from(delay) * 1_000_000_000 / 65_536);
            // Who says that it waited longer than the time since then has a coarse clock: as good as none.
            let trip = now.since(sent.at).saturating_sub(waited).max(Duration::from_micros(1));
            self.round_trip = Some(trip);
        }
    }

    /// A block of the peer's report.
    pub(crate) fn block(&mut self, block: &Block, now: Instant) {
        self.echo(block.ssrc, block.last_sr, block.delay, now);
        let far = Far { block: *block, at: now };
        if let Some(place) = self.far.iter_mut().find(|f| f.block.ssrc == block.ssrc) {
            *place = far;
            return;
        }
        if self.far.len() >= FAR_MAX
            && let Some((oldest, _)) = self.far.iter().enumerate().min_by_key(|(_, f)| f.at)
        {
            let gone = self.far.swap_remove(oldest);
            self.far_lost += lost(&gone);
        }
        self.far.push(far);
    }

    /// Whether RTCP of the peer under that SSRC may be passed on: of so many at most.
    pub(crate) fn may_report_as(&mut self, ssrc: u32, max: usize) -> bool {
        if self.reporters.contains(&ssrc) {
            return true;
        }
        let fits = self.reporters.len() < max;
        if fits {
            self.reporters.push(ssrc);
        }
        fits
    }

    /// A DLRR entry (RFC 3611 §4.5) about our own clock.
    pub(crate) fn dlrr(&mut self, entry: &Dlrr, now: Instant) {
        self.echo(entry.ssrc, entry.last, entry.delay, now);
    }

    /// The peer's clock (RFC 3611 §4.4).
    pub(crate) fn clock(&mut self, ssrc: u32, ntp: u64, at: Instant) {
        let heard = Report { ssrc, middle: (ntp >> 16) as u32, at };
        if let Some(place) = self.clocks.iter_mut().find(|c| c.ssrc == ssrc) {
            *place = heard;
        } else if self.clocks.len() < CLOCKS_MAX {
            self.clocks.push(heard);
        }
    }

    /// What we answer to the clocks that were heard.
    pub(crate) fn clocks(&self, now: Instant) -> Vec<Dlrr> {
        let entry = |heard: &Report| Dlrr {
            ssrc: heard.ssrc,
            last: heard.middle,
            delay: u32::try_from(now.since(heard.at).as_nanos() * 65_536 / 1_000_000_000).unwrap_or(u32::MAX),
        };
        self.clocks.iter().map(entry).collect()
    }

    /// Lost on the way to the peer, and the jitter there of the stream that it reported last, as far as it said.
    pub(crate) fn far(&self) -> (u64, u32) {
        let jitter = self.far.iter().max_by_key(|f| f.at).map_or(0, |f| f.block.jitter);
        (self.far_lost + self.far.iter().map(lost).sum::<u64>(), jitter)
    }

    /// Whether a FIR is a new request.
    pub(crate) fn is_new_fir(&mut self, sender: u32, media: u32, number: u8) -> bool {
        /// Sources that are told apart.
        const FIRS_MAX: usize = 32;
        match self.firs.iter_mut().find(|(s, m, _)| (*s, *m) == (sender, media)) {
            Some((_, _, last)) => std::mem::replace(last, number) != number,
            None => {
                if self.firs.len() >= FIRS_MAX {
                    self.firs.remove(0);
                }
                self.firs.push((sender, media, number));
                true
            }
        }
    }

    /// Whether the peer is to be asked for that packet now: once in a round trip.
    pub(crate) fn ask_again(&mut self, ssrc: u32, sequence: u16, now: Instant) -> bool {
        /// Numbers that are remembered.
        const AGAIN_MAX: usize = 256;
        /// Where the round trip is not known, or next to nothing.
        const LEAST: Duration = Duration::from_millis(20);
        const UNKNOWN: Duration = Duration::from_millis(100);
        let trip = self.round_trip.unwrap_or(UNKNOWN).max(LEAST);
        self.again.retain(|(_, _, at)| now.since(*at) < trip);
        let known = self.again.iter().any(|(s, n, _)| (*s, *n) == (ssrc, sequence));
        if known || self.again.len() >= AGAIN_MAX {
            return false;
        }
        self.again.push((ssrc, sequence, now));
        true
    }
}

fn lost(far: &Far) -> u64 {
    u64::try_from(far.block.cumulative_lost).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(ssrc: u32, lost: i32, last_sr: u32, delay: u32) -> Block {
        Block { ssrc, cumulative_lost: lost, last_sr, delay, ..Block::default() }
    }

    #[test]
    fn the_round_trip_is_what_the_echo_took_less_what_it_waited() {
        let at = Instant::from_millis;
        let mut talk = Talk::new();
        talk.sent(7, 0x1234_5678, at(1000));
        talk.block(&block(7, 0, 0x1234_5678, 65_536), at(2080));
        assert_eq!(talk.round_trip, Some(Duration::from_millis(80)));
        // What was never sent, of another source, or with nothing heard, says nothing.
        for (ssrc, middle) in [(7, 0x9999_9999), (8, 0x1234_5678), (7, 0)] {
            talk.block(&block(ssrc, 0, middle, 0), at(9000));
            assert_eq!(talk.round_trip, Some(Duration::from_millis(80)), "{ssrc} {middle:x}");
        }
        talk.dlrr(&Dlrr { ssrc: 7, last: 0x1234_5678, delay: u32::MAX }, at(1001));
        assert_eq!(talk.round_trip, Some(Duration::from_micros(1)), "waited longer than there was time");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_nothing_lost_is_forgotten() {
        let at = Instant::from_millis;
        let mut talk = Talk::new();
        for ssrc in 0..100u32 {
            talk.block(&block(ssrc, 2, 0, 0), at(u64::from(ssrc)));
            talk.sent(ssrc, ssrc + 1, at(0));
            talk.clock(ssrc, 1 << 32, at(0));
        }
        assert_eq!((talk.far.len(), talk.clocks.len(), talk.sent.len()), (FAR_MAX, CLOCKS_MAX, SENT_MAX));
        assert_eq!(talk.far().0, 200);
        talk.block(&block(99, 5, 0, 0), at(200));
        assert_eq!(talk.far().0, 203, "the same stream again takes its place");
    }

    #[test]
    fn a_packet_is_asked_for_once_in_a_round_trip() {
        let at = Instant::from_millis;
        let mut talk = Talk::new();
        talk.round_trip = Some(Duration::from_millis(50));
        assert!(talk.ask_again(1, 10, at(0)));
        assert!(!talk.ask_again(1, 10, at(49)));
        assert!(talk.ask_again(1, 11, at(49)) && talk.ask_again(2, 10, at(49)));
        assert!(talk.ask_again(1, 10, at(50)));
        for n in 0..1000 {
            talk.ask_again(3, n, at(60));
        }
        assert!(talk.again.len() <= 256);
    }
}
