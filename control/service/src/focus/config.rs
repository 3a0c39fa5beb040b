//! The `[controlling]` section: conferences.

use cpm::UserId;
use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// Which phones get one stream of a conference instead of everybody's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plain {
    /// Those whose SDP shows no sign of several sources: no a=mid, no bundle, no header extension, no
    /// a=ssrc-group.
    #[default]
    Detect,
    /// None.
    Never,
    /// All.
    Always,
}

/// What of a conference's audio or video goes to a participant whose phone plays several streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spread {
    /// Everybody's.
    #[default]
    Distribute,
    /// Of who speaks.
    Select,
}

/// A medium of a conference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Medium {
    /// Chat over MSRP.
    Message,
    /// Audio over RTP.
    Audio,
    /// Video over RTP.
    Video,
}

impl Medium {
    /// Every medium, in the order of our offers.
    pub const ALL: [Medium; 3] = [Medium::Message, Medium::Audio, Medium::Video];

    /// The word in SDP and in conference documents.
    pub const fn word(self) -> &'static str {
        match self {
            Medium::Message => "message",
            Medium::Audio => "audio",
            Medium::Video => "video",
        }
    }
}

/// A pre-defined group.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupEntry {
    /// Its address, `sip:name@domain`; the name also names the conference.
    pub address: UserId,
    /// Its subject, shown to those who are invited.
    #[serde(default)]
    pub subject: String,
    /// Who may join.
    pub members: Vec<UserId>,
    /// Who may remove others.
    #[serde(default)]
    pub admins: Vec<UserId>,
    /// True: all members are invited when the first one joins; false: they come by themselves.
    #[serde(default)]
    pub invite_members: bool,
    /// True: participants may bring in users who are not members.
    #[serde(default)]
    pub open: bool,
    /// Media of its conferences; empty = all that the provider allows.
    #[serde(default)]
    pub media: Vec<Medium>,
}

/// The Controlling Function.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Controlling {
    /// The user part of the conference factory's address in each served domain.
    pub factory: String,
    /// Members of one conference (max_adhoc_group_size).
    pub members_max: usize,
    /// Sessions of one member at once; one more ends the oldest.
    pub sessions_per_member_max: usize,
    /// Conferences of one lane.
    pub conferences_max: usize,
    /// Ad-hoc conferences of one lane that one user has founded, sleeping ones included.
    pub conferences_per_user_max: usize,
    /// With fewer members than this an ad-hoc group ends (410 Gone).
    pub members_min: usize,
    /// True: members who were lost or could not be reached stay members and may join later.
    pub long_lived: bool,
    /// A member who is away from a long-lived group is invited again with the next message; one who could not be
    /// reached not before this time, seconds.
    pub reinvite_pause_s: u32,
    /// How long an invitation may ring, seconds.
    pub ring_s: u32,
    /// Media that the provider allows (REQ-CF-16).
    pub media: Vec<Medium>,
    /// Audio codecs, the preferred one first. A conference speaks one: the first of these that its first
    /// participant offers. G.711 stands first because every phone has it (RFC 7874 §3).
    pub audio_codecs: Vec<String>,
    /// Video codecs, the preferred one first.
    pub video_codecs: Vec<String>,
    /// What a phone is told that it may send of audio, with headers, kbit/s (b=AS), and is held to; 0 = nothing is said.
    pub audio_kbps: u32,
    /// The same of video.
    pub video_kbps: u32,
    /// Which phones get one stream instead of everybody's.
    pub plain_phones: Plain,
    /// Audio to phones that are not plain: everybody's, or of those who speak.
    pub audio_mode: Spread,
    /// Of so many speakers at once, with `audio_mode = "select"`; 1 to 16.
    pub audio_slots: u32,
    /// Video to phones that are not plain: everybody's, or of those who speak.
    pub video_mode: Spread,
    /// Of so many speakers at once, with `video_mode = "select"`; 1 to 16.
    pub video_slots: u32,
    /// How long a phone stays with one speaker where speakers are selected, milliseconds.
    pub select_hold_ms: u32,
    /// Private messages in rooms (RFC 7701 §6).
    pub private_messages: bool,
    /// Nicknames in rooms (RFC 7701 §7).
    pub nicknames: bool,
    /// Only who has a nickname may speak.
    pub nickname_required: bool,
    /// Words that no nickname may contain, compared like nicknames.
    pub nickname_words_forbidden: Vec<String>,
    /// A nickname that was given up is kept from others for so long, seconds.
    pub nickname_quarantine_s: u32,
    /// Octets of one message in a room; 0 = the data plane's limit.
    pub message_max_bytes: u64,
    /// Files for groups by MSRP (RFC 5547).
    pub files: bool,
    /// Octets of a file for a group; 0 = no limit.
    pub file_max_bytes: u64,
    /// Files on their way to groups of one lane at once.
    pub files_max: usize,
    /// The same of one sender.
    pub files_per_user_max: usize,
    /// When the first member has taken a file, the others have so long to answer before it is sent, seconds.
    pub file_wait_s: u32,
    /// When the sender has hung up, what is queued for members has so long to go out, seconds.
    pub file_drain_s: u32,
    /// A file of which no octet has come for so long ends, seconds; 0 = never.
    pub file_idle_s: u32,
    /// Members who read more slowly than others, for whom the rest waits on the data plane's disk then, have so long for it,
    /// seconds; 0: no longer than everybody.
    pub file_slow_max_s: u32,
    /// Least time between two notifications of one subscription, milliseconds (RFC 4575 §3.9 recommends
    /// five seconds).
    pub notify_interval_ms: u32,
    /// Life of a conference subscription when none is asked, seconds.
    pub subscription_default_s: u32,
    /// Below it: 423 with Min-Expires, seconds.
    pub subscription_min_s: u32,
    /// Never granted more, seconds.
    pub subscription_max_s: u32,
    /// Subscriptions of one conference.
    pub subscriptions_max: usize,
    /// Subscriptions of one member to one conference; one more ends the oldest.
    pub subscriptions_per_member_max: usize,
    /// A conference in which nobody says anything for so long goes to sleep, seconds; 0 = never.
    pub idle_s: u32,
    /// A sleeping conference is forgotten after so long, seconds.
    pub retention_s: u32,
    /// A media leg that was lost may be set up again for so long, seconds.
    pub leg_lost_grace_s: u32,
    /// Pre-defined groups.
    pub groups: Vec<GroupEntry>,
}

