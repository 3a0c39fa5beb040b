#![forbid(unsafe_code)]
//! What the fuzz targets in `tests/` share: how octets become pieces of a stream, or a script of events.
//!
//! Each target is a test. `cargo test -p fuzz` replays its corpus (`tests/__fuzz__/`), and nothing that another run would not
//! (`BOLERO_RANDOM_ITERATIONS=100000` adds what a generator makes); `tests/fuzz/run` lets libFuzzer look for new ways, and keeps what it found.

mod room;

pub use room::Room;

/// A fuzz target: `target!().for_each(|octets| ..)`.
#[macro_export]
macro_rules! target {
    () => {
        bolero::check!().with_iterations(0)
    };
}

/// Between two events of a script. No text protocol uses it, so that a mutation of one event stays in it.
const NEXT: u8 = 0x1e;

/// The events of a script: what kind (the first octet), and the octets that belong to it.
pub fn script(data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    data.split(|octet| *octet == NEXT)
        .filter_map(|event| event.split_first().map(|(kind, rest)| (*kind, rest)))
}

/// Cuts a stream into the pieces in which it arrives: `how` = 0 octet by octet, else pieces of varying length, up to `how`.
pub fn pieces(how: u8, stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut state) = (stream, u32::from(how));
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = 1 + if how == 0 { 0 } else { (state >> 16) as usize % usize::from(how) };
        let (piece, tail) = rest.split_at(length.min(rest.len()));
        rest = tail;
        Some(piece)
    })
}
