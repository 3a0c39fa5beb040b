//! One media line with its attributes.

use std::fmt;

use crate::{Attribute, Bandwidth, Fingerprint, Host, Ice, Message, Rtp, Setup};

/// What an m= line is about.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// `audio`
    Audio,
    /// `video`
    Video,
    /// `message`
    Message,
    /// Any other word: `application`, `text`, `image`.
    Other(String),
}

impl Kind {
    /// The word on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Kind::Audio => "audio",
            Kind::Video => "video",
            Kind::Message => "message",
            Kind::Other(word) => word,
        }
    }

    pub(crate) fn parse(word: &str) -> Kind {
        match word {
            "audio" => Kind::Audio,
            "video" => Kind::Video,
            "message" => Kind::Message,
            other => Kind::Other(other.to_owned()),
        }
    }
}

/// The transport of an m= line.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Proto {
    /// `RTP/AVP`
    RtpAvp,
    /// `RTP/AVPF`
    RtpAvpf,
    /// `RTP/SAVP`
    RtpSavp,
    /// `RTP/SAVPF`
    RtpSavpf,
    /// `UDP/TLS/RTP/SAVP`
    DtlsSavp,
    /// `UDP/TLS/RTP/SAVPF`
    DtlsSavpf,
    /// `TCP/MSRP`
    Msrp,
    /// `TCP/TLS/MSRP`
    MsrpTls,
    /// Any other.
    Other(String),
}

impl Proto {
    const KNOWN: [(Proto, &'static str); 8] = [
        (Proto::RtpAvp, "RTP/AVP"),
        (Proto::RtpAvpf, "RTP/AVPF"),
        (Proto::RtpSavp, "RTP/SAVP"),
        (Proto::RtpSavpf, "RTP/SAVPF"),
        (Proto::DtlsSavp, "UDP/TLS/RTP/SAVP"),
        (Proto::DtlsSavpf, "UDP/TLS/RTP/SAVPF"),
        (Proto::Msrp, "TCP/MSRP"),
        (Proto::MsrpTls, "TCP/TLS/MSRP"),
    ];

    /// The words on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Proto::Other(words) => words,
            known => Proto::KNOWN.iter().find(|(proto, _)| proto == known).map_or("", |(_, words)| words),
        }
    }

    pub(crate) fn parse(words: &str) -> Proto {
        let known = Proto::KNOWN.into_iter().find(|(_, known)| words.eq_ignore_ascii_case(known));
        known.map_or_else(|| Proto::Other(words.to_owned()), |(proto, _)| proto)
    }

    /// Carries RTP.
    pub fn is_rtp(&self) -> bool {
        !self.is_msrp() && !matches!(self, Proto::Other(_))
    }

    /// Carries MSRP.
    pub fn is_msrp(&self) -> bool {
        matches!(self, Proto::Msrp | Proto::MsrpTls)
    }

    /// Encrypted with keys from a=crypto lines (RFC 4568).
    pub fn is_sdes(&self) -> bool {
        matches!(self, Proto::RtpSavp | Proto::RtpSavpf)
    }

    /// The same profile of RTP with keys from a=crypto lines, or without any. What a WebRTC peer offers is for others the
    /// profile that every phone has (RFC 4585 §4 would make it AVPF, which most of those refuse).
    pub fn with_sdes(self, secure: bool) -> Proto {
        match (self, secure) {
            (Proto::RtpAvp | Proto::RtpSavp | Proto::DtlsSavp, true) => Proto::RtpSavp,
            (Proto::RtpAvpf | Proto::RtpSavpf | Proto::DtlsSavpf, true) => Proto::RtpSavpf,
            (Proto::RtpSavp | Proto::DtlsSavp | Proto::DtlsSavpf, false) => Proto::RtpAvp,
            (Proto::RtpSavpf, false) => Proto::RtpAvpf,
            (other, _) => other,
        }
    }

    /// Encrypted.
    pub fn is_secure(&self) -> bool {
        !matches!(self, Proto::RtpAvp | Proto::RtpAvpf | Proto::Msrp | Proto::Other(_))
    }
}

