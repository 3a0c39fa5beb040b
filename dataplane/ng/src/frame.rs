//! One message: a cookie, a blank, and a dictionary in bencode or JSON. A reply repeats the cookie and the writing.

use crate::value::{Malformed, Value};
use crate::{bencode, json};

/// The longest cookie that is taken.
pub const COOKIE_MAX: usize = 128;
/// The longest message that is taken; a datagram cannot be longer.
pub const MESSAGE_MAX: usize = 65_535;

/// How a message is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// Bencode.
    Bencode,
    /// JSON.
    Json,
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Names it; a retransmission has the same.
    pub cookie: Vec<u8>,
    /// How it is written.
    pub encoding: Encoding,
    /// A dictionary.
    pub body: Value,
}

impl Frame {
    /// Reads one message off the front; also how many octets it took.
    pub fn read(octets: &[u8]) -> Result<(Frame, usize), Malformed> {
        let blank = octets.iter().take(COOKIE_MAX + 1).position(|c| *c == b' ');
        let blank = match blank {
            Some(0) => return Err(Malformed::Syntax),
            Some(blank) => blank,
            None if octets.len() > COOKIE_MAX => return Err(Malformed::Syntax),
            None => return Err(Malformed::Incomplete),
        };
        let (cookie, rest) = octets.split_at_checked(blank).ok_or(Malformed::Incomplete)?;
        if !cookie.iter().all(u8::is_ascii_graphic) {
            return Err(Malformed::Syntax);
        }
        let body = rest.get(1..).unwrap_or_default();
        let encoding = match body.first() {
            Some(b'd') => Encoding::Bencode,
            Some(b'{') => Encoding::Json,
            Some(_) => return Err(Malformed::Syntax),
            None => return Err(Malformed::Incomplete),
        };
        let (body, length) = match encoding {
            Encoding::Bencode => bencode::read(body)?,
            Encoding::Json => json::read(body)?,
        };
        Ok((Frame { cookie: cookie.to_vec(), encoding, body }, blank + 1 + length))
    }

    /// As it goes out.
    pub fn to_octets(&self) -> Vec<u8> {
        let mut octets = self.cookie.clone();
        octets.push(b' ');
        match self.encoding {
            Encoding::Bencode => bencode::write(&self.body, &mut octets),
            Encoding::Json => json::write(&self.body, &mut octets),
        }
        octets
    }
}

/// The first message of a stream, taken off its front; `None` when more has to come. After an error the stream cannot be
/// read on.
pub fn next(stream: &mut Vec<u8>) -> Result<Option<Vec<u8>>, Malformed> {
    let start = stream.iter().position(|c| !c.is_ascii_whitespace()).unwrap_or(stream.len());
    stream.drain(..start);
    match Frame::read(stream) {
        Ok((_, length)) => Ok(Some(stream.drain(..length).collect())),
        Err(Malformed::Incomplete) if stream.len() <= MESSAGE_MAX => Ok(None),
        Err(error) => Err(error),
    }
}
