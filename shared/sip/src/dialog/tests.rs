//! Both ends of a dialog, clause by clause.

use super::*;

fn invite() -> Request {
    let mut request = Request::new(Method::Invite, "sip:b@h".parse().unwrap());
    request.headers.push(Name::Via, "SIP/2.0/UDP a;branch=z9hG4bK1");
    request.headers.push(Name::RecordRoute, "<sip:p2;lr>, <sip:p1;lr>");
    request.headers.push(Name::From, "\"A\" <sip:a@h>;tag=f");
    request.headers.push(Name::To, "<sip:b@h>");
    request.headers.push(Name::CallId, "c");
    request.headers.push(Name::CSeq, "4 INVITE");
    request.headers.push(Name::Contact, "<sip:a@192.0.2.1;transport=tcp>;+g.oma.sip-im");
    request
}

fn ends() -> (Dialog, Dialog) {
    let request = invite();
    let mut response = request.respond(200);
    response.set_to_tag("t");
    response.headers.push(Name::Contact, "<sip:b@192.0.2.2>");
    (Dialog::uac(&request, &response).unwrap(), Dialog::uas(&request, &response).unwrap())
}

fn text(request: &Request) -> Vec<String> {
    let headers = request.headers.iter().map(|(n, v)| format!("{n}: {}", String::from_utf8_lossy(v)));
    std::iter::once(format!("{} {}", request.method, request.uri)).chain(headers).collect()
}

/// RFC 3261 §12.1 and §12.2.1.1.
#[test]
fn both_ends_agree() {
    let (mut caller, mut callee) = ends();
    assert_eq!(
        text(&caller.request(Method::Bye)),
        [
            "BYE sip:b@192.0.2.2",
            "Route: <sip:p1;lr>",
            "Route: <sip:p2;lr>",
            "From: \"A\" <sip:a@h>;tag=f",
            "To: <sip:b@h>;tag=t",
            "Call-ID: c",
            "CSeq: 5 BYE",
            "Max-Forwards: 70"
        ]
    );
    assert_eq!(
        text(&callee.request(Method::Bye)),
        [
            "BYE sip:a@192.0.2.1;transport=tcp",
            "Route: <sip:p2;lr>",
            "Route: <sip:p1;lr>",
            "From: <sip:b@h>;tag=t",
            "To: \"A\" <sip:a@h>;tag=f",
            "Call-ID: c",
            "CSeq: 1 BYE",
            "Max-Forwards: 70"
        ]
    );
    assert_eq!(caller.next_hop().unwrap().host.to_string(), "p1");
    assert_eq!(caller.ack(4).headers.text(&Name::CSeq), Some("4 ACK"));
    let bye = caller.request(Method::Bye);
    assert!(callee.matches(&bye) && callee.accept(&bye).is_ok());
}

/// RFC 3261 §12.2.2.
#[test]
fn requests_of_the_peer_go_up_and_move_the_target() {
    let (mut caller, mut callee) = ends();
    let mut update = caller.request(Method::Update);
    update.headers.push(Name::Contact, "<sip:a@192.0.2.99>");
    assert_eq!(callee.accept(&update), Ok(()));
    assert_eq!(callee.remote_target.to_string(), "sip:a@192.0.2.99");
    assert_eq!(callee.accept(&update), Err(Misbehaved::OutOfOrder));
    assert_eq!(Misbehaved::OutOfOrder.code(), 500);
    let ack = caller.ack(4);
    assert_eq!(callee.accept(&ack), Ok(()));
    let mut foreign = caller.request(Method::Bye);
    foreign.headers.set(Name::CallId, "other");
    assert_eq!(callee.accept(&foreign), Err(Misbehaved::OtherDialog));
}

/// RFC 3261 §12.2.1.1: the examples with a strict router.
#[test]
fn a_strict_router_becomes_the_request_uri() {
    let (mut caller, _) = ends();
    caller.route_set = ["sip:strict", "sip:loose;lr"].iter().map(|u| u.parse().unwrap()).collect();
    let request = caller.request(Method::Bye);
    assert_eq!(text(&request)[..3], ["BYE sip:strict", "Route: <sip:loose;lr>", "Route: <sip:b@192.0.2.2>"]);
    assert_eq!(caller.next_hop().unwrap().host.to_string(), "strict");
}

#[test]
fn an_early_dialog_is_confirmed() {
    let request = invite();
    let mut ringing = request.respond(180);
    ringing.set_to_tag("t");
    let mut dialog = Dialog::uac(&request, &ringing).unwrap();
    assert_eq!((dialog.phase, dialog.route_set.len()), (Phase::Early, 2));
    let mut ok = request.respond(200);
    ok.set_to_tag("t");
    ok.headers.remove(&Name::RecordRoute);
    ok.headers.push(Name::Contact, "<sip:b@192.0.2.3>");
    dialog.update(&ok).unwrap();
    assert_eq!((dialog.phase, dialog.route_set.len()), (Phase::Confirmed, 0));
    assert_eq!(dialog.remote_target.to_string(), "sip:b@192.0.2.3");
}

#[test]
fn a_dialog_is_a_row() {
    let (caller, callee) = ends();
    for dialog in [caller, callee] {
        let row = serde_json::to_string(&dialog).unwrap();
        assert_eq!(serde_json::from_str::<Dialog>(&row).unwrap(), dialog);
    }
}
