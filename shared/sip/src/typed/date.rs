//! Date: RFC 1123 form, GMT and nothing else (RFC 3261 §20.17, RFC 4475 §3.1.2.12).

use std::fmt;

use base::UnixTime;

use super::{BadHeader, Value, own_header};
use crate::scan::{digits, trim};

/// A point in time, whole seconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Date(pub UnixTime);

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Days since 1970-01-01 of a Gregorian date.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let y = if month <= 2 { year.checked_sub(1)? } else { year };
    let (era, yoe) = (y / 400, y % 400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    (era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy).checked_sub(719_468)
}

impl Value for Date {
    fn parse(bytes: &[u8]) -> Result<Date, BadHeader> {
        read(trim(bytes)).ok_or(BadHeader { header: "Date", what: "is no date in GMT" })
    }
}

/// `Sat, 13 Nov 2010 23:29:00 GMT`.
fn read(text: &[u8]) -> Option<Date> {
    let text = std::str::from_utf8(text).ok()?;
    let (weekday, rest) = text.split_once(',')?;
    if !DAYS.iter().any(|d| d.eq_ignore_ascii_case(weekday)) {
        return None;
    }
    let mut parts = rest.split_ascii_whitespace();
    let number = |part: Option<&str>| part.and_then(|p| digits(p.as_bytes()));
    let day = number(parts.next())?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|m| m.eq_ignore_ascii_case(name))? as u64 + 1;
    let year = number(parts.next())?;
    let mut clock = parts.next()?.split(':');
    let (hour, minute, second) = (number(clock.next())?, number(clock.next())?, number(clock.next())?);
    let zone = parts.next()?;
    if !zone.eq_ignore_ascii_case("GMT") || parts.next().is_some() || clock.next().is_some() {
        return None;
    }
    if !(1..=31).contains(&day) || !(1970..10_000).contains(&year) || hour > 23 || minute > 59 || second > 60
    {
        return None;
    }
    let seconds = days_from_civil(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
    Some(Date(UnixTime::from_millis(seconds * 1000)))
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // RFC 3339 is `YYYY-MM-DDTHH:MM:SS.mmmZ`; the fields are taken from there.
        let iso = self.0.to_string();
        let mut fields = iso.split(['-', 'T', '.']);
        let (year, month, day, clock) = (
            fields.next().unwrap_or_default(),
            fields.next().and_then(|m| m.parse::<usize>().ok()).unwrap_or(1),
            fields.next().unwrap_or_default(),
            fields.next().unwrap_or_default(),
        );
        let weekday = usize::try_from(self.0.as_secs() / 86_400 % 7).ok().and_then(|d| DAYS.get(d));
        let month = MONTHS.get(month.wrapping_sub(1)).copied().unwrap_or("Jan");
        write!(f, "{}, {day} {month} {year} {clock} GMT", weekday.copied().unwrap_or("Thu"))
    }
}

own_header!(Date = Date, "Date");
