//! Packets of somebody else (issue 3, "Bad input and faults"): mode of learning x protection x time. In every cell
//! nothing of them passes, nothing is sent to them, nobody is learned, and each is counted.
//!
//! In clear and with `TRUST` the first to speak in the window is the peer; that is what the mode is for, and why it is not
//! the default. Here the peer has spoken first.

use std::net::SocketAddr;

use base::Entropy;
use contract::{Learning, Leg, Mode, Srtp, SrtpSuite, news};
use rtp::srtp::{Config, Keying, Outbound, Suite, TRAILER_MAX};
use rtp::stun::{self, Key};

use super::browser::*;
use super::rig::*;
use crate::SocketId;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Protection {
    Plain,
    Sdes,
    Dtls,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Time {
    /// Control has not told whom the leg is for.
    Before,
    /// The peer has spoken, the window is open.
    In,
    /// The window is over.
    After,
}

const WINDOW_MS: u32 = 3000;

/// The peer of leg 1.
enum Peer {
    Plain,
    Sdes(Box<Outbound>, Srtp),
    Dtls(Box<Browser>, Edge),
}

impl Peer {
    fn new(protection: Protection) -> Self {
        match protection {
            Protection::Plain => Peer::Plain,
            Protection::Sdes => {
                let mut entropy = Entropy::from_number(3);
                let [ours, theirs] = [(); 2].map(|()| Keying::draw(Suite::AeadAes128Gcm, &mut entropy));
                let srtp = Srtp {
                    suite: SrtpSuite::AeadAes128Gcm.into(),
                    send_key: ours.expose().to_vec(),
                    receive_key: theirs.expose().to_vec(),
                };
                Peer::Sdes(Box::new(Outbound::new(&theirs, Config::default()).unwrap()), srtp)
            }
            Protection::Dtls => Peer::Dtls(Box::new(Browser::new(1)), Edge::new()),
        }
    }

    /// Its leg, before or after control knows it.
    fn leg(&self, learning: Learning, known: bool) -> Leg {
        let leg = match self {
            Peer::Plain => rtp_leg(1),
            Peer::Sdes(_, srtp) => edit(rtp_leg(1), |rtp| rtp.srtp = Some(Box::new(srtp.clone()))),
            Peer::Dtls(browser, _) => browser.leg(),
        };
        edit(leg, |rtp| {
            rtp.learning = if known { learning } else { Learning::Strict }.into();
            rtp.learning_ms = WINDOW_MS;
            if !known {
                rtp.remote = None;
                if let Some(srtp) = &mut rtp.srtp {
                    srtp.receive_key.clear();
                }
                if let (Some(ice), Some(dtls)) = (&mut rtp.ice, &mut rtp.dtls) {
                    ice.peer_ufrag.clear();
                    dtls.fingerprints.clear();
                }
            }
        })
    }

    fn says(&mut self, clear: &[u8]) -> Vec<u8> {
        match self {
            Peer::Plain => clear.to_vec(),
            Peer::Sdes(outbound, _) => {
                let mut wire = clear.to_vec();
                wire.resize(clear.len() + TRAILER_MAX, 0);
                let length = outbound.rtp(&mut wire, clear.len()).unwrap();
                wire.truncate(length);
                wire
            }
            Peer::Dtls(browser, _) => browser.says(clear),
        }
    }

    /// The peer speaks for the first time.
    fn arrives(&mut self, rig: &mut Rig) {
        if let Peer::Dtls(browser, edge) = self {
            browser.connect(rig, edge);
        }
        let wire = self.says(&voice(1));
        assert_eq!(sockets(&rig.hear_peer(1, &wire)), [socket(2)]);
    }
}

fn voice(sequence: u16) -> Vec<u8> {
    packet(5, sequence, 160 * u32::from(sequence), 0, &[1; 160])
}

/// What somebody else sends who has seen the peer's packets and has no key.
fn attacks(recorded: &[u8]) -> Vec<Vec<u8>> {
    let bye = {
        let mut writer = rtp::RtcpWriter::new();
        writer.receiver(5, &[]).description([(5, "x")].into_iter()).bye(&[5]);
        writer.octets().to_vec()
    };
    let mut entropy = Entropy::from_number(66);
    let mut outbound: Outbound =
        Outbound::new(&Keying::draw(Suite::AeadAes128Gcm, &mut entropy), Config::default()).unwrap();
    let protected = {
        let mut wire = voice(3);
        wire.resize(voice(3).len() + TRAILER_MAX, 0);
        let length = outbound.rtp(&mut wire, voice(3).len()).unwrap();
        wire.truncate(length);
        wire
    };
    let nomination =
        stun::check(&[1; 12], &format!("{UFRAG}:{PEER_UFRAG}"), &Key::new("not-the-password-of-it"), true);
    let hello = Browser::new(1).hello().remove(0).to_vec();
    vec![
        voice(2),
        packet(77, 1, 1, 0, &[9; 160]),
        bye,
        protected,
        recorded.to_vec(),
        nomination,
        hello,
        vec![],
    ]
}

fn touches(done: &[Done], from: SocketAddr, at: SocketId) -> bool {
    let aims = |to: &Option<SocketAddr>| *to == Some(from);
    done.iter().any(|one| match one {
        Done::Aimed(socket, to, _) => *socket == at && aims(to),
        Done::Sent(..) => true,
        Done::Answer(_) => {
            !news(std::slice::from_ref(one)).iter().all(|what| !matches!(what, news::What::Latched(_)))
        }
        _ => false,
    })
}

#[test]
fn every_cell_of_the_matrix_is_refused_and_counted() {
    let mut cells = 0;
    for learning in [Learning::Strict, Learning::Window, Learning::Trust] {
        for protection in [Protection::Plain, Protection::Sdes, Protection::Dtls] {
            for time in [Time::Before, Time::In, Time::After] {
                cell(learning, protection, time);
                cells += 1;
            }
        }
    }
    assert_eq!(cells, 27);
}

fn cell(learning: Learning, protection: Protection, time: Time) {
    let mut theirs = Peer::new(protection);
    let mut rig = Rig::new();
    let paths = vec![path(1, Mode::Relay, &[1], &[2]), path(2, Mode::Relay, &[2], &[1])];
    rig.set(vec![theirs.leg(learning, false), rtp_leg(2)], paths);
    let mut recorded = voice(1);
    if time != Time::Before {
        rig.put(vec![put_leg(theirs.leg(learning, true))]);
        theirs.arrives(&mut rig);
        recorded = theirs.says(&voice(4));
        assert_eq!(sockets(&rig.hear_peer(1, &recorded)), [socket(2)]);
    }
    if time == Time::After {
        rig.run(u64::from(WINDOW_MS) + 100);
    }
    let before = rig.engine.totals();
    let mut thrown = 0;
    // Another network, a neighbour, and another port of the same host.
    let [own, near] = [peer(1), SocketAddr::from(([198, 51, 100, 200], 4002))];
    for from in [addr("203.0.113.5:4002"), near, SocketAddr::new(own.ip(), own.port() + 9)] {
        for attack in attacks(&recorded) {
            let done = rig.datagram(socket(1), from, &attack);
            assert!(
                !touches(&done, from, socket(1)),
                "{learning:?} {protection:?} {time:?} from {from}: {done:?}"
            );
            thrown += 1;
        }
    }
    // With keys, not even the peer's own address helps.
    if protection != Protection::Plain {
        for attack in attacks(&recorded).into_iter().filter(|attack| rtp::kind(attack) != rtp::Kind::Stun) {
            if protection == Protection::Dtls && time != Time::Before && rtp::kind(&attack) == rtp::Kind::Dtls
            {
                continue; // it is the peer's to shake hands again; the association stays as it is
            }
            let done = rig.datagram(socket(1), own, &attack);
            assert!(sent(&done).is_empty(), "{learning:?} {protection:?} {time:?} spoofed: {done:?}");
            thrown += 1;
        }
    }
    let after = rig.engine.totals();
    assert_eq!(after.packets_in - before.packets_in, thrown);
    assert_eq!(
        (after.packets_forwarded, after.packets_consumed, after.packets_out),
        (before.packets_forwarded, before.packets_consumed, before.packets_out)
    );
    rig.check_sum();
    // The call lives.
    if time == Time::Before {
        rig.put(vec![put_leg(theirs.leg(learning, true))]);
        theirs.arrives(&mut rig);
    }
    let wire = theirs.says(&voice(9));
    assert_eq!(sockets(&rig.hear_peer(1, &wire)), [socket(2)]);
    assert_eq!(sockets(&rig.hear_peer(2, &voice(1))), [socket(1)]);
}
