//! What a Contact can do: its feature parameters (RFC 3840 §9).

use super::service::{Service, plain, reference_met};

/// Feature parameters read from one header value; more are not looked at.
const FEATURES_MAX: usize = 64;

/// One value of a feature, as RFC 3840 §9 writes it.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// A token, in lower case and with `%3A` undone.
    Token(String),
    /// `<text>`: compares byte by byte.
    Text(String),
    /// `#=1`, `#>=1`, `#<=1`, `#1:2`: a range of numbers, both ends included.
    Range(f64, f64),
}

/// A value with its sign: `!` in front negates it.
#[derive(Clone, PartialEq, Debug)]
pub struct Alternative {
    /// False behind a `!`.
    pub wanted: bool,
    /// The value.
    pub value: Value,
}

/// The features of one contact, or the features that one Accept-Contact value asks for. Names are kept in
/// lower case; a feature without a value is the boolean TRUE.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct FeatureSet {
    features: Vec<(String, Vec<Alternative>)>,
}

impl FeatureSet {
    /// Reads the parameters behind a Contact or Accept-Contact address: `;name;name=value;name="a,b"`.
    /// Parameters that are no features (`q`, `expires`, `tag`, `require`, …) are left out.
    pub fn parse(params: &str) -> FeatureSet {
        let features = split(params, ';')
            .filter_map(|param| {
                let (name, value) = match param.split_once('=') {
                    Some((name, value)) => (name.trim(), Some(value.trim())),
                    None => (param.trim(), None),
                };
                let name = name.to_ascii_lowercase();
                is_feature(&name).then(|| {
                    let values = value.map_or_else(|| vec![truth()], alternatives);
                    (name, values)
                })
            })
            .take(FEATURES_MAX)
            .collect();
        FeatureSet { features }
    }

    /// True when the feature is there, with whatever value.
    pub fn has(&self, name: &str) -> bool {
        self.values(name).is_some()
    }

    /// The values of a feature.
    pub fn values(&self, name: &str) -> Option<&[Alternative]> {
        self.features.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_slice())
    }

    /// The features with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[Alternative])> {
        self.features.iter().map(|(n, v)| (n.as_str(), v.as_slice()))
    }

    /// How many features there are.
    pub fn len(&self) -> usize {
        self.features.len()
    }

    /// True without any feature.
    pub fn is_empty(&self) -> bool {
        self.features.is_empty()
    }

    /// True when the contact registered this CPM service, in the group variant or without.
    pub fn offers(&self, service: Service) -> bool {
        let wanted = service.urn();
        self.references("+g.3gpp.icsi-ref").any(|offered| reference_met(&wanted, offered))
    }

    /// The device, `<urn:...>` with its angle brackets gone (RFC 5626 §4.1).
    pub fn instance(&self) -> Option<&str> {
        match self.values("+sip.instance")?.first()? {
            Alternative { wanted: true, value: Value::Text(urn) } => Some(urn),
            _ => None,
        }
    }

    fn references(&self, name: &str) -> impl Iterator<Item = &str> {
        self.values(name).unwrap_or_default().iter().filter_map(|a| match &a.value {
            Value::Token(urn) if a.wanted => Some(urn.as_str()),
            _ => None,
        })
    }
}

/// True when two instance ids name one device: opaque and case-sensitive, but the hex digits of `urn:uuid:`
/// compare without regard to case (RFC 4122 §3; CPM-FACTS §2.8). Angle brackets do not count.
pub fn same_instance(a: &str, b: &str) -> bool {
    let bare = |s: &str| s.trim().trim_start_matches('<').trim_end_matches('>').to_owned();
    let (a, b) = (bare(a), bare(b));
    let is_uuid = |s: &str| s.get(..9).is_some_and(|p| p.eq_ignore_ascii_case("urn:uuid:"));
    if is_uuid(&a) && is_uuid(&b) { a.eq_ignore_ascii_case(&b) } else { a == b }
}

