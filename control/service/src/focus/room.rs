//! The room in the data plane: one context with a leg for each media line of each session, and the paths
//! between them (REQ-CF-14; DESIGN §3).
//!
//! ```text
//!   message   SWITCH      every "msrp" leg      -> every "msrp" leg
//!   audio     DISTRIBUTE  every audio leg       -> legs of peers that play several sources
//!             (or SELECT(n), if the operator says so)
//!             SELECT(1)   every audio leg       -> legs of plain phones
//!   video     the same two; who is selected follows the audio
//! ```
//!
//! A conference speaks one codec in each medium, chosen from what its first participant offers, so that
//! nobody hears what he cannot decode. Payload types are those of that participant; the legs of others map.
//!
//! [`super::offer`] has the session descriptions; this file knows legs and paths only.

use contract::{
    Distribute, Leg, LegSet, Mode, MsrpLeg, MsrpLocal, Path, RtpLeg, RtpLocal, Select, Switch, leg, path,
};
use sdp::Format;
use serde::{Deserialize, Serialize};

use super::config::{Controlling, Medium, Spread};
use crate::media::Anchor;

/// One medium of the conference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    /// Which.
    pub(crate) medium: Medium,
    /// The codec and its companions (telephone events), with the payload types of the context; empty for
    /// messages.
    pub(crate) formats: Vec<Format>,
}

/// The room of one conference.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    pub(crate) anchor: Anchor,
    pub(crate) lines: Vec<Line>,
    /// Chat connections of invitees run over TLS, as the initiator's does.
    pub(crate) tls: bool,
}

/// One media line of a session with a participant.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Strand {
    /// What the line is; `None` for one that is refused.
    pub(crate) medium: Option<Medium>,
    /// Its leg; 0 = none.
    pub(crate) leg: u64,
    /// The peer plays one source only.
    pub(crate) plain: bool,
}

/// What the switch is told about a participant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Chatter {
    /// Names all sessions of the participant.
    pub(crate) participant: String,
    /// Its own addresses; the first one is how others see it.
    pub(crate) addresses: Vec<String>,
    pub(crate) nickname: String,
}

const MESSAGE_PATH: u32 = 1;

/// Path numbers of a medium: to rich peers, to plain ones.
const fn rtp_paths(medium: Medium) -> (u32, u32) {
    match medium {
        Medium::Video => (4, 5),
        Medium::Audio | Medium::Message => (2, 3),
    }
}

impl Room {
    pub(crate) fn new(anchor: Anchor, tls: bool) -> Self {
        Room { anchor, lines: Vec::new(), tls }
    }

    /// A medium of the room, if it is open.
    pub(crate) fn line(&self, medium: Medium) -> Option<&Line> {
        self.lines.iter().find(|l| l.medium == medium)
    }

    /// Opens a medium.
    pub(crate) fn open(
        &mut self,
        config: &Controlling,
        medium: Medium,
        formats: Vec<Format>,
        own: Vec<String>,
    ) {
        if self.line(medium).is_some() {
            return;
        }
        if medium == Medium::Message {
            let set = || Some(LegSet { legs: Vec::new(), media: "msrp".to_owned() });
            self.anchor.put_path(Path {
                id: MESSAGE_PATH,
                context: self.anchor.id(),
                mode: Mode::Switch.into(),
                sources: set(),
                targets: set(),
                parameters: Some(path::Parameters::Switch(Switch {
                    room: own,
                    private_messages: config.private_messages,
                    nicknames: config.nicknames,
                    nickname_required: config.nickname_required,
                    max_size: config.message_max_bytes,
                })),
            });
        }
        self.lines.push(Line { medium, formats });
        self.lines.sort_by_key(|l| l.medium);
    }

