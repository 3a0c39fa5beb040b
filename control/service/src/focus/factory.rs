//! How a conference comes to be: INVITE to the factory with a recipient list, INVITE to a pre-defined group
//! (RFC 5366, RFC 4579 §5.3; CPM-FACTS §2.6, §2.27; REQ-CF-10, REQ-CF-20).
//!
//! A factory INVITE whose Contribution-ID belongs to a known group is a restart: its sender joins that one
//! instead of making a twin.

use base::Private;
use cpm::resource_lists::{Copy, Entry, ResourceList};
use cpm::{ContributionId, ConversationId, UserId, media_type};
use sip::{Name, Request};

use super::conference::{Conference, Kind, Phase};
use super::config::{Controlling, GroupEntry, Medium};
use super::invite::callable;
use super::room::Room;
use super::roster::{Member, MemberId};
use super::say;
use crate::b2b;
use crate::body;
use crate::media::Anchor;
use crate::turn::Turn;
use crate::{Config, LaneKey};

/// A refusal: status and, where there is one, the OMA text.
pub(crate) type Refusal = (u16, Option<&'static str>);

/// What an INVITE to the factory asks for.
pub(crate) struct Founding {
    pub(crate) conversation: String,
    pub(crate) contribution: String,
    subject: String,
    closed: bool,
    pub(super) entries: Vec<Entry>,
    /// The initiator's one-to-one session that the group replaces, for invitees whose entry names none.
    replaces: Option<String>,
}

impl Founding {
    /// Reads the INVITE. The list must be there, and name somebody else.
    pub(crate) fn read(turn: &mut Turn<'_>, request: &Request, initiator: &UserId) -> Result<Self, Refusal> {
        let lenient = turn.config().participating.lenient_ids;
        let text = |name: &Name| request.headers.text(name).map(|t| t.trim().to_owned());
        let (conversation, contribution) = ids(turn, request, lenient)?;
        let max = turn.config().controlling.members_max;
        let entries = match say::part(&request.headers, &request.body, media_type::RESOURCE_LISTS) {
            Some(list) => {
                let limits = cpm::Limits { entries_max: max.saturating_mul(2), ..cpm::Limits::default() };
                let list = ResourceList::read(&list, &limits).map_err(|e| match e.fault() {
                    base::Fault::Refused => (486, Some(say::TOO_MANY)),
                    _ => (400, None),
                })?;
                // Lists elsewhere are not followed (RFC 5366 §4 lets a server refuse them).
                if list.references > 0 && list.entries.is_empty() {
                    return Err((488, None));
                }
                list.entries
            }
            None => return Err((400, None)),
        };
        let factory_user = turn.config().controlling.factory.clone();
        let mut seen: Vec<UserId> = vec![initiator.clone()];
        let mut kept = Vec::new();
        for entry in entries {
            let Some(user) = callable(&entry.uri) else { continue };
            // CPM-FACTS §2.3: a list that holds the factory itself is a loop.
            if is_own(turn.config(), &entry.uri, &factory_user) {
                return Err((482, None));
            }
            if !seen.contains(&user) {
                seen.push(user);
                kept.push(entry);
            }
        }
        if seen.len() > max {
            return Err((486, Some(say::TOO_MANY)));
        }
        if kept.is_empty() {
            return Err((400, None));
        }
        let closed =
            request.headers.fields(&Name::AcceptContact).chain(request.headers.fields(&Name::Contact)).any(
                |v| {
                    let text = String::from_utf8_lossy(v).to_ascii_lowercase().replace("%3a", ":");
                    text.contains(cpm::feature::service::CLOSED_GROUP_CHAT)
                },
            );
        Ok(Founding {
            conversation,
            contribution,
            subject: text(&Name::Subject).unwrap_or_default(),
            closed,
            entries: kept,
            replaces: text(&Name::SessionReplaces),
        })
    }
}

/// The ids of an INVITE; made up where it lacks them and we are lenient (CPM-FACTS §2.5 step 4).
fn ids(turn: &mut Turn<'_>, request: &Request, lenient: bool) -> Result<(String, String), Refusal> {
    let given = |name: &Name| request.headers.text(name);
    let conversation =
        given(&Name::ConversationId).map(ConversationId::parse).transpose().map_err(|_| (400, None))?;
    let contribution =
        given(&Name::ContributionId).map(ContributionId::parse).transpose().map_err(|_| (400, None))?;
    if !lenient && (conversation.is_none() || contribution.is_none()) {
        return Err((400, None));
    }
    let entropy = &mut turn.desk.entropy;
    let conversation = conversation.unwrap_or_else(|| ConversationId::draw(entropy));
    let contribution = contribution.unwrap_or_else(|| ContributionId::draw(entropy));
    Ok((conversation.into(), contribution.into()))
}

fn is_own(config: &Config, uri: &str, user: &str) -> bool {
    uri.parse::<sip::Uri>()
        .is_ok_and(|u| u.user_decoded().as_deref() == Some(user) && config.is_ours(&u.host.to_string()))
}

impl Conference {
    /// An ad-hoc group: its initiator is its administrator, the listed are members who will be called.
    pub(crate) fn found(
        turn: &mut Turn<'_>,
        number: u64,
        id: String,
        founding: Founding,
        initiator: (UserId, String, String),
    ) -> Self {
        let mut it = Conference::new(number, id, Kind::AdHoc, founding.conversation, founding.contribution);
        it.subject = founding.subject;
        it.open = !founding.closed;
        it.allowed.clone_from(&turn.config().controlling.media);
        let (user, address, display) = initiator;
        it.founder = Some(user.clone());
        let inviter = user.as_str().to_owned();
        let mut first = Member::new(user, &address);
        first.admin = true;
        first.display = Private::new(display);
        it.roster.add(first);
        let single = founding.entries.len() == 1;
        for entry in founding.entries {
            // A header without an entry of its own can only mean the one invitee (CPM-FACTS §2.2).
            let replaces = entry.session_replaces.as_ref().map(|s| s.as_str().to_owned());
            let replaces = replaces.or_else(|| founding.replaces.clone().filter(|_| single));
            if let Some(member) = listed(&entry, &inviter, replaces) {
                let id = it.roster.add(member);
                it.invite(id);
            }
        }
        it
    }

    /// A pre-defined group's conference, at the first INVITE to it.
    pub(crate) fn of_group(
        turn: &mut Turn<'_>,
        number: u64,
        group: &GroupEntry,
        request: &Request,
    ) -> Result<Self, Refusal> {
        let lenient = true;
        let (conversation, contribution) = ids(turn, request, lenient)?;
        let id = group.id().ok_or((404, None))?.to_owned();
        let mut it = Conference::new(number, id, Kind::PreDefined, conversation, contribution);
        it.subject.clone_from(&group.subject);
        it.open = group.open;
        it.allowed = media_of(&turn.config().controlling, group);
        Ok(it)
    }

    /// Who may join a pre-defined group, and with which role; `None` for others.
    pub(crate) fn group_member(group: &GroupEntry, user: &UserId, address: &str) -> Option<Member> {
        let admin = group.admins.contains(user);
        (admin || group.members.contains(user))
            .then(|| Member { admin, ..Member::new(user.clone(), address) })
    }

    /// Members of a group who are to be called when the first one has joined.
    pub(crate) fn invite_group(&mut self, group: &GroupEntry, inviter: &UserId) {
        for user in group.members.iter().filter(|u| *u != inviter) {
            let mut member = Member::new(user.clone(), user.as_str());
            member.admin = group.admins.contains(user);
            member.referred_by = Some(Private::new(inviter.as_str().to_owned()));
            let id = self.roster.add(member);
            self.invite(id);
        }
    }

    /// Opens a room in the data plane, where there is none.
    pub(crate) fn open_room(&mut self, turn: &mut Turn<'_>, request: &Request) {
        if self.room.is_some() {
            return;
        }
        let tls = body::sdp_in(&request.headers, &request.body)
            .and_then(|sdp| sdp::Session::parse(&sdp, &sdp::Limits::default()).ok())
            .is_some_and(|s| s.message_line().is_some_and(|(_, line)| line.proto == sdp::Proto::MsrpTls));
        let context = turn.context_id(self.lane());
        self.room = Some(Room::new(Anchor::new(context, self.id.clone()), tls));
        self.until = None;
    }

    /// A sleeping group wakes up: a room, and everybody is called again.
    pub(super) fn revive(&mut self, turn: &mut Turn<'_>, request: &Request) {
        let asleep = self.phase == Phase::Dormant;
        self.open_room(turn, request);
        if asleep {
            self.phase = Phase::Forming;
            self.until = None;
            self.invite_absent();
        }
    }

    /// Everybody who is not in is called.
    pub(crate) fn invite_absent(&mut self) {
        let absent: Vec<MemberId> =
            self.roster.iter().map(|(id, _)| id).filter(|id| self.calls_of(*id).next().is_none()).collect();
        for id in absent {
            self.invite(id);
        }
    }

    /// A listed user is brought in by whoever restarts the group.
    pub(crate) fn add_listed(&mut self, founding: &Founding, inviter: &UserId) {
        let may_add = self.open || self.phase == Phase::Dormant;
        for entry in founding.entries.iter().filter(|_| may_add) {
            let replaces = entry.session_replaces.as_ref().map(|s| s.as_str().to_owned());
            if let Some(member) = listed(entry, inviter.as_str(), replaces)
                && self.roster.find(&member.user).is_none()
            {
                let id = self.roster.add(member);
                self.invite(id);
            }
        }
    }
}

fn listed(entry: &Entry, inviter: &str, replaces: Option<String>) -> Option<Member> {
    let mut member = Member::new(callable(&entry.uri)?, &entry.uri);
    member.named = entry.copy != Copy::Bcc && !entry.anonymize;
    member.referred_by = Some(Private::new(inviter.to_owned()));
    member.session_replaces = replaces;
    member.display = Private::new(entry.display_name.clone().unwrap_or_default());
    Some(member)
}

/// REQ-CF-16: the group's media, as far as the provider allows them.
pub(super) fn media_of(config: &Controlling, group: &GroupEntry) -> Vec<Medium> {
    let wanted = |m: &Medium| group.media.is_empty() || group.media.contains(m);
    config.media.iter().copied().filter(wanted).collect()
}

/// The name of a new ad-hoc group: its bucket, so that the name alone finds the lane, and 128 random bits, so
/// that nobody guesses it.
pub(crate) fn draw_id(turn: &mut Turn<'_>, lane: LaneKey) -> String {
    format!("{}{lane}-{}", super::AD_HOC, turn.token())
}

/// A refusal in words.
pub(crate) fn refuse(turn: &Turn<'_>, request: &Request, (code, text): Refusal) -> sip::Response {
    match text {
        Some(text) => b2b::refuse_with(turn.config(), request, code, text),
        None => b2b::refuse(turn.config(), request, code),
    }
}
