//! Cuts a message that is at hand into chunks (RFC 4975 §5.1, §7.1.1).

use bytes::Bytes;

use crate::{ByteRange, Flag};

/// Chunks up to this many octets may name their end; longer ones must be interruptible (RFC 4975 §7.1.1).
const NAMED_END_MAX: u64 = 2048;

/// One chunk to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// For the Byte-Range line.
    pub range: ByteRange,
    /// The octets, shared with the message.
    pub data: Bytes,
    /// For the end-line.
    pub flag: Flag,
}

/// Gives out the chunks of one message, in order.
#[derive(Clone, Debug)]
pub struct Chunker {
    rest: Bytes,
    total: u64,
    sent: u64,
    chunk_max: usize,
    done: bool,
}

impl Chunker {
    /// Of a message, in chunks of at most `chunk_max` octets; less than 2048 is raised to that, because shorter
    /// ones are only for a message's last piece (RFC 4975 §7.1.1).
    pub fn new(body: Bytes, chunk_max: usize) -> Self {
        Chunker { total: body.len() as u64, rest: body, sent: 0, chunk_max: chunk_max.max(2048), done: false }
    }

    /// The next one; `None` after the last. A message without octets is one chunk without octets.
    pub fn next_chunk(&mut self) -> Option<Chunk> {
        if self.done {
            return None;
        }
        let data = self.rest.split_to(self.rest.len().min(self.chunk_max));
        let len = data.len() as u64;
        let start = self.sent + 1;
        self.sent += len;
        self.done = self.rest.is_empty();
        let end = (len <= NAMED_END_MAX).then_some(self.sent);
        let flag = if self.done { Flag::Last } else { Flag::More };
        Some(Chunk { range: ByteRange { start, end, total: Some(self.total) }, data, flag })
    }

    /// The chunk that gives the message up, if any of it went out and not all: no octets, flag `#`.
    pub fn abort(&mut self) -> Option<Chunk> {
        let begun = self.sent > 0 && !self.done;
        self.done = true;
        self.rest = Bytes::new();
        begun.then(|| Chunk {
            range: ByteRange { start: self.sent + 1, end: Some(self.sent), total: Some(self.total) },
            data: Bytes::new(),
            flag: Flag::Abort,
        })
    }

    /// Every chunk was given out.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Octets of the whole message.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Octets given out.
    pub fn sent(&self) -> u64 {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(len: usize, max: usize) -> Vec<(String, usize, Flag)> {
        let mut chunker = Chunker::new(Bytes::from(vec![7; len]), max);
        std::iter::from_fn(|| chunker.next_chunk())
            .map(|c| (c.range.to_string(), c.data.len(), c.flag))
            .collect()
    }

    #[test]
    fn rfc4975_s7_1_1_long_chunks_are_interruptible() {
        assert_eq!(chunks(0, 4096), [("1-0/0".to_owned(), 0, Flag::Last)]);
        assert_eq!(chunks(2048, 4096), [("1-2048/2048".to_owned(), 2048, Flag::Last)]);
        assert_eq!(
            chunks(8200, 4096),
            [
                ("1-*/8200".to_owned(), 4096, Flag::More),
                ("4097-*/8200".to_owned(), 4096, Flag::More),
                ("8193-8200/8200".to_owned(), 8, Flag::Last),
            ]
        );
        assert_eq!(chunks(4096, 1)[0], ("1-2048/4096".to_owned(), 2048, Flag::More));
    }

    #[test]
    fn an_abort_is_said_only_of_what_was_begun() {
        let body = Bytes::from(vec![7; 5000]);
        assert_eq!(Chunker::new(body.clone(), 2048).abort(), None);
        let mut begun = Chunker::new(body, 2048);
        begun.next_chunk();
        let abort = begun.abort().unwrap();
        assert_eq!((abort.range.to_string().as_str(), abort.flag), ("2049-2048/5000", Flag::Abort));
        assert_eq!((begun.next_chunk(), begun.abort()), (None, None));
    }
}
