//! What a line says about ICE (RFC 8839) and about keys by DTLS (RFC 5763, RFC 8842): the peer's, read; and ours, of an
//! agent that is lite and has one address (RFC 8445 §2.5).

use std::fmt;

use crate::{Fingerprint, Host, MediaLine, Proto, Setup};

/// ICE of one line: its own attributes, or the session's.
#[derive(Clone, PartialEq, Eq)]
pub struct Ice {
    /// a=ice-ufrag
    pub ufrag: String,
    /// a=ice-pwd
    pub password: String,
    /// a=ice-lite, which stands in the session level.
    pub lite: bool,
    /// a=candidate lines, as they stand there.
    pub candidates: Vec<String>,
}

impl Ice {
    /// RFC 8839 §5.4: ice-char, 4 to 256 of them, 22 to 256 in a password.
    pub(crate) fn is_sound(&self) -> bool {
        let chars = |text: &str| text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'+' || c == b'/');
        (4..=256).contains(&self.ufrag.len())
            && (22..=256).contains(&self.password.len())
            && chars(&self.ufrag)
            && chars(&self.password)
    }
}

/// A password is a secret.
impl fmt::Debug for Ice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ice").field("lite", &self.lite).finish_non_exhaustive()
    }
}

/// Our end of a line with keys by DTLS.
#[derive(Clone, PartialEq, Eq)]
pub struct DtlsEnd {
    /// Who opens the handshake.
    pub setup: Setup,
    /// The certificate that we show.
    pub fingerprint: Fingerprint,
    /// Our user fragment and password; `None`: without ICE.
    pub ice: Option<(String, String)>,
}

impl fmt::Debug for DtlsEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DtlsEnd").field("setup", &self.setup).finish_non_exhaustive()
    }
}

impl Proto {
    /// Encrypted with keys from a DTLS handshake (RFC 5764).
    pub fn is_dtls(&self) -> bool {
        matches!(self, Proto::DtlsSavp | Proto::DtlsSavpf)
    }
}

impl MediaLine {
    /// The certificates that its writer may show, of those hashed by SHA-256 (RFC 8122 §5 asks every peer for it).
    pub fn sha256_fingerprints(&self) -> Vec<[u8; 32]> {
        let of = self.fingerprints.iter().filter(|f| f.hash == "SHA-256");
        of.filter_map(|f| f.octets.as_slice().try_into().ok()).collect()
    }

    /// Writes our end of a handshake and of ICE into a line that has its host and port already.
    pub fn secure_by_dtls(&mut self, own: &DtlsEnd) {
        self.setup = Some(own.setup);
        self.fingerprints = vec![own.fingerprint.clone()];
        self.ice = own.ice.as_ref().map(|(ufrag, password)| Ice {
            ufrag: ufrag.clone(),
            password: password.clone(),
            lite: true,
            candidates: self
                .host
                .as_ref()
                .and_then(Host::ip)
                .map(|ip| candidate(ip, self.port))
                .into_iter()
                .collect(),
        });
    }
}

/// The one candidate of a lite agent: of type host, component 1, in RFC 8445 §5.1.2's formula with the highest local
/// preference.
fn candidate(ip: std::net::IpAddr, port: u16) -> String {
    const PRIORITY: u32 = (126 << 24) + (65_535 << 8) + (256 - 1);
    format!("1 1 udp {PRIORITY} {ip} {port} typ host")
}

#[cfg(test)]
mod tests {
    use crate::{Anchor, Direction, Limits, Origin, Proto, RtpAnchor, Session};

    use super::*;

    const PRINT: &str =
        "4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A";

    /// What a browser offers, in short.
    fn offer() -> Session {
        let text = format!(
            "v=0\no=- 46117 2 IN IP4 127.0.0.1\ns=-\nt=0 0\na=group:BUNDLE 0 1\na=extmap-allow-mixed\n\
             m=audio 9 UDP/TLS/RTP/SAVPF 111 0\nc=IN IP4 0.0.0.0\na=rtcp:9 IN IP4 0.0.0.0\na=ice-ufrag:4ZcD\n\
             a=ice-pwd:2/1muCWoOi3uLifh0NuRHlok\na=ice-options:trickle\na=candidate:1 1 udp 1 192.0.2.9 9 typ host\n\
             a=fingerprint:sha-256 {PRINT}\na=setup:actpass\na=mid:0\na=sendrecv\na=rtcp-mux\na=rtpmap:111 opus/48000/2\n\
             m=video 9 UDP/TLS/RTP/SAVPF 96\nc=IN IP4 0.0.0.0\na=ice-ufrag:4ZcD\na=ice-pwd:2/1muCWoOi3uLifh0NuRHlok\n\
             a=fingerprint:sha-256 {PRINT}\na=setup:actpass\na=mid:1\na=sendrecv\na=rtcp-mux\na=rtpmap:96 VP8/90000\n"
        );
        Session::parse(text.as_bytes(), &Limits::default()).unwrap()
    }

