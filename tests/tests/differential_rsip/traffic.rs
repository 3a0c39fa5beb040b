//! CPM traffic made of parts that stand in real traces (CPM-FACTS §2.1, §2.2, §2.4): each part has a name, and
//! a message is named after its parts.

use base::Entropy;
use bytes::Bytes;

type Part = (&'static str, &'static str);

const TARGETS: &[Part] = &[
    ("sip", "sip:bob@example.com"),
    ("phone", "sip:+15550100002@ims.example.com;user=phone"),
    ("port", "sip:bob@192.0.2.9:5070;transport=tcp;lr"),
    ("sips", "sips:bob@example.com:5061"),
    ("gruu", "sip:bob@example.com;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
    ("tel", "tel:+1-555-010-0002"),
    ("v6", "sip:bob@[2001:db8::9]:5070"),
];

const VIAS: &[Part] = &[
    ("via", "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK776asdhds;rport\r\n"),
    ("tls", "Via: SIP/2.0/TLS client.example.com;branch=z9hG4bK77ef4c2312983.1\r\n"),
    (
        "vias",
        "Via: SIP/2.0/TCP a.example.com;branch=z9hG4bK1\r\nVia: SIP/2.0/UDP b.example.com;branch=z9hG4bK2;received=192.0.2.3\r\n",
    ),
    (
        "via-list",
        "Via: SIP/2.0/TCP a.example.com;branch=z9hG4bK1, SIP/2.0/UDP b.example.com;branch=z9hG4bK2\r\n",
    ),
    ("via-v6", "Via: SIP/2.0/UDP [2001:db8::1]:5060;branch=z9hG4bK3\r\n"),
];

const FROMS: &[Part] = &[
    ("from", "From: <sip:alice@example.com>;tag=88sja8x\r\n"),
    ("from-quoted", "From: \"Alice A.\" <sip:+15550100001@example.com;user=phone>;tag=1\r\n"),
    ("from-token", "From: Alice <sip:alice@example.com>;tag=1\r\n"),
    ("from-bare", "From: sip:alice@example.com;tag=1\r\n"),
    ("from-tel", "From: <tel:+15550100001>;tag=1\r\n"),
    ("from-anonymous", "From: \"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=7h\r\n"),
];

const CONTACTS: &[Part] = &[
    ("contact", "Contact: <sip:alice@192.0.2.1:5060>\r\n"),
    ("contact-transport", "Contact: \"Phone\" <sip:alice@192.0.2.1;transport=tls>;expires=3600;q=0.5\r\n"),
    (
        "contact-instance",
        "Contact: <sip:alice@192.0.2.1>;+sip.instance=\"<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>\";reg-id=1\r\n",
    ),
    (
        "contact-icsi",
        "Contact: <sip:alice@192.0.2.1:5060;transport=tcp>;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.msg,urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session\";+g.gsma.rcs.botversion=\"#=1,#=2\"\r\n",
    ),
    ("contact-gruu", "Contact: <sip:alice@192.0.2.1;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>\r\n"),
    ("contact-focus", "Contact: <sip:conf-77@192.0.2.8>;isfocus\r\n"),
    ("contacts", "Contact: <sip:alice@192.0.2.1>;q=1.0, <sip:alice@192.0.2.2>;q=0.1\r\n"),
    ("contact-none", ""),
];

const EXTRAS: &[Part] = &[
    ("plain", ""),
    (
        "accept-contact",
        "Accept-Contact: *;+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session\"\r\nAccept-Contact: *;+g.3gpp.iari-ref=\"urn%3Aurn-7%3A3gpp-application.ims.iari.rcse.im\";require;explicit\r\n",
    ),
    (
        "cpm-ids",
        "Conversation-ID: f81d4fae-7dec-11d0\r\nContribution-ID: abcdef-1234-5678-90ab\r\nP-Preferred-Service: urn:urn-7:3gpp-service.ims.icsi.oma.cpm.msg\r\n",
    ),
    ("lists", "Supported: timer, 100rel\r\nAllow: INVITE, ACK, BYE\r\nRequire: recipient-list-invite\r\n"),
    ("compact", "s: lunch\r\nk: timer\r\n"),
    ("utf8", "Subject: Grüße\r\nUser-Agent: IM-client/OMA1.0 x/1.0\r\n"),
    ("folded", "Subject: one\r\n two\r\n"),
    ("spaced", "Subject : lunch\r\n"),
    ("expires", "Expires: 600000\r\nSubscription-State: active;expires=60\r\n"),
    ("date", "Date: Sat, 13 Nov 2010 23:29:00 GMT\r\nReason: SIP;cause=200;text=\"Call completed\"\r\n"),
];

const BODIES: &[(&str, &str, &[u8])] = &[
    ("empty", "", b""),
    ("sdp", "application/sdp", b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=message 2855 TCP/MSRP *\r\n"),
    ("cpim", "message/cpim", b"From: <sip:a@h>\r\nTo: <sip:b@h>\r\n\r\nContent-Type: text/plain\r\n\r\nhello"),
    ("binary", "application/octet-stream", b"\x00\xff\r\n\x80"),
    (
        "multipart",
        "multipart/mixed;boundary=\"b1\"",
        b"--b1\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n\r\n--b1\r\nContent-Type: application/resource-lists+xml\r\nContent-Disposition: recipient-list\r\n\r\n<x/>\r\n--b1--\r\n",
    ),
];

/// `count` messages, always the same.
pub fn generate(count: usize) -> Vec<(String, Bytes)> {
    let mut entropy = Entropy::from_number(3261);
    (0..count).map(|_| one(&mut entropy)).collect()
}

fn pick<T: Copy>(entropy: &mut Entropy, all: &[T]) -> T {
    all[entropy.below(all.len() as u64) as usize]
}

fn one(entropy: &mut Entropy) -> (String, Bytes) {
    let method = pick(entropy, &["INVITE", "MESSAGE", "REGISTER", "SUBSCRIBE", "BYE"]);
    let (target, via, from) = (pick(entropy, TARGETS), pick(entropy, VIAS), pick(entropy, FROMS));
    let (contact, extra, body) = (pick(entropy, CONTACTS), pick(entropy, EXTRAS), pick(entropy, BODIES));
    let seq = entropy.below(1 << 31);
    let call_id = entropy.token(64);
    let kind = if body.1.is_empty() { String::new() } else { format!("Content-Type: {}\r\n", body.1) };
    let mut wire = format!(
        "{method} {} SIP/2.0\r\n{}Max-Forwards: 70\r\n{}To: <sip:bob@example.com>\r\nCall-ID: {call_id}\r\n\
         CSeq: {seq} {method}\r\n{}{}{kind}Content-Length: {}\r\n\r\n",
        target.1,
        via.1,
        from.1,
        contact.1,
        extra.1,
        body.2.len()
    )
    .into_bytes();
    wire.extend_from_slice(body.2);
    let name = format!("{method} {} {} {} {} {} {}", target.0, via.0, from.0, contact.0, extra.0, body.0);
    (name, wire.into())
}
