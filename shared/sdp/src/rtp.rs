//! What an audio or video line says about RTP: formats, RTCP, feedback, header extensions.

use crate::{Crypto, Host};

/// The RTP part of a media line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rtp {
    /// Formats in order of preference.
    pub formats: Vec<Format>,
    /// a=rtcp-mux (RFC 5761)
    pub rtcp_mux: bool,
    /// a=rtcp-rsize (RFC 5506)
    pub rtcp_rsize: bool,
    /// a=rtcp-xr (RFC 3611 §5.1): the reports that are spoken of; with none, `None` where the line is not there.
    pub rtcp_xr: Option<Vec<String>>,
    /// a=rtcp (RFC 3605)
    pub rtcp: Option<Rtcp>,
    /// a=ptime, milliseconds
    pub ptime: Option<u32>,
    /// a=maxptime, milliseconds
    pub maxptime: Option<u32>,
    /// a=rtcp-fb lines
    pub feedback: Vec<Feedback>,
    /// a=extmap lines
    pub extensions: Vec<Extension>,
    /// a=crypto lines of an `RTP/SAVP` or `RTP/SAVPF` line, those that are supported, in their order.
    pub crypto: Vec<Crypto>,
}

impl Rtp {
    /// The format of a payload type.
    pub fn format(&self, payload: u8) -> Option<&Format> {
        self.formats.iter().find(|f| f.payload == payload)
    }

    /// Whether a=rtcp-xr speaks of a report, whatever its parameters.
    pub fn reports(&self, name: &str) -> bool {
        self.rtcp_xr.iter().flatten().any(|word| xr_name(word).eq_ignore_ascii_case(name))
    }

    /// Keeps the formats of which `keep` is true, with their feedback.
    pub fn retain(&mut self, keep: impl Fn(&Format) -> bool) {
        self.formats.retain(keep);
        let formats = &self.formats;
        self.feedback.retain(|fb| fb.payload.is_none_or(|pt| formats.iter().any(|f| f.payload == pt)));
    }
}

/// The name in a word of a=rtcp-xr: `rcvr-rtt` in `rcvr-rtt=all:10000`.
pub(crate) fn xr_name(word: &str) -> &str {
    word.split('=').next().unwrap_or_default()
}

/// a=rtcp: where RTCP goes when not to the next port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rtcp {
    /// The port.
    pub port: u16,
    /// The address, when it is not that of the media.
    pub host: Option<Host>,
}

/// One format of an RTP line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Format {
    /// The payload type.
    pub payload: u8,
    /// a=rtpmap, or what RFC 3551 §6 says of a static payload type; empty name when neither is known.
    pub codec: Codec,
    /// a=fmtp
    pub parameters: Option<String>,
}

/// What an a=rtpmap line names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Codec {
    /// The encoding's name.
    pub name: String,
    /// RTP clock, Hz.
    pub clock: u32,
    /// Channels; 1 where the line says nothing.
    pub channels: u8,
}

impl Codec {
    /// A codec with one channel.
    pub fn new(name: &str, clock: u32) -> Self {
        Codec { name: name.to_owned(), clock, channels: 1 }
    }

    /// With another number of channels.
    pub fn channels(self, channels: u8) -> Self {
        Codec { channels, ..self }
    }

    /// The same encoding: name without case, clock, channels (RFC 3264 §6.1 leaves parameters to each codec).
    pub fn matches(&self, other: &Codec) -> bool {
        self.name.eq_ignore_ascii_case(&other.name)
            && self.clock == other.clock
            && self.channels == other.channels
    }

    /// RFC 3551 §6, tables 4 and 5: the static payload types still in use.
    pub(crate) fn of_static(payload: u8) -> Option<Codec> {
        let (name, clock) = match payload {
            0 => ("PCMU", 8000),
            3 => ("GSM", 8000),
            4 => ("G723", 8000),
            8 => ("PCMA", 8000),
            9 => ("G722", 8000),
            13 => ("CN", 8000),
            15 => ("G728", 8000),
            18 => ("G729", 8000),
            26 => ("JPEG", 90_000),
            31 => ("H261", 90_000),
            32 => ("MPV", 90_000),
            33 => ("MP2T", 90_000),
            34 => ("H263", 90_000),
            _ => return None,
        };
        Some(Codec::new(name, clock))
    }

    /// Reads the part of an rtpmap after the payload type.
    pub(crate) fn parse(text: &str) -> Option<Codec> {
        let mut parts = text.trim().split('/');
        let name = parts.next().filter(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_graphic()))?;
        let clock = parts.next()?.parse().ok()?;
        let channels = parts.next().map_or(Some(1), |n| n.parse().ok())?;
        Some(Codec { name: name.to_owned(), clock, channels })
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.name, self.clock)?;
        if self.channels > 1 { write!(f, "/{}", self.channels) } else { Ok(()) }
    }
}

/// a=rtcp-fb (RFC 4585 §4.2)
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feedback {
    /// The payload type, `None` for `*`.
    pub payload: Option<u8>,
    /// `nack pli`, `ccm fir` and so on.
    pub value: String,
}

/// a=extmap (RFC 8285 §5)
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extension {
    /// The local identifier.
    pub id: u16,
    /// `sendonly` and so on, when the line limits it.
    pub direction: Option<String>,
    /// What it means.
    pub uri: String,
    /// What follows.
    pub parameters: Option<String>,
}
