//! RTP: legs with their ports, what their packets are led to, and RTCP. A leg's row holds all that the packet loop
//! needs; paths were flattened into it at control rate.

pub(crate) mod arrive;
mod bandwidth;
mod bundle;
mod count;
mod feedback;
mod flatten;
mod guard;
mod held;
mod ice;
mod keyframe;
mod latch;
mod leg;
mod names;
mod offload;
mod outposts;
mod own;
mod police;
mod repair;
mod report;
mod silence;
mod spent;
mod stages;
mod stream;
mod table;
mod talk;
mod web;
mod wide;

use std::collections::BTreeMap;

use base::{Entropy, Instant, Timers};
use slab::Slab;

pub(crate) use arrive::Packet;
pub(crate) use bundle::{ANNOUNCED_MAX, LEGS_MAX as BUNDLE_LEGS_MAX, MID_MAX};
pub(crate) use guard::{Guard, is_sound};
pub(crate) use held::{Edit, ExtensionIds, HELD_BYTES, Held};
pub(crate) use leg::{Route, RtpLeg, Source};
pub(crate) use names::Names;
pub(crate) use offload::Offload;
pub use offload::{Carried, Settled};
pub(crate) use outposts::Spread;
pub use own::OwnMedia;
use police::Limits as PoliceLimits;
pub(crate) use repair::{Repair, Sizes as RepairSizes};
pub(crate) use spent::Spent;
pub(crate) use stages::count as slots;
pub(crate) use stream::{Entry, Stream};
pub(crate) use table::Place;
pub(crate) use talk::Talk;
pub(crate) use web::{Web, WebLimits, is_sound as web_is_sound};
pub(crate) use wide::Wide;

use crate::modes::slot::Stage;
use crate::{Limits, Output, SocketId, Totals};

/// No leg.
pub(crate) const NONE: u32 = u32::MAX;

/// What a socket belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Binding {
    pub(crate) leg: u32,
    /// The RTCP port of a leg without rtcp-mux.
    pub(crate) rtcp: bool,
    /// No number tells of the leg.
    pub(crate) unseen: bool,
}

impl Binding {
    /// Nobody's.
    pub(crate) const FREE: Binding = Binding { leg: NONE, rtcp: false, unseen: false };
}

/// Something of a leg is due. The serial tells a leg from a later one in the same row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Due {
    pub(crate) leg: u32,
    pub(crate) serial: u64,
    pub(crate) what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    /// The window in which a source may be learned ends.
    Window,
    /// Nothing may have come for too long.
    Silence,
    /// Our RTCP report.
    Report,
    /// A key frame that was asked for again within 500 ms.
    KeyFrame,
    /// Checks or a handshake may be missing.
    Web,
    /// Feedback about what came.
    Arrivals,
}

/// The RTP legs of one engine.
#[derive(Debug)]
pub(crate) struct Media {
    /// This engine's.
    shard: u16,
    pub(crate) legs: Slab<RtpLeg>,
    pub(crate) sockets: Vec<Binding>,
    pub(crate) stages: Slab<Stage>,
    pub(crate) timers: Timers<Due>,
    pub(crate) entropy: Entropy,
    /// Stages by context and path.
    pub(crate) staged: BTreeMap<(u64, u32), u32>,
    /// A context whose routes must be made anew: a leg's peer became known.
    pub(crate) dirty: Option<u64>,
    /// Where legs of this data plane are.
    pub(crate) own: Option<std::sync::Arc<OwnMedia>>,
    /// What was made of the datagram just handled.
    pub(crate) held: Held,
    /// The opened datagram.
    clear: Vec<u8>,
    /// When the datagram being handled came.
    now: Instant,
    /// Legs that keep what they are sent, and how many may.
    repairs: usize,
    repairs_max: usize,
    repair_sizes: RepairSizes,
    police: PoliceLimits,
    /// No source is told to send less than this because of one receiver, bit/s.
    estimate_min: u64,
    /// Of which names for RTCP are drawn.
    pub(crate) names: [u8; 32],
    /// The same of contexts that are at home elsewhere.
    pub(crate) foreign_names: BTreeMap<u64, [u8; 32]>,
    srtp: rtp::srtp::Config,
    sources_max: usize,
    sources_ever_max: usize,
    targets_max: usize,
    /// For so long the SDP's address must be silent before another is learned.
    silence: std::time::Duration,
    serial: u64,
    web_limits: WebLimits,
    /// Handshakes that were drawn.
    shakes: u64,
}

