//! What is supported here, for every answer that says so (RFC 3261 §8.2).

use sip::screen::Rules;
use sip::{Method, Name, Request};

/// Options that we understand in `Require` (RFC 3261 §8.2.2.3). The list options concern the Controlling
/// Function and pass.
const OPTIONS: [&str; 12] = [
    "timer",
    "100rel",
    "replaces",
    "join",
    "tdialog",
    "path",
    "gruu",
    "outbound",
    "recipient-list-invite",
    "recipient-list-message",
    "multiple-refer",
    "norefersub",
];

/// Methods that we take, as the value of `Allow`.
pub(crate) const ALLOW: &str = "INVITE, ACK, BYE, CANCEL, REGISTER, OPTIONS, MESSAGE, REFER, SUBSCRIBE, NOTIFY, PUBLISH, INFO, UPDATE, PRACK";

/// What a driver may refuse before any lane sees it.
pub fn rules() -> Rules {
    Rules {
        methods: ALLOW.split(", ").filter_map(|method| Method::parse(method.as_bytes())).collect(),
        option_tags: OPTIONS.map(str::to_owned).to_vec(),
        ..Rules::default()
    }
}

/// The required options that nobody here understands.
pub(crate) fn unsupported(request: &Request) -> Vec<String> {
    let required = request.headers.tokens(&Name::Require).chain(request.headers.tokens(&Name::ProxyRequire));
    required.filter(|o| !OPTIONS.iter().any(|k| k.eq_ignore_ascii_case(o))).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3261_s8_2_1_the_front_takes_what_allow_says() {
        assert_eq!(rules().allow(), ALLOW);
        assert!(rules().methods.iter().all(|method| !matches!(method, Method::Other(_))));
    }
}
