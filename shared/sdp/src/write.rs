//! From a [`Session`] to bytes.

use bytes::Bytes;
use sdp_types as raw;

use crate::{Attribute, Bandwidth, Body, Direction, File, Host, MediaLine, Message, Rtp, Session};

impl Session {
    /// The description as it goes out. The same description gives the same bytes.
    pub fn to_bytes(&self) -> Bytes {
        let session = raw::Session {
            origin: raw::Origin {
                username: Some(self.origin.username.clone()),
                sess_id: self.origin.id.clone(),
                sess_version: self.origin.version,
                nettype: raw::NetType::In,
                addrtype: raw::AddrType::new(self.origin.host.family()),
                unicast_address: self.origin.host.to_string(),
            },
            session_name: if self.name.is_empty() { "-".to_owned() } else { self.name.clone() },
            session_description: None,
            uri: None,
            emails: Vec::new(),
            phones: Vec::new(),
            connection: self.host.as_ref().map(connection),
            bandwidths: bandwidths(&self.bandwidths),
            times: vec![raw::Time { start_time: 0, stop_time: 0, repeats: Vec::new() }],
            time_zones: Vec::new(),
            key: None,
            attributes: self.attributes(),
            medias: self.lines.iter().map(|line| line.to_raw(self.host.as_ref())).collect(),
        };
        let mut octets = Vec::with_capacity(512);
        // Writing into memory cannot fail.
        let _ = session.write(&mut octets);
        Bytes::from(octets)
    }

    fn attributes(&self) -> Vec<raw::Attribute> {
        let mut lines = Lines::default();
        for group in &self.groups {
            let mids: String = group.mids.iter().map(|mid| format!(" {mid}")).collect();
            lines.value("group", format!("{}{mids}", group.semantics));
        }
        lines.others(&self.others);
        // RFC 8839 §5.3: of the whole agent.
        if self.lines.iter().any(|line| line.ice.as_ref().is_some_and(|ice| ice.lite)) {
            lines.flag("ice-lite");
        }
        lines.0
    }
}

fn connection(host: &Host) -> raw::Connection {
    raw::Connection {
        nettype: raw::NetType::In,
        addrtype: raw::AddrType::new(host.family()),
        connection_address: host.to_string(),
    }
}

fn bandwidths(lines: &[Bandwidth]) -> Vec<raw::Bandwidth> {
    lines.iter().map(|b| raw::Bandwidth { bwtype: b.kind.clone(), bandwidth: b.value }).collect()
}

#[derive(Default)]
struct Lines(Vec<raw::Attribute>);

impl Lines {
    fn flag(&mut self, name: &str) {
        self.0.push(raw::Attribute { attribute: name.to_owned(), value: None });
    }

    fn value(&mut self, name: &str, value: impl ToString) {
        self.0.push(raw::Attribute { attribute: name.to_owned(), value: Some(value.to_string()) });
    }

    fn maybe(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.value(name, value);
        }
    }

    fn others(&mut self, others: &[Attribute]) {
        for Attribute { name, value } in others {
            self.0.push(raw::Attribute { attribute: name.clone(), value: value.clone() });
        }
    }
}

