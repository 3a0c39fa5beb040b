//! What an operator asks: how many users a core serves, `capacity_mixed`. A mix of what users do, in stated proportions, is
//! raised until something breaks: calls for an answer wait too long, or fail.

use std::collections::BTreeMap;
use std::time::Duration;

use sip::typed::{From, To};
use sip::{Method, Name, Request, Response};

use super::calls::{ANSWER_MAX_US, begin};
use super::load::{Script, Step, Unit};
use super::open::Figures;
use super::scripts::{Call, Group, Media, Pager, Register};
use super::servers::{self, Setup};
use super::wires::{Own, Wire};
use crate::msrp::progress::Progress;
use crate::report::Report;
use crate::rtp::clock;

/// What four users do in an hour, which makes whole numbers of it.
const HOUR: [(Kind, usize); 5] =
    [(Kind::Refresh, 48), (Kind::Pager, 80), (Kind::Chat, 8), (Kind::Group, 1), (Kind::Audio, 4)];
const USERS_OF_HOUR: f64 = 4.0;

/// The same in words.
pub(super) const PROPORTIONS: &str = "a user in a busy hour: 12 REGISTERs (every 300 s, each with its challenge), 20 pager messages to \
     another user, 2 chats of two and a quarter of one with 8 (set up and ended; what is said in them is the data plane's and is \
     measured by `bench msrp`), 1 call with audio (set up and ended; its packets are measured by `bench rtp`)";

/// Each look at a rate.
const LOOK: Duration = Duration::from_millis(2000);
const PAUSE: Duration = Duration::from_millis(500);
/// From rate to rate.
const STEP: f64 = 1.1;

/// What a user does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Refresh,
    Pager,
    Chat,
    Group,
    Audio,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::Refresh => "refreshes",
            Kind::Pager => "pager messages",
            Kind::Chat => "chats",
            Kind::Group => "groups of 8",
            Kind::Audio => "calls",
        }
    }
}

/// All of it, in an order that is always the same and has each kind spread evenly.
struct Mixed {
    order: Vec<Kind>,
    register: Register,
    pager: Pager,
    chat: Call,
    audio: Call,
    group: Group,
    /// Where members of groups say goodbye, by the Call-ID of what invited them.
    invited: BTreeMap<String, Request>,
}

impl Mixed {
    fn new() -> Mixed {
        let mut order: Vec<(f64, Kind)> = Vec::new();
        for (kind, times) in HOUR {
            order.extend((0..times).map(|n| ((n as f64 + 0.5) / times as f64, kind)));
        }
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        Mixed {
            order: order.into_iter().map(|(_, kind)| kind).collect(),
            register: Register::new(),
            pager: Pager,
            chat: Call::new(Media::Chat),
            audio: Call::new(Media::Audio),
            group: Group,
            invited: BTreeMap::new(),
        }
    }

    fn kind(&self, number: u64) -> Kind {
        let at = (number % self.order.len().max(1) as u64) as usize;
        self.order.get(at).copied().unwrap_or(Kind::Refresh)
    }

    fn script(&mut self, kind: Kind) -> &mut dyn Script {
        match kind {
            Kind::Refresh => &mut self.register,
            Kind::Pager => &mut self.pager,
            Kind::Chat => &mut self.chat,
            Kind::Group => &mut self.group,
            Kind::Audio => &mut self.audio,
        }
    }
}

impl Script for Mixed {
    fn begin(&mut self, unit: &Unit, own: &Own) -> Request {
        let kind = self.kind(unit.number);
        self.script(kind).begin(unit, own)
    }

    fn heard(&mut self, unit: &mut Unit, response: &Response, own: &Own) -> Step {
        let kind = self.kind(unit.number);
        self.script(kind).heard(unit, response, own)
    }

    fn answer(&mut self, request: &Request, own: &Own) -> Option<Response> {
        let contact = request.headers.text(&Name::Contact).unwrap_or_default();
        if request.method == Method::Invite && contact.contains("isfocus") {
            let id = request.call_id().unwrap_or_default().to_owned();
            self.invited.insert(id, request.clone());
        }
        let chats = String::from_utf8_lossy(&request.body).contains("m=message ");
        if chats { self.chat.answer(request, own) } else { self.audio.answer(request, own) }
    }

