//! MSRP: the framer, an endpoint's sessions, and a room of the data plane.

use base::{Entropy, Instant, Outbox};
use bytes::Bytes;
use fuzz::{Room, pieces, script};
use msrp::endpoint::{ConnKey, Endpoint, EndpointLimits, Input, Output, SessionKey};
use msrp::session::{Command, Config, Key, Outgoing, Role, SessionLimits};
use msrp::{Broken, Event, Flag, Framer, Limits, MsrpUri, Path, ReassemblyLimits, Status};

/// What a stream came to, however it was cut: spans of one body together.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Came {
    Head(Bytes),
    Body(Vec<u8>),
    End(Flag),
    Bad,
    Broken(Broken),
}

fn frame<'a>(pieces: impl Iterator<Item = &'a [u8]>, limits: &Limits) -> Vec<Came> {
    let mut framer = Framer::new(*limits);
    let mut came: Vec<Came> = Vec::new();
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match framer.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Event::Head(head))) => came.push(Came::Head(head.block().clone())),
                Ok(Some(Event::End(flag))) => came.push(Came::End(flag)),
                Ok(Some(Event::Bad(_))) => came.push(Came::Bad),
                Ok(Some(Event::Body(span))) => match came.last_mut() {
                    Some(Came::Body(body)) => body.extend_from_slice(&span),
                    _ => came.push(Came::Body(span.to_vec())),
                },
                Err(why) => {
                    came.push(Came::Broken(why));
                    return came;
                }
            }
        }
        assert!(input.is_empty(), "all is taken before more is asked for");
    }
    came
}

// RFC 4975 §7.1: a reader sees the same, wherever TCP cuts the stream.
#[test]
fn msrp_framer() {
    let limits = Limits { head_max: 2048, ..Limits::default() };
    fuzz::target!().for_each(|data: &[u8]| {
        let Some((how, stream)) = data.split_first() else { return };
        let whole = frame(std::iter::once(stream), &limits);
        let cut = frame(pieces(*how, stream), &limits);
        assert_eq!(whole, cut);
        let body: usize = whole.iter().map(|c| if let Came::Body(body) = c { body.len() } else { 0 }).sum();
        assert!(body <= stream.len());
    });
}

fn session(limits: SessionLimits, ours: &str, theirs: &str, role: Role) -> Box<Config> {
    let local = MsrpUri::parse(ours).expect("a URI");
    let remote = Path::of(&MsrpUri::parse(theirs).expect("a URI"));
    Box::new(Config { limits, ..Config::new(local, remote, role) })
}

// RFC 4975 §5, §7: two sessions of one endpoint, whatever their peers say and whenever.
#[test]
fn msrp_session() {
    const ARRIVING_MAX: u64 = 1 << 16;
    fuzz::target!().for_each(|data: &[u8]| {
        let limits = SessionLimits {
            queued_max: 8,
            queued_octets_max: 1 << 16,
            window_chunks: 4,
            transactions_max: 8,
            reports_max: 4,
            window_octets: 1 << 12,
            chunk_octets: 1 << 9,
            reassembly: ReassemblyLimits { octets_max: ARRIVING_MAX, ..ReassemblyLimits::default() },
            ..SessionLimits::default()
        };
        let endpoint_limits =
            EndpointLimits { connections_max: 4, sessions_max: 4, ..EndpointLimits::default() };
        let mut endpoint = Endpoint::new(endpoint_limits, Entropy::from_number(1));
        let mut out = Outbox::with_max(1024);
        let mut now = Instant::from_millis(1000);
        let mut key = 0;
        let one =
            session(limits, "msrp://192.0.2.1:2855/one;tcp", "msrp://192.0.2.2:2855/a;tcp", Role::Passive);
        let two =
            session(limits, "msrp://192.0.2.1:2855/two;tcp", "msrp://192.0.2.3:2855/b;tcp", Role::Active);
        endpoint.handle(now, Input::Open(SessionKey(1), one), &mut out);
        endpoint.handle(now, Input::Open(SessionKey(2), two), &mut out);
        endpoint.handle(now, Input::Accepted(ConnKey(0)), &mut out);
        endpoint.handle(now, Input::Connected(ConnKey(1), SessionKey(2)), &mut out);
        for (kind, rest) in script(data).take(64) {
            let conn = ConnKey(u64::from(kind & 1));
            let to = SessionKey(1 + u64::from(kind & 1));
            let input = match kind >> 4 {
                0..=3 => Input::Received(conn, Bytes::copy_from_slice(rest)),
                4 => Input::Drained(conn, rest.len() as u64),
                5 => Input::Disconnected(conn),
                6 => {
                    now += std::time::Duration::from_secs(rest.len() as u64);
                    while out.room() >= 64 && endpoint.next_timeout().is_some_and(|due| due <= now) {
                        let before = (out.len(), endpoint.next_timeout());
                        endpoint.timeout(now, &mut out);
                        if before == (out.len(), endpoint.next_timeout()) {
                            break;
                        }
                    }
                    continue;
                }
                7 => {
                    key += 1;
                    let body = Bytes::copy_from_slice(rest);
                    let message = Outgoing {
                        success_report: kind & 2 != 0,
                        ..Outgoing::new(Key(key), "text/plain", body)
                    };
                    Input::Command(to, Command::Send(message))
                }
                8 => Input::Command(to, Command::Abort(Key(key))),
                9 => Input::Command(to, Command::End),
                _ => Input::Command(to, Command::KeepAlive),
            };
            endpoint.handle(now, input, &mut out);
            let mut reports = Vec::new();
            for output in out.drain() {
                if let Output::Session(session, msrp::session::Output::Received(received)) = output {
                    assert!(received.message.body.len() as u64 <= ARRIVING_MAX);
                    reports.push((session, received));
                }
            }
            for (session, received) in reports {
                endpoint.handle(
                    now,
                    Input::Command(session, Command::Report(received, Status::OK)),
                    &mut out,
                );
            }
            assert_eq!(out.refused(), 0);
        }
    });
}

// RFC 7701, CPM-FACTS §3.8: members, a stranger's connection, control and the clock.
#[test]
fn msrp_room() {
    fuzz::target!().for_each(|data: &[u8]| {
        let mut room = Room::new();
        for (kind, rest) in script(data).take(64) {
            room.event(kind, rest);
        }
    });
}
