//! Which octets may stand where (RFC 4975 §9), as one table: heads are read octet by octet for each message.

/// Of an `ident`: transaction ids and Message-IDs.
pub(crate) const IDENT: u8 = 1;
/// Of a session id.
pub(crate) const SESSION: u8 = 2;
/// Of a host's name or IPv4 literal.
pub(crate) const HOST: u8 = 4;
/// Of a URI's transport and parameters.
pub(crate) const PARAMETER: u8 = 8;

/// Of a header's name.
pub(crate) const NAME: u8 = 16;

static KINDS: [u8; 256] = table();

/// Whether all octets are of a kind.
pub(crate) fn are(text: &[u8], kind: u8) -> bool {
    let kinds = |octet: &u8| KINDS.get(usize::from(*octet)).copied().unwrap_or(0);
    text.iter().fold(kind, |all, octet| all & kinds(octet)) == kind
}

/// `unreserved` of RFC 3986 §2.3.
pub(crate) const fn is_unreserved(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_' | b'~')
}

#[expect(clippy::indexing_slicing, reason = "worked out by the compiler, which would say so")]
const fn table() -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < table.len() {
        let c = at as u8;
        let unreserved = is_unreserved(c);
        if c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'+' | b'%' | b'=') {
            table[at] |= IDENT;
        }
        if unreserved || matches!(c, b'+' | b'=' | b'/') {
            table[at] |= SESSION;
        }
        if unreserved
            || matches!(c, b'%' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=')
        {
            table[at] |= HOST;
        }
        if c.is_ascii_graphic() && !matches!(c, b'<' | b'>' | b'"' | b',') {
            table[at] |= PARAMETER;
        }
        if c.is_ascii_graphic() {
            table[at] |= NAME;
        }
        at += 1;
    }
    table
}
