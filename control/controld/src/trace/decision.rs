//! A decision of a lane: what was heard, who took it, and what it came to, read off what it puts out.

use service::records::Record;
use service::{Acted, Change, Function, Output, Route, Table};

use super::Said;
use super::mask::Mask;

/// What a lane heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// A message.
    pub(super) said: Option<Said>,
    /// It came from another function of the node.
    pub(super) inner: bool,
    /// The Call-ID of what was heard, where it is no message but belongs to one.
    pub(super) call: Option<String>,
    /// The media context of the news that was heard.
    pub(super) context: Option<u64>,
    /// What was heard, where it is no message.
    pub(super) what: Option<&'static str>,
    /// It is one thing, so that all that it leads to belongs together; false: timers, restored rows, counters.
    pub(super) single: bool,
}

/// One output: what it belongs to.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) said: Option<Said>,
    pub(super) contexts: Vec<u64>,
}

/// A decision.
#[derive(Debug)]
pub(crate) struct Decision<'a> {
    pub(super) heard: &'a Heard,
    pub(super) acted: Acted,
    pub(super) outputs: &'a [Output],
    pub(super) subjects: Vec<Subject>,
    pub(super) changes: &'a [Change],
}

impl<'a> Decision<'a> {
    pub(super) fn new(heard: &'a Heard, acted: Acted, outputs: &'a [Output], changes: &'a [Change]) -> Self {
        Decision { heard, acted, outputs, subjects: outputs.iter().map(subject).collect(), changes }
    }

    /// In a line, with these of its outputs; `None`: nothing came of it.
    pub(super) fn summary(&self, mask: &Mask, wanted: impl Fn(usize) -> bool) -> Option<String> {
        let mut parts = Vec::new();
        let chosen = self.outputs.iter().zip(&self.subjects).enumerate().filter(|(at, _)| wanted(*at));
        let (mut devices, mut cancels) = (Vec::new(), 0);
        if let Some((chosen, contacts)) = self.acted.devices {
            parts.push(format!("chooses {chosen} of {contacts} registered devices"));
        }
        for (_, (output, subject)) in chosen {
            match output {
                Output::Respond { response, .. } => {
                    parts.push(self.answer(response.code, subject.said.as_ref(), mask))
                }
                Output::Send { to, request, .. } => match to {
                    Route::Peer(peer) => devices.push((
                        request.method.as_str().to_owned(),
                        format!("{} {}", peer.transport.label(), peer.addr),
                    )),
                    Route::Name(named) => devices.push((
                        request.method.as_str().to_owned(),
                        format!("{} {}", named.transport.label(), named.host),
                    )),
                    Route::Lane(_) => parts.push(format!(
                        "sends {} to the function for {}",
                        request.method.as_str(),
                        mask.uri(&request.uri)
                    )),
                },
                Output::Ack { .. } => parts.push("sends ACK".to_owned()),
                Output::Cancel { .. } => cancels += 1,
                Output::Program { .. } => {
                    parts.push("orders media".to_owned());
                }
                Output::Decide(decide) => parts.push(format!("answers the data plane {}", decide.status)),
                Output::Need { .. } | Output::Write(_) => {}
            }
        }
        parts.extend(sent(&devices));
        parts.dedup();
        if cancels > 0 {
            parts.push(format!("takes back {cancels} of its requests"));
        }
        if self.heard.single {
            parts.extend(self.rows());
        }
        if parts.is_empty() {
            return None;
        }
        let whose = match self.acted.function {
            Some(Function::Originating) => "for the sender: ",
            Some(Function::Terminating) => "for the addressee: ",
            _ => "",
        };
        let because = self.heard.what.map(|what| format!("{what}: ")).unwrap_or_default();
        Some(format!("{whose}{because}{}", parts.join("; ")))
    }

    fn answer(&self, code: u16, said: Option<&Said>, mask: &Mask) -> String {
        let line = said.map(|said| said.summary(mask)).unwrap_or_default();
        let passed = self.heard.said.as_ref().is_some_and(|heard| heard.code() == Some(code));
        match code {
            _ if passed => format!("passes on {line}"),
            401 | 407 => format!("asks for credentials: {line}"),
            300.. => format!("refuses: {line}"),
            _ => format!("answers {line}"),
        }
    }

    /// What is remembered. A message that is kept is one that is deferred until a device takes it.
    fn rows(&self) -> Option<String> {
        let mut words: Vec<String> = Vec::new();
        let mut tables: Vec<&'static str> = Vec::new();
        for change in self.changes {
            match change {
                Change::Put(row) if matches!(row.record, Record::Message(_)) => {
                    words.push("keeps the message until it is delivered".to_owned());
                }
                Change::Remove(key) if key.table == Table::Message => {
                    words.push("keeps the message no longer".to_owned());
                }
                Change::Put(row) => tables.push(row.key.table.label()),
                Change::Remove(key) => tables.push(key.table.label()),
            }
        }
        tables.sort_unstable();
        tables.dedup();
        words.dedup();
        if !tables.is_empty() {
            words.push(format!("writes rows: {}", tables.join(", ")));
        }
        (!words.is_empty()).then(|| words.join("; "))
    }
}

/// What goes over the network, and where to.
fn sent(devices: &[(String, String)]) -> Option<String> {
    let (method, _) = devices.first()?;
    let places: Vec<&str> = devices.iter().map(|(_, place)| place.as_str()).collect();
    Some(format!("sends {method} to {}", places.join(", ")))
}

fn subject(output: &Output) -> Subject {
    let said = match output {
        Output::Respond { response, .. } => Some(Said::response(response)),
        Output::Send { request, .. } | Output::Ack { request, .. } => Some(Said::request(request)),
        _ => None,
    };
    let contexts = match output {
        Output::Program { batch, .. } => super::contract::contexts(batch),
        _ => Vec::new(),
    };
    Subject { said, contexts }
}
