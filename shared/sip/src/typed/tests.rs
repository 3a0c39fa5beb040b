//! Grammar by grammar: what reads, what does not, what is written.

use super::*;
use crate::params::Params;
use crate::peer::Transport;

fn read<V: Value>(text: &str) -> V {
    V::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn fails<V: Value + fmt::Debug>(texts: &[&str]) {
    for text in texts {
        assert!(V::parse(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn addresses() {
    let a: NameAddr = read(r#""J Rosenberg \\\""       <sip:jdrosen@example.com>  ;  tag = 98asjd8"#);
    assert_eq!((a.display.as_deref(), a.tag()), (Some("J Rosenberg \\\""), Some("98asjd8")));
    assert_eq!(a.to_string(), r#""J Rosenberg \\\"" <sip:jdrosen@example.com>;tag=98asjd8"#);
    let a: NameAddr = read("sip:alice@example.com;tag=1");
    assert_eq!((a.uri.params.len(), a.tag()), (0, Some("1")));
    let a: NameAddr = read("caller<sip:caller@example.com;lr>;tag=323");
    assert_eq!((a.display.as_deref(), a.uri.is_loose_router()), (Some("caller"), true));
    let a: NameAddr = read(concat!(
        "<sip:a@192.0.2.1:5070;transport=tcp>;+sip.instance=\"<urn:gsma:imei:35000000-000000-0>\"",
        ";+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session\";expires=600;q=0.7;reg-id=1"
    ));
    assert_eq!(a.instance().as_deref(), Some("<urn:gsma:imei:35000000-000000-0>"));
    assert_eq!((a.expires(), a.q_thousandths(), a.reg_id()), (Some(600), 700, Some(1)));
    assert_eq!(read::<NameAddr>(&a.to_string()), a);
    assert_eq!(read::<NameAddr>("<sip:a>;expires=1h").expires(), Some(3600));
    assert_eq!(read::<NameAddr>("<sip:a>;expires=99999999999999999999999").expires(), Some(u32::MAX));
    fails::<NameAddr>(&[
        "",
        "*",
        "Bell, Alexander <sip:a@b>",
        "\"open <sip:a@b>",
        "\"x\" sip:a@b",
        "< sip:a@b >",
        "<sip:a@b",
        "sip:a@b?Route=x",
        "<sip:a@b>;;",
        "<sip:a@b>x",
        "<sip:a@b>;tag=",
    ]);
}

#[test]
fn vias() {
    let v: Via = read("SIP  / 2.0  / TCP     spindle.example.com   ;  branch  =   z9hG4bK9ikj8  ");
    assert_eq!((v.known_transport(), v.branch()), (Some(Transport::Tcp), Some("z9hG4bK9ikj8")));
    let v: Via =
        read("SIP/2.0/UDP [2001:db8::9:1]:5070;received=[2001:db8::9:255];rport=9;branch=z9hG4bKas3");
    assert_eq!((v.received().unwrap().to_string().as_str(), v.rport()), ("2001:db8::9:255", Some(9)));
    assert_eq!(
        v.to_string(),
        "SIP/2.0/UDP [2001:db8::9:1]:5070;received=[2001:db8::9:255];rport=9;branch=z9hG4bKas3"
    );
    assert_eq!(read::<Via>("SIP/2.0/UDP a;branch=z9hG4bK").unique_branch(), None);
    assert_eq!(read::<Via>("SIP/2.0/UDP a : 5061").sent_by.port, Some(5061));
    fails::<Via>(&[
        "SIP/2.0/UDP 192.0.2.15;;,;,,",
        "SIP/2.0/UDP",
        "SIP/2.0 a",
        "SIP/2.0/UDP a:99999",
        "SIP/2.0/UDP 2001:db8::1",
        "SIP/2.0/UDP a;rport=99999",
        "SIP/2.0/UDP a b",
    ]);
}

#[test]
fn numbers() {
    assert_eq!(read::<CSeq>("0009   INVITE"), CSeq::new(9, crate::Method::Invite));
    assert_eq!(read::<MaxForwards>("0068"), MaxForwards(68));
    assert_eq!(read::<RetryAfter>("120 (in a (short) while);duration=3").seconds, 120);
    assert_eq!(read::<RAck>("776656 1 INVITE").seq, 1);
    fails::<CSeq>(&[
        "36893488147419103232 REGISTER",
        "2147483648 INVITE",
        "-1 INVITE",
        "1INVITE",
        "1",
        "1 INVITE x",
        "٣ INVITE",
    ]);
    fails::<MaxForwards>(&["300", "-1", "", "7 0", "0x10"]);
    fails::<RetryAfter>(&["949302838503028349304023988", "5 (open", "soon"]);
    fails::<Expires>(&["10000000000000000000000", "Thu, 01 Dec 2040 16:00:00 GMT"]);
}

#[test]
fn dates() {
    let text = "Sat, 13 Nov 2010 23:29:00 GMT";
    let date: Date = read(text);
    assert_eq!((date.0.as_secs(), date.to_string().as_str()), (1_289_690_940, text));
    fails::<Date>(&[
        "Fri, 01 Jan 2010 16:00:00 EST",
        "Fri, 01 Foo 2010 16:00:00 GMT",
        "",
        "Fri, 32 Jan 2010 16:00:00 GMT",
        "Fri, 01 Jan 2010 16:00 GMT",
    ]);
}

#[test]
fn the_rest_reads_and_writes() {
    let r: Reason = read("SIP;cause=200;text=\"Call completed elsewhere\"");
    assert_eq!((r.cause(), r.text().as_deref()), (Some(200), Some("Call completed elsewhere")));
    assert_eq!(r, Reason::sip(200, "Call completed elsewhere"));
    let w: Warning = read("399 weir.example \"127 Service not authorised\"");
    assert_eq!((w.code, w.text_code()), (399, Some(127)));
    fails::<Warning>(&["1812 overture \"In Progress\"", "399 x y", "399 \"x\""]);
    let s: SessionExpires = read("1800;refresher=uas");
    assert_eq!((s.seconds, s.refresher()), (1800, Some(Refresher::Uas)));
    let r: Replaces = read("a@b;from-tag=f;to-tag=t;early-only");
    assert_eq!((r.local_tag.as_str(), r.remote_tag.as_str(), r.params.has("early-only")), ("t", "f", true));
    fails::<Replaces>(&["a@b;from-tag=f", ";from-tag=f;to-tag=t"]);
    let s: SubscriptionState = read("terminated;reason=noresource");
    assert_eq!((&s.state, s.reason()), (&Substate::Terminated, Some("noresource")));
    let c: ContentType = read("Multipart/Mixed ; boundary=\"a b\"");
    assert!(c.is("multipart/mixed"));
    assert_eq!(c.boundary().as_deref(), Some("a b"));
    let a: AcceptContact =
        read("*;+g.3gpp.iari-ref=\"urn%3Aurn-7%3A3gpp-application.ims.iari.rcse.im\";require;explicit");
    assert!(a.is_require() && a.is_explicit());
    assert_eq!(a.features().count(), 1);
    let e: Event = read("conference;id=7");
    assert_eq!((e.package.as_str(), e.id()), ("conference", Some("7")));
    assert_eq!(Params::default().with("a", None).to_string(), ";a");
}
