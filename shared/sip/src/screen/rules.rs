//! What this server supports, and the answers for what it does not (RFC 3261 §8.2.1 to §8.2.3).

use crate::message::{Request, Response};
use crate::method::Method;
use crate::name::Name;
use crate::typed::{ContentType, Event, MaxForwards, MediaType};
use crate::uri::Scheme;

/// What a server supports. An empty list of a kind means that nothing of that kind is refused, except for
/// `option_tags`: nothing is supported that is not named.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Methods that are served; others get 405 (known ones) or 501, with Allow.
    pub methods: Vec<Method>,
    /// Option tags that may stand in Require; others get 420 with Unsupported.
    pub option_tags: Vec<String>,
    /// Schemes of the Request-URI besides sip, sips and tel: none, so others get 416.
    pub schemes: Vec<Scheme>,
    /// Body types per method; a body of another type gets 415 with Accept.
    pub body_types: Vec<(Method, Vec<MediaType>)>,
    /// Event packages; others get 489 with Allow-Events.
    pub events: Vec<String>,
    /// The request would be forwarded: Max-Forwards 0 gets 483 (RFC 3261 §16.3 step 3).
    pub forwards: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            methods: Method::KNOWN.to_vec(),
            option_tags: Vec::new(),
            schemes: vec![Scheme::Sip, Scheme::Sips, Scheme::Tel],
            body_types: Vec::new(),
            events: Vec::new(),
            forwards: false,
        }
    }
}

impl Rules {
    /// Accepts the request, or gives its final answer. In the order of RFC 3261 §8.2: method, headers,
    /// content. An ACK is never answered and always passes.
    pub fn screen(&self, request: &Request) -> Result<(), Box<Response>> {
        if request.method == Method::Ack {
            return Ok(());
        }
        self.method(request)?;
        self.request_uri(request)?;
        self.hops(request)?;
        self.extensions(request)?;
        self.event(request)?;
        self.content(request)
    }

    /// RFC 3261 §8.2.1: 405 with Allow; 501 for a method that nobody here knows (§21.5.2).
    fn method(&self, request: &Request) -> Result<(), Box<Response>> {
        if self.methods.is_empty() || self.methods.contains(&request.method) {
            return Ok(());
        }
        let code = if matches!(request.method, Method::Other(_)) { 501 } else { 405 };
        let mut response = request.respond(code);
        response.headers.push(Name::Allow, self.allow());
        Err(Box::new(response))
    }

    /// The value of Allow.
    pub fn allow(&self) -> String {
        self.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
    }

    /// RFC 3261 §8.2.2.1: 416 for a scheme that is not understood.
    fn request_uri(&self, request: &Request) -> Result<(), Box<Response>> {
        if self.schemes.is_empty() || self.schemes.contains(&request.uri.scheme) {
            return Ok(());
        }
        Err(Box::new(request.respond(416)))
    }

    fn hops(&self, request: &Request) -> Result<(), Box<Response>> {
        let none_left = matches!(request.headers.typed::<MaxForwards>(), Ok(Some(MaxForwards(0))));
        // RFC 3261 §16.3 step 3: OPTIONS may be answered by the element that it reached.
        if self.forwards && none_left && request.method != Method::Options {
            return Err(Box::new(request.respond(483)));
        }
        Ok(())
    }

    /// RFC 3261 §8.2.2.3: every option tag that is not supported is named in Unsupported. CANCEL is exempt.
    fn extensions(&self, request: &Request) -> Result<(), Box<Response>> {
        if request.method == Method::Cancel {
            return Ok(());
        }
        let supported = |tag: &&str| self.option_tags.iter().any(|known| known.eq_ignore_ascii_case(tag));
        let mut unsupported: Vec<&str> =
            request.headers.tokens(&Name::Require).filter(|tag| !supported(tag)).collect();
        if self.forwards {
            // RFC 3261 §16.3 step 5: a proxy answers for Proxy-Require.
            unsupported.extend(request.headers.tokens(&Name::ProxyRequire).filter(|tag| !supported(tag)));
        }
        if unsupported.is_empty() {
            return Ok(());
        }
        let mut response = request.respond(420);
        response.headers.push(Name::Unsupported, unsupported.join(", "));
        Err(Box::new(response))
    }

    /// RFC 6665 §7.2: 489 with Allow-Events; 400 without an Event header, since none is a default.
    fn event(&self, request: &Request) -> Result<(), Box<Response>> {
        if !matches!(request.method, Method::Subscribe | Method::Publish) || self.events.is_empty() {
            return Ok(());
        }
        let known = match request.headers.typed::<Event>() {
            Ok(Some(event)) => self.events.contains(&event.package),
            _ => return Err(Box::new(request.respond(400))),
        };
        if known {
            return Ok(());
        }
        let mut response = request.respond(489);
        response.headers.push(Name::AllowEvents, self.events.join(", "));
        Err(Box::new(response))
    }

    /// RFC 3261 §8.2.3: 415 with Accept or Accept-Encoding. A body whose handling is optional passes.
    fn content(&self, request: &Request) -> Result<(), Box<Response>> {
        if request.body.is_empty() {
            return Ok(());
        }
        if request.headers.tokens(&Name::ContentEncoding).any(|e| !e.eq_ignore_ascii_case("identity")) {
            let mut response = request.respond(415);
            response.headers.push(Name::AcceptEncoding, "identity");
            return Err(Box::new(response));
        }
        let Some((_, accepted)) = self.body_types.iter().find(|(method, _)| *method == request.method) else {
            return Ok(());
        };
        let optional = matches!(
            request.headers.typed::<crate::typed::ContentDisposition>(),
            Ok(Some(disposition)) if disposition.is_optional()
        );
        let known = match request.headers.typed::<ContentType>() {
            Ok(Some(kind)) => accepted.iter().any(|range| range.covers(&kind)),
            // RFC 3261 §20.15: a body must have a type.
            _ => return Err(Box::new(request.respond(400))),
        };
        if known || optional {
            return Ok(());
        }
        let mut response = request.respond(415);
        let list: Vec<String> = accepted.iter().map(MediaType::to_string).collect();
        response.headers.push(Name::Accept, list.join(", "));
        Err(Box::new(response))
    }
}
