#![forbid(unsafe_code)]
//! Session descriptions and offer/answer for audio, video and message lines.
