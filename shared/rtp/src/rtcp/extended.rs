//! Extended reports (RFC 3611): receiver reference time and DLRR, by which a receiver that sends nothing learns the round
//! trip, and VoIP metrics.

use super::word;

/// One block of an extended report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extended<'a> {
    /// Block type 4: the sender's clock (§4.4), NTP 32.32.
    ReceiverReference(u64),
    /// Block type 5: when such clocks were heard (§4.5).
    Dlrr(DlrrList<'a>),
    /// Block type 7 (§4.7).
    Voip(VoipMetrics),
    /// Any other, by its type.
    Other(u8),
}

/// When a receiver reference time was heard (§4.5).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Dlrr {
    /// Whose.
    pub ssrc: u32,
    /// The middle 32 bits of its NTP time; 0: none was heard.
    pub last: u32,
    /// Since then, in 1/65536 s.
    pub delay: u32,
}

/// The list of a DLRR block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DlrrList<'a>(&'a [u8]);

impl Iterator for DlrrList<'_> {
    type Item = Dlrr;

    fn next(&mut self) -> Option<Dlrr> {
        let (entry, rest) = self.0.split_first_chunk::<12>()?;
        self.0 = rest;
        Some(Dlrr { ssrc: word(entry, 0)?, last: word(entry, 4)?, delay: word(entry, 8)? })
    }
}

/// VoIP metrics (§4.7). 127 stands for a level, factor or score that is not known.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct VoipMetrics {
    /// The source that it is about.
    pub ssrc: u32,
    /// Lost, in 1/256 of the expected.
    pub loss_rate: u8,
    /// Discarded by the jitter buffer, in 1/256.
    pub discard_rate: u8,
    /// Lost or discarded within bursts, in 1/256.
    pub burst_density: u8,
    /// The same within gaps.
    pub gap_density: u8,
    /// Mean length of bursts, ms.
    pub burst_ms: u16,
    /// Mean length of gaps, ms.
    pub gap_ms: u16,
    /// Round trip between the RTP ends, ms.
    pub round_trip_ms: u16,
    /// Delay inside the reporter, ms.
    pub end_system_ms: u16,
    /// Signal level, dBm0.
    pub signal_level: i8,
    /// Noise level, dBm0.
    pub noise_level: i8,
    /// Residual echo return loss, dB.
    pub echo_return_loss: u8,
    /// Packets without loss that end a burst.
    pub gap_min: u8,
    /// R factor of the RTP part, 0..=100.
    pub r_factor: u8,
    /// R factor of an outside network, 0..=100.
    pub external_r_factor: u8,
    /// Listening quality, MOS times 10.
    pub mos_listening: u8,
    /// Conversational quality, MOS times 10.
    pub mos_conversational: u8,
    /// Loss concealment and jitter buffer: its kind.
    pub receiver_configuration: u8,
    /// Jitter buffer, nominal, ms.
    pub buffer_nominal_ms: u16,
    /// Jitter buffer, present maximum, ms.
    pub buffer_max_ms: u16,
    /// Jitter buffer, absolute maximum, ms.
    pub buffer_absolute_ms: u16,
}

impl VoipMetrics {
    /// A value that is not known.
    pub const UNKNOWN: u8 = 127;

    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let [
            s0,
            s1,
            s2,
            s3,
            loss_rate,
            discard_rate,
            burst_density,
            gap_density,
            b0,
            b1,
            g0,
            g1,
            r0,
            r1,
            e0,
            e1,
            signal,
            noise,
            echo_return_loss,
            gap_min,
            r_factor,
            external_r_factor,
            mos_listening,
            mos_conversational,
            receiver_configuration,
            _,
            n0,
            n1,
            m0,
            m1,
            a0,
            a1,
        ] = *<&[u8; 32]>::try_from(body).ok()?;
        Some(VoipMetrics {
            ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
            loss_rate,
            discard_rate,
            burst_density,
            gap_density,
            burst_ms: u16::from_be_bytes([b0, b1]),
            gap_ms: u16::from_be_bytes([g0, g1]),
            round_trip_ms: u16::from_be_bytes([r0, r1]),
            end_system_ms: u16::from_be_bytes([e0, e1]),
            signal_level: signal.cast_signed(),
            noise_level: noise.cast_signed(),
            echo_return_loss,
            gap_min,
            r_factor,
            external_r_factor,
            mos_listening,
            mos_conversational,
            receiver_configuration,
            buffer_nominal_ms: u16::from_be_bytes([n0, n1]),
            buffer_max_ms: u16::from_be_bytes([m0, m1]),
            buffer_absolute_ms: u16::from_be_bytes([a0, a1]),
        })
    }

    pub(super) fn octets(&self) -> [u8; 32] {
        let mut octets = [0; 32];
        let ([b0, b1], [g0, g1]) = (self.burst_ms.to_be_bytes(), self.gap_ms.to_be_bytes());
        let ([r0, r1], [e0, e1]) = (self.round_trip_ms.to_be_bytes(), self.end_system_ms.to_be_bytes());
        let [n0, n1] = self.buffer_nominal_ms.to_be_bytes();
        let ([m0, m1], [a0, a1]) = (self.buffer_max_ms.to_be_bytes(), self.buffer_absolute_ms.to_be_bytes());
        let [s0, s1, s2, s3] = self.ssrc.to_be_bytes();
        octets.copy_from_slice(&[
            s0,
            s1,
            s2,
            s3,
            self.loss_rate,
            self.discard_rate,
            self.burst_density,
            self.gap_density,
            b0,
            b1,
            g0,
            g1,
            r0,
            r1,
            e0,
            e1,
            self.signal_level.cast_unsigned(),
            self.noise_level.cast_unsigned(),
            self.echo_return_loss,
            self.gap_min,
            self.r_factor,
            self.external_r_factor,
            self.mos_listening,
            self.mos_conversational,
            self.receiver_configuration,
            0,
            n0,
            n1,
            m0,
            m1,
            a0,
            a1,
        ]);
        octets
    }
}

/// The blocks of an extended report; lengths were checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExtendedBlocks<'a>(&'a [u8]);

impl<'a> ExtendedBlocks<'a> {
    /// Checks that blocks fill `body` (§3).
    pub(super) fn new(body: &'a [u8]) -> Option<Self> {
        let mut walk = ExtendedBlocks(body);
        while !walk.0.is_empty() {
            walk.next()?;
        }
        Some(ExtendedBlocks(body))
    }
}

impl<'a> Iterator for ExtendedBlocks<'a> {
    type Item = Extended<'a>;

    fn next(&mut self) -> Option<Extended<'a>> {
        let ([kind, _, l0, l1], rest) = self.0.split_first_chunk::<4>()?;
        let (body, rest) = rest.split_at_checked(4 * usize::from(u16::from_be_bytes([*l0, *l1])))?;
        self.0 = rest;
        Some(match (kind, body.len()) {
            (4, 8) => {
                Extended::ReceiverReference(u64::from(word(body, 0)?) << 32 | u64::from(word(body, 4)?))
            }
            (5, length) if length % 12 == 0 => Extended::Dlrr(DlrrList(body)),
            (7, 32) => Extended::Voip(VoipMetrics::read(body)?),
            // A known type of another length is none of ours to judge (§3: ignore what is not understood).
            _ => Extended::Other(*kind),
        })
    }
}