    /// A member who has joined leaves.
    fn reply(&mut self, request: &Request, own: &Own) -> Option<Request> {
        if request.method != Method::Ack {
            return None;
        }
        let invite = self.invited.remove(request.call_id()?)?;
        let focus = invite.headers.typed::<sip::typed::Contact>().ok().flatten()?;
        let mut bye = Request::new(Method::Bye, focus.uri.clone());
        bye.headers.push(Name::Via, format!("{};branch=z9hG4bKleave{};rport", own.via(), request.call_id()?));
        bye.headers.push(Name::MaxForwards, "70");
        let (from, to) = (request.headers.typed::<To>().ok()??, request.headers.typed::<From>().ok()??);
        bye.headers.add(&From(from.0));
        bye.headers.add(&To(to.0));
        bye.headers.copy(&request.headers, &Name::CallId);
        bye.headers.push(Name::CSeq, "1 BYE");
        Some(bye)
    }
}

/// What broke first, if something did.
fn broke(mixed: &Mixed, figures: &Figures, first: u64) -> Option<String> {
    let p99 = figures.answer_us(0.99);
    let failed = figures.fates.len() - figures.done();
    if failed * 1000 > figures.fates.len() {
        let mut of: BTreeMap<(Kind, Option<u16>), usize> = BTreeMap::new();
        for (number, fate) in (first..).zip(&figures.fates) {
            if fate.done.is_none() {
                *of.entry((mixed.kind(number), fate.refused)).or_default() += 1;
            }
        }
        let of: Vec<String> = of
            .iter()
            .map(|((kind, code), count)| {
                let why = code.map_or("no answer".to_owned(), |code| code.to_string());
                format!("{count} {}: {why}", kind.name())
            })
            .collect();
        return Some(format!("{failed} of {} failed ({})", figures.fates.len(), of.join(", ")));
    }
    (p99 > ANSWER_MAX_US).then(|| format!("the 99th percentile of answers came to {:.0} ms", p99 / 1000.0))
}

/// Adds the row.
pub(super) fn run(rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let (ours, measured) = clock::cores();
    clock::pin(ours);
    let mut progress = Progress::new("capacity_mixed", 0);
    let mut found = Vec::new();
    for _ in 0..rounds.clamp(1, 3) {
        let server = servers::weir(measured, Setup::PLAIN)?;
        let mut script = Mixed::new();
        let (mut open, closed) = begin(&server, Wire::Udp, &mut script)?;
        let (mut rate, mut best) = (closed * 0.5, None);
        loop {
            let first = open.next();
            let figures = open.run(&mut script, rate, LOOK, &server.who)?;
            let why = broke(&script, &figures, first);
            progress.say(&format!(
                "{rate:.0} of all kinds a second: p99 {:.1} ms{}",
                figures.answer_us(0.99) / 1000.0,
                why.as_ref().map(|why| format!(", {why}")).unwrap_or_default()
            ));
            match why {
                Some(why) if best.is_some() || rate < 1.0 => {
                    found.push((best, why));
                    break;
                }
                // It began too high.
                Some(_) => rate *= 0.5,
                None => {
                    best = Some((rate, figures.answer_us(0.99)));
                    rate *= STEP;
                }
            }
            std::thread::sleep(PAUSE);
        }
    }
    progress.end();
    found.sort_by(|a, b| a.0.map_or(0.0, |a| a.0).total_cmp(&b.0.map_or(0.0, |b| b.0)));
    let Some((Some((rate, p99)), why)) = found.get(found.len() / 2) else {
        anyhow::bail!("no rate is carried");
    };
    let each_hour: usize = HOUR.iter().map(|(_, times)| times).sum();
    let users = rate * 3600.0 * USERS_OF_HOUR / each_hour as f64;
    let note = format!(
        "users for each core, {rate:.0} of all kinds a second, p99 {:.1} ms; what broke first, a tenth above: {why}. {PROPORTIONS}",
        p99 / 1000.0
    );
    report.row("capacity_mixed", users, "users", note);
    Ok(())
}
