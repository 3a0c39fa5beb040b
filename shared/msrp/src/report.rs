//! The two report headers and what follows from them (RFC 4975 §7.1.1, §7.1.2).

use thiserror::Error;

use crate::Status;

/// A report header holds a value that the grammar does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("not a report value")]
pub struct ReportValueError;

/// Failure-Report of a SEND. Who may answer and who waits is all here:
///
/// | value | 200 | error response | the sender's timer |
/// | --- | --- | --- | --- |
/// | yes | sent | sent | 30 s |
/// | partial | not sent | sent | none |
/// | no | not sent | not sent | none |
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum FailureReport {
    /// The default.
    #[default]
    Yes,
    /// Only errors are answered.
    Partial,
    /// Nothing is answered.
    No,
}

impl FailureReport {
    /// Reads the header's value.
    pub fn parse(value: &[u8]) -> Result<Self, ReportValueError> {
        match value {
            b"yes" => Ok(FailureReport::Yes),
            b"partial" => Ok(FailureReport::Partial),
            b"no" => Ok(FailureReport::No),
            _ => Err(ReportValueError),
        }
    }

    /// The header's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            FailureReport::Yes => "yes",
            FailureReport::Partial => "partial",
            FailureReport::No => "no",
        }
    }

    /// Whether a SEND with this value is answered with this status (RFC 4975 §7.1.1, §7.2).
    pub const fn answers(self, status: Status) -> bool {
        match self {
            FailureReport::Yes => true,
            FailureReport::Partial => !status.is_success(),
            FailureReport::No => false,
        }
    }

    /// Whether the sender waits for an answer and takes silence as failure (RFC 4975 §7.1.1).
    pub const fn waits(self) -> bool {
        matches!(self, FailureReport::Yes)
    }

    /// Whether a failure that is learned later is told by REPORT (RFC 4975 §7.1.2).
    pub const fn reports(self) -> bool {
        !matches!(self, FailureReport::No)
    }
}

/// Success-Report: `yes` or `no`.
pub(crate) fn parse_success(value: &[u8]) -> Result<bool, ReportValueError> {
    match value {
        b"yes" => Ok(true),
        b"no" => Ok(false),
        _ => Err(ReportValueError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc4975_s7_1_1_who_is_answered() {
        for (value, ok, error, waits, reports) in [
            ("yes", true, true, true, true),
            ("partial", false, true, false, true),
            ("no", false, false, false, false),
        ] {
            let fr = FailureReport::parse(value.as_bytes()).unwrap();
            assert_eq!(fr.as_str(), value);
            assert_eq!((fr.answers(Status::OK), fr.answers(Status::STOP)), (ok, error), "{value}");
            assert_eq!((fr.waits(), fr.reports()), (waits, reports), "{value}");
        }
        assert!(FailureReport::parse(b"maybe").is_err());
    }
}
