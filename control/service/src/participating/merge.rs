//! The best final answer of a fork (RFC 3261 §16.7 step 6, CPM-FACTS §2.8 "Response merging").

use sip::Response;

/// Collects the failures of the legs of one fork. 2xx never come here: the first one wins at once.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    best: Option<(u16, Response)>,
    overloaded_only: bool,
    failures: u32,
}

impl Merge {
    /// Takes one leg's final failure. What a leg answered to our own CANCEL (487) must not come here.
    pub(crate) fn take(&mut self, response: Response) {
        self.overloaded_only = response.code == 503 && (self.failures == 0 || self.overloaded_only);
        self.failures += 1;
        let rank = rank(response.code);
        if self.best.as_ref().is_none_or(|(least, _)| rank < *least) {
            self.best = Some((rank, response));
        }
    }

    /// The answer for upstream: `None` when no leg said anything of its own.
    pub(crate) fn best(self) -> Option<Response> {
        let (_, mut response) = self.best?;
        match response.code {
            // RFC 3261 §16.7: a 503 of one leg says nothing about us.
            503 if !self.overloaded_only => recode(&mut response, 500, "Server Internal Error"),
            // Silence of a device is an absent user, not a timeout of ours.
            408 => recode(&mut response, 480, "Temporarily Unavailable"),
            _ => {}
        }
        Some(response)
    }
}

fn recode(response: &mut Response, code: u16, reason: &str) {
    response.code = code;
    response.reason = reason.to_owned();
}

/// Less is better: 6xx, then the lowest class; inside 4xx first what helps the caller to try again, and last
/// what only says "not there".
fn rank(code: u16) -> u16 {
    match code {
        600..700 => 0,
        300..400 => 100,
        401 | 407 | 415 | 420 | 484 => 200,
        486 => 201,
        408 | 480 => 299,
        400..500 => 202,
        503 => 399,
        _ => 300,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_failure_goes_upstream() {
        for (codes, best) in [
            (&[486, 480][..], 486),
            (&[408, 480], 480),
            (&[408], 480),
            (&[404, 603, 486], 603),
            (&[500, 302, 404], 302),
            (&[404, 415], 415),
            (&[503, 500], 500),
            (&[503, 503], 503),
            (&[503, 404], 404),
            (&[500, 503], 500),
        ] {
            let mut merge = Merge::default();
            for code in codes {
                merge.take(crate::testing::response(*code));
            }
            assert_eq!(merge.best().map(|r| r.code), Some(best), "{codes:?}");
        }
        assert!(Merge::default().best().is_none());
    }
}
