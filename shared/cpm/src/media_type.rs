//! The media types and namespaces of CPM, once each.

/// Common Presence and Instant Messaging, RFC 3862.
pub const CPIM: &str = "message/cpim";
/// Instant Message Disposition Notification, RFC 5438.
pub const IMDN: &str = "message/imdn+xml";
/// Is-composing, RFC 3994.
pub const IS_COMPOSING: &str = "application/im-iscomposing+xml";
/// Conference event package, RFC 4575.
pub const CONFERENCE_INFO: &str = "application/conference-info+xml";
/// Resource lists, RFC 4826.
pub const RESOURCE_LISTS: &str = "application/resource-lists+xml";
/// Session descriptions, RFC 8866.
pub const SDP: &str = "application/sdp";
/// A fragment of a SIP message, RFC 3420.
pub const SIPFRAG: &str = "message/sipfrag";

/// True when a Content-Type value names this media type: type and subtype compare without regard to case,
/// parameters do not count (RFC 2045 §5.1).
pub fn is(content_type: &str, media_type: &str) -> bool {
    essence(content_type).eq_ignore_ascii_case(media_type)
}

/// The type and subtype of a Content-Type value, without its parameters.
pub fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// True when one of the `accepted` types of an SDP list takes this Content-Type; `*` and `type/*` are
/// wildcards (RFC 4975 §8.6).
pub fn accepted<S: AsRef<str>>(accepted: &[S], content_type: &str) -> bool {
    let wanted = essence(content_type);
    accepted.iter().map(|a| a.as_ref().trim()).any(|a| {
        a == "*"
            || a.eq_ignore_ascii_case(wanted)
            || a.strip_suffix("/*").is_some_and(|top| {
                wanted.split_once('/').is_some_and(|(wanted_top, _)| wanted_top.eq_ignore_ascii_case(top))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_case_do_not_count() {
        assert!(is("Message/CPIM; charset=utf-8", CPIM));
        assert!(!is("message/cpimx", CPIM));
    }

    #[test]
    fn accept_lists_know_wildcards() {
        assert!(accepted(&["*"], "text/plain"));
        assert!(accepted(&["image/png", "text/*"], "Text/Plain;charset=UTF-8"));
        assert!(!accepted(&["message/cpim"], "text/plain"));
        assert!(!accepted::<&str>(&[], "text/plain"));
    }
}
