//! Event and Subscription-State (RFC 6665 §8.2).

use std::fmt;

use super::{BadHeader, Value, own_header};
use crate::params::Params;
use crate::scan::Scan;

/// An event package with its parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// `conference`, `reg`, `refer` ...; compared with case (RFC 6665 §8.2.1).
    pub package: String,
    /// `id` and others.
    pub params: Params,
}

impl Event {
    /// Without parameters.
    pub fn new(package: &str) -> Event {
        Event { package: package.into(), params: Params::default() }
    }

    /// The `id` parameter.
    pub fn id(&self) -> Option<&str> {
        self.params.get("id")
    }
}

impl Value for Event {
    fn parse(bytes: &[u8]) -> Result<Event, BadHeader> {
        let mut scan = Scan::new(bytes);
        scan.blanks();
        let package = scan.token().ok_or(BadHeader { header: "Event", what: "no package" })?;
        Ok(Event { package: package.to_owned(), params: Params::parse(&mut scan, "Event")? })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.package, self.params)
    }
}

own_header!(Event = Event, "Event");

/// The state of a subscription.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Substate {
    /// Accepted.
    Active,
    /// Not yet decided.
    Pending,
    /// Over.
    Terminated,
    /// An extension.
    Other(String),
}

/// Subscription-State.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubscriptionState {
    /// The state.
    pub state: Substate,
    /// `expires`, `reason`, `retry-after` and others.
    pub params: Params,
}

impl SubscriptionState {
    /// `active;expires=n`.
    pub fn active(expires_s: u32) -> SubscriptionState {
        let params = Params::default().with("expires", Some(&expires_s.to_string()));
        SubscriptionState { state: Substate::Active, params }
    }

    /// `terminated;reason=...`.
    pub fn terminated(reason: &str) -> SubscriptionState {
        let params = Params::default().with("reason", Some(reason));
        SubscriptionState { state: Substate::Terminated, params }
    }

    /// Seconds left.
    pub fn expires(&self) -> Option<u32> {
        self.params.number("expires").and_then(|n| u32::try_from(n).ok())
    }

    /// Why it ended.
    pub fn reason(&self) -> Option<&str> {
        self.params.get("reason")
    }
}

impl Value for SubscriptionState {
    fn parse(bytes: &[u8]) -> Result<SubscriptionState, BadHeader> {
        let mut scan = Scan::new(bytes);
        scan.blanks();
        let state = scan.token().ok_or(BadHeader { header: "Subscription-State", what: "no state" })?;
        let state = match state {
            s if s.eq_ignore_ascii_case("active") => Substate::Active,
            s if s.eq_ignore_ascii_case("pending") => Substate::Pending,
            s if s.eq_ignore_ascii_case("terminated") => Substate::Terminated,
            other => Substate::Other(other.to_owned()),
        };
        Ok(SubscriptionState { state, params: Params::parse(&mut scan, "Subscription-State")? })
    }
}

impl fmt::Display for SubscriptionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            Substate::Active => "active",
            Substate::Pending => "pending",
            Substate::Terminated => "terminated",
            Substate::Other(other) => other,
        };
        write!(f, "{state}{}", self.params)
    }
}

own_header!(SubscriptionState = SubscriptionState, "Subscription-State");
