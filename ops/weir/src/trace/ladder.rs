//! A trace as a ladder: a column for each party, time downwards, an arrow for each message.
//!
//! ```text
//!                 A ***01                  PF           CF       data plane       B ***02
//!     0.000 s        │───── INVITE ────────▶│            │            │              │
//!     0.001 s        │                      │ ● sends INVITE to the function for …   │
//!     0.002 s        │                      │── INVITE ─▶│            │              │
//! ```
//!
//! Columns stand as far apart as what is written between them needs, and no farther than the width allows; what does not
//! fit there is cut at the end with `…`. Decisions and what media came to are notes in their column.

use controld::{TraceEvent, TraceKind};

/// Cells before the first column: the time.
const MARGIN: usize = 12;
/// Cells between two columns at least.
const GAP_MIN: usize = 8;
/// Cells that a label may take from the layout.
const LABEL_MAX: usize = 36;
/// Cells of a note's lines at least.
const NOTE_MIN: usize = 36;
/// The node's own columns, in their order.
const OWN: [&str; 4] = ["registrar", "PF", "CF", "data plane"];

/// Draws events so wide at most, as far as the heads of the columns allow.
pub(super) fn draw(events: &[TraceEvent], width: usize) -> String {
    let columns = columns(events);
    if columns.is_empty() {
        return "nothing was traced\n".to_owned();
    }
    let places = places(&columns, events, width);
    let end = places.last().zip(columns.last()).map_or(0, |(place, name)| place + cells(name) / 2 + 1);
    let paper = Paper { columns: &columns, places, width: width.max(end) };
    let began = events.first().map_or(0, |event| event.us);
    let mut text = paper.heads();
    for event in events {
        let time = event.us.saturating_sub(began);
        let time = format!("{:>5}.{:03} s", time / 1_000_000, time / 1000 % 1000);
        for (line, first) in
            paper.event(event).into_iter().zip(std::iter::once(true).chain(std::iter::repeat(false)))
        {
            let mut line = line;
            // The end has no time of its own.
            if first && event.kind != TraceKind::End {
                write(&mut line, 0, &time);
            }
            let line: String = line.into_iter().collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text.push_str(&paper.heads());
    text
}

fn cells(text: &str) -> usize {
    text.chars().count()
}

/// Who takes part: whoever is first, the node, and the others as they come.
fn columns(events: &[TraceEvent]) -> Vec<String> {
    let drawn = events.iter().filter(|event| !matches!(event.kind, TraceKind::Lost | TraceKind::End));
    let mut named: Vec<String> = Vec::new();
    for name in drawn.flat_map(|event| [&event.from, &event.to]).filter(|name| !name.is_empty()) {
        if !named.contains(name) {
            named.push(name.clone());
        }
    }
    let (own, others): (Vec<String>, Vec<String>) =
        named.into_iter().partition(|name| OWN.contains(&name.as_str()));
    let mut others = others.into_iter();
    let mut columns: Vec<String> = others.next().into_iter().collect();
    columns
        .extend(OWN.iter().filter(|name| own.iter().any(|own| own == *name)).map(|name| (*name).to_owned()));
    columns.extend(others);
    columns
}

/// What stands on an arrow: without the addresses, which the columns show, and without what a body is.
fn label(event: &TraceEvent) -> String {
    let extra = |word: &str| {
        let uri = ["sip:", "sips:", "tel:"].iter().any(|scheme| word.starts_with(scheme));
        uri || word == "application/sdp" || word.starts_with("multipart/")
    };
    let (what, why) =
        event.summary.split_once(" — ").map_or((event.summary.as_str(), None), |(a, b)| (a, Some(b)));
    let words: Vec<&str> =
        what.split(' ').filter(|word| event.kind != TraceKind::Sip || !extra(word)).collect();
    match why {
        Some(why) => format!("{} — {why}", words.join(" ")),
        None => words.join(" "),
    }
}

/// Which columns an arrow joins; `None` for a note.
fn ends(columns: &[String], event: &TraceEvent) -> Option<(usize, usize)> {
    if !matches!(event.kind, TraceKind::Sip | TraceKind::Contract) {
        return None;
    }
    let at = |name: &String| columns.iter().position(|column| column == name);
    at(&event.from).zip(at(&event.to)).filter(|(from, to)| from != to)
}

/// In which cell each column stands.
fn places(columns: &[String], events: &[TraceEvent], width: usize) -> Vec<usize> {
    let heads: Vec<usize> =
        columns.windows(2).map(|two| two.iter().map(|name| cells(name) / 2).sum::<usize>() + 3).collect();
    let mut gaps: Vec<usize> = heads.iter().map(|head| (*head).max(GAP_MIN)).collect();
    let mut arrows: Vec<(usize, usize, usize)> = events
        .iter()
        .filter_map(|event| {
            let (from, to) = ends(columns, event)?;
            Some((from.abs_diff(to), from.min(to), cells(&label(event)).min(LABEL_MAX) + 5))
        })
        .collect();
    arrows.sort_unstable();
    arrows.dedup();
    let first = MARGIN + columns.first().map_or(0, |name| cells(name) / 2);
    let last = columns.last().map_or(0, |name| cells(name) / 2) + 1;
    for (span, from, needs) in arrows {
        let room = width.saturating_sub(first + last + gaps.iter().sum::<usize>());
        let Some(own) = gaps.get_mut(from..from + span) else { continue };
        let lacks = needs.saturating_sub(own.iter().sum()).min(room);
        for (gap, n) in own.iter_mut().zip(0..) {
            *gap += lacks / span + usize::from(n < lacks % span);
        }
    }
    // Too wide even without labels: the heads stand closer.
    let mut over = (first + last + gaps.iter().sum::<usize>()).saturating_sub(width);
    for (gap, head) in gaps.iter_mut().zip(&heads) {
        let less = gap.saturating_sub(*head).min(over);
        (*gap, over) = (*gap - less, over - less);
    }
    let mut places = vec![first];
    places.extend(gaps.iter().scan(first, |place, gap| {
        *place += gap;
        Some(*place)
    }));
    places
}

/// Where to draw.
struct Paper<'a> {
    columns: &'a [String],
    places: Vec<usize>,
    width: usize,
}

fn write(line: &mut [char], at: usize, text: &str) {
    line.iter_mut().skip(at).zip(text.chars()).for_each(|(cell, c)| *cell = c);
}

/// So many cells of it.
fn cut(text: &str, max: usize) -> String {
    if cells(text) <= max {
        return text.to_owned();
    }
    let kept: String = text.chars().take(max.saturating_sub(1)).collect();
    if max == 0 { kept } else { kept.trim_end().to_owned() + "…" }
}

/// Lines of so many cells at most, between words where there are any.
fn wrap(text: &str, max: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if cells(line) + 1 + cells(word) <= max => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(cut(word, max)),
        }
    }
    lines
}

