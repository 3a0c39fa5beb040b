//! What a request says beside its description: the flags that Kamailio's and OpenSIPS's modules send in ordinary use.
//! Whatever is not named here changes nothing, as with rtpengine.
//!
//! | key | taken |
//! | --- | --- |
//! | `replace` | `origin`, `session-connection` |
//! | `transport-protocol` | the plain profiles and those with SDES |
//! | `rtcp-mux` | `offer`, `remove` and `demux`, `reject` |
//! | `direction` | names of interfaces, towards the offerer and towards the answerer |
//! | `address-family`, `media-address` | of what the other side is told |
//! | `codec` | `strip`, with `except` or `offer` |
//! | `SDES` | `no-SUITE` |
//! | `received-from` | with the flag `SIP-source-address` |
//! | `flags` | `asymmetric`, `strict-source`: no learning |

use std::net::IpAddr;

use sdp::{CryptoSuite, Proto};

use crate::Value;

/// See the head of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    pub(crate) replace_origin: bool,
    pub(crate) replace_session: bool,
    pub(crate) proto: Option<Proto>,
    pub(crate) mux_offer: bool,
    pub(crate) mux_remove: bool,
    pub(crate) mux_reject: bool,
    pub(crate) directions: Vec<String>,
    pub(crate) v6: Option<bool>,
    pub(crate) media_address: Option<IpAddr>,
    pub(crate) strip: Vec<String>,
    pub(crate) keep: Vec<String>,
    pub(crate) suites: Vec<CryptoSuite>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) strict: bool,
}

impl Flags {
    /// Reads them; an error is the reason that the peer is told.
    pub(crate) fn read(body: &Value) -> Result<Flags, &'static str> {
        let mux = |word: &str| body.has("rtcp-mux", word);
        let flag = |word: &str| body.has("flags", word);
        let proto = match body.text("transport-protocol") {
            Some(words) => Some(proto(words).ok_or("Unsupported transport protocol")?),
            None => None,
        };
        let from = body.get("received-from").and_then(|from| match from {
            Value::List(items) => items.get(1),
            _ => None,
        });
        let source = match from {
            Some(Value::String(octets)) => std::str::from_utf8(octets).ok().and_then(|ip| ip.parse().ok()),
            _ => None,
        };
        let codec = |list: &str| -> Vec<String> {
            body.get("codec").map_or_else(Vec::new, |codec| codec.words(list).map(str::to_owned).collect())
        };
        let is_off = |suite: &CryptoSuite| {
            body.words("SDES").any(|word| {
                word.get(..3).is_some_and(|no| no.eq_ignore_ascii_case("no-"))
                    && CryptoSuite::parse(word.get(3..).unwrap_or_default()).as_ref() == Some(suite)
            })
        };
        Ok(Flags {
            replace_origin: body.has("replace", "origin"),
            replace_session: body.has("replace", "session-connection"),
            proto,
            mux_offer: mux("offer") || mux("require"),
            mux_remove: mux("remove") || mux("demux"),
            mux_reject: mux("reject") || mux("demux"),
            directions: body.words("direction").map(str::to_owned).take(2).collect(),
            v6: body.text("address-family").map(|family| family.eq_ignore_ascii_case("IP6")),
            media_address: body.text("media-address").and_then(|address| address.parse().ok()),
            strip: codec("strip"),
            keep: codec("except").into_iter().chain(codec("offer")).collect(),
            suites: CryptoSuite::ALL.into_iter().filter(|suite| !is_off(suite)).collect(),
            source: source.filter(|_| flag("SIP-source-address") || flag("sip source address")),
            strict: flag("asymmetric") || flag("strict-source"),
        })
    }

    /// Whether a codec does not pass.
    pub(crate) fn strips(&self, codec: &str) -> bool {
        let named = |list: &[String]| {
            // `opus/48000/2` names a codec too.
            list.iter().any(|name| name.split('/').next().unwrap_or_default().eq_ignore_ascii_case(codec))
        };
        let all = self.strip.iter().any(|name| name.eq_ignore_ascii_case("all"));
        (all || named(&self.strip)) && !named(&self.keep)
    }
}

/// The profiles that are spoken.
fn proto(words: &str) -> Option<Proto> {
    [Proto::RtpAvp, Proto::RtpAvpf, Proto::RtpSavp, Proto::RtpSavpf]
        .into_iter()
        .find(|proto| words.eq_ignore_ascii_case(proto.as_str()))
}

/// Whether a line is one that is relayed.
pub(crate) fn is_spoken(wanted: &Proto) -> bool {
    proto(wanted.as_str()).is_some()
}
