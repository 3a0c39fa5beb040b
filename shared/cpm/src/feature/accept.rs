//! Which contacts a request may go to, and which first (RFC 3841 §7.2).
//!
//! A feature that a contact does not mention counts as unknown, not as absent: only `explicit` makes that a
//! failure. References to services and applications compare as CPM-FACTS §2.1 says.

use super::service::reference_met;
use super::set::{Alternative, FeatureSet, Value, split};

/// Predicates looked at in one request.
const PREDICATES_MAX: usize = 16;

/// One value of Accept-Contact.
#[derive(Clone, PartialEq, Debug)]
pub struct AcceptContact {
    /// What is asked for.
    pub features: FeatureSet,
    /// A contact that does not match is dropped.
    pub require: bool,
    /// A contact must name the features itself to match.
    pub explicit: bool,
}

/// One value of Reject-Contact: contacts that explicitly match are dropped.
#[derive(Clone, PartialEq, Debug)]
pub struct RejectContact {
    /// What is not wanted.
    pub features: FeatureSet,
}

/// What a contact is worth for a request.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub enum Preference {
    /// It must not get the request.
    Dropped,
    /// It may, with this score from 0 to 1: the average over the Accept-Contact values.
    Kept(f64),
}

impl AcceptContact {
    /// Reads one header field's value; several values in it are split at their commas.
    pub fn parse(value: &str) -> Vec<AcceptContact> {
        predicates(value)
            .map(|params| AcceptContact {
                features: FeatureSet::parse(params),
                require: has_flag(params, "require"),
                explicit: has_flag(params, "explicit"),
            })
            .collect()
    }

    /// The value that aims a request at one device (CPM-FACTS §2.8).
    pub fn instance(urn: &str) -> String {
        format!("*;+sip.instance=\"<{urn}>\";require;explicit")
    }
}

impl RejectContact {
    /// Reads one header field's value.
    pub fn parse(value: &str) -> Vec<RejectContact> {
        predicates(value).map(|params| RejectContact { features: FeatureSet::parse(params) }).collect()
    }
}

/// Scores one contact (RFC 3841 §7.2.3, §7.2.4).
pub fn score(contact: &FeatureSet, accept: &[AcceptContact], reject: &[RejectContact]) -> Preference {
    // A contact that registered no feature at all is immune to caller preferences (RFC 3841 §7.2.1).
    if contact.is_empty() {
        return Preference::Kept(if accept.is_empty() { 1.0 } else { 0.0 });
    }
    // §7.2.2: dropped when every feature of the rejection is one that the contact names and matches.
    let rejected = reject.iter().any(|r| {
        !r.features.is_empty()
            && r.features.iter().all(|(name, wanted)| {
                contact.values(name).is_some_and(|offered| matches(name, wanted, offered))
            })
    });
    if rejected {
        return Preference::Dropped;
    }
    let mut sum = 0.0;
    for predicate in accept {
        match one(contact, predicate) {
            None => return Preference::Dropped,
            Some(score) => sum += score,
        }
    }
    Preference::Kept(if accept.is_empty() { 1.0 } else { sum / accept.len() as f64 })
}

/// The indices of the contacts that may get the request, the best first, equals in their order.
pub fn select(contacts: &[FeatureSet], accept: &[AcceptContact], reject: &[RejectContact]) -> Vec<usize> {
    let mut kept: Vec<(usize, f64)> = contacts
        .iter()
        .enumerate()
        .filter_map(|(i, contact)| match score(contact, accept, reject) {
            Preference::Dropped => None,
            Preference::Kept(score) => Some((i, score)),
        })
        .collect();
    kept.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    kept.into_iter().map(|(i, _)| i).collect()
}

/// One predicate: its score, or `None` when the contact is dropped for it.
fn one(contact: &FeatureSet, predicate: &AcceptContact) -> Option<f64> {
    let total = predicate.features.len();
    if total == 0 {
        return Some(1.0);
    }
    let mut named = 0;
    for (name, wanted) in predicate.features.iter() {
        match contact.values(name) {
            Some(offered) if matches(name, wanted, offered) => named += 1,
            // Named and different: no match, whatever the flags.
            Some(_) => return if predicate.require { None } else { Some(0.0) },
            None => {}
        }
    }
    match (named == total, predicate.require, predicate.explicit) {
        (true, ..) => Some(1.0),
        (false, true, true) => None,
        (false, false, true) => Some(0.0),
        (false, _, false) => Some(f64::from(u32::try_from(named).unwrap_or(0)) / total as f64),
    }
}

/// True when the two sets of values share one (RFC 3840 §7).
fn matches(name: &str, wanted: &[Alternative], offered: &[Alternative]) -> bool {
    wanted.iter().any(|w| {
        let hit = offered.iter().any(|o| o.wanted && equal(name, &w.value, &o.value));
        hit == w.wanted
    })
}

fn equal(name: &str, wanted: &Value, offered: &Value) -> bool {
    match (wanted, offered) {
        (Value::Token(w), Value::Token(o)) if matches!(name, "+g.3gpp.icsi-ref" | "+g.3gpp.iari-ref") => {
            reference_met(w, o)
        }
        (Value::Token(w), Value::Token(o)) => w == o,
        (Value::Text(w), Value::Text(o)) if name == "+sip.instance" => super::set::same_instance(w, o),
        (Value::Text(w), Value::Text(o)) => w == o,
        (Value::Range(a, b), Value::Range(c, d)) => a <= d && c <= b,
        _ => false,
    }
}

