//! Finds the end of a head (RFC 4975 §9): the empty line, or the end-line where there is no body.

use super::Broken;
use crate::{Flag, Tid};

/// What the first octets of a head tell.
pub(super) enum Scan {
    /// The header lines end at `lines`, the empty line or end-line at `whole`.
    End { lines: usize, whole: usize, tid: Tid, flag: Option<Flag> },
    /// The end has not come; lines up to `line` are known to be good.
    More { line: usize, tid: Option<Tid> },
}

/// Looks for the end of a head that begins at the first octet, going on at `line`.
pub(super) fn scan(head: &[u8], mut line: usize, mut tid: Option<Tid>, max: usize) -> Result<Scan, Broken> {
    let window = head.get(..max.min(head.len())).unwrap_or_default();
    loop {
        let rest = window.get(line..).unwrap_or_default();
        // Told by the first wrong octet, so that the verdict is the same however the octets come.
        if tid.is_none() && !START.starts_with(rest.get(..START.len()).unwrap_or(rest)) {
            return Err(Broken::Start);
        }
        let end = memchr::memchr2(b'\r', b'\n', rest);
        let (text, next) = match end.and_then(|end| rest.get(..end).zip(rest.get(end..))) {
            Some((text, [b'\r', b'\n', ..])) => (text, line + text.len() + 2),
            Some((_, [b'\r'])) | None => {
                let full = head.len() >= max;
                return if full { Err(Broken::HeadTooLong) } else { Ok(Scan::More { line, tid }) };
            }
            Some(_) => return Err(Broken::LineEnd),
        };
        match tid {
            None => tid = Some(start_line(text)?),
            Some(tid) if text.is_empty() => {
                return Ok(Scan::End { lines: line, whole: next, tid, flag: None });
            }
            Some(tid) => {
                if let Some(rest) = text.strip_prefix(HYPHENS) {
                    let flag = end_line_flag(rest, &tid).ok_or(Broken::EndLine)?;
                    return Ok(Scan::End { lines: line, whole: next, tid, flag: Some(flag) });
                }
            }
        }
        line = next;
    }
}

const START: &[u8] = b"MSRP ";
const HYPHENS: &[u8] = b"-------";

/// The transaction id of a start line; the rest of the line is the head's business.
fn start_line(text: &[u8]) -> Result<Tid, Broken> {
    let rest = text.strip_prefix(START).ok_or(Broken::Start)?;
    let end = memchr::memchr(b' ', rest).ok_or(Broken::Start)?;
    Tid::parse(rest.get(..end).unwrap_or_default()).map_err(|_| Broken::Start)
}

fn end_line_flag(rest: &[u8], tid: &Tid) -> Option<Flag> {
    match rest.strip_prefix(tid.as_bytes())? {
        [flag] => Flag::from_octet(*flag),
        _ => None,
    }
}