impl Paper<'_> {
    fn heads(&self) -> String {
        let mut line = vec![' '; self.width + 1];
        for (name, place) in self.columns.iter().zip(&self.places) {
            write(&mut line, place.saturating_sub(cells(name) / 2), name);
        }
        let line: String = line.into_iter().collect();
        format!("{}\n", line.trim_end())
    }

    fn blank(&self) -> Vec<char> {
        let mut line = vec![' '; self.width + 1];
        for place in &self.places {
            write(&mut line, *place, "│");
        }
        line
    }

    fn event(&self, event: &TraceEvent) -> Vec<Vec<char>> {
        if let Some((from, to)) = ends(self.columns, event) {
            return vec![self.arrow(from, to, &label(event))];
        }
        let mark = match event.kind {
            TraceKind::Sip | TraceKind::Contract => format!("↻ {}", label(event)),
            TraceKind::Decision => format!("● {}", event.summary),
            TraceKind::Media => format!("◆ {}", event.summary),
            TraceKind::Lost | TraceKind::End => {
                let mut line = vec![' '; self.width + 1];
                write(
                    &mut line,
                    MARGIN,
                    &cut(&format!("··· {} ···", event.summary), self.width - MARGIN.min(self.width)),
                );
                return vec![line];
            }
        };
        let at = self.columns.iter().position(|column| *column == event.from).unwrap_or(0);
        self.note(self.places.get(at).copied().unwrap_or(MARGIN), &mark)
    }

    fn arrow(&self, from: usize, to: usize, text: &str) -> Vec<char> {
        let mut line = self.blank();
        let place = |column: usize| self.places.get(column).copied().unwrap_or(0);
        let (left, right) = (place(from.min(to)), place(from.max(to)));
        let inside = right.saturating_sub(left + 1);
        write(&mut line, left + 1, &"─".repeat(inside));
        let text = cut(text, inside.saturating_sub(4));
        if !text.is_empty() {
            let start = left + 1 + (inside - cells(&text) - 2) / 2;
            write(&mut line, start, &format!(" {text} "));
        }
        match from < to {
            true => write(&mut line, right - 1, "▶"),
            false => write(&mut line, left + 1, "◀"),
        }
        line
    }

    /// Beside its column, where there is more room; several lines if it needs them.
    fn note(&self, place: usize, text: &str) -> Vec<Vec<char>> {
        let right = self.width.saturating_sub(place + 2);
        let left = place.saturating_sub(MARGIN + 2);
        let to_left = right < NOTE_MIN && left > right;
        let lines = wrap(text, if to_left { left } else { right }.max(1));
        let draw = |text: &String| {
            let mut line = self.blank();
            match to_left {
                true => write(&mut line, place - 1 - cells(text), text),
                false => write(&mut line, place + 2, text),
            }
            line
        };
        lines.iter().map(draw).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(us: u64, kind: TraceKind, from: &str, to: &str, summary: &str) -> TraceEvent {
        let (from, to, summary) = (from.to_owned(), to.to_owned(), summary.to_owned());
        TraceEvent { us, kind, from, to, summary, ..TraceEvent::default() }
    }

    fn call() -> Vec<TraceEvent> {
        use TraceKind::{Contract, Decision, End, Lost, Media, Sip};
        vec![
            event(
                1_000,
                Sip,
                "A ***01",
                "PF",
                "INVITE sip:conference-factory@weir.example multipart/mixed (message)",
            ),
            event(
                2_000,
                Decision,
                "PF",
                "PF",
                "for the sender: sends INVITE to the function for sip:conference-factory@weir.example",
            ),
            event(
                2_500,
                Sip,
                "PF",
                "CF",
                "INVITE sip:conference-factory@weir.example multipart/mixed (message)",
            ),
            event(
                3_000,
                Contract,
                "CF",
                "data plane",
                "put context; put leg 1 message; put leg 2 message; put path 1 switch",
            ),
            event(4_000, Contract, "data plane", "CF", "applied: leg 1 at 127.0.0.1:2855"),
            event(5_000, Sip, "CF", "PF", "INVITE sip:***02@weir.example application/sdp (message)"),
            event(6_000, Sip, "PF", "B ***02", "INVITE sip:***02@127.0.0.1 application/sdp (message)"),
            event(61_234_567, Sip, "B ***02", "PF", "486 Busy Here (INVITE) — SIP;cause=486"),
            event(61_235_000, Sip, "PF", "PF", "486 Busy Here (INVITE)"),
            event(62_000_000, Lost, "", "", "12 events were lost: nobody read fast enough"),
            event(
                63_000_000,
                Media,
                "data plane",
                "CF",
                "leg 2 audio ended after 61.2 s: in 3000 packets, 7 lost",
            ),
            event(0, End, "", "", "the time of the trace is over"),
        ]
    }

    #[test]
    fn a_call_is_drawn_so() {
        let drawn = draw(&call(), 110);
        let golden = include_str!("ladder.txt");
        assert_eq!(drawn, golden, "\n{drawn}");
        assert!(drawn.lines().all(|line| cells(line) <= 110));
    }

    #[test]
    fn a_narrow_terminal_gets_narrow_columns_and_all_events() {
        let drawn = draw(&call(), 60);
        assert!(drawn.lines().all(|line| cells(line) <= 61), "\n{drawn}");
        assert!(drawn.contains("▶│") && drawn.contains("│◀") && drawn.contains('…'), "\n{drawn}");
        let timed = drawn.lines().filter(|line| line.contains(" s ")).count();
        assert_eq!(timed, call().len() - 1, "\n{drawn}");
    }

    #[test]
    fn no_width_is_too_small_and_nothing_is_drawn_of_nothing() {
        for width in 0..40 {
            assert!(!draw(&call(), width).is_empty());
        }
        assert_eq!(draw(&[], 80), "nothing was traced\n");
    }
}