impl Default for Controlling {
    fn default() -> Self {
        let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect();
        Controlling {
            factory: "conference-factory".to_owned(),
            members_max: 100,
            sessions_per_member_max: 4,
            conferences_max: 10_000,
            conferences_per_user_max: 200,
            members_min: 2,
            long_lived: true,
            reinvite_pause_s: 10,
            ring_s: 180,
            media: Medium::ALL.to_vec(),
            audio_codecs: words(&["PCMU", "PCMA", "opus", "AMR-WB", "AMR", "EVS", "G722"]),
            video_codecs: words(&["H264", "VP8"]),
            audio_kbps: 0,
            video_kbps: 0,
            plain_phones: Plain::Detect,
            audio_mode: Spread::Distribute,
            audio_slots: 3,
            video_mode: Spread::Distribute,
            video_slots: 1,
            select_hold_ms: 500,
            private_messages: true,
            nicknames: true,
            nickname_required: false,
            nickname_words_forbidden: Vec::new(),
            nickname_quarantine_s: 600,
            message_max_bytes: 0,
            files: true,
            file_max_bytes: 0,
            files_max: 1000,
            files_per_user_max: 4,
            file_wait_s: 20,
            file_drain_s: 10,
            file_idle_s: 300,
            file_slow_max_s: 7200,
            notify_interval_ms: 5000,
            subscription_default_s: 3600,
            subscription_min_s: 60,
            subscription_max_s: 86_400,
            subscriptions_max: 200,
            subscriptions_per_member_max: 8,
            idle_s: 1800,
            retention_s: 604_800,
            leg_lost_grace_s: 30,
            groups: Vec::new(),
        }
    }
}

impl Controlling {
    /// Refuses what could not work.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let value = |key, reason| Err(ConfigError::Value { key, reason });
        // One call puts out at most a BYE and a NOTIFY for each (OUTPUTS_MAX).
        if self.members_max == 0 || self.members_max > 400 || self.subscriptions_max > 400 {
            return value("controlling.members_max, subscriptions_max", "1 to 400");
        }
        if self.sessions_per_member_max == 0 || self.subscriptions_per_member_max == 0 {
            return value("controlling.sessions_per_member_max, subscriptions_per_member_max", "at least 1");
        }
        if self.subscription_min_s > self.subscription_default_s
            || self.subscription_default_s > self.subscription_max_s
        {
            return value("controlling.subscription_*_s", "min <= default <= max must hold");
        }
        if [self.audio_slots, self.video_slots].iter().any(|slots| !(1..=16).contains(slots)) {
            return value("controlling.audio_slots, video_slots", "1 to 16");
        }
        if self.factory.is_empty() || self.factory.starts_with(super::AD_HOC) {
            return value("controlling.factory", "a name that does not begin like an ad-hoc group's");
        }
        if self.groups.iter().any(|g| g.id().is_none()) {
            return Err(ConfigError::Address { key: "controlling.groups.address" });
        }
        if self.groups.iter().any(|g| g.members.len() > self.members_max) {
            return value("controlling.groups.members", "more than controlling.members_max");
        }
        Ok(())
    }

    /// What a phone may send of a medium, kbit/s.
    pub(crate) fn kbps(&self, medium: Medium) -> Option<u64> {
        let kbps = match medium {
            Medium::Audio => self.audio_kbps,
            Medium::Video => self.video_kbps,
            Medium::Message => 0,
        };
        (kbps > 0).then_some(u64::from(kbps))
    }

    /// The group whose conference has this name.
    pub(crate) fn group(&self, id: &str) -> Option<&GroupEntry> {
        self.groups.iter().find(|g| g.id() == Some(id))
    }
}

impl GroupEntry {
    /// The user part of its address: the name of its conference.
    pub(crate) fn id(&self) -> Option<&str> {
        let (user, _) = self.address.as_str().strip_prefix("sip:")?.rsplit_once('@')?;
        Some(user)
    }
}
