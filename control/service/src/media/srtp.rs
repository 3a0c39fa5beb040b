//! Keys of RTP lines (RFC 4568): what a peer's a=crypto lines and ours make of the leg towards it. Every hop has keys of
//! its own; nothing of one side's reaches another.
//!
//! ```text
//!   peer offers:  offered  (its first suite that we allow, a fresh key of ours) ──▶ ours: one line, its tag
//!   we offer:     wanted   ──▶ ours: a fresh key for each suite ··· answered (the key under the tag that it took)
//! ```

use base::Entropy;
use contract::{Leg, RtpLeg, Srtp, SrtpSuite, leg};
use sdp::{Crypto, CryptoSuite, MediaLine};

use crate::config::Media;

/// The contract's word for a suite.
const fn word(suite: CryptoSuite) -> SrtpSuite {
    match suite {
        CryptoSuite::AesCm128HmacSha1_80 => SrtpSuite::AesCm128HmacSha180,
        CryptoSuite::AesCm128HmacSha1_32 => SrtpSuite::AesCm128HmacSha132,
        CryptoSuite::AesCm256HmacSha1_80 => SrtpSuite::Aes256CmHmacSha180,
        CryptoSuite::AesCm256HmacSha1_32 => SrtpSuite::Aes256CmHmacSha132,
        CryptoSuite::AeadAes128Gcm => SrtpSuite::AeadAes128Gcm,
        CryptoSuite::AeadAes256Gcm => SrtpSuite::AeadAes256Gcm,
    }
}

fn suite_of(srtp: &Srtp) -> Option<CryptoSuite> {
    CryptoSuite::ALL.into_iter().find(|suite| word(*suite) == srtp.suite())
}

fn allowed(config: &Media) -> Vec<CryptoSuite> {
    config.srtp_suites.iter().map(|suite| suite.crypto()).collect()
}

/// Whether an RTP line with keys is taken.
pub(crate) fn takes(config: &Media, line: &MediaLine) -> bool {
    let chosen = line.rtp().and_then(|rtp| rtp.choose_crypto(&allowed(config)));
    config.srtp != crate::config::Srtp::Refuse && line.proto.is_sdes() && chosen.is_some()
}

/// What a leg towards somebody else than the writer of `line` is to offer.
pub(crate) fn wanted(config: &Media, line: &MediaLine) -> Option<Box<Srtp>> {
    (line.proto.is_sdes() && config.srtp == crate::config::Srtp::Mirror).then(Box::default)
}

/// Puts keys into a leg. What was known of other keys means nothing for these.
fn put(leg: &mut RtpLeg, srtp: Option<Srtp>) {
    if leg.srtp.as_deref() != srtp.as_ref() {
        leg.srtp = srtp.map(Box::new);
        leg.continuity = None;
    }
}

/// A peer offers: its key, and ours under the same suite. Ours stays as long as its suite does.
pub(crate) fn offered(leg: &mut Leg, line: &MediaLine, config: &Media, entropy: &mut Entropy) {
    let (Some(leg::Kind::Rtp(own)), Some(rtp)) = (&mut leg.kind, line.rtp()) else { return };
    let chosen = if line.proto.is_sdes() { rtp.choose_crypto(&allowed(config)) } else { None };
    let srtp = chosen.map(|theirs| {
        let suite: i32 = word(theirs.suite).into();
        let kept = own.srtp.as_ref().filter(|old| old.suite == suite && !old.send_key.is_empty());
        let send_key = kept.map_or_else(
            || Crypto::draw(1, theirs.suite, entropy).key().to_vec(),
            |old| old.send_key.clone(),
        );
        Srtp { suite, send_key, receive_key: theirs.key().to_vec() }
    });
    put(own, srtp);
}

/// An offer and its answer have met, whoever made which: the pair of keys under one tag and suite.
pub(crate) fn answered(leg: &mut Leg, ours: &MediaLine, theirs: &MediaLine) {
    let (Some(leg::Kind::Rtp(own)), Some(sent), Some(got)) = (&mut leg.kind, ours.rtp(), theirs.rtp()) else {
        return;
    };
    let pair = sent.crypto.iter().find_map(|mine| {
        let theirs = got.crypto.iter().find(|c| c.tag == mine.tag && c.suite == mine.suite)?;
        Some((mine, theirs))
    });
    let srtp = pair.map(|(mine, theirs)| Srtp {
        suite: word(mine.suite).into(),
        send_key: mine.key().to_vec(),
        receive_key: theirs.key().to_vec(),
    });
    put(own, srtp);
}

/// Our a=crypto lines for a leg: none for a plain one; the agreed key, in an answer under the tag that the offer gave
/// its suite. `None`: keys are wanted and not there.
pub(crate) fn agreed(leg: &RtpLeg, answering: Option<&MediaLine>) -> Option<Vec<Crypto>> {
    let Some(srtp) = leg.srtp.as_deref() else { return Some(Vec::new()) };
    let suite = suite_of(srtp)?;
    let tag = match answering.and_then(MediaLine::rtp) {
        Some(rtp) => rtp.crypto.iter().find(|c| c.suite == suite && c.key() == srtp.receive_key)?.tag,
        None => 1,
    };
    Some(vec![Crypto::new(tag, suite, &srtp.send_key)?])
}

/// The same; where keys are wanted and not there, an offer has a fresh one for each suite that we allow. `None`: the line
/// must be refused.
pub(crate) fn ours(
    leg: &RtpLeg,
    answering: Option<&MediaLine>,
    config: &Media,
    entropy: &mut Entropy,
) -> Option<Vec<Crypto>> {
    if let Some(lines) = agreed(leg, answering) {
        return Some(lines);
    }
    let tags = 1u32..;
    let lines: Vec<_> =
        tags.zip(allowed(config)).map(|(tag, suite)| Crypto::draw(tag, suite, entropy)).collect();
    (!lines.is_empty() && answering.is_none()).then_some(lines)
}
