//! a=crypto (RFC 4568): one master key per line and direction, in `RTP/SAVP` and `RTP/SAVPF`.
//!
//! What is not supported makes a line as if it were not there, so that the next one may be chosen: other suites (§6.2),
//! master key identifiers and with them several keys (§6.1), key lifetimes below [`LIFETIME_MIN`], and the session
//! parameters of §6.3 but `WSH` (a hint) and those that say by `-` that they may be ignored. A line that breaks the
//! grammar makes the description a bad one.

use std::fmt;

use base::{Entropy, Private};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::{Rtp, SdpError};

/// a=crypto lines of one media line that are looked at.
pub(crate) const LINES_MAX: usize = 16;

/// The shortest lifetime of a peer's key that is taken, in packets: below it a call could outlive its key. (Its owner
/// must send another key in time, §6.1; we do not count its packets.)
pub const LIFETIME_MIN: u64 = 1 << 20;

/// A crypto suite (RFC 4568 §6.2, RFC 6188 §4, RFC 7714 §14.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CryptoSuite {
    /// `AES_CM_128_HMAC_SHA1_80`
    AesCm128HmacSha1_80,
    /// `AES_CM_128_HMAC_SHA1_32`
    AesCm128HmacSha1_32,
    /// `AES_256_CM_HMAC_SHA1_80`
    AesCm256HmacSha1_80,
    /// `AES_256_CM_HMAC_SHA1_32`
    AesCm256HmacSha1_32,
    /// `AEAD_AES_128_GCM`
    AeadAes128Gcm,
    /// `AEAD_AES_256_GCM`
    AeadAes256Gcm,
}

impl CryptoSuite {
    /// Every suite, strongest and cheapest first.
    pub const ALL: [CryptoSuite; 6] = [
        CryptoSuite::AeadAes256Gcm,
        CryptoSuite::AeadAes128Gcm,
        CryptoSuite::AesCm256HmacSha1_80,
        CryptoSuite::AesCm128HmacSha1_80,
        CryptoSuite::AesCm256HmacSha1_32,
        CryptoSuite::AesCm128HmacSha1_32,
    ];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            CryptoSuite::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            CryptoSuite::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
            CryptoSuite::AesCm256HmacSha1_80 => "AES_256_CM_HMAC_SHA1_80",
            CryptoSuite::AesCm256HmacSha1_32 => "AES_256_CM_HMAC_SHA1_32",
            CryptoSuite::AeadAes128Gcm => "AEAD_AES_128_GCM",
            CryptoSuite::AeadAes256Gcm => "AEAD_AES_256_GCM",
        }
    }

    /// The suite of a name; names have no case (RFC 4568 §9.2 takes RFC 4566's tokens, peers write capitals).
    pub fn parse(name: &str) -> Option<Self> {
        CryptoSuite::ALL.into_iter().find(|suite| suite.as_str().eq_ignore_ascii_case(name))
    }

    /// Octets of master key and salt together.
    pub const fn key_octets(self) -> usize {
        match self {
            CryptoSuite::AesCm128HmacSha1_80 | CryptoSuite::AesCm128HmacSha1_32 => 16 + 14,
            CryptoSuite::AesCm256HmacSha1_80 | CryptoSuite::AesCm256HmacSha1_32 => 32 + 14,
            CryptoSuite::AeadAes128Gcm => 16 + 12,
            CryptoSuite::AeadAes256Gcm => 32 + 12,
        }
    }
}

/// One a=crypto line: the key with which its writer sends.
#[derive(Clone, PartialEq, Eq)]
pub struct Crypto {
    /// Names the line; an answer repeats it.
    pub tag: u32,
    /// The suite.
    pub suite: CryptoSuite,
    key: Private<Vec<u8>>,
}

impl Crypto {
    /// Of a master key with its salt; `None`: not the suite's length, or no tag.
    pub fn new(tag: u32, suite: CryptoSuite, key: &[u8]) -> Option<Self> {
        let fits = key.len() == suite.key_octets() && (1..=999_999_999).contains(&tag);
        fits.then(|| Crypto { tag, suite, key: Private::new(key.to_vec()) })
    }