/// RFC 3840 §9: the base tags of its §10 stand bare, every other tag begins with `+`.
fn is_feature(name: &str) -> bool {
    const BASE: [&str; 15] = [
        "audio",
        "automata",
        "class",
        "duplex",
        "data",
        "control",
        "mobility",
        "description",
        "events",
        "priority",
        "methods",
        "schemes",
        "application",
        "video",
        "language",
    ];
    name.len() > 1 && name.starts_with('+')
        || BASE.contains(&name)
        || matches!(name, "type" | "isfocus" | "actor" | "text" | "extensions")
}

fn truth() -> Alternative {
    Alternative { wanted: true, value: Value::Token("true".into()) }
}

fn alternatives(value: &str) -> Vec<Alternative> {
    let inner = value.strip_prefix('"').map_or(value, |v| v.strip_suffix('"').unwrap_or(v));
    if let Some(text) = inner.strip_prefix('<') {
        let text = text.strip_suffix('>').unwrap_or(text);
        return vec![Alternative { wanted: true, value: Value::Text(text.to_owned()) }];
    }
    inner.split(',').map(|alternative| read(alternative.trim())).take(FEATURES_MAX).collect()
}

fn read(alternative: &str) -> Alternative {
    let (wanted, text) = match alternative.strip_prefix('!') {
        Some(rest) => (false, rest),
        None => (true, alternative),
    };
    let value = match text.strip_prefix('#').and_then(range) {
        Some((low, high)) => Value::Range(low, high),
        None => Value::Token(plain(text)),
    };
    Alternative { wanted, value }
}

fn range(text: &str) -> Option<(f64, f64)> {
    let number = |t: &str| t.trim().parse::<f64>().ok().filter(|n| n.is_finite());
    if let Some(low) = text.strip_prefix(">=") {
        return Some((number(low)?, f64::INFINITY));
    }
    if let Some(high) = text.strip_prefix("<=") {
        return Some((f64::NEG_INFINITY, number(high)?));
    }
    if let Some(exact) = text.strip_prefix('=') {
        return number(exact).map(|n| (n, n));
    }
    let (low, high) = text.split_once(':')?;
    Some((number(low)?, number(high)?))
}

/// Splits at `at` outside quoted strings and angle brackets.
pub(super) fn split(text: &str, at: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped, mut enclosed) = (false, false, false);
    text.split(move |c| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => enclosed = true,
            '>' if !quoted => enclosed = false,
            c if c == at && !quoted && !enclosed => return true,
            _ => {}
        }
        false
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registration_is_read() {
        let set = FeatureSet::parse(
            ";+g.3gpp.icsi-ref=\"urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm.session,urn:urn-7:3gpp-service.ims.icsi.oma.cpm.msg\"\
             ;+sip.instance=\"<urn:gsma:imei:35824005-944763-0>\";expires=3600;q=0.5;video;+g.gsma.rcs.botversion=\"#=1,#=2\"",
        );
        assert_eq!(set.len(), 4);
        assert!(
            set.offers(Service::Session) && set.offers(Service::SessionGroup) && set.offers(Service::Message)
        );
        assert!(!set.offers(Service::FileTransfer));
        assert_eq!(set.instance(), Some("urn:gsma:imei:35824005-944763-0"));
        assert!(set.has("VIDEO"));
        assert_eq!(set.values("+g.gsma.rcs.botversion").unwrap()[1].value, Value::Range(2.0, 2.0));
    }

    #[test]
    fn instances_are_opaque_but_for_uuids() {
        assert!(same_instance("<urn:uuid:AB-1>", "urn:uuid:ab-1"));
        assert!(!same_instance("<urn:gsma:imei:A>", "<urn:gsma:imei:a>"));
    }

    #[test]
    fn separators_inside_quotes_and_brackets_separate_nothing() {
        let parts: Vec<_> = split("a=\"x;\\\";y\";<b;c>;;d", ';').collect();
        assert_eq!(parts, ["a=\"x;\\\";y\"", "<b;c>", "d"]);
    }
}
