//! Answers without a transaction (RFC 3261 §8.2.7): nothing is kept of the request, and its ACK is known by its To tag.

use base::{Instant, Outbox};
use sha2::{Digest, Sha256};

use super::id::TxId;
use super::{Dropped, Output, Stack, emit, stamp};
use crate::hop;
use crate::message::Request;
use crate::method::Method;
use crate::name::Name;
use crate::overload::Shed;
use crate::peer::Peer;

impl Stack {
    /// A request that is too much. One that has its transaction is that one's business.
    pub(super) fn on_shed(
        &mut self,
        now: Instant,
        peer: Peer,
        mut request: Request,
        (why, retry_after_s): (Shed, u32),
        out: &mut Outbox<Output>,
    ) {
        let Ok(mut via) = request.top_via() else { return };
        let id = TxId::of_request(&request, &via);
        if matches!(request.method, Method::Ack | Method::Cancel) || self.again(now, &id, out) {
            return;
        }
        hop::note_source(&mut via, peer.addr);
        request.headers.replace_first_value(&Name::Via, &via.to_string());
        let reply = hop::response_peer(&via, peer);
        self.count(Dropped::Shed(why));
        // RFC 7339 §5.10.2: who supports it learns from `oc` how much to send; Retry-After would be "nothing at all".
        let retry_after_s = (!via.params.has("oc")).then_some(retry_after_s);
        self.refuse(503, retry_after_s, &request, reply, out);
    }

    /// Answers without a transaction.
    pub(super) fn refuse(
        &self,
        code: u16,
        retry_after_s: Option<u32>,
        request: &Request,
        to: Peer,
        out: &mut Outbox<Output>,
    ) {
        let mut response = request.respond(code);
        if let Some(seconds) = retry_after_s.filter(|seconds| *seconds > 0) {
            response.headers.push(Name::RetryAfter, seconds.to_string());
        }
        if let Some(tag) = refusal_tag(request) {
            response.set_to_tag(&tag);
        }
        stamp(self.advice.as_ref(), &mut response);
        emit(out, Output::Transmit { peer: to, bytes: response.to_bytes() });
    }
}

/// The To tag of an answer without a transaction, by what the ACK of an INVITE shares with it (RFC 3261 §17.1.1.3).
fn refusal_tag(request: &Request) -> Option<String> {
    let via = request.top_via().ok()?;
    let (branch, seq) = (via.branch().unwrap_or_default(), request.cseq().ok()?.seq);
    let mut hash = Sha256::new();
    for part in [branch.as_bytes(), request.call_id()?.as_bytes(), &seq.to_be_bytes()] {
        hash.update(part);
        hash.update([0]);
    }
    Some(hex::encode(hash.finalize().get(..REFUSAL_TAG / 2)?))
}

/// Octets of such a tag: no other one of ours is as long.
const REFUSAL_TAG: usize = 20;

pub(super) fn is_refusal_tag(tag: &str, ack: &Request) -> bool {
    tag.len() == REFUSAL_TAG && refusal_tag(ack).is_some_and(|own| own == tag)
}
