//! What a session receives: chunks that become messages, their answers and reports.

use std::time::Duration;

use base::{Instant, Outbox};
use smallvec::SmallVec;

use super::{Due, Output, Received, Session, tell};
use crate::reassembly::{Progress, Reassembly};
use crate::{ByteRange, Flag, Head, Method, Status};

/// What is done with the request that is arriving.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Task {
    /// A chunk of a message.
    Chunk,
    /// An empty SEND.
    Empty,
    /// A REPORT.
    Report,
    /// It was answered already; the rest is thrown away.
    Ignore,
}

#[derive(Debug)]
struct Current {
    head: Head,
    task: Task,
    octets: u64,
}

/// The receiving half of a session.
#[derive(Debug)]
pub(super) struct Arriving {
    reassembly: Reassembly,
    current: Option<Current>,
}

impl Arriving {
    pub(super) fn new(reassembly: Reassembly) -> Self {
        Arriving { reassembly, current: None }
    }
}

impl Session {
    /// The head of a request. What cannot be taken is answered at once, so that the sender can stop.
    pub(super) fn request(&mut self, now: Instant, head: Head, out: &mut Outbox<Output>) {
        let task = match head.method() {
            Some(Method::Send) => self.judge_send(now, &head),
            Some(Method::Report) => Ok(Task::Report),
            // RFC 4975 §10.10; a NICKNAME is for rooms, AUTH for relays.
            _ => Err(Status::UNKNOWN_METHOD),
        };
        let task = task.unwrap_or_else(|status| {
            self.respond(&head, status, out);
            Task::Ignore
        });
        self.arriving.current = Some(Current { head, task, octets: 0 });
    }

    fn judge_send(&mut self, now: Instant, head: &Head) -> Result<Task, Status> {
        if !head.has_body() && !self.arriving.reassembly.has(head.message_id()) {
            return Ok(Task::Empty);
        }
        if head.content_type().is_some_and(|content_type| !accepts(&self.config.accept_types, content_type)) {
            return Err(Status::UNSUPPORTED_TYPE);
        }
        self.arriving.reassembly.begin(now, head)?;
        self.watch_pause();
        Ok(Task::Chunk)
    }

    /// Octets of the body.
    pub(super) fn body(&mut self, now: Instant, span: &[u8], out: &mut Outbox<Output>) {
        let Some(mut current) = self.arriving.current.take() else { return };
        current.octets = current.octets.saturating_add(span.len() as u64);
        if current.task == Task::Chunk
            && let Err(status) = self.arriving.reassembly.data(now, span)
        {
            current.task = Task::Ignore;
            self.respond(&current.head, status, out);
        }
        self.arriving.current = Some(current);
    }

    /// The end-line: the chunk is whole, so it is answered (RFC 4975 §7.2).
    pub(super) fn end_line(&mut self, now: Instant, flag: Flag, out: &mut Outbox<Output>) {
        let Some(current) = self.arriving.current.take() else { return };
        match current.task {
            Task::Ignore => {}
            Task::Report => self.reported(now, &current.head, out),
            Task::Empty => self.respond(&current.head, Status::OK, out),
            Task::Chunk => match self.arriving.reassembly.end(flag) {
                Ok(progress) => {
                    self.respond(&current.head, Status::OK, out);
                    self.progress(current, progress, flag, out);
                }
                Err(status) => self.respond(&current.head, status, out),
            },
        }
    }

    fn progress(&mut self, current: Current, progress: Progress, flag: Flag, out: &mut Outbox<Output>) {
        let wants = current.head.success_report() && self.config.report_success;
        match progress {
            Progress::Partial => {}
            Progress::Aborted => tell(out, Output::Dropped(current.head.message_id().to_owned())),
            // RFC 4975 §7.1.2: a repetition is reported again, its content is not looked at.
            Progress::Repeated => {
                let range = current.head.byte_range().unwrap_or(ByteRange::OPEN);
                if wants && let Some(end) = range.end_of(current.octets) {
                    self.send_report(&current.head, ByteRange { end: Some(end), ..range }, Status::OK, out);
                }
                if flag == Flag::Last {
                    tell(out, Output::Repeated(current.head.message_id().to_owned()));
                }
            }
            Progress::Whole(message) => {
                if wants {
                    self.send_report(&current.head, whole(message.body.len()), Status::OK, out);
                }
                tell(out, Output::Received(Box::new(Received { message, head: current.head })));
            }
        }
    }

    /// The user reports. Who wants to know is in the message's head (RFC 4975 §7.1.2).
    pub(super) fn report(&mut self, received: &Received, status: Status, out: &mut Outbox<Output>) {
        let head = &received.head;
        let wanted =
            if status.is_success() { head.success_report() } else { head.failure_report().reports() };
        if wanted {
            self.send_report(head, whole(received.message.body.len()), status, out);
        }
    }

    pub(super) fn respond(&mut self, head: &Head, status: Status, out: &mut Outbox<Output>) {
        if let Some(answer) = crate::response(head, status) {
            self.write(SmallVec::from_iter([answer]), out);
        }
    }

    /// Sets the timer for messages that pause, if it is not set.
    fn watch_pause(&mut self) {
        let pause = Duration::from_millis(self.config.limits.pause_ms);
        if self.pause_timer.is_none()
            && let Some(oldest) = self.arriving.reassembly.oldest()
        {
            self.pause_timer = self.timers.set(oldest + pause, Due::Pause).ok();
        }
    }

    /// Throws away messages that paused too long.
    pub(super) fn sweep(&mut self, now: Instant, out: &mut Outbox<Output>) {
        self.pause_timer = None;
        for id in self.arriving.reassembly.expire(now, Duration::from_millis(self.config.limits.pause_ms)) {
            tell(out, Output::Dropped(id));
        }
        self.watch_pause();
    }
}

/// The range of a whole message.
fn whole(octets: usize) -> ByteRange {
    ByteRange::new(1, octets as u64, octets as u64)
}

/// Whether a type is on the list. multipart/mixed and multipart/alternative always are: what they hold is what
/// counts (RFC 4975 §8.6).
fn accepts(list: &[String], content_type: &str) -> bool {
    let bare = content_type.split(';').next().unwrap_or_default().trim();
    let is = |known: &str| bare.eq_ignore_ascii_case(known);
    let of_main_type = |entry: &str| {
        let main = entry.strip_suffix("/*");
        main.zip(bare.split_once('/')).is_some_and(|(main, (own, _))| main.eq_ignore_ascii_case(own))
    };
    is("multipart/mixed")
        || is("multipart/alternative")
        || list.iter().any(|entry| entry == "*" || is(entry) || of_main_type(entry))
}