/// Who may send, as seen by the one who wrote the line (RFC 3264 §5.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Direction {
    /// Both; the default.
    #[default]
    SendRecv,
    /// The writer sends only.
    SendOnly,
    /// The writer receives only.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// The attribute's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Direction> {
        match name {
            "sendrecv" => Some(Direction::SendRecv),
            "sendonly" => Some(Direction::SendOnly),
            "recvonly" => Some(Direction::RecvOnly),
            "inactive" => Some(Direction::Inactive),
            _ => None,
        }
    }

    /// From whether the writer sends and receives.
    pub const fn of(sends: bool, receives: bool) -> Direction {
        match (sends, receives) {
            (true, true) => Direction::SendRecv,
            (true, false) => Direction::SendOnly,
            (false, true) => Direction::RecvOnly,
            (false, false) => Direction::Inactive,
        }
    }

    /// The writer sends.
    pub const fn sends(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::SendOnly)
    }

    /// The writer receives.
    pub const fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }

    /// The same flow as the other side writes it.
    pub const fn mirrored(self) -> Direction {
        Direction::of(self.receives(), self.sends())
    }

    /// What an answerer that would do `own` says to an offer of this direction (RFC 3264 §6.1): it sends only
    /// what the offerer receives, and the other way round.
    pub const fn answered(self, own: Direction) -> Direction {
        Direction::of(self.receives() && own.sends(), self.sends() && own.receives())
    }
}

/// What belongs to one kind of media only.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// A line over RTP.
    Rtp(Rtp),
    /// A line over MSRP.
    Message(Message),
    /// Formats of a line that this crate does not look into.
    Other(Vec<String>),
}

/// An m= line and what stands below it. What the session level says for all lines is resolved into each.
#[derive(Clone, PartialEq, Eq)]
pub struct MediaLine {
    /// What it is about.
    pub kind: Kind,
    /// The port; 0 says that the line is refused or ended.
    pub port: u16,
    /// How it is carried.
    pub proto: Proto,
    /// Where the writer receives: its own c=, else that of the session.
    pub host: Option<Host>,
    /// Who may send.
    pub direction: Direction,
    /// b= lines.
    pub bandwidths: Vec<Bandwidth>,
    /// a=mid
    pub mid: Option<String>,
    /// a=label (RFC 4574)
    pub label: Option<String>,
    /// a=setup
    pub setup: Option<Setup>,
    /// a=fingerprint, the line's own or the session's.
    pub fingerprints: Vec<Fingerprint>,
    /// a=ice-ufrag and what belongs to it, the line's own or the session's.
    pub ice: Option<Ice>,
    /// What the kind adds.
    pub body: Body,
    /// Other attributes, in order.
    pub others: Vec<Attribute>,
}

impl MediaLine {
    /// A new line, sendrecv, with nothing optional.
    pub fn new(kind: Kind, port: u16, proto: Proto, body: Body) -> Self {
        MediaLine {
            kind,
            port,
            proto,
            host: None,
            direction: Direction::SendRecv,
            bandwidths: Vec::new(),
            mid: None,
            label: None,
            setup: None,
            fingerprints: Vec::new(),
            ice: None,
            body,
            others: Vec::new(),
        }
    }

    /// Refused in an answer, ended in an offer (RFC 3264 §6, §8.2). A bundled line of an offer may have port 0
    /// and mean yes (RFC 9143 §6); such lines carry `a=bundle-only`.
    pub fn is_refused(&self) -> bool {
        self.port == 0 && !self.has("bundle-only")
    }

    /// Whether an attribute without a type of its own is there.
    pub fn has(&self, name: &str) -> bool {
        self.others.iter().any(|a| a.name == name)
    }

