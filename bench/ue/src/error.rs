//! Why a device could not do what it was asked.

/// See there.
#[derive(Debug, thiserror::Error)]
pub enum UeError {
    /// The far end said no.
    #[error("refused with {code}{}", .warning.as_deref().map(|w| format!(" ({w})")).unwrap_or_default())]
    Refused {
        /// The SIP status.
        code: u16,
        /// Text of its Warning or Reason header.
        warning: Option<String>,
    },
    /// Nobody answered.
    #[error("no answer")]
    Timeout,
    /// The connection failed.
    #[error("transport: {0}")]
    Transport(String),
    /// The device or session is no more.
    #[error("gone")]
    Gone,
    /// A queue of ours is full.
    #[error("queue full")]
    Full,
    /// The session cannot do that, as it stands.
    #[error("not now: {0}")]
    State(&'static str),
    /// What the far end said cannot be used.
    #[error("bad answer: {0}")]
    Bad(String),
    /// The operating system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] crate::TlsError),
}