/// The parameters of each value in a comma list; the address in front (`*`) names no one.
fn predicates(value: &str) -> impl Iterator<Item = &str> {
    split(value, ',')
        .take(PREDICATES_MAX)
        .map(|one| one.find(';').and_then(|at| one.get(at..)).unwrap_or_default())
}

fn has_flag(params: &str, flag: &str) -> bool {
    split(params, ';').any(|p| p.eq_ignore_ascii_case(flag))
}

#[cfg(test)]
mod tests {
    use super::super::Service;
    use super::*;
    use proptest::prelude::*;

    fn contact(features: &str) -> FeatureSet {
        FeatureSet::parse(features)
    }

    const CHAT: &str = ";+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session\"\
                        ;+g.3gpp.iari-ref=\"urn%3Aurn-7%3A3gpp-application.ims.iari.rcs.chatbot\"";
    const PLAIN: &str = ";+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.msg\"";

    // CPM-FACTS §2.1: X.group is satisfied by a contact that registered X; case and %3A do not count.
    #[test]
    fn a_group_request_reaches_devices_that_registered_the_session() {
        let accept = AcceptContact::parse(
            "*;+G.3gpp.icsi-ref=\"urn:URN-7:3gpp-service.ims.icsi.oma.cpm.session.group\";require;explicit",
        );
        assert_eq!(score(&contact(CHAT), &accept, &[]), Preference::Kept(1.0));
        assert_eq!(score(&contact(PLAIN), &accept, &[]), Preference::Dropped);
        assert_eq!(
            accept,
            AcceptContact::parse(&format!(
                "*;{};explicit;require",
                Service::feature(&[Service::SessionGroup])
            ))
        );
    }

    // RFC 3841 §7.2.4: without require a contact that does not match stays, after those that do.
    #[test]
    fn without_require_devices_are_only_ordered() {
        let accept = AcceptContact::parse(&Service::Session.accept_contact());
        let contacts = [contact(PLAIN), contact(CHAT), contact(";video")];
        assert_eq!(select(&contacts, &accept, &[]), [1, 0, 2]);
    }

    // RFC 3841 §7.2.4: require without explicit keeps a contact that says nothing about the feature.
    #[test]
    fn require_drops_those_that_say_otherwise_and_explicit_those_that_say_nothing() {
        let silent = contact(";video");
        let require = AcceptContact::parse("*;audio;require");
        assert_eq!(score(&silent, &require, &[]), Preference::Kept(0.0));
        assert_eq!(score(&contact(";audio=\"FALSE\""), &require, &[]), Preference::Dropped);
        assert_eq!(
            score(&silent, &AcceptContact::parse("*;audio;require;explicit"), &[]),
            Preference::Dropped
        );
        assert_eq!(score(&silent, &AcceptContact::parse("*;audio;explicit"), &[]), Preference::Kept(0.0));
    }

    // CPM-FACTS §2.1: the ICSI and the IARI are two headers, both count.
    #[test]
    fn two_predicates_are_averaged_and_each_may_drop() {
        let mut accept = AcceptContact::parse(&Service::Session.accept_contact());
        accept.extend(AcceptContact::parse(
            "*;+g.3gpp.iari-ref=\"urn%3Aurn-7%3A3gpp-application.ims.iari.rcs.chatbot\";require;explicit",
        ));
        let contacts = [
            contact(CHAT),
            contact(";+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session\""),
        ];
        assert_eq!(select(&contacts, &accept, &[]), [0]);
    }

    // CPM-FACTS §2.8: one device is named by its instance.
    #[test]
    fn one_device_is_picked_by_its_instance() {
        let accept = AcceptContact::parse(&AcceptContact::instance("urn:uuid:0a"));
        let contacts =
            [contact(";+sip.instance=\"<urn:uuid:0b>\""), contact(";+sip.instance=\"<urn:uuid:0A>\"")];
        assert_eq!(select(&contacts, &accept, &[]), [1]);
    }

    // RFC 3841 §7.2.1, §7.2.2.
    #[test]
    fn rejection_needs_a_contact_that_names_the_feature() {
        let reject = RejectContact::parse("*;video, *;mobility=\"fixed\"");
        assert_eq!(score(&contact(";video"), &[], &reject), Preference::Dropped);
        assert_eq!(score(&contact(";audio"), &[], &reject), Preference::Kept(1.0));
        assert_eq!(score(&contact(""), &[], &reject), Preference::Kept(1.0));
    }

    // RFC 3840 §9: numbers and negation.
    #[test]
    fn numbers_and_negations_compare() {
        let bots = contact(";+g.gsma.rcs.botversion=\"#=1,#=2\";language=\"en,de\"");
        let yes = |value: &str| score(&bots, &AcceptContact::parse(value), &[]) == Preference::Kept(1.0);
        assert!(yes("*;+g.gsma.rcs.botversion=\"#>=2\";require"));
        assert!(!yes("*;+g.gsma.rcs.botversion=\"#>=3\";require"));
        assert!(yes("*;+g.gsma.rcs.botversion=\"#1:4\";require"));
        assert!(yes("*;language=\"!fr\";require"));
        assert!(!yes("*;language=\"!en\";require"));
    }

    proptest! {
        #[test]
        fn hostile_values_do_no_harm(contact in "[ -~]{0,80}", accept in "[ -~]{0,80}") {
            let accept = AcceptContact::parse(&accept);
            let reject = RejectContact::parse(&contact);
            _ = score(&FeatureSet::parse(&contact), &accept, &reject);
        }
    }
}