    /// With a fresh key.
    pub fn draw(tag: u32, suite: CryptoSuite, entropy: &mut Entropy) -> Self {
        let mut key = vec![0; suite.key_octets()];
        entropy.fill(&mut key);
        Crypto { tag: tag.clamp(1, 999_999_999), suite, key: Private::new(key) }
    }

    /// Master key and salt, one after the other.
    pub fn key(&self) -> &[u8] {
        self.key.expose()
    }

    /// Reads a value. `Ok(None)`: legal, and not supported.
    pub(crate) fn parse(value: &str) -> Result<Option<Self>, SdpError> {
        let mut words = value.split_ascii_whitespace();
        let tag = words.next().filter(|t| t.len() <= 9 && t.bytes().all(|c| c.is_ascii_digit()));
        let tag: u32 = tag.and_then(|t| t.parse().ok()).filter(|t| *t > 0).ok_or(SdpError::Attribute)?;
        let (Some(suite), Some(keys)) = (words.next(), words.next()) else { return Err(SdpError::Attribute) };
        let Some(suite) = CryptoSuite::parse(suite) else { return Ok(None) };
        // §6.3: a parameter that is not known refuses the line, unless it begins with a minus.
        let ignorable = |word: &str| word.starts_with('-') || is_window_hint(word);
        if !words.all(ignorable) || keys.contains(';') {
            return Ok(None);
        }
        let (method, rest) = keys.split_once(':').ok_or(SdpError::Attribute)?;
        if !method.eq_ignore_ascii_case("inline") {
            return Ok(None);
        }
        let mut fields = rest.split('|');
        let key = fields.next().and_then(|k| STANDARD.decode(k).ok()).ok_or(SdpError::Attribute)?;
        if key.len() != suite.key_octets() {
            return Err(SdpError::Attribute);
        }
        for (place, field) in fields.enumerate() {
            match field.split_once(':') {
                // An MKI would be in every packet.
                Some(_) => return Ok(None),
                None if place > 0 => return Err(SdpError::Attribute),
                None if lifetime(field).ok_or(SdpError::Attribute)? < LIFETIME_MIN => return Ok(None),
                None => {}
            }
        }
        Ok(Some(Crypto { tag, suite, key: Private::new(key) }))
    }

    /// The value on the wire. Holds the key: for the description only.
    pub(crate) fn to_value(&self) -> String {
        format!("{} {} inline:{}", self.tag, self.suite.as_str(), STANDARD.encode(self.key()))
    }
}

/// Keys stay out of logs.
impl fmt::Debug for Crypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crypto({} {})", self.tag, self.suite.as_str())
    }
}

/// `WSH=nn`: a hint for the replay window, at least 64 (§6.3.5 ff.).
fn is_window_hint(word: &str) -> bool {
    word.strip_prefix("WSH=").and_then(|n| n.parse::<u32>().ok()).is_some_and(|n| n >= 64)
}

/// Packets: a number, or a power of two up to 2^48.
fn lifetime(field: &str) -> Option<u64> {
    let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse::<u64>().ok());
    let packets = match field.strip_prefix("2^") {
        Some(power) => 1 << digits(power)?.filter(|p| *p <= 48)?,
        None => digits(field)??,
    };
    (1..=1 << 48).contains(&packets).then_some(packets)
}

impl Rtp {
    /// The line that we take of an offer: the first in its order (RFC 4568 §5.1.2) whose suite we allow.
    pub fn choose_crypto(&self, allowed: &[CryptoSuite]) -> Option<&Crypto> {
        self.crypto.iter().find(|line| allowed.contains(&line.suite))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Accept, AcceptBody, AcceptRtp, Anchor, Choice, Direction, Host, Limits, Origin, Proto, RtpAnchor,
        Session, check_answer,
    };
    use proptest::prelude::*;

    const KEY: &str = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
    const KEY_32: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKiss";

    fn session(lines: &str) -> Result<Session, SdpError> {
        let text = format!(
            "v=0\r\no=- 7 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n{}",
            lines.replace('\n', "\r\n")
        );
        Session::parse(text.as_bytes(), &Limits::default())
    }

