//! Lines that share one transport (RFC 9143): which they are, what the tagged one says for the others, and the same in what
//! we write.

use crate::{Group, MediaLine, Session};

/// The header extension that names the line of a packet (RFC 9143 §15).
pub const MID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";

const BUNDLE: &str = "BUNDLE";
const BUNDLE_ONLY: &str = "bundle-only";

impl Session {
    /// The places of the lines of the bundle, in its order: the first is the tagged one (RFC 9143 §7.1). Lines that are
    /// refused are of none. Of several bundles the first counts: the others are declined.
    pub fn bundle(&self) -> Vec<usize> {
        let group = self.groups.iter().find(|group| group.semantics.eq_ignore_ascii_case(BUNDLE));
        let mut places: Vec<usize> = Vec::new();
        for mid in group.iter().flat_map(|group| &group.mids) {
            let named = |line: &MediaLine| line.mid.as_ref() == Some(mid) && !line.is_refused();
            if let Some(place) = self.lines.iter().position(named)
                && !places.contains(&place)
            {
                places.push(place);
            }
        }
        places
    }

    /// What the tagged line says stands for the others too (RFC 9143 §7.1.3), and a line that is only there as one of the
    /// bundle (`bundle-only`, port 0) is where that one is (§6).
    pub fn resolve_bundle(&mut self) {
        let places = self.bundle();
        let Some(tagged) = places.first().and_then(|at| self.lines.get(*at)).filter(|l| l.port != 0).cloned()
        else {
            return;
        };
        for at in places.into_iter().skip(1) {
            let Some(line) = self.lines.get_mut(at) else { continue };
            line.others.retain(|attribute| attribute.name != BUNDLE_ONLY);
            if line.port == 0 {
                line.port = tagged.port;
            }
            if !line.proto.is_dtls() || !tagged.proto.is_dtls() {
                continue;
            }
            if line.fingerprints.is_empty() {
                line.fingerprints.clone_from(&tagged.fingerprints);
            }
            line.setup = line.setup.or(tagged.setup);
            if line.ice.is_none() {
                line.ice.clone_from(&tagged.ice);
            }
            if let (crate::Body::Rtp(rtp), Some(first)) = (&mut line.body, tagged.rtp()) {
                rtp.rtcp_mux |= first.rtcp_mux;
            }
        }
    }

    /// Names the lines at `places` as one bundle, the first of them tagged. Of those that `ride` on its transport nothing
    /// is said of ICE and certificates: that is said once (RFC 9143 §7.1.3).
    pub fn write_bundle(&mut self, places: &[usize], ride: impl Fn(usize) -> bool) {
        let mids = places.iter().filter_map(|at| self.lines.get(*at)?.mid.clone()).collect();
        self.groups.retain(|group| !group.semantics.eq_ignore_ascii_case(BUNDLE));
        if places.is_empty() {
            return;
        }
        self.groups.push(Group { semantics: BUNDLE.to_owned(), mids });
        for at in places.iter().skip(1).filter(|at| ride(**at)) {
            if let Some(line) = self.lines.get_mut(*at) {
                (line.ice, line.setup) = (None, None);
                line.fingerprints.clear();
            }
        }
    }
}

impl MediaLine {
    /// The SSRCs that the line's writer announces (RFC 5576 §4.1), each once.
    pub fn ssrcs(&self) -> Vec<u32> {
        let values = self.others.iter().filter(|attribute| attribute.name == "ssrc");
        let first = values.filter_map(|a| a.value.as_deref()?.split_ascii_whitespace().next()?.parse().ok());
        let mut ssrcs: Vec<u32> = Vec::new();
        for ssrc in first {
            if !ssrcs.contains(&ssrc) {
                ssrcs.push(ssrc);
            }
        }
        ssrcs
    }

