//! History-Info (RFC 7044): where a request has been meant for. Who asks for it, or has some already, gets an entry for
//! each target of ours that is another than the one before.

use sip::typed::HistoryInfo;
use sip::{Name, Request};

use super::leg::Target;

/// Entries beyond which none is added: a request that has been to so many places says enough.
const ENTRIES_MAX: usize = 64;

/// Octets of an index beyond which none is made from it.
const INDEX_MAX: usize = 128;

/// Writes the entry of this leg into its request, which has the entries of the one that came.
pub(crate) fn extend(next: &mut Request, origin: &Request, target: &Target) {
    if target.is_outside() && is_private(origin) {
        // RFC 7044 §10.1.2: it does not leave the domain.
        next.headers.remove(&Name::HistoryInfo);
        return;
    }
    let asked = origin.headers.has_token(&Name::Supported, "histinfo");
    let Ok(entries) = origin.headers.all::<HistoryInfo>() else { return };
    if entries.len() >= ENTRIES_MAX || (entries.is_empty() && !asked) {
        return;
    }
    let last = match entries.last() {
        Some(last) => last.params.get("index").unwrap_or_default().to_owned(),
        None => {
            // §7.1: the first one is what was asked for.
            next.headers.push(Name::HistoryInfo, format!("<{}>;index=1", origin.uri));
            "1".to_owned()
        }
    };
    let is_index = last.len() <= INDEX_MAX
        && !last.is_empty()
        && last.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    if !is_index || target.uri == origin.uri {
        return;
    }
    // §10.3: each branch of a fork counts up; §10.4: a registered contact of what was asked for.
    let branch = target.branch.max(1);
    let entry = format!("<{}>;index={last}.{branch};rc={last}", target.uri);
    next.headers.push(Name::HistoryInfo, entry);
}

/// RFC 7044 §10.1: privacy of the history, or of all headers.
fn is_private(origin: &Request) -> bool {
    let asked = origin.headers.values(&Name::Privacy).flat_map(|v| v.split(|b| *b == b';'));
    let wanted = ["history", "header", "session"];
    asked.map(<[u8]>::trim_ascii).any(|v| wanted.iter().any(|w| v.eq_ignore_ascii_case(w.as_bytes())))
}
