//! Session keys from a master key (RFC 3711 §4.3; RFC 6188 §3; RFC 7714 §11), with a key derivation rate of zero:
//! once, at index 0.

use super::{CounterMode, Crypto, Keying, SrtpError};

/// What a session key is for (RFC 3711 §4.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Label {
    RtpCipher = 0,
    RtpAuth = 1,
    RtpSalt = 2,
    RtcpCipher = 3,
    RtcpAuth = 4,
    RtcpSalt = 5,
}

/// The session key of a label, of any length up to that of the longest (32).
pub(super) fn derive<C: Crypto>(
    keying: &Keying,
    label: Label,
    octets: usize,
) -> Result<([u8; 32], usize), SrtpError> {
    // x = key_id XOR master_salt, both 112 bits with the label at octet 7; a salt of 96 bits is filled up with zeros
    // at its end (RFC 7714 §11). The counter takes the last two octets.
    let mut iv = [0; 16];
    iv.iter_mut().zip(keying.salt()).for_each(|(to, from)| *to = *from);
    iv[7] ^= label as u8;
    let cipher = C::counter(keying.key()).ok_or(SrtpError::Cipher)?;
    let mut key = [0; 32];
    let used = key.get_mut(..octets).ok_or(SrtpError::Cipher)?;
    if !cipher.apply(&iv, used) {
        return Err(SrtpError::Cipher);
    }
    Ok((key, octets))
}