    /// Under which id the line's writer names its line in packets.
    pub fn mid_extension(&self) -> Option<u16> {
        self.rtp()?.extensions.iter().find(|extension| extension.uri == MID_URI).map(|extension| extension.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Setup};

    const PRINT: &str =
        "4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A:4A";

    fn session(group: &str, video: &str) -> Session {
        let text = format!(
            "v=0\no=- 46117 2 IN IP4 127.0.0.1\ns=-\nt=0 0\na=group:{group}\n\
             m=audio 9 UDP/TLS/RTP/SAVPF 111\nc=IN IP4 0.0.0.0\na=ice-ufrag:4ZcD\na=ice-pwd:2/1muCWoOi3uLifh0NuRHlok\n\
             a=fingerprint:sha-256 {PRINT}\na=setup:actpass\na=mid:0\na=rtcp-mux\na=rtpmap:111 opus/48000/2\n\
             {video}a=mid:1\na=rtpmap:96 VP8/90000\na=extmap:4 {MID_URI}\na=ssrc:77 cname:x\na=ssrc:77 msid:a b\n\
             a=ssrc:4294967295 cname:x\na=ssrc:nonsense\n"
        );
        Session::parse(text.as_bytes(), &Limits::default()).unwrap()
    }

    const ONLY: &str = "m=video 0 UDP/TLS/RTP/SAVPF 96\nc=IN IP4 0.0.0.0\na=bundle-only\n";

    // RFC 9143 §6, §7.1.3.
    #[test]
    fn what_the_tagged_line_says_stands_for_the_lines_of_its_bundle() {
        let session = session("BUNDLE 0 1", ONLY);
        assert_eq!(session.bundle(), [0, 1]);
        let video = &session.lines[1];
        assert!(!video.is_refused() && !video.has("bundle-only") && video.rtp().unwrap().rtcp_mux);
        assert_eq!((video.port, video.setup), (9, Some(Setup::ActPass)));
        assert_eq!(video.sha256_fingerprints(), [[0x4a; 32]]);
        assert_eq!(video.ice.as_ref().map(|ice| ice.ufrag.as_str()), Some("4ZcD"));
        assert_eq!((video.ssrcs(), video.mid_extension()), (vec![77, u32::MAX], Some(4)));
    }

    #[test]
    fn a_line_that_is_bundle_only_and_of_no_bundle_has_no_transport() {
        for group in ["BUNDLE 1", "BUNDLE 0", "LS 0 1", "BUNDLE 0 x"] {
            let session = session(group, ONLY);
            assert!(
                session.lines[1].has("bundle-only") && session.lines[1].fingerprints.is_empty(),
                "{group}"
            );
        }
        let session = session("BUNDLE 1 0 1 0", "m=video 0 UDP/TLS/RTP/SAVPF 96\n");
        assert_eq!(session.bundle(), [0], "a refused line is of no bundle");
    }

    #[test]
    fn what_a_line_says_itself_stays_and_what_rides_says_nothing_of_its_transport() {
        let own = ONLY.replace(
            "a=bundle-only\n",
            "a=setup:passive\na=ice-ufrag:efgh\na=ice-pwd:2/1muCWoOi3uLifh0NuRHlok\n",
        );
        let mut session = session("BUNDLE 0 1", &own.replace("m=video 0", "m=video 9"));
        let video = session.lines[1].clone();
        assert_eq!((video.setup, video.ice.unwrap().ufrag.as_str()), (Some(Setup::Passive), "efgh"));
        session.write_bundle(&[1, 0], |_| true);
        let text = String::from_utf8(session.to_bytes().to_vec()).unwrap();
        assert!(
            text.contains("a=group:BUNDLE 1 0\r\n") && !text.contains("4ZcD") && text.contains("efgh"),
            "{text}"
        );
        let back = Session::parse(text.as_bytes(), &Limits::default()).unwrap();
        assert_eq!(back.lines[0].ice.as_ref().unwrap().ufrag, "efgh");
        session.write_bundle(&[], |_| true);
        assert!(session.groups.is_empty());
    }
}
