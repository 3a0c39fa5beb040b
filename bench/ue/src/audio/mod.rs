//! Sound for tests: mu-law, WAV files, a speech-like voice, and a probe hidden in the samples.
//!
//! Not here: RTP (see `flow`).

mod probe;
mod ulaw;
mod voice;
mod wav;

pub use probe::{PROBE_SAMPLES, Probe};
pub use ulaw::{ulaw_decode, ulaw_encode};
pub use voice::{correlation, voice};
pub use wav::{WavError, read_wav, write_wav};

/// Samples per second of everything here (PCMU, RFC 3551 §4.5.14).
pub const SAMPLE_RATE: u32 = 8000;
/// Samples in one 20 ms packet.
pub const FRAME_SAMPLES: usize = 160;
