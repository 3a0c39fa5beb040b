//! REGISTER: granted, refreshed at half of its life, taken back (RFC 3261 §10, RFC 5626).

use std::time::Duration;

use sip::Response;
use sip::typed::{Contact, Expires};

use super::client::{Purpose, answer, success};
use super::{Actor, Due, Reply};
use crate::{Event, UeError, requests};

/// Wait before a failed registration is tried again.
const RETRY: Duration = Duration::from_secs(2);

impl Actor {
    pub(super) async fn register(&mut self, expires_s: u32, reply: Option<Reply<u32>>) {
        self.registered = expires_s > 0;
        match requests::register(&self.shared, self.local, expires_s) {
            Ok(request) => {
                self.send(request, Purpose::Register { expires_s, reply }).await;
            }
            Err(e) => answer(reply, Err(e)),
        }
    }

    pub(super) fn registered(
        &mut self,
        expires_s: u32,
        outcome: Result<Response, UeError>,
        reply: Option<Reply<u32>>,
    ) {
        match success(outcome) {
            Ok(response) => {
                let granted = self.granted(&response).unwrap_or(expires_s);
                if expires_s > 0 {
                    self.set_timer(Duration::from_secs(u64::from(granted) / 2 + 1), Due::Reregister);
                }
                self.shared.tell(Event::Registered { expires_s: if expires_s == 0 { 0 } else { granted } });
                answer(reply, Ok(granted));
            }
            Err(e) => {
                let code = if let UeError::Refused { code, .. } = e { code } else { 408 };
                self.shared.tell(Event::RegisterFailed { code });
                if self.registered {
                    self.set_timer(RETRY, Due::Reregister);
                }
                answer(reply, Err(e));
            }
        }
    }

    /// The life that the registrar gave our own contact (RFC 3261 §10.2.4).
    fn granted(&self, response: &Response) -> Option<u32> {
        let contacts = response.headers.all::<Contact>().ok()?;
        let own = format!("<{}>", self.shared.account.instance);
        let ours =
            contacts.iter().find(|c| c.instance().as_deref() == Some(own.as_str())).or(contacts.first());
        let header = || response.headers.typed::<Expires>().ok().flatten().map(|e| e.0);
        ours.and_then(|c| c.expires()).or_else(header)
    }
}