    /// A leg whose peer is not known yet. Once put, the data plane says where its local end is.
    pub(crate) fn new_leg(&mut self, medium: Medium, who: &Chatter) -> Leg {
        let kind = match medium {
            Medium::Message => leg::Kind::Msrp(MsrpLeg {
                local: Some(MsrpLocal::default()),
                tls: self.tls,
                addresses: who.addresses.clone(),
                nickname: who.nickname.clone(),
                ..MsrpLeg::default()
            }),
            Medium::Audio | Medium::Video => leg::Kind::Rtp(RtpLeg {
                local: Some(RtpLocal::default()),
                rtcp_mux: true,
                video: medium == Medium::Video,
                ..RtpLeg::default()
            }),
        };
        Leg {
            id: self.anchor.draw_leg(),
            context: self.anchor.id(),
            media: media_name(medium).to_owned(),
            participant: who.participant.clone(),
            kind: Some(kind),
            ..Leg::default()
        }
    }

    /// What a participant is called and by which addresses it speaks has changed.
    pub(crate) fn rename(&mut self, leg: u64, who: &Chatter) {
        self.anchor.change_leg(leg, |leg| {
            if let Some(leg::Kind::Msrp(msrp)) = &mut leg.kind {
                msrp.nickname.clone_from(&who.nickname);
                msrp.addresses.clone_from(&who.addresses);
            }
        });
    }

    /// The local end of an RTP leg, once the data plane has said where it is.
    pub(crate) fn rtp_local(&self, leg: u64) -> Option<&RtpLocal> {
        match &self.anchor.leg(leg)?.kind {
            Some(leg::Kind::Rtp(rtp)) => rtp.local.as_ref().filter(|l| l.advertised.is_some()),
            _ => None,
        }
    }

    /// The local end of a message leg, once the data plane has said where it is.
    pub(crate) fn msrp_local(&self, leg: u64) -> Option<&MsrpLocal> {
        match &self.anchor.leg(leg)?.kind {
            Some(leg::Kind::Msrp(msrp)) => msrp.local.as_ref().filter(|l| !l.path.is_empty()),
            _ => None,
        }
    }

    /// Draws the RTP paths anew, from the strands of all sessions.
    pub(crate) fn route<'a>(
        &mut self,
        config: &Controlling,
        strands: impl Iterator<Item = &'a Strand> + Clone,
    ) {
        for medium in [Medium::Audio, Medium::Video] {
            let of = |plain: Option<bool>| -> Vec<u64> {
                let mut legs: Vec<u64> = strands
                    .clone()
                    .filter(|s| s.medium == Some(medium) && s.leg != 0 && plain.is_none_or(|p| s.plain == p))
                    .map(|s| s.leg)
                    .filter(|leg| self.anchor.leg(*leg).is_some())
                    .collect();
                legs.sort_unstable();
                legs
            };
            let (all, rich, plain) = (of(None), of(Some(false)), of(Some(true)));
            let (distribute, select) = rtp_paths(medium);
            let (spread, slots) = match medium {
                Medium::Video => (config.video_mode, config.video_slots),
                Medium::Audio | Medium::Message => (config.audio_mode, config.audio_slots),
            };
            // Who is seen is who is heard: by any path that has all audio legs as its sources.
            let (rich_audio, plain_audio) = rtp_paths(Medium::Audio);
            let heard = [rich_audio, plain_audio].into_iter().find(|path| self.anchor.path(*path).is_some());
            let follows = heard.filter(|_| medium == Medium::Video).unwrap_or(0);
            let select_of = |slots| {
                let hold_ms = config.select_hold_ms;
                path::Parameters::Select(Select { slots, hold_ms, follows, contributors: false })
            };
            match spread {
                Spread::Distribute => {
                    let to_rich = path::Parameters::Distribute(Distribute::default());
                    self.draw(distribute, Mode::Distribute, &all, rich, to_rich);
                }
                Spread::Select => self.draw(distribute, Mode::Select, &all, rich, select_of(slots)),
            }
            self.draw(select, Mode::Select, &all, plain, select_of(1));
        }
    }

    fn draw(&mut self, id: u32, mode: Mode, from: &[u64], to: Vec<u64>, parameters: path::Parameters) {
        // A path needs a source that is not its only target.
        if to.is_empty() || from.len() < 2 {
            self.anchor.remove_path(id);
            return;
        }
        self.anchor.put_path(Path {
            id,
            context: self.anchor.id(),
            mode: mode.into(),
            sources: Some(LegSet { legs: from.to_vec(), media: String::new() }),
            targets: Some(LegSet { legs: to, media: String::new() }),
            parameters: Some(parameters),
        });
    }
}

