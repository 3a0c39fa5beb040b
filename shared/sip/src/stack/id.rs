//! How messages are matched to transactions: RFC 3261 §17.1.3 and §17.2.3, and ACKs of 2xx to their INVITE.

use sha2::{Digest, Sha256};

use crate::message::{Request, Response};
use crate::method::Method;
use crate::name::Name;
use crate::typed::{CSeq, From, To, Via};

/// A transaction as its messages name it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct TxId(Box<str>);

impl TxId {
    /// Of a request that arrived, by its topmost Via. ACK names the INVITE that it acknowledges.
    ///
    /// With a unique branch: branch, sent-by, method. Without (RFC 2543, RFC 4475 §3.2.1): Request-URI, From
    /// tag, Call-ID, CSeq number, the whole Via; the To tag is left out so that an ACK, which has one more
    /// than its INVITE, is found.
    pub(super) fn of_request(request: &Request, via: &Via) -> TxId {
        let method = if request.method == Method::Ack { &Method::Invite } else { &request.method };
        TxId::with_method(request, via, method)
    }

    /// Of the INVITE that a CANCEL is for (§9.2).
    pub(super) fn of_cancelled(request: &Request, via: &Via) -> TxId {
        TxId::with_method(request, via, &Method::Invite)
    }

    fn with_method(request: &Request, via: &Via, method: &Method) -> TxId {
        let text = match via.unique_branch() {
            Some(branch) => format!("{branch} {} {method}", via.sent_by.to_string().to_ascii_lowercase()),
            None => {
                let seq = request.cseq().map(|c| c.seq).unwrap_or_default();
                let tag = request.from_tag().unwrap_or_default();
                let call_id = request.call_id().unwrap_or_default();
                format!("{} {tag} {call_id} {seq} {via} {method}", request.uri)
            }
        };
        TxId::bounded(text)
    }

    /// A long name is kept as its digest, so that a peer cannot make the tables heavy.
    fn bounded(text: String) -> TxId {
        const LEN_MAX: usize = 160;
        if text.len() <= LEN_MAX {
            return TxId(text.into());
        }
        TxId(hex::encode(Sha256::digest(text)).into())
    }

    /// Of a response that arrived: branch and the method of CSeq (§17.1.3).
    pub(super) fn of_response(response: &Response) -> Option<TxId> {
        let via = response.top_via().ok()?;
        let cseq = response.cseq().ok()?;
        Some(TxId::of_client(via.branch()?, &cseq.method))
    }

    /// Of a request that we send.
    pub(super) fn of_client(branch: &str, method: &Method) -> TxId {
        TxId::bounded(format!("{branch} {method}"))
    }
}

/// An INVITE and a dialog that it made: how an ACK of a 2xx finds it (§13.2.2.4).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct AckId(Box<str>);

impl AckId {
    /// Of our 2xx, or of the ACK that arrived for it.
    pub(super) fn of(headers: &crate::Headers) -> Option<AckId> {
        let to = headers.typed::<To>().ok()??;
        let invite = AckId::of_invite(headers)?;
        Some(AckId::bounded(format!("{} {}", invite.0, to.tag()?)))
    }

    /// The same without the To tag: all the dialogs that an INVITE of ours makes.
    pub(super) fn of_invite(headers: &crate::Headers) -> Option<AckId> {
        let from = headers.typed::<From>().ok()??;
        let cseq = headers.typed::<CSeq>().ok()??;
        let call_id = headers.text(&Name::CallId)?;
        Some(AckId::bounded(format!("{call_id} {} {}", from.tag().unwrap_or_default(), cseq.seq)))
    }

    fn bounded(text: String) -> AckId {
        AckId(TxId::bounded(text).0)
    }
}