    #[test]
    fn rfc4568_s6_lines() {
        let taken = |value: &str| Crypto::parse(value).map(|c| c.map(|c| (c.tag, c.suite)));
        let cm80 = CryptoSuite::AesCm128HmacSha1_80;
        for (value, expected) in [
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), Ok(Some((1, cm80)))),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^48"), Ok(Some((1, cm80)))),
            (format!("7 aes_cm_128_hmac_sha1_80 INLINE:{KEY}|2^20 WSH=64 -X=1"), Ok(Some((7, cm80)))),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1048576"), Ok(Some((1, cm80)))),
            // Not supported: the line is as if it were not there.
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^20|1:32"), Ok(None)),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:4"), Ok(None)),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^19"), Ok(None)),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|1:4;inline:{KEY}|2:4"), Ok(None)),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} KDR=1"), Ok(None)),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} UNENCRYPTED_SRTCP"), Ok(None)),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY} WSH=63"), Ok(None)),
            (format!("1 F8_128_HMAC_SHA1_80 inline:{KEY}"), Ok(None)),
            (format!("1 AES_CM_128_HMAC_SHA1_80 uri:{KEY}"), Ok(None)),
            // No a=crypto line at all.
            (String::new(), Err(SdpError::Attribute)),
            ("1 AES_CM_128_HMAC_SHA1_80".to_owned(), Err(SdpError::Attribute)),
            (format!("0 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), Err(SdpError::Attribute)),
            (format!("1234567890 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), Err(SdpError::Attribute)),
            (format!("+1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"), Err(SdpError::Attribute)),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}="), Err(SdpError::Attribute)),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{}", &KEY[4..]), Err(SdpError::Attribute)),
            (format!("1 AEAD_AES_128_GCM inline:{KEY}"), Err(SdpError::Attribute)),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^49"), Err(SdpError::Attribute)),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|"), Err(SdpError::Attribute)),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^31|2^31"), Err(SdpError::Attribute)),
            (format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^"), Err(SdpError::Attribute)),
        ] {
            assert_eq!(taken(&value), expected, "{value}");
        }
        let (wide, _) = (taken(&format!("2 AEAD_AES_256_GCM inline:{}", &KEY_32[..60])), ());
        assert_eq!(wide, Err(SdpError::Attribute), "45 octets");
        assert_eq!(STANDARD.decode(KEY).unwrap().len(), 30);
    }

    #[test]
    fn rfc4568_s5_1_an_offer_is_answered_with_its_tag_and_another_key() {
        let offer = session(&format!(
            "m=audio 9000 RTP/SAVP 0\na=crypto:1 F8_128_HMAC_SHA1_80 inline:{KEY}\n\
             a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:{KEY}\na=crypto:3 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^31\n"
        ))
        .unwrap();
        let rtp = offer.lines[0].rtp().unwrap();
        assert_eq!(rtp.crypto.iter().map(|c| c.tag).collect::<Vec<_>>(), [2, 3]);
        let chosen = rtp.choose_crypto(&[CryptoSuite::AesCm128HmacSha1_80]).unwrap();
        assert_eq!(chosen.tag, 3);
        assert_eq!(rtp.choose_crypto(&[CryptoSuite::AeadAes128Gcm]), None);
        let own = Crypto::draw(chosen.tag, chosen.suite, &mut Entropy::from_number(1));
        let answer = |crypto: Option<Crypto>| {
            let host = Host::Ip([198, 51, 100, 1].into());
            crate::answer(&offer, Origin::new(1, 1, host.clone()), host, |_, _| {
                let body = AcceptBody::Rtp(AcceptRtp { crypto: crypto.clone(), ..AcceptRtp::default() });
                let direction = Direction::SendRecv;
                Choice::accept(Accept {
                    host: None,
                    port: 4000,
                    direction,
                    fingerprints: vec![],
                    label: None,
                    body,
                })
            })
        };
        let taken = answer(Some(own.clone()));
        assert_eq!(check_answer(&offer, &taken), Ok(()));
        let text = String::from_utf8(taken.to_bytes().to_vec()).unwrap();
        let line = format!("a=crypto:3 AES_CM_128_HMAC_SHA1_80 inline:{}\r\n", STANDARD.encode(own.key()));
        assert!(text.contains(&line) && text.contains("m=audio 4000 RTP/SAVP 0\r\n"), "{text}");
        assert_eq!(Session::parse(text.as_bytes(), &Limits::default()).unwrap(), taken);
        // Without a key, or with one that answers nothing, the line is refused.
        assert!(answer(None).lines[0].is_refused());
        assert!(answer(Crypto::new(2, own.suite, own.key())).lines[0].is_refused());
        assert!(answer(Crypto::new(1, own.suite, own.key())).lines[0].is_refused());
    }

    // §5.1.3: exactly one line, of the offer's tag and suite.
    #[test]
    fn rfc4568_s5_1_3_answers_that_do_not_fit_are_found() {
        let lines = |crypto: &str| session(&format!("m=audio 9 RTP/SAVP 0\n{crypto}")).unwrap();
        let one = format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\n");
        let offer = lines(&one);
        assert_eq!(check_answer(&offer, &lines(&one)), Ok(()));
        for wrong in [
            String::new(),
            format!("{one}{one}"),
            one.replace(":1 ", ":2 "),
            one.replace("SHA1_80", "SHA1_32"),
            one.replace("\n", "|1:1\n"),
        ] {
            assert_eq!(check_answer(&offer, &lines(&wrong)), Err(SdpError::Mismatch), "{wrong}");
        }
        let plain = session("m=audio 9 RTP/AVP 0\n").unwrap();
        assert_eq!(check_answer(&offer, &plain), Err(SdpError::Mismatch));
    }

    #[test]
    fn keys_end_at_the_middlebox_and_are_bounded_and_unprinted() {
        let line = format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\n");
        let secure = session(&format!("m=audio 9 RTP/SAVPF 0\n{line}")).unwrap();
        let plain = session("m=audio 9 RTP/AVP 0\n").unwrap();
        let anchor = |crypto: Vec<Crypto>| {
            Anchor::Rtp(RtpAnchor {
                host: Host::Ip([198, 51, 100, 1].into()),
                port: 4000,
                rtcp_mux: false,
                rtcp_port: None,
                crypto,
                dtls: None,
            })
        };
        let ours = Crypto::draw(5, CryptoSuite::AeadAes128Gcm, &mut Entropy::from_number(1));
        for (line, crypto, proto) in [
            (&secure.lines[0], vec![], Proto::RtpAvpf),
            (&secure.lines[0], vec![ours.clone()], Proto::RtpSavpf),
            (&plain.lines[0], vec![ours.clone()], Proto::RtpSavp),
            (&plain.lines[0], vec![], Proto::RtpAvp),
        ] {
            let anchored = line.anchored(&anchor(crypto.clone())).unwrap();
            assert_eq!((&anchored.proto, &anchored.rtp().unwrap().crypto), (&proto, &crypto));
        }
        let printed = format!("{secure:?} {:?} {ours:?}", secure.lines[0].rtp());
        assert!(!printed.contains(&KEY[..6]) && !printed.contains(&format!("{:?}", ours.key())), "{printed}");
        assert_eq!(session(&format!("m=audio 9 RTP/SAVP 0\n{}", line.repeat(17))), Err(SdpError::Attribute));
        assert!(session("m=audio 9 RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\n").is_err());
        // In a plain line it means nothing (§5.1): it is not looked at and does not pass.
        let odd = session("m=audio 9 RTP/AVP 0\na=crypto:nothing\n").unwrap();
        assert!(!odd.lines[0].anchored(&anchor(vec![])).unwrap().has("crypto"));
    }

    proptest! {
        #[test]
        fn values_of_any_kind_never_panic(value in "[ -~]{0,120}", tail in "[0-9^|:; ]{0,20}") {
            let _ = Crypto::parse(&value);
            let _ = Crypto::parse(&format!("1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}{tail}"));
        }
    }
}
