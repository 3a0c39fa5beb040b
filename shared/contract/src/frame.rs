//! Length-delimited frames on a stream: a varint with the length, then the message (prost's own delimiting).

use base::Fault;
use bytes::{Buf, BytesMut};
use prost::Message;

/// The longest frame that a reader accepts. A batch or audit part that would be longer is split by its writer.
pub const FRAME_MAX_BYTES: usize = 4 << 20;

/// Why a stream of frames cannot be read on; close it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// The length is over [`FRAME_MAX_BYTES`].
    #[error("a frame of {0} bytes is over the limit")]
    TooLong(usize),
    /// The bytes are no message of this contract.
    #[error("a frame does not decode: {0}")]
    Undecodable(#[from] prost::DecodeError),
}

impl FrameError {
    /// Always the writer's fault.
    pub const fn fault(&self) -> Fault {
        Fault::Malformed
    }
}

/// Appends one frame.
pub fn encode_frame<M: Message>(message: &M, into: &mut BytesMut) {
    into.reserve(message.encoded_len() + 10);
    if message.encode_length_delimited(into).is_err() {
        debug_assert!(false, "BytesMut grows");
    }
}

/// Takes one frame off the front; `Ok(None)` when more bytes are needed.
pub fn decode_frame<M: Message + Default>(from: &mut BytesMut) -> Result<Option<M>, FrameError> {
    let Some(prefix) = varint_len(from) else {
        return if from.len() >= 10 { Err(FrameError::TooLong(usize::MAX)) } else { Ok(None) };
    };
    let mut head = from.get(..prefix).unwrap_or_default();
    let length = prost::decode_length_delimiter(&mut head)?;
    if length > FRAME_MAX_BYTES {
        return Err(FrameError::TooLong(length));
    }
    if from.len() < prefix + length {
        from.reserve(prefix + length - from.len());
        return Ok(None);
    }
    from.advance(prefix);
    Ok(Some(M::decode(from.split_to(length))?))
}

fn varint_len(bytes: &[u8]) -> Option<usize> {
    bytes.iter().take(10).position(|b| b & 0x80 == 0).map(|last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Audit, ToDataplane, to_dataplane};

    fn audit(id: u64) -> ToDataplane {
        ToDataplane { body: Some(to_dataplane::Body::Audit(Audit { id })) }
    }

    #[test]
    fn frames_split_at_every_byte_come_whole() {
        let mut wire = BytesMut::new();
        encode_frame(&audit(7), &mut wire);
        encode_frame(&audit(u64::MAX), &mut wire);
        let (mut got, mut read) = (Vec::new(), BytesMut::new());
        for byte in wire {
            read.extend_from_slice(&[byte]);
            while let Some(frame) = decode_frame::<ToDataplane>(&mut read).unwrap() {
                got.push(frame);
            }
        }
        assert_eq!(got, [audit(7), audit(u64::MAX)]);
    }

    #[test]
    fn an_endless_or_giant_length_is_refused() {
        let mut endless = BytesMut::from(&[0xff; 10][..]);
        assert!(decode_frame::<ToDataplane>(&mut endless).is_err());
        let mut giant = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 0x0f][..]);
        assert!(matches!(decode_frame::<ToDataplane>(&mut giant), Err(FrameError::TooLong(_))));
        assert_eq!(giant.len(), 5);
    }
}