impl MediaLine {
    fn to_raw(&self, session_host: Option<&Host>) -> raw::Media {
        let mut lines = Lines::default();
        match &self.body {
            Body::Rtp(rtp) => rtp.write(&mut lines),
            Body::Message(message) => message.write(&mut lines),
            Body::Other(_) => {}
        }
        lines.maybe("setup", self.setup.map(|setup| setup.as_str()));
        for fingerprint in &self.fingerprints {
            lines.value("fingerprint", fingerprint);
        }
        if let Some(ice) = &self.ice {
            lines.value("ice-ufrag", &ice.ufrag);
            lines.value("ice-pwd", &ice.password);
            for candidate in &ice.candidates {
                lines.value("candidate", candidate);
            }
            // A lite agent has no more than it says at once (RFC 8838 §8.2).
            if ice.lite {
                lines.flag("end-of-candidates");
            }
        }
        // sendrecv is the default (RFC 3264 §5.1); saying it on used lines is what most peers do.
        if self.direction != Direction::SendRecv || !self.is_refused() {
            lines.flag(self.direction.as_str());
        }
        lines.maybe("label", self.label.as_ref());
        lines.maybe("mid", self.mid.as_ref());
        lines.others(&self.others);
        let own_host = self.host.as_ref().filter(|host| Some(*host) != session_host);
        raw::Media {
            media: self.kind.as_str().to_owned(),
            port: self.port,
            num_ports: None,
            proto: self.proto.as_str().to_owned(),
            fmt: self.format_words().join(" "),
            media_title: None,
            connections: own_host.map(connection).into_iter().collect(),
            bandwidths: bandwidths(&self.bandwidths),
            key: None,
            attributes: lines.0,
        }
    }
}

impl Rtp {
    fn write(&self, lines: &mut Lines) {
        if let Some(rtcp) = &self.rtcp {
            let address = rtcp.host.as_ref().map(|host| format!(" IN {} {host}", host.family()));
            lines.value("rtcp", format!("{}{}", rtcp.port, address.unwrap_or_default()));
        }
        if self.rtcp_mux {
            lines.flag("rtcp-mux");
        }
        if self.rtcp_rsize {
            lines.flag("rtcp-rsize");
        }
        match self.rtcp_xr.as_deref() {
            Some([]) => lines.flag("rtcp-xr"),
            Some(words) => lines.value("rtcp-xr", words.join(" ")),
            None => {}
        }
        for crypto in &self.crypto {
            lines.value("crypto", crypto.to_value());
        }
        for format in &self.formats {
            if !format.codec.name.is_empty() {
                lines.value("rtpmap", format!("{} {}", format.payload, format.codec));
            }
            if let Some(parameters) = &format.parameters {
                lines.value("fmtp", format!("{} {parameters}", format.payload));
            }
        }
        for feedback in &self.feedback {
            let payload = feedback.payload.map_or_else(|| "*".to_owned(), |payload| payload.to_string());
            lines.value("rtcp-fb", format!("{payload} {}", feedback.value));
        }
        lines.maybe("ptime", self.ptime);
        lines.maybe("maxptime", self.maxptime);
        for extension in &self.extensions {
            let direction = extension.direction.as_ref().map(|d| format!("/{d}")).unwrap_or_default();
            let parameters = extension.parameters.as_ref().map(|p| format!(" {p}")).unwrap_or_default();
            lines.value("extmap", format!("{}{direction} {}{parameters}", extension.id, extension.uri));
        }
    }
}

impl Message {
    fn write(&self, lines: &mut Lines) {
        if !self.path.is_empty() {
            lines.value("path", &self.path);
        }
        if !self.accept_types.is_empty() {
            lines.value("accept-types", self.accept_types.join(" "));
        }
        if !self.accept_wrapped_types.is_empty() {
            lines.value("accept-wrapped-types", self.accept_wrapped_types.join(" "));
        }
        lines.maybe("max-size", self.max_size);
        if self.cema {
            lines.flag("msrp-cema");
        }
        if let Some(room) = &self.chatroom {
            let tokens = [(room.nickname, "nickname"), (room.private_messages, "private-messages")];
            let known = tokens.into_iter().filter(|(on, _)| *on).map(|(_, token)| token);
            let words: Vec<&str> = known.chain(room.others.iter().map(String::as_str)).collect();
            if words.is_empty() { lines.flag("chatroom") } else { lines.value("chatroom", words.join(" ")) }
        }
        if let Some(file) = &self.file {
            for (name, field) in File::NAMES.into_iter().zip(file.fields()) {
                lines.maybe(name, field.as_ref());
            }
        }
    }
}
