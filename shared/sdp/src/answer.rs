//! The answer to an offer (RFC 3264 §6).
//!
//! As many m= lines as the offer, in its order; each of the offer's kind and transport; port 0 where we refuse.
//! Formats keep the offer's payload types and order. Directions are the offer's, mirrored and cut to ours.

use crate::{
    Bandwidth, Body, Chatroom, Codec, Crypto, Direction, DtlsEnd, File, Fingerprint, Format, Host, MediaLine,
    Message, Origin, Rtcp, Rtp, Session, Setup,
};

use crate::rtp::xr_name;

/// What we say to one line of an offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// No: port 0.
    Refuse,
    /// Yes.
    Accept(Box<Accept>),
}

impl Choice {
    /// Yes.
    pub fn accept(accept: Accept) -> Self {
        Choice::Accept(Box::new(accept))
    }
}

/// How we take a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accept {
    /// Where we receive, when not at the session's address.
    pub host: Option<Host>,
    /// Our port.
    pub port: u16,
    /// What we would do; the answer is this cut to what the offer allows.
    pub direction: Direction,
    /// Certificates that we show.
    pub fingerprints: Vec<Fingerprint>,
    /// a=label of ours.
    pub label: Option<String>,
    /// What the kind needs.
    pub body: AcceptBody,
}

/// The part of [`Accept`] that the kind of line decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AcceptBody {
    /// For a line over RTP.
    Rtp(AcceptRtp),
    /// For a line over MSRP.
    Message(AcceptMessage),
}

/// How we take an RTP line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AcceptRtp {
    /// What we can take, with our parameters; `None` keeps the offer's parameters. Empty: whatever is offered.
    pub codecs: Vec<(Codec, Option<String>)>,
    /// Take at most this many codecs, the first that fit; 0 means all. Telephone events and comfort noise do
    /// not count.
    pub codecs_max: usize,
    /// RTCP on the media port, if the offer has it.
    pub rtcp_mux: bool,
    /// Where we receive RTCP otherwise, when that is not the next port.
    pub rtcp_port: Option<u16>,
    /// a=ptime of ours, milliseconds.
    pub ptime: Option<u32>,
    /// Header extensions that we understand, by URI; those offered are answered with the offer's ids.
    pub extensions: Vec<String>,
    /// Feedback that we understand, such as `nack pli`; what is offered of it is answered.
    pub feedback: Vec<String>,
    /// RTCP of reduced size (RFC 5506), if the offer has it.
    pub rtcp_rsize: bool,
    /// Extended reports that we take part in by agreement, such as `rcvr-rtt` (RFC 3611 §5.2), if the offer has them.
    pub reports: Vec<String>,
    /// What we take at most, with the headers below RTP, kbit/s: a `b=AS` line (RFC 8866 §5.8).
    pub bandwidth_kbps: Option<u64>,
    /// Our key under the tag and suite of an a=crypto line of the offer ([`Rtp::choose_crypto`]). An `RTP/SAVP` or
    /// `RTP/SAVPF` line without it is refused.
    pub crypto: Option<Crypto>,
    /// Our end of a handshake. A line whose keys come of one is refused without it.
    pub dtls: Option<DtlsEnd>,
}

/// How we take a message line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AcceptMessage {
    /// Our a=path.
    pub path: String,
    /// Whether others can connect to us: decides the answer to `actpass`.
    pub reachable: bool,
    /// a=accept-types
    pub accept_types: Vec<String>,
    /// a=accept-wrapped-types
    pub accept_wrapped_types: Vec<String>,
    /// a=max-size, octets
    pub max_size: Option<u64>,
    /// a=msrp-cema
    pub cema: bool,
    /// a=chatroom
    pub chatroom: Option<Chatroom>,
}