    fn end(ice: bool) -> DtlsEnd {
        let ice = ice.then(|| ("ours".to_owned(), "apasswordof22charsIsOurs".to_owned()));
        DtlsEnd { setup: Setup::Passive, fingerprint: Fingerprint::sha256([1; 32]), ice }
    }

    #[test]
    fn rfc8839_s5_4_what_a_browser_says_is_read() {
        let offer = offer();
        let line = &offer.lines[0];
        let ice = line.ice.as_ref().unwrap();
        assert_eq!((ice.ufrag.as_str(), ice.lite, ice.candidates.len()), ("4ZcD", false, 1));
        assert_eq!(line.sha256_fingerprints(), [[0x4a; 32]]);
        assert!(line.proto.is_dtls() && !line.proto.is_sdes() && line.proto.is_secure());
        // The address is no hold: where the peer is, its checks say.
        assert_eq!(line.effective_direction(), Direction::SendRecv);
        assert!(!offer.is_held());
        assert!(!format!("{ice:?} {offer:?}").contains("2/1mu"));
    }

    #[test]
    fn what_the_session_says_stands_for_its_lines_and_a_lite_peer_is_known() {
        let text = format!(
            "v=0\no=- 1 1 IN IP4 192.0.2.1\ns=-\nc=IN IP4 192.0.2.1\nt=0 0\na=ice-lite\na=ice-ufrag:abcd\n\
             a=ice-pwd:2/1muCWoOi3uLifh0NuRHlok\na=fingerprint:sha-256 {PRINT}\na=setup:active\n\
             m=audio 9000 UDP/TLS/RTP/SAVP 0\na=rtcp-mux\nm=audio 9002 RTP/AVP 0\na=ice-ufrag:efgh\na=ice-pwd:short\n"
        );
        let read = Session::parse(text.as_bytes(), &Limits::default());
        assert!(read.is_err(), "a password is 22 characters or more");
        let text = text.replace("a=ice-pwd:short\n", "");
        let session = Session::parse(text.as_bytes(), &Limits::default()).unwrap();
        let ice = session.lines[0].ice.as_ref().unwrap();
        assert!(ice.lite && ice.ufrag == "abcd");
        // §5.4: both of them stand at one level.
        assert!(session.lines[1].ice.is_none());
    }

    #[test]
    fn our_answer_has_one_candidate_and_says_that_we_are_lite() {
        let host = Host::Ip([198, 51, 100, 1].into());
        let anchor = |dtls| {
            let host = host.clone();
            Anchor::Rtp(RtpAnchor { host, port: 4000, rtcp_mux: true, rtcp_port: None, crypto: vec![], dtls })
        };
        let line = offer().lines[0].anchored(&anchor(Some(end(true)))).unwrap();
        let ours = Session::new(Origin::new(1, 1, host.clone())).with(line);
        let text = String::from_utf8(ours.to_bytes().to_vec()).unwrap().replace("\r\n", "\n");
        for part in [
            "a=ice-lite\nm=audio 4000 UDP/TLS/RTP/SAVPF 111 0\n",
            "a=setup:passive\na=fingerprint:SHA-256 01:01",
            "a=ice-ufrag:ours\na=ice-pwd:apasswordof22charsIsOurs\n",
            "a=candidate:1 1 udp 2130706431 198.51.100.1 4000 typ host\na=end-of-candidates\n",
            "a=mid:0\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("4ZcD") && !text.contains("trickle") && !text.contains("4A:4A"), "{text}");
        // Towards a plain phone nothing of it is left.
        let plain = offer().lines[0].anchored(&anchor(None)).unwrap();
        assert_eq!(
            (plain.proto.clone(), plain.ice.is_none(), plain.fingerprints.len()),
            (Proto::RtpAvp, true, 0)
        );
        // And a plain phone's line becomes one for a browser.
        let secure = plain.anchored(&anchor(Some(end(true)))).unwrap();
        assert_eq!(secure.proto, Proto::DtlsSavpf);
    }

    #[test]
    fn what_we_write_we_read_again() {
        let host = Host::Ip([198, 51, 100, 1].into());
        let mut line = offer().lines[0].clone();
        line.host = Some(host.clone());
        line.secure_by_dtls(&end(true));
        line.others.clear();
        let ours = Session::new(Origin::new(1, 1, host)).with(line);
        assert_eq!(Session::parse(&ours.to_bytes(), &Limits::default()).unwrap(), ours);
    }
}
