//! Which octets may stand where, as one table: a look-up per octet instead of a chain of comparisons.

/// `token` (RFC 3261 §25.1).
pub(crate) const TOKEN: u8 = 1;
/// `unreserved`.
pub(crate) const UNRESERVED: u8 = 2;
/// User part, with `#`, which service codes bring unescaped.
pub(crate) const USER: u8 = 4;
/// Password.
pub(crate) const PASSWORD: u8 = 8;
/// Parameter of a URI.
pub(crate) const PARAM: u8 = 16;
/// Value of a parameter: beyond the grammar what clients leave unescaped, and is written as it came. None of
/// it ends a parameter, a URI or its angle brackets.
pub(crate) const PARAM_VALUE: u8 = 32;
/// Header field of a URI.
pub(crate) const HEADER: u8 = 64;
/// Value of a header field of a URI, with the same tolerance.
pub(crate) const HEADER_VALUE: u8 = 128;

const fn class(b: u8) -> u8 {
    let unreserved = b.is_ascii_alphanumeric()
        || matches!(b, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')');
    let mut class = 0;
    if b.is_ascii_alphanumeric()
        || matches!(b, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
    {
        class |= TOKEN;
    }
    if unreserved {
        class |= UNRESERVED;
    }
    if unreserved || matches!(b, b'&' | b'=' | b'+' | b'$' | b',' | b';' | b'?' | b'/' | b'#') {
        class |= USER;
    }
    if unreserved || matches!(b, b'&' | b'=' | b'+' | b'$' | b',') {
        class |= PASSWORD;
    }
    let param = unreserved || matches!(b, b'[' | b']' | b'/' | b':' | b'&' | b'+' | b'$');
    if param {
        class |= PARAM;
    }
    if param || matches!(b, b'=' | b',' | b'`' | b'|' | b'^' | b'{' | b'}' | b'#') {
        class |= PARAM_VALUE;
    }
    let header = unreserved || matches!(b, b'[' | b']' | b'/' | b'?' | b':' | b'+' | b'$');
    if header {
        class |= HEADER;
    }
    if header || matches!(b, b'=' | b';' | b',') {
        class |= HEADER_VALUE;
    }
    class
}

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler: an index out of range does not build"
)]
const fn build() -> [u8; 256] {
    let mut table = [0; 256];
    let mut b = 0;
    while b < 256 {
        table[b] = class(b as u8);
        b += 1;
    }
    table
}

static CLASSES: [u8; 256] = build();

/// True when the octet is of the class.
#[inline]
pub(crate) fn is(b: u8, class: u8) -> bool {
    CLASSES.get(usize::from(b)).is_some_and(|c| c & class != 0)
}

/// True when every octet is of the class.
#[inline]
pub(crate) fn all(bytes: &[u8], class: u8) -> bool {
    bytes.iter().all(|b| is(*b, class))
}
