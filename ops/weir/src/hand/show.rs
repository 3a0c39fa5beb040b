//! What arrives, for people.

use std::time::Duration;

use ue::{Device, Event, Via};

/// Shows everything that arrives until the task is ended.
pub(super) async fn everything(device: Device) {
    let mut mark = 0;
    loop {
        let _ = device.log().wait(mark, Duration::from_secs(3600), |_| Some(())).await;
        for event in device.log().since(mark) {
            mark += 1;
            if let Some(line) = line(&event) {
                println!("{line}");
            }
            if let Event::Roster { session, .. } = event {
                roster(&device, session).await;
            }
        }
    }
}

async fn roster(device: &Device, session: ue::SessionId) {
    let Ok(view) = device.view(session).await else { return };
    let name = |e: &ue::RosterEntry| {
        let nickname = e.nickname.as_deref().map(|n| format!(" \"{n}\"")).unwrap_or_default();
        format!("{}{nickname} ({})", e.entity, e.status.as_deref().unwrap_or("?"))
    };
    println!("here: {}", view.roster.iter().map(name).collect::<Vec<_>>().join(", "));
}

fn line(event: &Event) -> Option<String> {
    Some(match event {
        Event::Registered { expires_s: 0 } => "unregistered".to_owned(),
        Event::Registered { expires_s } => format!("registered for {expires_s} s"),
        Event::RegisterFailed { code } => format!("registering failed: {code}"),
        Event::Letter(letter) => {
            let from = letter.asserted.as_deref().unwrap_or(&letter.from);
            let how = if letter.via == Via::Pager { "message" } else { "chat" };
            let text = if letter.content_type.starts_with("text/") {
                letter.text()
            } else {
                format!("[{} octets of {}]", letter.body.len(), letter.content_type)
            };
            format!("{how} from {from}: {text}")
        }
        Event::Notice(notice) => format!("{} to {}", notice.status, notice.recipient),
        Event::Composing { from, active: true, .. } => format!("{from} types"),
        Event::Invited(invitation) => {
            let what = if invitation.focus { "a conference" } else { "a session" };
            let subject =
                invitation.subject.as_deref().map(|s| format!(" about \"{s}\"")).unwrap_or_default();
            format!("{} invites to {what}{subject} with {}", invitation.from, invitation.media.join(" and "))
        }
        Event::Progress { code, .. } => format!("progress: {code}"),
        Event::Described { sdp, .. } => format!("an answer of {} octets", sdp.len()),
        Event::Up { .. } => "the session is up".to_owned(),
        Event::Ended { cause, .. } => match cause {
            Some(cause) => format!("the session ended ({cause})"),
            None => "the session ended".to_owned(),
        },
        Event::ChatDown { why, .. } => format!("the chat's connection is gone: {why}"),
        Event::Unsubscribed { reason, .. } => {
            format!("the roster is no longer told: {}", reason.as_deref().unwrap_or("-"))
        }
        Event::Fault(what) => format!("odd: {what}"),
        _ => return None,
    })
}
