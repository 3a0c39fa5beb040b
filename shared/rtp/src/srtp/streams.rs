//! The sources of one context: their indices and replay windows, in a table that has a maximum.
//!
//! A source is never forgotten while its key lives: a sender would use an index again, which with a counter mode
//! gives both plaintexts away, and a receiver would take again what it has taken before.

use super::SrtpError;
use super::window::Window;

/// Sizes of one context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// Indices that the replay window reaches back: 64 or more (RFC 3711 §3.3.2), rounded up to a power of two.
    pub window: usize,
    /// Sources under one key.
    pub sources_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config { window: 1024, sources_max: 32 }
    }
}

impl Config {
    fn words(&self) -> usize {
        (self.window.clamp(64, 1 << 15).next_power_of_two()) / 64
    }

    /// Octets that the sources of one context may take.
    pub fn octets_max(&self) -> u64 {
        (self.sources_max * (self.words() * 8 + 8 + size_of::<Source>() + 4)) as u64
    }
}

/// How far one source has come: what survives a restart.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Progress {
    /// The source.
    pub ssrc: u32,
    /// Whether RTP was seen: without it the next three mean nothing.
    pub started: bool,
    /// Rollover counter (ROC).
    pub rollover: u32,
    /// Highest sequence number in that period (s_l).
    pub sequence: u16,
    /// Bit n: the packet n before the highest one was seen.
    pub seen: u64,
    /// Next SRTCP index to send; of a receiver, the one after the highest seen.
    pub rtcp_index: u32,
    /// Bit n: the SRTCP packet n before the highest one was seen.
    pub rtcp_seen: u64,
}

/// One source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) rtp: Window,
    pub(super) rtcp: Window,
}

/// All of them. The numbers that are searched lie together.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    ssrcs: Vec<u32>,
    sources: Vec<Source>,
    /// `words` for RTP and one for RTCP, source after source.
    bits: Vec<u64>,
    words: usize,
    max: usize,
    /// Where the last search ended.
    last: usize,
}

impl Streams {
    pub(super) fn new(config: Config) -> Self {
        Streams {
            ssrcs: Vec::new(),
            sources: Vec::new(),
            bits: Vec::new(),
            words: config.words(),
            max: config.sources_max.max(1),
            last: 0,
        }
    }

    /// The place of a source, if it is known.
    #[inline]
    pub(super) fn find(&mut self, ssrc: u32) -> Option<usize> {
        if self.ssrcs.get(self.last) != Some(&ssrc) {
            self.last = self.ssrcs.iter().position(|s| *s == ssrc)?;
        }
        Some(self.last)
    }

    /// Whether another source finds room.
    pub(super) fn has_room(&self) -> bool {
        self.ssrcs.len() < self.max
    }

    /// A new source; the place of one that is there.
    #[cold]
    pub(super) fn add(&mut self, ssrc: u32) -> Result<usize, SrtpError> {
        if let Some(at) = self.find(ssrc) {
            return Ok(at);
        }
        if !self.has_room() {
            return Err(SrtpError::Sources);
        }
        self.ssrcs.push(ssrc);
        self.sources.push(Source { rtp: Window::NEW, rtcp: Window::NEW });
        self.bits.resize(self.bits.len() + self.words + 1, 0);
        Ok(self.ssrcs.len() - 1)
    }

    /// A source's RTP window with its bits.
    #[inline]
    pub(super) fn rtp(&mut self, at: usize) -> Option<(&mut Window, &mut [u64])> {
        let start = at * (self.words + 1);
        let bits = self.bits.get_mut(start..start + self.words)?;
        Some((&mut self.sources.get_mut(at)?.rtp, bits))
    }

    /// A source's RTCP window with its bits.
    #[inline]
    pub(super) fn rtcp(&mut self, at: usize) -> Option<(&mut Window, &mut [u64])> {
        let start = at * (self.words + 1) + self.words;
        let bits = self.bits.get_mut(start..start + 1)?;
        Some((&mut self.sources.get_mut(at)?.rtcp, bits))
    }

    pub(super) fn export(&self) -> impl Iterator<Item = Progress> + '_ {
        self.ssrcs.iter().zip(&self.sources).zip(self.bits.chunks_exact(self.words + 1)).map(
            |((ssrc, source), bits)| {
                let (rtp, rtcp) = bits.split_at_checked(self.words).unwrap_or_default();
                let seen = |window: &Window, bits| if window.fresh { 0 } else { window.export(bits) };
                Progress {
                    ssrc: *ssrc,
                    started: !source.rtp.fresh,
                    rollover: (source.rtp.highest >> 16) as u32,
                    sequence: source.rtp.highest as u16,
                    seen: seen(&source.rtp, rtp),
                    rtcp_index: if source.rtcp.fresh { 0 } else { source.rtcp.highest as u32 + 1 },
                    rtcp_seen: seen(&source.rtcp, rtcp),
                }
            },
        )
    }

    /// Goes on from there. Never back: of a source that is known what is further stays.
    pub(super) fn import(&mut self, progress: &Progress) -> Result<(), SrtpError> {
        let at = self.add(progress.ssrc)?;
        let highest = u64::from(progress.rollover) << 16 | u64::from(progress.sequence);
        if progress.started
            && let Some((window, bits)) = self.rtp(at)
            && (window.fresh || window.highest < highest)
        {
            *window = Window::import(bits, highest, progress.seen | 1);
        }
        if let Some(highest) = progress.rtcp_index.checked_sub(1).map(u64::from)
            && let Some((window, bits)) = self.rtcp(at)
            && (window.fresh || window.highest < highest)
        {
            *window = Window::import(bits, highest, progress.rtcp_seen | 1);
        }
        Ok(())
    }
}
