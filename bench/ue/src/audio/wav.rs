//! WAV files, mono, 8 kHz: linear 16-bit written, linear 16-bit and mu-law read.

use super::{SAMPLE_RATE, ulaw_decode};

/// Why a file is no WAV that can be played here.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WavError {
    /// No RIFF/WAVE structure, or cut short.
    #[error("not a WAV file")]
    Malformed,
    /// Another rate, channel count or coding.
    #[error(
        "needs mono 8000 Hz, 16-bit linear or mu-law; this has {channels} channels, {rate} Hz, format {format}, {bits} bits"
    )]
    Unsupported {
        /// Channels in the file.
        channels: u16,
        /// Samples per second in the file.
        rate: u32,
        /// The coding's number in the file.
        format: u16,
        /// Bits of a sample.
        bits: u16,
    },
}

/// The bytes of a file with these samples.
pub fn write_wav(samples: &[i16]) -> Vec<u8> {
    let data = u32::try_from(samples.len() * 2).unwrap_or(u32::MAX);
    let mut file = Vec::with_capacity(44 + samples.len() * 2);
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(36 + data).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt ");
    file.extend_from_slice(&16u32.to_le_bytes());
    for short in [1u16, 1] {
        file.extend_from_slice(&short.to_le_bytes());
    }
    for long in [SAMPLE_RATE, SAMPLE_RATE * 2] {
        file.extend_from_slice(&long.to_le_bytes());
    }
    for short in [2u16, 16] {
        file.extend_from_slice(&short.to_le_bytes());
    }
    file.extend_from_slice(b"data");
    file.extend_from_slice(&data.to_le_bytes());
    for sample in samples {
        file.extend_from_slice(&sample.to_le_bytes());
    }
    file
}

/// The samples of a file's bytes.
pub fn read_wav(file: &[u8]) -> Result<Vec<i16>, WavError> {
    if file.get(..4) != Some(b"RIFF") || file.get(8..12) != Some(b"WAVE") {
        return Err(WavError::Malformed);
    }
    let (mut at, mut format) = (12, None);
    while let (Some(id), Some(length)) = (file.get(at..at + 4), long(file, at + 4)) {
        let body = file.get(at + 8..).unwrap_or(&[]);
        let body = body.get(..length as usize).unwrap_or(body);
        match id {
            b"fmt " => {
                let (Some(tag), Some(channels), Some(rate), Some(bits)) =
                    (short(body, 0), short(body, 2), long(body, 4), short(body, 14))
                else {
                    return Err(WavError::Malformed);
                };
                if channels != 1 || rate != SAMPLE_RATE || !matches!((tag, bits), (1, 16) | (7, 8)) {
                    return Err(WavError::Unsupported { channels, rate, format: tag, bits });
                }
                format = Some(tag);
            }
            b"data" => {
                return match format {
                    Some(7) => Ok(body.iter().map(|o| ulaw_decode(*o)).collect()),
                    Some(_) => {
                        Ok(body.as_chunks::<2>().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect())
                    }
                    None => Err(WavError::Malformed),
                };
            }
            _ => {}
        }
        // Chunks are padded to an even length.
        at = at.saturating_add(8).saturating_add(length as usize).saturating_add(length as usize & 1);
    }
    Err(WavError::Malformed)
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let samples: Vec<i16> = (-500..500).map(|n| n * 60).collect();
        assert_eq!(read_wav(&write_wav(&samples)), Ok(samples));
    }

    #[test]
    fn other_chunks_are_skipped_and_other_formats_refused() {
        let mut file = write_wav(&[1, 2, 3]);
        file.splice(12..12, *b"LIST\x03\x00\x00\x00abc\x00");
        assert_eq!(read_wav(&file), Ok(vec![1, 2, 3]));
        let mut stereo = write_wav(&[1]);
        stereo[22] = 2;
        assert!(matches!(read_wav(&stereo), Err(WavError::Unsupported { channels: 2, .. })));
    }

    #[test]
    fn no_prefix_of_a_file_panics() {
        let file = write_wav(&[1, 2, 3, 4]);
        for cut in 0..44 {
            let _ = read_wav(&file[..cut]);
        }
        assert_eq!(read_wav(b"RIFFxxxxWAVE"), Err(WavError::Malformed));
    }
}
