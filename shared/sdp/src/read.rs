//! From bytes to a [`Session`]. The lexing of lines is sdp-types; bounds, meaning and inheritance are ours.

use sdp_types as raw;

use crate::crypto::LINES_MAX;
use crate::{
    Attribute, Bandwidth, Body, Chatroom, Codec, Crypto, Direction, Extension, Feedback, File, Fingerprint,
    Format, Group, Host, Ice, Kind, Limits, MediaLine, Message, Origin, Proto, Rtcp, Rtp, SdpError, Session,
    Setup,
};

impl Session {
    /// Reads a description. Blanks around attribute values are cut: some clients write one after the colon.
    pub fn parse(octets: &[u8], limits: &Limits) -> Result<Session, SdpError> {
        check_bounds(octets, limits)?;
        let parsed = raw::Session::parse(octets).map_err(fault_of)?;
        let host = parsed.connection.as_ref().map(host_of).transpose()?;
        let mut shared = Shared::default();
        let (mut groups, mut others) = (Vec::new(), Vec::new());
        for attribute in parsed.attributes.iter().map(trimmed) {
            match (attribute.name.as_str(), &attribute.value) {
                ("group", Some(value)) => groups.push(group(value)),
                _ => {
                    if !shared.take(&attribute)? {
                        others.push(attribute);
                    }
                }
            }
        }
        let lines = parsed.medias.iter().map(|media| line(media, host.as_ref(), &shared, limits));
        let mut session = Session {
            origin: origin(&parsed.origin)?,
            name: parsed.session_name,
            bandwidths: bandwidths(&parsed.bandwidths),
            groups,
            others,
            lines: lines.collect::<Result<_, _>>()?,
            host,
        };
        session.resolve_bundle();
        Ok(session)
    }
}

/// What sdp-types is not asked to look at.
fn check_bounds(octets: &[u8], limits: &Limits) -> Result<(), SdpError> {
    if octets.len() > limits.size_max {
        return Err(SdpError::TooLong);
    }
    let (mut lines, mut media, mut origin) = (0, 0, false);
    for text in octets.split(|c| *c == b'\n') {
        lines += 1;
        media += usize::from(text.starts_with(b"m="));
        origin |= text.starts_with(b"o=") && media == 0;
    }
    // The last line's end makes one more.
    if lines > limits.lines_max + 1 {
        return Err(SdpError::TooManyLines);
    }
    if media > limits.media_max {
        return Err(SdpError::TooManyMedia);
    }
    // sdp-types makes up an o= line that is missing (RFC 8866 §5.2 demands it).
    if origin { Ok(()) } else { Err(SdpError::Origin) }
}

fn fault_of(error: raw::ParserError) -> SdpError {
    use raw::ParserError as E;
    match error {
        E::InvalidFieldEncoding(_, field)
        | E::InvalidFieldFormat(_, field)
        | E::MissingField(_, field)
        | E::FieldTrailingData(_, field) => match field.split(' ').next() {
            Some("Origin") => SdpError::Origin,
            Some("Connection") => SdpError::Connection,
            Some("Media") => SdpError::Media,
            Some("Attribute") => SdpError::Attribute,
            _ => SdpError::Line,
        },
        E::MultipleOrigins(_) => SdpError::Origin,
        E::MultipleConnections(_) => SdpError::Connection,
        _ => SdpError::Line,
    }
}

fn origin(origin: &raw::Origin) -> Result<Origin, SdpError> {
    Ok(Origin {
        username: origin.username.clone().unwrap_or_else(|| "-".to_owned()),
        id: origin.sess_id.clone(),
        version: origin.sess_version,
        host: Host::from_fields(origin.addrtype.as_str(), &origin.unicast_address).ok_or(SdpError::Origin)?,
    })
}

fn host_of(connection: &raw::Connection) -> Result<Host, SdpError> {
    Host::from_fields(connection.addrtype.as_str(), &connection.connection_address)
        .ok_or(SdpError::Connection)
}

fn bandwidths(lines: &[raw::Bandwidth]) -> Vec<Bandwidth> {
    lines.iter().map(|b| Bandwidth { kind: b.bwtype.clone(), value: b.bandwidth }).collect()
}

fn trimmed(attribute: &raw::Attribute) -> Attribute {
    Attribute {
        name: attribute.attribute.trim().to_owned(),
        value: attribute.value.as_deref().map(|value| value.trim().to_owned()),
    }
}

fn group(value: &str) -> Group {
    let mut words = value.split_ascii_whitespace().map(str::to_owned);
    Group { semantics: words.next().unwrap_or_default(), mids: words.collect() }
}

/// What the session level says for lines that do not say it themselves.
#[derive(Clone, Default)]
struct Shared {
    direction: Option<Direction>,
    setup: Option<Setup>,
    fingerprints: Vec<Fingerprint>,
    ufrag: Option<String>,
    password: Option<String>,
    lite: bool,
}