/// Where a machine puts its outputs, and where it counts.
pub(crate) struct Tx<'a> {
    pub(crate) out: &'a mut base::Outbox<Output>,
    pub(crate) totals: &'a mut Totals,
}

impl Tx<'_> {
    /// The same, telling no sum of the shard where what is done is an unseen leg's (DESIGN §3).
    pub(crate) fn telling<'b>(&'b mut self, unseen: bool, nowhere: &'b mut Totals) -> Tx<'b> {
        Tx { out: &mut *self.out, totals: if unseen { nowhere } else { &mut *self.totals } }
    }

    /// Puts an output out; false (and counted) when the driver left no room.
    #[inline]
    pub(crate) fn push(&mut self, output: Output) -> bool {
        let put = self.out.push(output).is_ok();
        if !put {
            self.totals.drop(crate::Drop::Outbox);
        }
        put
    }

    /// Tells control something.
    pub(crate) fn news(&mut self, what: contract::news::What) {
        let body = contract::from_dataplane::Body::News(contract::News { what: Some(what) });
        self.push(Output::Answer(Box::new(contract::FromDataplane { body: Some(body) })));
    }
}

impl Media {
    pub(crate) fn new(shard: u16, limits: &Limits, mut entropy: Entropy) -> Self {
        let mut names = [0; 32];
        entropy.child().fill(&mut names);
        Media {
            shard,
            legs: Slab::with_capacity(limits.legs_max.min(1024)),
            sockets: vec![Binding::FREE; limits.sockets_max],
            stages: Slab::new(),
            timers: Timers::with_max(limits.legs_max.saturating_mul(6)),
            entropy,
            staged: BTreeMap::new(),
            dirty: None,
            held: Held::default(),
            clear: Vec::new(),
            now: Instant::ZERO,
            repairs: 0,
            repairs_max: limits.nack_legs_max,
            repair_sizes: RepairSizes::of(limits),
            police: PoliceLimits::of(limits),
            estimate_min: u64::from(limits.estimate_min_kbps) * 1000,
            names,
            foreign_names: BTreeMap::new(),
            srtp: limits.srtp(),
            sources_max: limits.leg_sources_max,
            sources_ever_max: limits.leg_sources_ever_max,
            targets_max: limits.targets_max,
            silence: std::time::Duration::from_millis(limits.learning_silence_ms),
            serial: 0,
            web_limits: limits.web(),
            shakes: 0,
            own: None,
        }
    }

    pub(crate) fn has_stages(&self, context: u64) -> bool {
        self.staged.range((context, 0)..=(context, u32::MAX)).next().is_some()
    }

    pub(crate) fn leg(&self, leg: u32) -> Option<&RtpLeg> {
        self.legs.get(leg as usize)
    }

    /// Whether a row stands in for a leg of another shard.
    pub(crate) fn is_away(&self, leg: u32) -> bool {
        self.leg(leg).is_some_and(|row| row.away().is_some())
    }

    pub(crate) fn leg_mut(&mut self, leg: u32) -> Option<&mut RtpLeg> {
        self.legs.get_mut(leg as usize)
    }

    /// Sets a timer of a leg.
    pub(crate) fn due(&mut self, leg: u32, at: Instant, what: What) {
        if let Some(serial) = self.leg(leg).map(|row| row.serial) {
            // There is room for six timers per leg, one of each kind.
            let _ = self.timers.set(at, Due { leg, serial, what });
        }
    }

    /// Does what is due.
    pub(crate) fn timeout(&mut self, now: base::Now, tx: &mut Tx<'_>) {
        while tx.out.room() > self.targets_max.min(64)
            && let Some(due) = self.timers.pop(now.mono)
        {
            if self.leg(due.leg).is_none_or(|row| row.serial != due.serial) {
                continue;
            }
            match due.what {
                What::Window => self.window_over(due.leg, now.mono, tx),
                What::Silence => self.check_silence(due.leg, now, tx),
                What::Report => self.report(due.leg, now, tx),
                What::KeyFrame => self.key_frame_due(due.leg, now, tx),
                What::Web => self.web_due(due.leg, now, tx),
                What::Arrivals => self.arrivals_due(due.leg, tx),
            }
        }
    }

    pub(crate) fn binding(&self, socket: SocketId) -> Option<Binding> {
        self.sockets.get(socket.0 as usize).copied().filter(|b| b.leg != NONE)
    }
}
