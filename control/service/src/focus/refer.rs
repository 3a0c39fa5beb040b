//! Adding and removing by REFER (RFC 3515, RFC 4488, RFC 4579 §5.5 to §5.11, RFC 5368; CPM-FACTS §2.6;
//! REQ-CF-23).
//!
//! ```text
//!   REFER ──not a member, not allowed: 403 486 400──▶ ·
//!     │ Refer-Sub: false: 200                            no report
//!     │ else: 202, NOTIFY "100 Trying"
//!     ▼
//!   invited, or removed ──final answer of the target──▶ NOTIFY with its status line, terminated
//! ```

use cpm::conference::Disconnection;
use cpm::media_type;
use cpm::resource_lists::{Copy, Entry, ResourceList};
use sip::typed::{ReferTo, SubscriptionState};
use sip::{Dialog, Method, Name, Request, phrase};

use super::call::CallId;
use super::conference::{Conference, Kind};
use super::invite::callable;
use super::notify::event;
use super::roster::{Member, MemberId};
use super::say;
use super::subscribe::Via;
use crate::b2b;
use crate::turn::{Owner, Turn};
use crate::{Route, ServerTx, UserId};
use base::Private;

/// Somebody waits to hear what became of a REFER.
#[derive(Debug)]
pub(crate) struct Referral {
    pub(crate) via: Via,
    pub(crate) route: Route,
    /// The CSeq of the REFER: the `id` of its notifications (RFC 3515 §2.4.6).
    event_id: String,
    /// Whom it is about.
    target: MemberId,
}

/// REFERs of one conference whose outcome is awaited.
const REFERRALS_MAX: usize = 256;

/// What is asked about one address.
struct Order {
    entry: Entry,
    remove: bool,
}

impl Conference {
    /// A REFER of a member, in the dialog of its session or in one of its own.
    pub(crate) fn refer(
        &mut self,
        turn: &mut Turn<'_>,
        tx: ServerTx,
        request: &Request,
        route: Route,
        by: MemberId,
        within: Option<CallId>,
    ) {
        let orders = match orders(request) {
            Ok(orders) => orders,
            Err(code) => return turn.respond(tx, b2b::refuse(turn.config(), request, code)),
        };
        if let Err((code, text)) = self.may(turn, by, &orders) {
            return turn.respond(tx, b2b::refuse_with(turn.config(), request, code, text));
        }
        let silent = request
            .headers
            .text(&Name::ReferSub)
            .is_some_and(|v| v.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("false"));
        let mut response = request.respond(if silent { 200 } else { 202 });
        let tag = match within {
            Some(call) => self.calls.get(&call).map(|c| c.tag.clone()).unwrap_or_default(),
            None => turn.token(),
        };
        response.set_to_tag(&tag);
        response.headers.set(Name::Contact, self.contact(turn.config(), &route));
        if silent {
            // RFC 4488 §4: the answer says that there is no subscription.
            response.headers.set(Name::ReferSub, "false");
        }
        let via = match within {
            Some(call) => Some(Via::Call(call)),
            None if silent => None,
            None => match Dialog::uas(request, &response) {
                Ok(dialog) => Some(Via::Own(Box::new(dialog))),
                Err(_) => return turn.respond(tx, b2b::refuse(turn.config(), request, 400)),
            },
        };
        let single = orders.len() == 1;
        turn.respond(tx, response);
        let event_id = request.cseq().map(|c| c.seq.to_string()).unwrap_or_default();
        let report = via.filter(|_| !silent).map(|via| (via, route, event_id));
        if let Some((via, route, event_id)) = &report {
            let mut via = via.clone();
            self.report(turn, &mut via, route, event_id, 100, false);
            // A list has no one outcome: taken is all that there is to say (RFC 5368 §7).
            if !single {
                self.report(turn, &mut via, route, event_id, 200, true);
            } else {
                self.expect(turn, via, route.clone(), event_id.clone(), orders.first());
            }
        }
        for order in orders {
            self.carry_out(turn, by, order);
        }
    }

    /// Remembers who waits for the outcome; before it is known.
    fn expect(
        &mut self,
        turn: &mut Turn<'_>,
        mut via: Via,
        route: Route,
        event_id: String,
        order: Option<&Order>,
    ) {
        let Some(order) = order else { return };
        let user = UserId::parse(&order.entry.uri).ok();
        let known = user.as_ref().and_then(|u| self.roster.find(u));
        let connected = known.is_some_and(|m| self.calls_of(m).any(super::call::Call::is_up));
        match (order.remove, known) {
            // Removed at once; or nobody to remove; or in already.
            (true, Some(_)) => self.report(turn, &mut via, &route, &event_id, 200, true),
            (true, None) => self.report(turn, &mut via, &route, &event_id, 404, true),
            (false, _) if connected => self.report(turn, &mut via, &route, &event_id, 200, true),
            (false, _) if self.referrals.len() < REFERRALS_MAX => {
                // The member's number is known once it is added, just after this.
                let target = known.unwrap_or(MemberId(u32::MAX));
                self.referrals.push(Referral { via, route, event_id, target });
            }
            (false, _) => self.report(turn, &mut via, &route, &event_id, 503, true),
        }
    }

