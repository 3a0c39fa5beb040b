//! Lines whose keys come of a DTLS handshake (RFC 5763), with ICE as a rule (RFC 8839): what a peer's line and ours make of
//! the leg towards it. We are lite: the peer checks, we answer. Handshake and checks are the data plane's; here are the
//! names, passwords and fingerprints.
//!
//! ```text
//!   peer offers:  offered  (its certificates, its user fragment; ours drawn, our role chosen) ──▶ end: our answer
//!   we offer:     wanted   (ours drawn)  ──▶ end: actpass ··· answered (its certificates, its role)
//! ```
//!
//! Lines that share a transport have one leg for it, and for those of the others see `bundle`.

use base::Entropy;
use contract::{Dtls, Ice, Leg, RtpLeg, Setup as Role, leg};
use sdp::{DtlsEnd, Fingerprint, MediaLine, Setup};

use crate::config::{Media, Srtp};

/// RFC 8839 §5.4: 24 random bits in a user fragment and 128 in a password, or more.
const UFRAG_BITS: usize = 40;
const PASSWORD_BITS: usize = 130;

/// Whether a line of this kind is taken.
pub(crate) fn takes(config: &Media, line: &MediaLine) -> bool {
    config.dtls != Srtp::Refuse
        && line.proto.is_dtls()
        // One of a bundle, and there is none (RFC 9143 §6).
        && !line.has("bundle-only")
        // One handshake for RTP and RTCP (RFC 5764 §5.1.2 would want two).
        && line.rtp().is_some_and(|rtp| rtp.rtcp_mux)
        && !line.sha256_fingerprints().is_empty()
}

/// What a leg towards somebody else than the writer of `line` is to offer. `browser`: that one speaks nothing else.
pub(crate) fn wanted(
    config: &Media,
    line: &MediaLine,
    browser: bool,
    entropy: &mut Entropy,
) -> Option<(Dtls, Ice)> {
    let mirrored = line.proto.is_dtls() && config.dtls == Srtp::Mirror;
    let wanted = config.dtls != Srtp::Refuse && line.proto.is_rtp() && (browser || mirrored);
    wanted.then(|| (Dtls::default(), ice(None, entropy)))
}

fn ice(peer: Option<&sdp::Ice>, entropy: &mut Entropy) -> Ice {
    Ice {
        ufrag: entropy.token(UFRAG_BITS),
        password: entropy.token(PASSWORD_BITS),
        peer_ufrag: peer.map(|peer| peer.ufrag.clone()).unwrap_or_default(),
    }
}

fn prints(line: &MediaLine) -> Vec<Vec<u8>> {
    line.sha256_fingerprints().into_iter().map(|print| print.to_vec()).collect()
}

/// The peer's ICE; one that is lite as well sends no checks: it is where its line says (RFC 8445 §6.1.1).
fn full(line: &MediaLine) -> Option<&sdp::Ice> {
    line.ice.as_ref().filter(|ice| !ice.lite)
}

/// A peer offers. What is agreed stays as long as its certificates do; another user fragment of the peer is a restart,
/// which is answered with another one of ours (RFC 8839 §4.4.3.1.1).
pub(crate) fn offered(leg: &mut Leg, line: &MediaLine, entropy: &mut Entropy) {
    let Some(leg::Kind::Rtp(own)) = &mut leg.kind else { return };
    if !line.proto.is_dtls() {
        (own.dtls, own.ice) = (None, None);
        return;
    }
    let fingerprints = prints(line);
    let kept = own.dtls.as_ref().filter(|old| old.fingerprints == fingerprints);
    // RFC 8842 §5.3: an association that stands keeps its roles; else we wait where the peer leaves it to us.
    let setup = match (kept, line.setup) {
        (Some(old), Some(Setup::ActPass) | None) => old.setup(),
        (_, Some(Setup::Passive)) => Role::Active,
        _ => Role::Passive,
    };
    own.dtls = Some(Box::new(Dtls { setup: setup.into(), fingerprints }));
    own.ice = full(line).map(|theirs| {
        let kept = own.ice.take().filter(|old| old.peer_ufrag == theirs.ufrag);
        kept.unwrap_or_else(|| Box::new(ice(Some(theirs), entropy)))
    });
    own.rtcp_mux = true;
    own.srtp = None;
}

/// Our offer was answered; what fits was seen to ([`sdp::check_answer`]). Whoever made which, when a change is taken back.
pub(crate) fn answered(leg: &mut Leg, ours: &MediaLine, theirs: &MediaLine) {
    let Some(leg::Kind::Rtp(own)) = &mut leg.kind else { return };
    if !ours.proto.is_dtls() || !theirs.proto.is_dtls() {
        (own.dtls, own.ice) = (None, None);
        return;
    }
    let setup = match (ours.setup, theirs.setup) {
        (Some(Setup::Active), _) | (_, Some(Setup::Passive)) => Role::Active,
        _ => Role::Passive,
    };
    own.dtls = Some(Box::new(Dtls { setup: setup.into(), fingerprints: prints(theirs) }));
    own.ice = match (&ours.ice, full(theirs)) {
        (Some(mine), Some(theirs)) => Some(Box::new(Ice {
            ufrag: mine.ufrag.clone(),
            password: mine.password.clone(),
            peer_ufrag: theirs.ufrag.clone(),
        })),
        _ => None,
    };
    own.rtcp_mux = true;
}

/// Our end of a leg's line: `Some(None)` of one without a handshake. `None`: the data plane has no certificate for it, and
/// the line must be refused. `print`: that certificate's.
pub(crate) fn end(leg: &RtpLeg, answering: bool, print: Option<[u8; 32]>) -> Option<Option<DtlsEnd>> {
    let Some(dtls) = leg.dtls.as_deref() else { return Some(None) };
    let setup = match (answering, dtls.setup()) {
        // RFC 5763 §5: an offer leaves it to the peer.
        (false, _) => Setup::ActPass,
        (true, Role::Active) => Setup::Active,
        (true, Role::Passive) => Setup::Passive,
    };
    let ice = leg.ice.as_deref().map(|ice| (ice.ufrag.clone(), ice.password.clone()));
    Some(Some(DtlsEnd { setup, fingerprint: Fingerprint::sha256(print?), ice }))
}

/// A leg whose keys come of a handshake.
pub(crate) fn is_dtls(leg: &Leg) -> bool {
    matches!(&leg.kind, Some(leg::Kind::Rtp(rtp)) if rtp.dtls.is_some())
}
