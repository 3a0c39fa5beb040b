//! Header extensions under each leg's own ids (RFC 8285).

use contract::{ExtensionMap, Extensions, Mode, Select, path::Parameters};
use rtp::RtpView;

use super::rig::*;

fn with_ids(n: u64, ids: &[(u32, u32)]) -> contract::Leg {
    let ids = ids.iter().map(|(peer, context)| ExtensionMap { peer: *peer, context: *context }).collect();
    edit(rtp_leg(n), |rtp| rtp.extensions = Some(Box::new(Extensions { ids })))
}

fn extended(n: u16, body: &[u8; 8]) -> Vec<u8> {
    let mut bytes = packet(5, n, 160 * u32::from(n), 0, &[]);
    bytes[0] |= 0x10;
    bytes.extend([0xbe, 0xde, 0, 2]);
    bytes.extend(body);
    bytes.extend([0x80; 160]);
    bytes
}

fn elements(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    RtpView::parse(bytes).unwrap().elements().map(|(id, data)| (id, data.to_vec())).collect()
}

/// Level under 3, another one under 5, as the sender has them; 1 and 2 in the context.
const BODY: [u8; 8] = [0x30, 0x85, 0x51, 7, 8, 0x90, 1, 0];

fn legs() -> Vec<contract::Leg> {
    vec![
        with_ids(1, &[(3, 1), (5, 2)]),
        with_ids(2, &[(3, 1), (5, 2)]),
        with_ids(3, &[(9, 1)]),
        with_ids(4, &[]),
        rtp_leg(5),
    ]
}

fn check(done: &[Done]) {
    let of = |leg: u64| sent(done).into_iter().find(|(s, _)| *s == socket(leg)).unwrap().1;
    assert_eq!(elements(of(2)), [(3, vec![0x85]), (5, vec![7, 8])], "what nobody agreed to is blank");
    assert_eq!(elements(of(3)), [(9, vec![0x85])]);
    assert_eq!(elements(of(4)), []);
    assert_eq!(elements(of(5)), [(1, vec![0x85]), (2, vec![7, 8])], "as the context calls them");
    assert!(
        sent(done)
            .iter()
            .all(|(_, b)| b.len() == extended(1, &BODY).len() && b[b.len() - 160..] == [0x80; 160])
    );
}

#[test]
fn each_receiver_gets_the_elements_that_it_agreed_to_under_its_ids() {
    let all = [1, 2, 3, 4, 5];
    let mut rig = Rig::new();
    rig.set(legs(), vec![path(1, Mode::Distribute, &all, &all)]);
    check(&rig.hear_peer(1, &extended(1, &BODY)));
    let select = Some(Parameters::Select(Select::default()));
    let mut rig = Rig::new();
    rig.set(legs(), vec![contract::Path { parameters: select, ..path(1, Mode::Select, &all, &all) }]);
    check(&rig.hear_peer(1, &extended(1, &BODY)));
    rig.check_sum();
}

#[test]
fn nothing_is_copied_where_ids_are_the_same_or_there_is_no_extension() {
    let all = [1, 2];
    let ids = [(1, 1)];
    let mut rig = Rig::new();
    rig.set(vec![with_ids(1, &ids), with_ids(2, &ids)], vec![path(1, Mode::Distribute, &all, &all)]);
    let mut is_forwarded = |bytes: &[u8]| {
        let input = crate::Input::Datagram { socket: socket(1), from: peer(1), bytes };
        rig.engine.handle(rig.now, input, &mut rig.out);
        rig.out.drain().all(|output| matches!(output, crate::Output::Forward { .. }))
    };
    assert!(is_forwarded(&extended(1, &[0x10, 0x85, 0, 0, 0, 0, 0, 0])));
    assert!(is_forwarded(&packet(5, 2, 320, 0, &[1; 160])));
    assert!(!is_forwarded(&extended(3, &BODY)));
}

#[test]
fn a_protected_target_gets_its_ids_too() {
    let keying = rtp::srtp::Keying::new(rtp::srtp::Suite::AeadAes128Gcm, &[9; 28]).unwrap();
    let all = [1, 3];
    let guarded = edit(with_ids(3, &[(9, 1)]), |rtp| {
        rtp.srtp = Some(Box::new(contract::Srtp {
            suite: contract::SrtpSuite::AeadAes128Gcm.into(),
            send_key: vec![9; 28],
            receive_key: vec![8; 28],
        }));
    });
    let mut rig = Rig::new();
    rig.set(vec![with_ids(1, &[(3, 1), (5, 2)]), guarded], vec![path(1, Mode::Distribute, &all, &all)]);
    let done = rig.hear_peer(1, &extended(1, &BODY));
    let mut inbound: rtp::srtp::Inbound =
        rtp::srtp::Inbound::new(&keying, rtp::srtp::Config::default()).unwrap();
    let mut bytes = sent(&done)[0].1.to_vec();
    let length = inbound.rtp(&mut bytes).unwrap();
    assert_eq!(elements(&bytes[..length]), [(9, vec![0x85])]);
}