/// Makes the answer. `choose` is asked for each line of the offer that is used, with its number. A line that
/// is accepted with a body of the wrong kind, or that shares no format with us, is refused.
pub fn answer(
    offer: &Session,
    origin: Origin,
    host: Host,
    mut choose: impl FnMut(usize, &MediaLine) -> Choice,
) -> Session {
    let mut session = Session::new(origin);
    session.host = Some(host);
    for (number, line) in offer.lines.iter().enumerate() {
        let choice = if line.is_refused() { Choice::Refuse } else { choose(number, line) };
        let taken = match choice {
            Choice::Refuse => None,
            Choice::Accept(accept) => accepted(line, *accept),
        };
        session = session.with(taken.unwrap_or_else(|| line.refused()));
    }
    session
}

fn accepted(line: &MediaLine, accept: Accept) -> Option<MediaLine> {
    let dtls = match &accept.body {
        AcceptBody::Rtp(own) if line.proto.is_dtls() => Some(own.dtls.clone()?),
        _ => None,
    };
    let kbps = match &accept.body {
        AcceptBody::Rtp(own) => own.bandwidth_kbps,
        AcceptBody::Message(_) => None,
    };
    let (body, setup, own_direction) = match (&line.body, accept.body) {
        (Body::Rtp(offered), AcceptBody::Rtp(own)) => {
            (Body::Rtp(rtp(offered, &own, line.proto.is_sdes())?), None, accept.direction)
        }
        (Body::Message(offered), AcceptBody::Message(own)) => {
            // RFC 5547 §8.3: one file goes one way, so an answer that sends and receives is mirrored.
            let one_way = offered.file.is_some() && accept.direction == Direction::SendRecv;
            let direction = if one_way { line.direction.mirrored() } else { accept.direction };
            let setup = Setup::answered(line.setup, own.reachable);
            (Body::Message(message(offered, own)), setup, direction)
        }
        _ => return None,
    };
    let mut taken = MediaLine::new(line.kind.clone(), accept.port, line.proto.clone(), body);
    taken.host = accept.host;
    taken.bandwidths.extend(kbps.map(Bandwidth::kbps));
    taken.direction = line.effective_direction().answered(own_direction);
    taken.setup = setup;
    taken.fingerprints = accept.fingerprints;
    taken.label = accept.label;
    taken.mid.clone_from(&line.mid);
    if let Some(dtls) = &dtls {
        taken.secure_by_dtls(dtls);
    }
    Some(taken)
}

fn message(offered: &Message, own: AcceptMessage) -> Message {
    // RFC 5547 §8.3: the answer repeats what names the file.
    let file = offered.file.as_ref().map(|file| File {
        selector: file.selector.clone(),
        transfer_id: file.transfer_id.clone(),
        ..File::default()
    });
    Message {
        path: own.path,
        accept_types: own.accept_types,
        accept_wrapped_types: own.accept_wrapped_types,
        max_size: own.max_size,
        // RFC 6714 §4.3: only when the offer has it.
        cema: own.cema && offered.cema,
        chatroom: own.chatroom,
        file,
    }
}

fn rtp(offered: &Rtp, own: &AcceptRtp, sdes: bool) -> Option<Rtp> {
    // RFC 4568 §5.1.2: one line, with the tag of the one that is taken.
    let answers = |own: &&Crypto| offered.crypto.iter().any(|o| o.tag == own.tag && o.suite == own.suite);
    let crypto = own.crypto.as_ref().filter(|_| sdes).filter(answers);
    if sdes && crypto.is_none() {
        return None;
    }
    let (mut formats, mut codecs) = (Vec::new(), 0);
    for format in &offered.formats {
        let Some(parameters) = own.takes(format) else { continue };
        let spoken = !is_auxiliary(&format.codec);
        if spoken && own.codecs_max > 0 && codecs == own.codecs_max {
            continue;
        }
        codecs += usize::from(spoken);
        formats.push(Format { parameters, ..format.clone() });
    }
    if codecs == 0 {
        return None;
    }
    let rtcp_mux = offered.rtcp_mux && own.rtcp_mux;
    let mut answer = Rtp {
        formats,
        rtcp_mux,
        rtcp_rsize: offered.rtcp_rsize && own.rtcp_rsize,
        rtcp_xr: own.answered_reports(offered),
        rtcp: own.rtcp_port.filter(|_| !rtcp_mux).map(|port| Rtcp { port, host: None }),
        ptime: own.ptime,
        maxptime: None,
        feedback: offered.feedback.clone(),
        extensions: offered.extensions.clone(),
        crypto: crypto.into_iter().cloned().collect(),
    };
    answer.feedback.retain(|fb| own.feedback.contains(&fb.value));
    answer.extensions.retain(|extension| own.extensions.contains(&extension.uri));
    answer.retain(|_| true);
    Some(answer)
}