/// The name that paths know a medium's legs by.
const fn media_name(medium: Medium) -> &'static str {
    match medium {
        Medium::Message => "msrp",
        Medium::Audio => "audio",
        Medium::Video => "video",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strand(room: &mut Room, medium: Medium, plain: bool) -> Strand {
        let leg = room.new_leg(medium, &Chatter::default());
        let id = leg.id;
        room.anchor.put_leg(leg);
        Strand { medium: Some(medium), leg: id, plain }
    }

    // REQ-CF-14: everybody's audio goes to everybody; a phone that plays one stream gets one slot.
    #[test]
    fn plain_phones_are_selected_for_and_the_others_get_all() {
        let config = Controlling::default();
        let mut room = Room::new(Anchor::new(1, String::new()), false);
        let strands = [
            strand(&mut room, Medium::Audio, false),
            strand(&mut room, Medium::Audio, true),
            strand(&mut room, Medium::Audio, false),
            strand(&mut room, Medium::Message, false),
        ];
        room.route(&config, strands.iter());
        let legs = |set: &Option<LegSet>| set.clone().unwrap().legs;
        let path = |room: &Room, id| room.anchor.path(id).cloned();
        let (rich, plain) = (path(&room, 2).unwrap(), path(&room, 3).unwrap());
        assert_eq!(
            (rich.mode(), legs(&rich.sources), legs(&rich.targets)),
            (Mode::Distribute, vec![1, 2, 3], vec![1, 3])
        );
        assert_eq!(
            (plain.mode(), legs(&plain.sources), legs(&plain.targets)),
            (Mode::Select, vec![1, 2, 3], vec![2])
        );
        assert!(path(&room, 4).is_none());
        // One is left: nothing to pass on.
        room.route(&config, strands[..1].iter());
        assert!(path(&room, 2).is_none() && path(&room, 3).is_none());
    }
    // The operator may have speakers selected for all; who is seen is who is heard.
    #[test]
    fn where_the_operator_says_so_speakers_are_selected_and_video_follows_audio() {
        let config = Controlling {
            audio_mode: Spread::Select,
            video_mode: Spread::Select,
            video_slots: 2,
            ..Controlling::default()
        };
        let mut room = Room::new(Anchor::new(1, String::new()), false);
        let mut strands = Vec::new();
        for plain in [false, true, false] {
            strands.push(strand(&mut room, Medium::Audio, plain));
            strands.push(strand(&mut room, Medium::Video, plain));
        }
        room.route(&config, strands.iter());
        let select =
            |room: &Room, id| match room.anchor.path(id).map(|path| (path.mode(), path.parameters.clone())) {
                Some((Mode::Select, Some(path::Parameters::Select(select)))) => {
                    Some((select.slots, select.follows))
                }
                _ => None,
            };
        assert_eq!(
            [2, 3, 4, 5].map(|id| select(&room, id)),
            [Some((3, 0)), Some((1, 0)), Some((2, 2)), Some((1, 2))]
        );
        // One audio leg alone is no path, and nothing to follow.
        let left: Vec<Strand> =
            strands.into_iter().filter(|s| s.plain || s.medium == Some(Medium::Video)).collect();
        room.route(&config, left.iter());
        assert_eq!(select(&room, 4), Some((2, 0)));
    }
}
