//! The media of one session: our side of its session descriptions, the MSRP session and the audio flow under them
//! (RFC 3264, RFC 4975 §8, RFC 6135).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use cpm::media_type;
use msrp::{MsrpUri, Path};
use rtp::srtp::{Keying, Suite};
use sdp::{
    Accept, AcceptBody, AcceptMessage, AcceptRtp, Body, Chatroom, Choice, Codec, Crypto, CryptoSuite,
    Direction, Fingerprint, Format, Host, Kind, MediaLine, Message, Origin, Proto, Role, Rtp, Session,
    Setup as SdpSetup, Stamp,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::account::ChatSetup;
use crate::chat::{Chat, Plan, Secure, Setup, Style};
use crate::flow::{Flow, FlowOptions};
use crate::shared::Shared;
use crate::{SessionId, UeError};

/// URIs in a path that we accept.
const PATH_URIS_MAX: usize = 8;
/// What a port says whose owner opens connections only (RFC 6135 §4.2).
const DISCARD: u16 = 9;

/// A flow that the device and its user both reach.
pub type SharedFlow = Arc<Mutex<Flow>>;

/// One m= line of ours, in the order of the first description.
#[derive(Debug)]
enum Slot {
    Message(MessageLeg),
    Audio,
    Refused(Box<MediaLine>),
}

#[derive(Debug)]
struct MessageLeg {
    local: MsrpUri,
    port: u16,
    listener: Option<TcpListener>,
    tls: bool,
    /// Path of the peer that the running session speaks to.
    remote: Option<String>,
}

/// See the head of the file.
#[derive(Debug)]
pub(crate) struct Media {
    shared: Arc<Shared>,
    session: SessionId,
    style: Style,
    stamp: Stamp,
    slots: Vec<Slot>,
    direction: Direction,
    flow: Option<SharedFlow>,
    chat: Option<(Chat, JoinHandle<()>)>,
    offered: Option<Session>,
    /// Our key of the audio line, once it was agreed.
    keys: Option<Crypto>,
    /// The media are another's.
    carried: bool,
}

impl Media {
    pub(crate) fn new(shared: Arc<Shared>, session: SessionId, style: Style) -> Self {
        let origin = Origin::fresh(&mut shared.entropy(), Host::Ip(shared.account.bind));
        Media {
            stamp: Stamp::new(origin),
            shared,
            session,
            style,
            slots: Vec::new(),
            direction: Direction::SendRecv,
            flow: None,
            chat: None,
            offered: None,
            keys: None,
            carried: false,
        }
    }

    /// The MSRP session, once it was negotiated.
    pub(crate) fn chat(&self) -> Option<&Chat> {
        self.chat.as_ref().map(|(chat, _)| chat)
    }

    /// The audio flow, once there is one.
    pub(crate) fn flow(&self) -> Option<&SharedFlow> {
        self.flow.as_ref()
    }

    pub(crate) fn set_style(&mut self, style: Style) {
        self.style = style;
    }

    /// What we would do with audio: held with `SendOnly` or `Inactive`.
    pub(crate) fn set_direction(&mut self, direction: Direction) {
        self.direction = direction;
    }

    /// An offer with these kinds of media; lines that there are already stay, in their places. `fresh` sets the MSRP
    /// session up anew: another path (CPM-FACTS §3.3).
    pub(crate) async fn offer(
        &mut self,
        message: bool,
        audio: bool,
        fresh: bool,
    ) -> Result<Session, UeError> {
        let has = |slots: &[Slot], wanted: fn(&Slot) -> bool| slots.iter().any(wanted);
        if message && !has(&self.slots, |s| matches!(s, Slot::Message(_))) {
            let leg = self.message_leg(self.shared.account.chat_tls).await?;
            self.slots.push(Slot::Message(leg));
        } else if fresh {
            self.renew_message().await?;
        }
        if audio && !has(&self.slots, |s| matches!(s, Slot::Audio)) {
            self.open_flow().await?;
            self.slots.push(Slot::Audio);
        }
        let mut session = Session::new(self.stamp.origin());
        for slot in &self.slots {
            session = session.with(match slot {
                Slot::Message(leg) => self.message_line(leg),
                Slot::Audio => self.audio_line(),
                Slot::Refused(line) => line.refused(),
            });
        }
        let session = self.stamp.stamp(session);
        self.offered = Some(session.clone());
        Ok(session)
    }

    /// Offers what somebody else has written.
    pub(crate) fn carry(&mut self, description: &[u8]) -> Result<(), UeError> {
        let read = Session::parse(description, &sdp::Limits::default());
        self.offered = Some(read.map_err(|e| UeError::Bad(format!("the description: {e}")))?);
        self.carried = true;
        Ok(())
    }

    /// Answers what somebody else has written.
    pub(crate) fn carry_answer(&mut self) {
        self.carried = true;
    }

    /// Its media are somebody else's.
    pub(crate) fn is_carried(&self) -> bool {
        self.carried
    }

    /// Takes the answer to our offer and sets the media up.
    pub(crate) fn answered(&mut self, answer: &Session) -> Result<(), UeError> {
        let offer = self.offered.take().ok_or(UeError::State("an answer without an offer"))?;
        sdp::check_answer(&offer, answer).map_err(|e| UeError::Bad(format!("answer: {e}")))?;
        if self.carried {
            return Ok(());
        }
        for (index, (own, theirs)) in offer.lines.iter().zip(&answer.lines).enumerate() {
            let role = sdp::message_role(own, theirs);
            self.establish(index, own.direction.answered(theirs.direction).mirrored(), theirs, role)?;
            self.guard(index, own, theirs)?;
        }
        Ok(())
    }

    /// Answers an offer and sets the media up.
    pub(crate) async fn answer(&mut self, offer: &Session) -> Result<Session, UeError> {
        for (index, line) in offer.lines.iter().enumerate() {
            self.prepare(index, line).await?;
        }
        let session =
            sdp::answer(offer, self.stamp.origin(), Host::Ip(self.shared.account.bind), |index, line| {
                self.choose(index, line)
            });
        let session = self.stamp.stamp(session);
        for (index, (theirs, own)) in offer.lines.iter().zip(&session.lines).enumerate() {
            let role = sdp::message_role(theirs, own).other();
            self.establish(index, own.direction, theirs, role)?;
            self.guard(index, own, theirs)?;
        }
        Ok(session)
    }

    /// Ends everything.
    pub(crate) fn close(&mut self) {
        if let Some((chat, _)) = &self.chat {
            chat.close();
        }
        self.flow = None;
    }

    async fn prepare(&mut self, index: usize, line: &MediaLine) -> Result<(), UeError> {
        if line.is_refused() {
            if index >= self.slots.len() {
                self.slots.push(Slot::Refused(Box::new(line.clone())));
            }
            return Ok(());
        }
        match (self.slots.get(index), &line.body, &line.kind) {
            (Some(Slot::Message(leg)), Body::Message(theirs), _) => {
                // A path that we do not speak to yet is another session: it gets another path of ours.
                if leg.remote.as_ref().is_some_and(|remote| *remote != theirs.path) {
                    self.renew_message().await?;
                }
            }
            (None, Body::Message(_), _) => {
                let leg = self.message_leg(line.proto == Proto::MsrpTls).await?;
                self.slots.push(Slot::Message(leg));
            }
            (None, Body::Rtp(_), Kind::Audio) => {
                self.open_flow().await?;
                self.slots.push(Slot::Audio);
            }
            (None, ..) => self.slots.push(Slot::Refused(Box::new(line.clone()))),
            (Some(_), ..) => {}
        }
        Ok(())
    }

    fn choose(&self, index: usize, line: &MediaLine) -> Choice {
        let accept = |port, body, fingerprints, direction| {
            Choice::accept(Accept { host: None, port, direction, fingerprints, label: None, body })
        };
        match self.slots.get(index) {
            Some(Slot::Message(leg)) => {
                let message = AcceptMessage {
                    path: leg.local.as_str().to_owned(),
                    reachable: leg.listener.is_some(),
                    accept_types: self.accept_types(),
                    accept_wrapped_types: vec!["*".to_owned()],
                    max_size: Some(self.shared.account.chat.reassembly.message_octets_max),
                    cema: false,
                    chatroom: self.chatroom(),
                };
                // Of offers that name a file (RFC 5547) nothing is known here: any type is taken.
                let wants_file = line.message().is_some_and(|m| m.file.is_some());
                let accept_types =
                    if wants_file { vec!["*".to_owned()] } else { message.accept_types.clone() };
                let body = AcceptBody::Message(AcceptMessage { accept_types, ..message });
                accept(leg.port, body, self.fingerprints(leg.tls), Direction::SendRecv)
            }
            Some(Slot::Audio) => {
                let crypto = self.keys_answering(line);
                let body = AcceptBody::Rtp(AcceptRtp {
                    crypto,
                    codecs: vec![(Codec::new("PCMU", 8000), None)],
                    codecs_max: 1,
                    rtcp_mux: true,
                    ..AcceptRtp::default()
                });
                accept(self.flow_port(), body, Vec::new(), self.direction)
            }
            _ => Choice::Refuse,
        }
    }

    /// Brings one negotiated line up. `direction` is ours.
    fn establish(
        &mut self,
        index: usize,
        direction: Direction,
        theirs: &MediaLine,
        role: Role,
    ) -> Result<(), UeError> {
        match (self.slots.get_mut(index), &theirs.body) {
            (Some(Slot::Message(leg)), Body::Message(message)) if !theirs.is_refused() => {
                if leg.remote.as_ref() == Some(&message.path) {
                    return Ok(());
                }
                leg.remote = Some(message.path.clone());
                let remote = Path::parse(&message.path, PATH_URIS_MAX)
                    .map_err(|e| UeError::Bad(format!("path: {e}")))?;
                let setup = match (role, leg.listener.take()) {
                    (Role::Passive, Some(listener)) => Setup::Passive(listener),
                    (Role::Passive, None) => {
                        return Err(UeError::Bad("both ends want to connect".to_owned()));
                    }
                    (Role::Active, _) => Setup::Active(address_of(&remote)?),
                };
                let secure = leg.tls.then(|| Secure {
                    identity: Arc::clone(&self.shared.identity),
                    expected: sha256_of(&theirs.fingerprints),
                });
                let local = leg.local.clone();
                let plan = Plan { session: self.session, style: self.style, setup, secure, local, remote };
                if let Some((old, _)) = self.chat.replace(Chat::start(&self.shared, plan)) {
                    old.close();
                }
            }
            (Some(Slot::Audio), Body::Rtp(rtp)) if !theirs.is_refused() => {
                let ip = theirs
                    .host
                    .as_ref()
                    .and_then(Host::ip)
                    .ok_or(UeError::Bad("c= without an address".to_owned()))?;
                let to = SocketAddr::new(ip, theirs.port);
                let rtcp_port = match &rtp.rtcp {
                    _ if rtp.rtcp_mux => theirs.port,
                    Some(rtcp) => rtcp.port,
                    None => theirs.port.saturating_add(1),
                };
                if let Some(flow) = &self.flow {
                    let flow = flow.lock().unwrap_or_else(PoisonError::into_inner);
                    flow.aim(to, SocketAddr::new(ip, rtcp_port));
                    flow.allow_sending(direction.sends() && theirs.effective_direction().receives());
                }
            }
            (Some(Slot::Message(_)), _) => {
                if let Some((old, _)) = self.chat.take() {
                    old.close();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Our key for a line that offers keys: the one that we have, if its suite is offered, or a fresh one.
    fn keys_answering(&self, line: &MediaLine) -> Option<Crypto> {
        let rtp = line.rtp()?;
        let kept = self
            .keys
            .as_ref()
            .and_then(|own| rtp.crypto.iter().find(|c| c.suite == own.suite).zip(Some(own)));
        if let Some((theirs, own)) = kept {
            return Crypto::new(theirs.tag, own.suite, own.key());
        }
        let theirs = rtp.choose_crypto(&CryptoSuite::ALL)?;
        Some(Crypto::draw(theirs.tag, theirs.suite, &mut self.shared.entropy()))
    }

    /// Keys that both descriptions agree on go into the flow; without any it is plain.
    fn guard(&mut self, index: usize, own: &MediaLine, theirs: &MediaLine) -> Result<(), UeError> {
        let (Some(Slot::Audio), Some(flow)) = (self.slots.get(index), &self.flow) else { return Ok(()) };
        let (Some(ours), Some(got)) = (own.rtp(), theirs.rtp()) else { return Ok(()) };
        let pair = ours.crypto.iter().find_map(|own| {
            Some((own, got.crypto.iter().find(|c| c.tag == own.tag && c.suite == own.suite)?))
        });
        self.keys = pair.map(|(own, _)| own.clone());
        let keys = pair.and_then(|(own, got)| Some((keying(own)?, keying(got)?)));
        let flow = flow.lock().unwrap_or_else(PoisonError::into_inner);
        flow.guard(keys).map_err(|e| UeError::Bad(format!("keys: {e}")))
    }

    async fn message_leg(&self, tls: bool) -> Result<MessageLeg, UeError> {
        let account = &self.shared.account;
        let listener = match account.chat_setup {
            ChatSetup::Active => None,
            ChatSetup::Passive => Some(TcpListener::bind((account.bind, 0)).await?),
        };
        let port = match &listener {
            Some(listener) => listener.local_addr()?.port(),
            None => DISCARD,
        };
        let host = Host::Ip(account.bind).in_uri();
        let local = MsrpUri::build(tls, &host, port, &self.shared.token(128))
            .map_err(|e| UeError::Bad(format!("own path: {e}")))?;
        Ok(MessageLeg { local, port, listener, tls, remote: None })
    }

    async fn renew_message(&mut self) -> Result<(), UeError> {
        let at = self.slots.iter().position(|s| matches!(s, Slot::Message(_)));
        let Some((at, Slot::Message(old))) = at.and_then(|at| Some((at, self.slots.get(at)?))) else {
            return Ok(());
        };
        let fresh = self.message_leg(old.tls).await?;
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Slot::Message(fresh);
        }
        Ok(())
    }

    async fn open_flow(&mut self) -> Result<(), UeError> {
        if self.flow.is_none() {
            let account = &self.shared.account;
            let options = FlowOptions {
                rtcp_every: account.rtcp_every,
                keep_samples_max: account.keep_samples_max,
                cname: self.shared.token(40),
            };
            let flow = Flow::open(account.bind, &mut self.shared.entropy(), options).await?;
            self.flow = Some(Arc::new(Mutex::new(flow)));
        }
        Ok(())
    }

    fn flow_port(&self) -> u16 {
        self.flow
            .as_ref()
            .map_or(0, |flow| flow.lock().unwrap_or_else(PoisonError::into_inner).local().port())
    }

    fn message_line(&self, leg: &MessageLeg) -> MediaLine {
        let message = Message {
            path: leg.local.as_str().to_owned(),
            accept_types: self.accept_types(),
            accept_wrapped_types: vec!["*".to_owned()],
            max_size: Some(self.shared.account.chat.reassembly.message_octets_max),
            cema: false,
            chatroom: self.chatroom(),
            file: None,
        };
        let proto = if leg.tls { Proto::MsrpTls } else { Proto::Msrp };
        let mut line = MediaLine::new(Kind::Message, leg.port, proto, Body::Message(message));
        // RFC 6135 §4.2: an offer never says passive.
        line.setup = Some(if leg.listener.is_some() || leg.port != DISCARD {
            SdpSetup::ActPass
        } else {
            SdpSetup::Active
        });
        line.fingerprints = self.fingerprints(leg.tls);
        line
    }

    fn audio_line(&self) -> MediaLine {
        let rtp = Rtp {
            formats: vec![Format { payload: 0, codec: Codec::new("PCMU", 8000), parameters: None }],
            rtcp_mux: true,
            ptime: Some(20),
            crypto: self.keys_offered(),
            ..Rtp::default()
        };
        let proto = Proto::RtpAvp.with_sdes(!rtp.crypto.is_empty());
        let mut line = MediaLine::new(Kind::Audio, self.flow_port(), proto, Body::Rtp(rtp));
        line.direction = self.direction;
        line
    }

    /// The key that we have, or a fresh one for each suite that the account offers.
    fn keys_offered(&self) -> Vec<Crypto> {
        if let Some(own) = &self.keys {
            return Crypto::new(1, own.suite, own.key()).into_iter().collect();
        }
        let suites = (1u32..).zip(&self.shared.account.srtp);
        suites.map(|(tag, suite)| Crypto::draw(tag, *suite, &mut self.shared.entropy())).collect()
    }

    fn accept_types(&self) -> Vec<String> {
        let types: &[&str] = match self.style {
            Style::OneToOne => &[media_type::CPIM, media_type::IS_COMPOSING],
            Style::Room => &[media_type::CPIM],
        };
        types.iter().map(|t| (*t).to_owned()).collect()
    }

    fn chatroom(&self) -> Option<Chatroom> {
        (self.style == Style::Room).then(|| Chatroom {
            nickname: true,
            private_messages: true,
            others: Vec::new(),
        })
    }

    fn fingerprints(&self, tls: bool) -> Vec<Fingerprint> {
        if tls { vec![Fingerprint::sha256(self.shared.identity.fingerprint)] } else { Vec::new() }
    }
}

fn keying(crypto: &Crypto) -> Option<Keying> {
    let suite = match crypto.suite {
        CryptoSuite::AesCm128HmacSha1_80 => Suite::AesCm128HmacSha1_80,
        CryptoSuite::AesCm128HmacSha1_32 => Suite::AesCm128HmacSha1_32,
        CryptoSuite::AesCm256HmacSha1_80 => Suite::AesCm256HmacSha1_80,
        CryptoSuite::AesCm256HmacSha1_32 => Suite::AesCm256HmacSha1_32,
        CryptoSuite::AeadAes128Gcm => Suite::AeadAes128Gcm,
        CryptoSuite::AeadAes256Gcm => Suite::AeadAes256Gcm,
    };
    Keying::new(suite, crypto.key())
}

fn address_of(path: &Path) -> Result<SocketAddr, UeError> {
    let view = path.view();
    let first = view.first().ok_or(UeError::Bad("empty path".to_owned()))?;
    match (first.ip(), first.port()) {
        (Some(ip), Some(port)) => Ok(SocketAddr::new(ip, port)),
        _ => Err(UeError::Bad("a path without a numeric address".to_owned())),
    }
}

fn sha256_of(fingerprints: &[Fingerprint]) -> Option<[u8; 32]> {
    fingerprints.iter().find(|f| f.hash.eq_ignore_ascii_case("SHA-256"))?.octets.as_slice().try_into().ok()
}