impl AcceptRtp {
    /// What of the offer's reports is ours too. Its parameters say what the other one does: they are not repeated, but for who
    /// measures (`rcvr-rtt=all`), which both must say alike.
    fn answered_reports(&self, offered: &Rtp) -> Option<Vec<String>> {
        let ours = |word: &&String| self.reports.iter().any(|own| own.eq_ignore_ascii_case(xr_name(word)));
        let words = offered.rtcp_xr.iter().flatten().filter(ours);
        let words: Vec<String> = words.filter_map(|word| Some(word.split(':').next()?.to_owned())).collect();
        (!words.is_empty()).then_some(words)
    }

    /// Whether we take a format, and with which parameters.
    fn takes(&self, format: &Format) -> Option<Option<String>> {
        if self.codecs.is_empty() {
            return Some(format.parameters.clone());
        }
        let fits = |(codec, own): &&(Codec, Option<String>)| {
            codec.matches(&format.codec)
                && parameters_fit(codec, own.as_deref(), format.parameters.as_deref())
        };
        let (_, own) = self.codecs.iter().find(fits)?;
        Some(own.clone().or_else(|| format.parameters.clone()))
    }
}

/// Formats that go along with a codec and make no stream of their own.
fn is_auxiliary(codec: &Codec) -> bool {
    ["telephone-event", "CN", "rtx", "red", "ulpfec"].iter().any(|name| codec.name.eq_ignore_ascii_case(name))
}

/// RFC 6184 §8.2.2: two H.264 formats are one only with the same profile and packetization mode. Other codecs
/// have no parameter that makes them another format.
fn parameters_fit(codec: &Codec, own: Option<&str>, offered: Option<&str>) -> bool {
    if !codec.name.eq_ignore_ascii_case("H264") || own.is_none() {
        return true;
    }
    let field = |list: Option<&str>, name: &str, default: &str| {
        let find = |list: &str| {
            list.split(';')
                .find_map(|p| p.trim().split_once('=').filter(|(n, _)| *n == name))
                .map(|(_, v)| v.to_owned())
        };
        list.and_then(find).unwrap_or_else(|| default.to_owned())
    };
    // Without the parameter it is Baseline, level 1.
    let profile = |list| field(list, "profile-level-id", "42000A").get(..2).map(str::to_ascii_lowercase);
    let mode = |list| field(list, "packetization-mode", "0");
    profile(own) == profile(offered) && mode(own) == mode(offered)
}

impl Setup {
    /// What an answer says (RFC 6135 §4.2.2, RFC 4145 §4.1). No a=setup, or `holdconn`, in an offer: the
    /// offerer knows RFC 4975 alone and will connect, so nothing is said. `passive` is not for offers, but the
    /// meaning is plain.
    pub fn answered(offered: Option<Setup>, reachable: bool) -> Option<Setup> {
        match offered? {
            Setup::Active => Some(Setup::Passive),
            Setup::ActPass if reachable => Some(Setup::Passive),
            Setup::ActPass | Setup::Passive => Some(Setup::Active),
            Setup::HoldConn => None,
        }
    }
}

#[cfg(test)]
mod tests;
