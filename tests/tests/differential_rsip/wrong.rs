//! Where rsip 0.4 is wrong.

use crate::Difference;
use crate::reading::REFUSED;

/// A way in which rsip is wrong, with the clause that says so.
pub struct Wrong {
    pub name: &'static str,
    pub clause: &'static str,
    pub shows: fn(&Difference) -> bool,
}

/// Valid messages of RFC 4475 §3.1.1 that rsip does not read.
pub const REFUSED_BY_RSIP: &[&str] = &["wsinv", "intmeth", "esc01", "esc02", "longreq", "semiuri"];

/// Parts of the generated traffic (see `traffic`) whose messages rsip does not read.
pub const PARTS_REFUSED_BY_RSIP: &[&str] = &["folded", "gruu", "spaced", "tel", "v6"];

const fn wrong(name: &'static str, clause: &'static str, shows: fn(&Difference) -> bool) -> Wrong {
    Wrong { name, clause, shows }
}

/// rsip accepts what must be refused, in one of these samples.
fn accepts(d: &Difference, samples: &[&str]) -> bool {
    d.field == "accepted" && d.theirs == "yes" && samples.contains(&d.sample.as_str())
}

fn is_refused(d: &Difference, group: &str) -> bool {
    d.field.strip_suffix(".host") == Some(group) && d.theirs == REFUSED
}

fn long_form(name: &str) -> &str {
    match name {
        "l" => "content-length",
        "m" => "contact",
        "i" => "call-id",
        "s" => "subject",
        "k" => "supported",
        other => other,
    }
}

pub const WRONG: &[Wrong] = &[
    wrong("compact names are unknown headers", "RFC 3261 §7.3.3", |d| {
        let expanded: Vec<&str> = d.theirs.split(' ').map(long_form).collect();
        d.field == "names" && expanded.join(" ") == d.ours
    }),
    wrong("what a compact name holds is not found", "RFC 3261 §7.3.3", |d| match d.sample.as_str() {
        "dblreq" => d.field == "call-id" && d.theirs == "(none)",
        "regescrt" => d.field.starts_with("contact.") && matches!(d.theirs.as_str(), "(none)" | "0"),
        _ => false,
    }),
    wrong("octets after Content-Length are body", "RFC 3261 §18.3", |d| {
        d.field == "body" && d.theirs.starts_with(&d.ours) && d.sample == "dblreq"
    }),
    wrong("a user with a dot becomes part of the host", "RFC 3261 §25.1 user-unreserved", |d| {
        let is_part = d.field.ends_with(".host") || d.field.ends_with(".user");
        is_part && (d.theirs.starts_with("j.user@") || (d.ours == "j.user" && d.theirs.is_empty()))
    }),
    wrong("a display name keeps its quotes", "RFC 3261 §25.1 display-name", |d| {
        d.field.ends_with(".name") && d.theirs == format!("\"{}\"", d.ours)
    }),
    wrong("a comma list of Via is one Via", "RFC 3261 §7.3.1", |d| {
        d.field == "via.count" && d.sample.contains("via-list")
    }),
    wrong("a comma list of Contact is one Contact", "RFC 3261 §7.3.1", |d| {
        d.sample.contains(" contacts ") && (d.field == "contact.count" || is_refused(d, "contact"))
    }),
    wrong("IPv6 is refused in Via", "RFC 5118 §4.1", |d| is_refused(d, "via") && d.ours.contains(':')),
    wrong("IPv6 is refused in Contact", "RFC 5118 §4.9", |d| {
        is_refused(d, "contact") && d.ours.contains(':')
    }),
    wrong("tel is refused in From", "RFC 3966 §3", |d| {
        is_refused(d, "from") && d.sample.contains(" from-tel ")
    }),
    wrong("feature tags of RCS are refused in Contact", "RFC 3840 §9", |d| {
        is_refused(d, "contact")
            && (d.sample.contains(" contact-icsi ") || d.sample.contains(" contact-instance "))
    }),
    wrong("gr is cut at its colon", "RFC 5627 §7", |d| {
        d.field == "contact.uri-params"
            && d.sample.contains(" contact-gruu ")
            && d.ours.starts_with(&d.theirs)
    }),
    wrong("other schemes are refused in addresses", "RFC 4475 §3.3.4", |d| {
        d.sample == "unksm2" && (is_refused(d, "to") || is_refused(d, "contact"))
    }),
    wrong("any scheme has a host and a port", "RFC 4475 §3.3.3 and §3.3.4", |d| {
        let opaque = d.ours.is_empty() || d.ours == "None" || d.ours.starts_with("//");
        matches!(d.sample.as_str(), "novelsc" | "unksm2") && opaque
    }),
    wrong("Content-Length is not looked at", "RFC 4475 §3.1.2.2, §3.1.2.3, §3.3.9", |d| {
        accepts(d, &["clerr", "ncl", "mcl01"])
    }),
    wrong("a Request-URI may have angle brackets", "RFC 4475 §3.1.2.7", |d| accepts(d, &["ltgtruri"])),
    wrong("a head needs no end", "RFC 4475 §3.1.2.15", |d| accepts(d, &["baddn"])),
    wrong("header values are not looked at", "RFC 4475 §3.1.2", |d| {
        accepts(d, &["badinv01", "scalarlg", "quotbal", "baddate", "regbadct", "badaspec"])
    }),
    wrong("CSeq may name another method", "RFC 4475 §3.1.2.17", |d| accepts(d, &["mismatch01"])),
    wrong("mandatory headers may be missing", "RFC 4475 §3.3.1", |d| accepts(d, &["insuf"])),
    wrong("single headers may repeat", "RFC 4475 §3.3.8", |d| accepts(d, &["multi01"])),
];