    /// The value of the first such attribute.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.others.iter().find(|a| a.name == name).and_then(|a| a.value.as_deref())
    }

    /// What may be sent to the line's writer, with the headers of IPv4 and UDP, kbit/s: its `b=AS` (RFC 8866 §5.8), or its
    /// `b=TIAS`, to which the headers of as many packets are added as `a=maxprate` says (RFC 3890 §6.2, §6.4); the larger one.
    /// `None`: it does not say, or 0.
    pub fn bandwidth_kbps(&self) -> Option<u64> {
        /// Octets of IPv4 and UDP.
        const HEADERS: f64 = 28.0;
        let of = |kind: &str| {
            let line = self.bandwidths.iter().find(|b| b.kind.eq_ignore_ascii_case(kind));
            line.map(|b| b.value).filter(|value| *value > 0)
        };
        let rate = self.value("maxprate").and_then(|rate| rate.parse::<f64>().ok());
        let rate = rate.filter(|rate| (0.0..=100_000.0).contains(rate)).unwrap_or(0.0);
        let tias = of("TIAS").map(|bits| bits.div_ceil(1000).saturating_add((rate * HEADERS / 125.0) as u64));
        of("AS").into_iter().chain(tias).max()
    }

    /// What the line is about over RTP.
    pub fn rtp(&self) -> Option<&Rtp> {
        match &self.body {
            Body::Rtp(rtp) => Some(rtp),
            Body::Message(_) | Body::Other(_) => None,
        }
    }

    /// What the line is about over MSRP.
    pub fn message(&self) -> Option<&Message> {
        match &self.body {
            Body::Message(message) => Some(message),
            Body::Rtp(_) | Body::Other(_) => None,
        }
    }

    /// The direction with the old hold read in: an RTP line with c=0.0.0.0 receives nothing (RFC 3264 §8.4), unless ICE
    /// is to say where (RFC 8839 §4.1).
    pub fn effective_direction(&self) -> Direction {
        let held =
            self.proto.is_rtp() && self.ice.is_none() && self.host.as_ref().is_some_and(Host::is_unspecified);
        Direction::of(self.direction.sends(), self.direction.receives() && !held)
    }

    /// The line that refuses this one: same kind, transport and formats, port 0, no attributes.
    pub fn refused(&self) -> MediaLine {
        let formats = self.format_words();
        let mut line = MediaLine::new(self.kind.clone(), 0, self.proto.clone(), Body::Other(formats));
        line.mid.clone_from(&self.mid);
        line
    }

    /// The formats as the m= line names them.
    pub fn format_words(&self) -> Vec<String> {
        match &self.body {
            Body::Rtp(rtp) => rtp.formats.iter().map(|f| f.payload.to_string()).collect(),
            Body::Message(_) => vec!["*".to_owned()],
            Body::Other(words) => words.clone(),
        }
    }
}

/// Addresses, paths and unknown values stay out of logs.
impl fmt::Debug for MediaLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MediaLine")
            .field("kind", &self.kind)
            .field("refused", &self.is_refused())
            .field("proto", &self.proto)
            .field("direction", &self.direction)
            .field("setup", &self.setup)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Direction::{self, *};

    #[test]
    fn what_may_be_sent_is_as_or_tias_with_headers() {
        use crate::{Limits, Session};
        // RFC 8866 §5.8, RFC 3890 §6.2, §6.3.
        for (lines, kbps) in [
            ("", None),
            ("b=AS:80\r\n", Some(80)),
            ("b=AS:0\r\n", None),
            ("b=CT:900\r\nb=RR:800\r\n", None),
            ("b=TIAS:64000\r\n", Some(64)),
            ("b=TIAS:64001\r\na=maxprate:50.0\r\n", Some(65 + 11)),
            ("b=TIAS:64000\r\na=maxprate:nan\r\n", Some(64)),
            ("b=TIAS:18446744073709551615\r\na=maxprate:99999\r\n", Some(18_446_744_073_709_552 + 22_399)),
            ("b=AS:80\r\nb=TIAS:64000\r\n", Some(80)),
        ] {
            let text = format!(
                "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n{lines}"
            );
            let said = Session::parse(text.as_bytes(), &Limits::default()).unwrap();
            assert_eq!(said.lines.first().unwrap().bandwidth_kbps(), kbps, "{lines}");
        }
    }

    #[test]
    fn rfc3264_s6_1_directions() {
        let all = [SendRecv, SendOnly, RecvOnly, Inactive];
        let answers = |offered: Direction| all.map(|own| offered.answered(own));
        assert_eq!(answers(SendRecv), [SendRecv, SendOnly, RecvOnly, Inactive]);
        assert_eq!(answers(SendOnly), [RecvOnly, Inactive, RecvOnly, Inactive]);
        assert_eq!(answers(RecvOnly), [SendOnly, SendOnly, Inactive, Inactive]);
        assert_eq!(answers(Inactive), [Inactive; 4]);
        assert_eq!(all.map(Direction::mirrored), [SendRecv, RecvOnly, SendOnly, Inactive]);
    }
}