    /// Policy: who may add whom, who may remove whom (REQ-CF-23; CPM-FACTS §2.6).
    fn may(&self, turn: &Turn<'_>, by: MemberId, orders: &[Order]) -> Result<(), (u16, &'static str)> {
        let config = &turn.config().controlling;
        let group = config.group(&self.id).filter(|_| self.kind == Kind::PreDefined);
        let Some(me) = self.roster.get(by) else { return Err((403, say::NOT_AUTHORISED)) };
        let mut more = 0;
        for order in orders {
            let Ok(user) = UserId::parse(&order.entry.uri) else { return Err((403, say::NOT_ALLOWED)) };
            if order.remove {
                if !me.admin && me.user != user {
                    return Err((403, say::NOT_ALLOWED));
                }
                continue;
            }
            let listed = group.is_some_and(|g| g.members.contains(&user));
            if !self.open && !listed && self.roster.find(&user).is_none() {
                return Err((403, say::NOT_ALLOWED));
            }
            more += usize::from(self.roster.find(&user).is_none());
        }
        if self.roster.len() + more > config.members_max {
            return Err((486, say::TOO_MANY));
        }
        Ok(())
    }

    fn carry_out(&mut self, turn: &mut Turn<'_>, by: MemberId, order: Order) {
        let Some(user) = callable(&order.entry.uri) else { return };
        if order.remove {
            if let Some(member) = self.roster.find(&user) {
                self.remove_member(turn, member, Disconnection::Booted);
            }
            return;
        }
        let inviter = self.roster.get(by).map(|m| m.user.as_str().to_owned());
        let known = self.roster.find(&user);
        let member = known.unwrap_or_else(|| self.roster.add(Member::new(user, &order.entry.uri)));
        for referral in self.referrals.iter_mut().filter(|r| r.target == MemberId(u32::MAX)) {
            referral.target = member;
        }
        if self.calls_of(member).any(|c| c.is_up()) {
            return;
        }
        self.roster.change(member, |m| {
            m.named = order.entry.copy != Copy::Bcc;
            m.referred_by = inviter.map(Private::new);
            m.session_replaces = order.entry.session_replaces.map(|s| s.as_str().to_owned());
        });
        self.invite(member);
        self.invite_more(turn);
    }

    /// What became of a member that somebody had asked for.
    pub(crate) fn target_reached(&mut self, turn: &mut Turn<'_>, member: MemberId, code: u16) {
        let reports: Vec<Referral> = self.referrals.extract_if(.., |r| r.target == member).collect();
        for mut referral in reports {
            let (route, event_id) = (referral.route.clone(), referral.event_id.clone());
            self.report(turn, &mut referral.via, &route, &event_id, code, true);
        }
    }

    /// NOTIFY with a status line (RFC 3515 §2.4.5).
    fn report(
        &mut self,
        turn: &mut Turn<'_>,
        via: &mut Via,
        route: &Route,
        event_id: &str,
        code: u16,
        over: bool,
    ) {
        let contact = self.contact(turn.config(), route);
        let dialog = match via {
            Via::Own(dialog) => Some(&mut **dialog),
            Via::Call(call) => self.calls.get_mut(call).and_then(|c| {
                c.dirty = true;
                c.dialog.as_mut()
            }),
        };
        let Some(dialog) = dialog else { return };
        let mut request = dialog.request(Method::Notify);
        let state =
            if over { SubscriptionState::terminated("noresource") } else { SubscriptionState::active(60) };
        request.headers.push(Name::Event, event("refer", Some(event_id)));
        request.headers.push(Name::SubscriptionState, state.to_string());
        request.headers.push(Name::Contact, contact);
        let line = format!("SIP/2.0 {code} {}\r\n", phrase(code));
        request.set_body(&format!("{};version=2.0", media_type::SIPFRAG), line);
        turn.send(Owner::Nobody, route.clone(), request);
    }
}

/// Whom a REFER is about. An error is a SIP status.
fn orders(request: &Request) -> Result<Vec<Order>, u16> {
    let target = request.headers.must::<ReferTo>().map_err(|_| 400_u16)?;
    let method = |m: Option<&str>| match m.map(str::to_ascii_uppercase).as_deref() {
        None | Some("INVITE") => Ok(false),
        Some("BYE") => Ok::<bool, u16>(true),
        // RFC 3515 §2.4.2: what is referred to must be something that we do.
        Some(_) => Err(403),
    };
    if target.uri.scheme.as_str().eq_ignore_ascii_case("cid") {
        // RFC 5368 §5: the list is in the body.
        let list = say::part(&request.headers, &request.body, media_type::RESOURCE_LISTS).ok_or(400_u16)?;
        let list = ResourceList::read(&list, &cpm::Limits::default()).map_err(|_| 400_u16)?;
        let all = list.entries.into_iter().map(|entry| {
            let remove = method(entry.method.as_deref())?;
            Ok(Order { remove, entry })
        });
        let all = all.collect::<Result<Vec<Order>, u16>>()?;
        return if all.is_empty() { Err(400) } else { Ok(all) };
    }
    let mut uri = target.uri.clone();
    let remove = method(uri.params.get("method"))?;
    uri.params.remove("method");
    let replaces = uri.take_header("Session-Replaces").and_then(|v| cpm::SessionReplaces::parse(&v).ok());
    uri.headers.clear();
    let entry = Entry { session_replaces: replaces, ..Entry::new(uri.to_string()) };
    if callable(&entry.uri).is_none() {
        return Err(403);
    }
    Ok(vec![Order { entry, remove }])
}
