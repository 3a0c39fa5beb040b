//! Accept-Contact and Reject-Contact (RFC 3841 §9.2). What matches what is decided in `cpm`.

use std::fmt;

use super::{BadHeader, Value, header};
use crate::params::Params;
use crate::scan::Scan;

/// `*` followed by feature parameters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FeatureSet {
    /// The feature tags in order, with `require` and `explicit` among them.
    pub params: Params,
}

impl FeatureSet {
    /// True with `require`.
    pub fn is_require(&self) -> bool {
        self.params.has("require")
    }

    /// True with `explicit`.
    pub fn is_explicit(&self) -> bool {
        self.params.has("explicit")
    }

    /// The feature tags with their values, without quotes, `require` and `explicit` left out.
    pub fn features(&self) -> impl Iterator<Item = (&str, Option<std::borrow::Cow<'_, str>>)> {
        self.params
            .iter()
            .filter(|(name, _)| {
                !name.eq_ignore_ascii_case("require") && !name.eq_ignore_ascii_case("explicit")
            })
            .map(|(name, value)| (name, value.and_then(|_| self.params.text(name))))
    }
}

impl Value for FeatureSet {
    fn parse(bytes: &[u8]) -> Result<FeatureSet, BadHeader> {
        let mut scan = Scan::new(bytes);
        scan.blanks();
        if !scan.eat(b'*') {
            return Err(BadHeader { header: "feature set", what: "does not begin with *" });
        }
        Ok(FeatureSet { params: Params::parse(&mut scan, "feature set")? })
    }
}

impl fmt::Display for FeatureSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "*{}", self.params)
    }
}

header! {
    /// Contacts that the caller wants. Each header is one set: do not merge them.
    AcceptContact(FeatureSet) = AcceptContact, "Accept-Contact"
}
header! {
    /// Contacts that the caller does not want.
    RejectContact(FeatureSet) = RejectContact, "Reject-Contact"
}
