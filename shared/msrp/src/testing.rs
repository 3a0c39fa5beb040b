//! What the tests of several modules share.

use bytes::Bytes;
use proptest::prelude::*;

use crate::{Event, Framer, Head, Limits};

/// The path lines of a request that came by a relay.
pub(crate) const PATHS: &str = "To-Path: msrp://b:2/y;tcp\nFrom-Path: msrp://r:3/z;tcp msrp://a:1/x;tcp\n";

/// Reads one message without a body and gives its head.
pub(crate) fn head(text: &str) -> Head {
    let mut bytes = Bytes::from(text.replace('\n', "\r\n"));
    match Framer::new(Limits::default()).next(&mut bytes) {
        Ok(Some(Event::Head(head))) => head,
        other => panic!("{other:?}"),
    }
}

/// An octet that is changed, put in or taken out somewhere.
pub(crate) type Edit = (prop::sample::Index, u8, u8);

/// Fewer than `max` edits.
pub(crate) fn edits(max: usize) -> impl Strategy<Value = Vec<Edit>> {
    proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 0..max)
}

/// Bytes with those edits.
pub(crate) fn edited(mut bytes: Vec<u8>, edits: Vec<Edit>) -> Vec<u8> {
    for (at, octet, kind) in edits {
        let at = at.index(bytes.len());
        match kind {
            0 => bytes[at] = octet,
            1 => bytes.insert(at, octet),
            _ => {
                bytes.remove(at);
            }
        }
    }
    bytes
}
