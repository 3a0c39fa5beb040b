//! The edge: SIP listeners over UDP, TCP and TLS, and the connections that come and go.

mod settings;

pub use settings::{Limits, Listener, Settings, Tls, Transport};
