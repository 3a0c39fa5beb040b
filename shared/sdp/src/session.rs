//! A whole description.

use std::fmt;

use base::{Budget, Entropy};

use crate::{Attribute, Bandwidth, Direction, Group, Host, MediaLine};

/// What a peer may send us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Octets.
    pub size_max: usize,
    /// Lines.
    pub lines_max: usize,
    /// m= lines.
    pub media_max: usize,
    /// Formats in one m= line.
    pub formats_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { size_max: 16_384, lines_max: 400, media_max: 16, formats_max: 64 }
    }
}

impl Limits {
    /// Memory that descriptions in work may hold, as rows. Parsed, a description takes a few times its size.
    pub fn budget(&self, sessions_max: u64) -> Budget {
        let mut budget = Budget::default();
        budget.row("session descriptions", sessions_max, 4 * self.size_max as u64);
        budget
    }
}

/// The o= line (RFC 8866 §5.2).
#[derive(Clone, PartialEq, Eq)]
pub struct Origin {
    /// The user's name, `-` as a rule.
    pub username: String,
    /// Session id. Ours are numbers; what a peer sends is kept as it is.
    pub id: String,
    /// Version, one more with each change.
    pub version: u64,
    /// The address.
    pub host: Host,
}

impl Origin {
    /// One of ours: a numeric id, because strict peers refuse any other (RFC 8866 §5.2, sess-id is digits).
    pub fn new(id: u64, version: u64, host: Host) -> Self {
        Origin { username: "-".to_owned(), id: id.to_string(), version, host }
    }

    /// A fresh one. Ids stay below 2^53, so that peers that count in floating point keep them.
    pub fn fresh(entropy: &mut Entropy, host: Host) -> Self {
        let id = entropy.below(1 << 53);
        Origin::new(id, 1, host)
    }
}

/// Names a subscriber and an address.
impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin(version {})", self.version)
    }
}

/// A session description. Attributes of the session level that stand for every line (direction, setup,
/// fingerprint, c=) are resolved into the [`MediaLine`]s when it is read, and so is what the tagged line of a bundle says for
/// the others.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// o=
    pub origin: Origin,
    /// s=, `-` as a rule.
    pub name: String,
    /// c= of the session level.
    pub host: Option<Host>,
    /// b= of the session level.
    pub bandwidths: Vec<Bandwidth>,
    /// a=group lines. Written as they stand here; [`crate::answer`] leaves them out, which declines bundling
    /// (RFC 9143 §7.3.3): [`Session::write_bundle`] agrees to it.
    pub groups: Vec<Group>,
    /// Other attributes of the session level, in order.
    pub others: Vec<Attribute>,
    /// The media lines, in order.
    pub lines: Vec<MediaLine>,
}

impl Session {
    /// An empty one.
    pub fn new(origin: Origin) -> Self {
        Session {
            host: Some(origin.host.clone()),
            origin,
            name: "-".to_owned(),
            bandwidths: Vec::new(),
            groups: Vec::new(),
            others: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// With one more media line. A line without an address of its own takes the session's.
    pub fn with(mut self, mut line: MediaLine) -> Self {
        if line.host.is_none() {
            line.host.clone_from(&self.host);
        }
        self.lines.push(line);
        self
    }

    /// Every line that is used is held by its writer: it sends at most.
    pub fn is_held(&self) -> bool {
        let mut used = self.lines.iter().filter(|line| !line.is_refused()).peekable();
        used.peek().is_some()
            && used
                .all(|line| matches!(line.effective_direction(), Direction::SendOnly | Direction::Inactive))
    }

    /// The first used line that carries MSRP.
    pub fn message_line(&self) -> Option<(usize, &MediaLine)> {
        self.lines.iter().enumerate().find(|(_, line)| line.message().is_some() && !line.is_refused())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("origin", &self.origin)
            .field("lines", &self.lines)
            .finish_non_exhaustive()
    }
}
