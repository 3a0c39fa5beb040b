//! What the front refuses before any lane sees it: what nobody here supports (RFC 3261 §8.2).

use sip::Method;
use sip::screen::Rules;

/// The option tags that may stand in Require: RFC 3327, 5627, 5626, 4028, 5366, 5365, 5368, 4488, 3891, 4662.
const OPTION_TAGS: [&str; 10] = [
    "path",
    "gruu",
    "outbound",
    "timer",
    "recipient-list-invite",
    "recipient-list-message",
    "multiple-refer",
    "norefersub",
    "replaces",
    "eventlist",
];

/// What is supported here.
pub(crate) fn rules() -> Rules {
    Rules {
        methods: vec![
            Method::Invite,
            Method::Ack,
            Method::Bye,
            Method::Cancel,
            Method::Register,
            Method::Options,
            Method::Message,
            Method::Refer,
            Method::Subscribe,
            Method::Notify,
            Method::Info,
            Method::Update,
        ],
        option_tags: OPTION_TAGS.map(str::to_owned).to_vec(),
        ..Rules::default()
    }
}
