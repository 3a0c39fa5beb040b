//! URIs: parts, escapes, the equivalences of RFC 3261 §19.1.4 and RFC 3966 §5.

use super::*;

fn uri(text: &str) -> Uri {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn parts_of_sip_uris() {
    let u = uri("sips:alice:secret@[2001:db8::10]:5070;transport=tcp;lr?subject=a%20b&priority=urgent");
    assert_eq!(
        (u.user.as_deref(), u.password.as_deref(), u.port),
        (Some("alice"), Some("secret"), Some(5070))
    );
    assert_eq!(u.host, Host::V6("2001:db8::10".parse().unwrap()));
    assert_eq!(u.transport(), Some(Transport::Tcp));
    assert!(u.is_loose_router() && u.is_secure());
    assert_eq!(u.decoded_headers().next().unwrap(), ("subject".into(), "a b".into()));
    let weird = uri(
        "sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com",
    );
    assert_eq!(weird.user.as_deref(), Some("1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"));
    assert_eq!(
        uri("sip:a@b;gr=urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6").gr(),
        Some("urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6")
    );
}

#[test]
fn what_is_written_reads_back() {
    for text in [
        "sip:atlanta.example",
        "sip:alice@atlanta.example:5061;transport=udp",
        "sips:alice:pw@[2001:db8::9:1]:5070;lr",
        "sip:user;par=u%40example.net@example.com",
        "sip:sips%3Auser%40example.com@example.net",
        "sip:null-%00-null@example.com",
        "tel:+1-555-010-0001",
        "tel:7042;phone-context=example.com",
        "nobodyknowsthisscheme:totallyopaquecontent",
        "soap.beep://192.0.2.103:3002",
        "sip:a@b?Route=%3Csip:c%3E&x=1",
        "sip:+15550100001@h;user=phone",
    ] {
        assert_eq!(uri(text).to_string(), text);
    }
}

#[test]
fn malformed_uris() {
    for text in [
        "",
        "sip",
        "sip:",
        ":a@b",
        "sip:@b",
        "sip:a@",
        "sip:a b@c",
        "sip:a@b c",
        "<sip:a@b>",
        "sip:a@b; lr",
        "sip:2001:db8::10",
        "sip:[2001:db8::10",
        "sip:[zz]",
        "sip:a@b:99999",
        "sip:a@b:",
        "sip:a@b:5x",
        "sip:a%4@b",
        "sip:a%zz@b",
        "sip:a@b;=1",
        "sip:a@b;;",
        "sip:a@b;x=1;x=1",
        "sip:a@b@c",
        "sip:a\u{e9}@b",
        "tel:",
        "tel:+",
        "tel:+12x",
        "tel:1+2",
        "1a:b",
        "sip:a@b?=x",
        "sip:.a",
        "sip:a@b\u{661}",
    ] {
        assert!(text.parse::<Uri>().is_err(), "{text}");
    }
}

/// RFC 3261 §19.1.4, the examples of the section.
#[test]
fn equivalence_of_sip_uris() {
    for (a, b) in [
        ("sip:%61lice@atlanta.example;transport=TCP", "sip:alice@AtlanTa.example;Transport=tcp"),
        ("sip:carol@chicago.example", "sip:carol@chicago.example;newparam=5"),
        ("sip:carol@chicago.example;newparam=5", "sip:carol@chicago.example;security=on"),
        (
            "sip:biloxi.example;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.example",
            "sip:biloxi.example;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.example",
        ),
        (
            "sip:alice@atlanta.example?subject=project%20x&priority=urgent",
            "sip:alice@atlanta.example?priority=urgent&subject=project%20x",
        ),
    ] {
        assert!(uri(a).equivalent(&uri(b)) && uri(b).equivalent(&uri(a)), "{a} {b}");
    }
    for (a, b) in [
        ("SIP:ALICE@AtLanTa.example;Transport=udp", "sip:alice@AtLanTa.example;Transport=UDP"),
        ("sip:bob@biloxi.example", "sip:bob@biloxi.example:5060"),
        ("sip:bob@biloxi.example;transport=udp", "sip:bob@biloxi.example;transport=tcp"),
        ("sip:bob@biloxi.example", "sip:bob@biloxi.example:6000;transport=tcp"),
        ("sip:carol@chicago.example", "sip:carol@chicago.example?Subject=next%20meeting"),
        ("sip:bob@phone21.example", "sip:bob@192.0.2.4"),
        ("sip:a@b", "sip:a@b;user=phone"),
        ("sip:a@b;maddr=239.255.255.1", "sip:a@b"),
        ("sip:a@b", "sips:a@b"),
    ] {
        assert!(!uri(a).equivalent(&uri(b)) && !uri(b).equivalent(&uri(a)), "{a} {b}");
    }
}

/// RFC 3966 §5.
#[test]
fn equivalence_of_tel_uris() {
    assert!(uri("tel:+1-555-010-0001").equivalent(&uri("tel:+1(555)0100001")));
    assert!(
        uri("tel:7042;ext=1-2;phone-context=Example.COM")
            .equivalent(&uri("tel:70-42;phone-context=example.com;ext=12"))
    );
    assert!(!uri("tel:+15550100001").equivalent(&uri("tel:15550100001")));
    assert!(!uri("tel:7042;phone-context=a.example").equivalent(&uri("tel:7042")));
}

/// RFC 5118 §4.3, §4.4, §4.10.
#[test]
fn ipv6_hosts() {
    let inside = uri("sip:[2001:db8::10:5070]");
    assert_eq!((inside.host.to_string().as_str(), inside.port), ("[2001:db8::10:5070]", None));
    assert_eq!(uri("sip:[2001:db8::10]:5070").port, Some(5070));
    assert_eq!(uri("sip:user@[2001:db8:::192.0.2.1]").to_string(), "sip:user@[2001:db8::c000:201]");
}

#[test]
fn a_part_set_by_hand_cannot_break_out() {
    let mut u = Uri::sip("a b\r\n@x", "h");
    assert_eq!(u.to_string(), "sip:a%20b%0D%0A%40x@h");
    u.params.set("p", Some("v>\r\nVia: x"));
    assert!(!u.to_string().contains(['\r', '\n', '>', ' ']));
    u.add_header("Session-Replaces", "a&b=c");
    assert_eq!(uri(&u.to_string()).take_header("session-replaces").as_deref(), Some("a&b=c"));
}

/// What baresip 1.0 sends in Route; a value that could be either of two stays refused (RFC 3261 §19.1.1).
#[test]
fn a_flag_said_twice_is_the_flag_and_a_value_said_twice_is_refused() {
    assert_eq!(uri("sip:10.9.9.1:5060;lr;lr").to_string(), "sip:10.9.9.1:5060;lr");
    for bad in ["sip:h;ttl=1;ttl=2", "sip:h;lr;lr=on", "sip:h;lr=on;lr"] {
        assert!(Uri::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}