impl Shared {
    /// True when the attribute was one of these.
    fn take(&mut self, attribute: &Attribute) -> Result<bool, SdpError> {
        let value = attribute.value.as_deref();
        match (attribute.name.as_str(), value) {
            ("setup", value) => {
                self.setup = Some(value.and_then(Setup::parse).ok_or(SdpError::Attribute)?);
            }
            ("fingerprint", value) => {
                self.fingerprints.push(value.and_then(Fingerprint::parse).ok_or(SdpError::Attribute)?);
            }
            ("ice-ufrag", Some(value)) => self.ufrag = Some(value.to_owned()),
            ("ice-pwd", Some(value)) => self.password = Some(value.to_owned()),
            ("ice-lite", None) => self.lite = true,
            (name, None) => match Direction::parse(name) {
                Some(direction) => self.direction = Some(direction),
                None => return Ok(false),
            },
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn line(
    media: &raw::Media,
    session_host: Option<&Host>,
    shared: &Shared,
    limits: &Limits,
) -> Result<MediaLine, SdpError> {
    let (kind, proto) = (Kind::parse(&media.media), Proto::parse(&media.proto));
    let words: Vec<String> = media.fmt.split_ascii_whitespace().map(str::to_owned).collect();
    if words.len() > limits.formats_max {
        return Err(SdpError::TooManyFormats);
    }
    let body = if proto.is_msrp() {
        Body::Message(Message::default())
    } else if proto.is_rtp() && (media.port != 0 || media.has_attribute("bundle-only")) {
        rtp_body(&words)?
    } else {
        Body::Other(words)
    };
    let mut line = MediaLine::new(kind, media.port, proto, body);
    let own_host = media.connections.first().map(host_of).transpose()?;
    line.host = own_host.or_else(|| session_host.cloned());
    line.bandwidths = bandwidths(&media.bandwidths);
    let mut own = Shared::default();
    for attribute in media.attributes.iter().map(trimmed) {
        if !own.take(&attribute)? {
            line.take(attribute)?;
        }
    }
    line.direction = own.direction.or(shared.direction).unwrap_or_default();
    line.setup = own.setup.or(shared.setup);
    line.fingerprints = if own.fingerprints.is_empty() {
        shared.fingerprints.clone()
    } else {
        std::mem::take(&mut own.fingerprints)
    };
    // RFC 8839 §5.4: both stand at one level.
    let level = if own.ufrag.is_some() || own.password.is_some() { own } else { shared.clone() };
    let candidates = line.take_candidates();
    line.ice = match (level.ufrag, level.password) {
        (Some(ufrag), Some(password)) => Some(Ice { ufrag, password, lite: shared.lite, candidates }),
        _ => None,
    };
    line.check()?;
    Ok(line)
}

/// The payload types of an m= line that is used; a refused one may say anything.
fn rtp_body(words: &[String]) -> Result<Body, SdpError> {
    let mut rtp = Rtp::default();
    for word in words {
        match word.parse() {
            Ok(payload @ 0..=127u8) => {
                if rtp.format(payload).is_none() {
                    let codec = Codec::of_static(payload).unwrap_or_default();
                    rtp.formats.push(Format { payload, codec, parameters: None });
                }
            }
            _ => return Err(SdpError::Media),
        }
    }
    if rtp.formats.is_empty() { Err(SdpError::Media) } else { Ok(Body::Rtp(rtp)) }
}

impl MediaLine {
    /// An attribute of the line itself.
    fn take(&mut self, attribute: Attribute) -> Result<(), SdpError> {
        match (attribute.name.as_str(), &attribute.value) {
            ("mid", Some(value)) => self.mid = Some(value.clone()),
            ("label", Some(value)) => self.label = Some(value.clone()),
            // RFC 4568 §5.1: in the secure profiles; elsewhere it means nothing.
            ("crypto", value) if self.proto.is_sdes() => self.take_crypto(value.as_deref())?,
            _ => {
                let taken = match &mut self.body {
                    Body::Rtp(rtp) => rtp.take(&attribute)?,
                    Body::Message(message) => message.take(&attribute)?,
                    Body::Other(_) => false,
                };
                if !taken {
                    self.others.push(attribute);
                }
            }
        }
        Ok(())
    }

    /// The candidates, taken out of the other attributes.
    fn take_candidates(&mut self) -> Vec<String> {
        let mut candidates = Vec::new();
        self.others.retain(|attribute| match attribute.name.as_str() {
            "candidate" => {
                candidates.extend(attribute.value.clone());
                false
            }
            "end-of-candidates" => false,
            _ => true,
        });
        candidates
    }

    fn take_crypto(&mut self, value: Option<&str>) -> Result<(), SdpError> {
        let Body::Rtp(rtp) = &mut self.body else { return Ok(()) };
        rtp.crypto.extend(Crypto::parse(value.unwrap_or_default())?);
        if rtp.crypto.len() > LINES_MAX { Err(SdpError::Attribute) } else { Ok(()) }
    }

    /// What a line that is used must have.
    fn check(&self) -> Result<(), SdpError> {
        if self.is_refused() {
            return Ok(());
        }
        if self.host.is_none() {
            return Err(SdpError::NoAddress);
        }
        if self.ice.as_ref().is_some_and(|ice| !ice.is_sound()) {
            return Err(SdpError::Attribute);
        }
        match &self.body {
            // RFC 4975 §8.2, §8.6: both are mandatory.
            Body::Message(m) if m.path.is_empty() || m.accept_types.is_empty() => Err(SdpError::NoPath),
            Body::Message(_) | Body::Rtp(_) | Body::Other(_) => Ok(()),
        }
    }
}

impl Rtp {
    fn take(&mut self, attribute: &Attribute) -> Result<bool, SdpError> {
        let Some(value) = attribute.value.as_deref() else {
            match attribute.name.as_str() {
                "rtcp-mux" => self.rtcp_mux = true,
                "rtcp-rsize" => self.rtcp_rsize = true,
                "rtcp-xr" => self.rtcp_xr = Some(Vec::new()),
                _ => return Ok(false),
            }
            return Ok(true);
        };
        match attribute.name.as_str() {
            "rtpmap" => {
                let (payload, rest) = value.split_once(' ').ok_or(SdpError::Attribute)?;
                let codec = Codec::parse(rest).ok_or(SdpError::Attribute)?;
                if let Some(format) = self.format_mut(payload)? {
                    format.codec = codec;
                }
            }
            "fmtp" => {
                let (payload, rest) = value.split_once(' ').ok_or(SdpError::Attribute)?;
                if let Some(format) = self.format_mut(payload)? {
                    format.parameters = Some(rest.trim().to_owned());
                }
            }
            "rtcp" => self.rtcp = Some(rtcp(value).ok_or(SdpError::Attribute)?),
            "rtcp-xr" => self.rtcp_xr = Some(value.split_ascii_whitespace().map(str::to_owned).collect()),
            "ptime" | "maxptime" => {
                let Ok(milliseconds) = value.parse() else { return Ok(false) };
                let field = if attribute.name == "ptime" { &mut self.ptime } else { &mut self.maxptime };
                *field = Some(milliseconds);
            }
            "rtcp-fb" => {
                let Some(feedback) = feedback(value) else { return Ok(false) };
                self.feedback.push(feedback);
            }
            "extmap" => {
                let Some(extension) = extension(value) else { return Ok(false) };
                self.extensions.push(extension);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The format of a payload type in an attribute; `None` when the m= line does not list it.
    fn format_mut(&mut self, payload: &str) -> Result<Option<&mut Format>, SdpError> {
        let payload: u8 = payload.parse().map_err(|_| SdpError::Attribute)?;
        Ok(self.formats.iter_mut().find(|format| format.payload == payload))
    }
}

fn rtcp(value: &str) -> Option<Rtcp> {
    let mut words = value.split_ascii_whitespace();
    let port = words.next()?.parse().ok()?;
    let host = match (words.next(), words.next(), words.next()) {
        (Some(_), Some(family), Some(address)) => Some(Host::from_fields(family, address)?),
        (None, ..) => None,
        _ => return None,
    };
    Some(Rtcp { port, host })
}

fn feedback(value: &str) -> Option<Feedback> {
    let (payload, rest) = value.split_once(' ')?;
    let payload = if payload == "*" { None } else { Some(payload.parse().ok()?) };
    Some(Feedback { payload, value: rest.trim().to_owned() })
}

fn extension(value: &str) -> Option<Extension> {
    let (number, rest) = value.split_once(' ')?;
    let (id, direction) = match number.split_once('/') {
        Some((id, direction)) => (id, Some(direction.to_owned())),
        None => (number, None),
    };
    let (uri, parameters) = match rest.trim().split_once(' ') {
        Some((uri, parameters)) => (uri, Some(parameters.trim().to_owned())),
        None => (rest.trim(), None),
    };
    Some(Extension { id: id.parse().ok()?, direction, uri: uri.to_owned(), parameters })
}

impl Message {
    fn take(&mut self, attribute: &Attribute) -> Result<bool, SdpError> {
        let words = |value: &str| value.split_ascii_whitespace().map(str::to_owned).collect();
        match (attribute.name.as_str(), attribute.value.as_deref()) {
            ("path", Some(value)) => self.path = value.to_owned(),
            ("accept-types", Some(value)) => self.accept_types = words(value),
            ("accept-wrapped-types", Some(value)) => self.accept_wrapped_types = words(value),
            ("max-size", Some(value)) => {
                self.max_size = Some(value.parse().map_err(|_| SdpError::Attribute)?)
            }
            ("msrp-cema", _) => self.cema = true,
            ("chatroom", value) => self.chatroom = Some(chatroom(value.unwrap_or_default())),
            // RFC 6135 §4.1: not used with MSRP, and ignored when it comes.
            ("connection", _) => {}
            (name, Some(value)) if File::NAMES.contains(&name) => {
                if let Some(field) = self.file.get_or_insert_default().field_mut(name) {
                    *field = Some(value.to_owned());
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn chatroom(value: &str) -> Chatroom {
    let mut room = Chatroom::default();
    for token in value.split_ascii_whitespace() {
        match token {
            "nickname" => room.nickname = true,
            "private-messages" => room.private_messages = true,
            other => room.others.push(other.to_owned()),
        }
    }
    room
}

#[cfg(test)]
mod tests;
