//! One to one: a pager message, a chat, a call.

use std::sync::Arc;
use std::time::Duration;

use ue::audio::voice;
use ue::{Call, Device, Draft, Event, FlowStats, SessionId};

use super::cast::{Cast, PATIENCE, SILENCE, letters, letters_at, notices};
use super::checks::Checks;

/// What a device's audio came to, by its name.
pub(super) type Audio = Vec<(String, FlowStats)>;

/// CPM-FACTS flow F1: every device gets it, the sender hears of it once.
pub(super) async fn pager(checks: &mut Checks, cast: &Cast) {
    checks.step("a pager message from carol to bob, who has two devices");
    let text = "Are you both there?";
    let marks = [cast.carol.log().mark(), cast.bob_phone.log().mark(), cast.bob_tablet.log().mark()];
    let sent = cast.carol.message(cast.bob_phone.address(), &Draft::text(text).displayed()).await;
    let Some(sent) = checks.worked("the network takes it", sent) else { return };
    let bobs = [(&cast.bob_phone, marks[1], 1), (&cast.bob_tablet, marks[2], 1)];
    for ((device, ..), count) in bobs.iter().zip(letters(&bobs, text).await) {
        checks.expect(format!("{} gets it once", device.name()), count == 1, format!("{count} times"));
    }
    let count = notices(&cast.carol, marks[0], &sent.message_id, "delivered", 1).await;
    checks.expect("carol hears `delivered` once", count == 1, format!("{count} times"));
    let shown = cast.bob_phone.log().since(marks[1]).into_iter().find_map(|e| match e {
        Event::Letter(letter) => Some(letter),
        _ => None,
    });
    if let Some(letter) = shown {
        let told = cast.bob_phone.displayed(&letter).await;
        checks.worked("bob reads it on the phone", told);
        let told = cast.bob_tablet.displayed(&letter).await;
        checks.worked("and on the tablet", told);
        let count = notices(&cast.carol, marks[0], &sent.message_id, "displayed", 1).await;
        checks.expect("carol hears `displayed` once", count == 1, format!("{count} times"));
    }
}

/// CPM-FACTS flow F3.
pub(super) async fn chat(checks: &mut Checks, cast: &Cast) {
    checks.step("a chat between ann and bob: his devices are asked, without a conference");
    let bobs = [&cast.bob_phone, &cast.bob_tablet];
    let marks = bobs.map(|d| d.log().mark());
    let mark = cast.ann.log().mark();
    let session = cast.ann.invite(Call::chat(cast.bob_phone.address()).subject("Lunch")).await;
    let Some(session) = checks.worked("bob answers", session) else { return };
    let Some((bob, theirs)) = winner(&bobs, &marks).await else {
        checks.expect("a device of bob is in the chat", false, "none");
        return;
    };
    let (Some(ann_chat), Some(bob_chat)) = (
        checks.worked("ann's MSRP session is connected", cast.ann.chat(session).await),
        checks.worked(format!("{}'s MSRP session is connected", bob.name()), bob.chat(theirs).await),
    ) else {
        return;
    };
    let bob_mark = bob.log().mark();
    if let Some(sent) =
        checks.worked("ann says something", ann_chat.send(&Draft::text("Lunch at noon?").displayed()).await)
    {
        let count = letters_at(bob, bob_mark, "Lunch at noon?", 1).await;
        checks.expect("bob gets it once", count == 1, format!("{count} times"));
        let count = notices(&cast.ann, mark, &sent.message_id, "delivered", 1).await;
        checks.expect("ann hears `delivered` once", count == 1, format!("{count} times"));
        let reported = answered(sent.receipt.reported).await;
        checks.expect("ann gets the MSRP success report", reported == Some(200), format!("{reported:?}"));
    }
    let mark = cast.ann.log().mark();
    if checks.worked("bob answers", bob_chat.send(&Draft::text("Noon it is.")).await).is_some() {
        let count = letters_at(&cast.ann, mark, "Noon it is.", 1).await;
        checks.expect("ann gets it once", count == 1, format!("{count} times"));
    }
    checks.worked("ann ends the chat", cast.ann.hang_up(session, 200).await);
    let ended = bob.log().wait(bob_mark, PATIENCE, |e| ended_of(e, theirs)).await;
    checks.expect("bob hears of the end", ended.is_some(), "nothing");
}

/// A call with audio both ways.
pub(super) async fn call(checks: &mut Checks, cast: &Cast) -> Audio {
    checks.step("a call between carol and dave: two seconds of audio both ways");
    let mark = cast.dave.log().mark();
    let session = cast.carol.invite(Call::audio(cast.dave.address())).await;
    let Some(session) = checks.worked("dave answers", session) else { return Audio::new() };
    let Some((dave, theirs)) = first_up(&[&cast.dave], &[mark]).await else { return Audio::new() };
    let said = Arc::new(voice(11, 2.0));
    checks.worked("carol speaks", cast.carol.play(session, Arc::clone(&said), 3).await);
    checks.worked("dave speaks", dave.play(theirs, said, 4).await);
    tokio::time::sleep(Duration::from_millis(2600)).await;
    let mut audio = Audio::new();
    for (device, session) in [(&cast.carol, session), (dave, theirs)] {
        let Some(stats) =
            checks.worked(format!("{}'s audio is counted", device.name()), device.audio_stats(session).await)
        else {
            continue;
        };
        let good = stats.sent == 100 && stats.heard() == 100 && stats.lost() == 0;
        checks.expect(
            format!("{} hears all 100 packets", device.name()),
            good,
            format!("{} sent, {} heard, {} lost", stats.sent, stats.heard(), stats.lost()),
        );
        audio.push((device.name().to_owned(), stats));
    }
    checks.worked("carol hangs up", cast.carol.hang_up(session, 200).await);
    let ended = dave.log().wait(mark, PATIENCE, |e| ended_of(e, theirs)).await;
    checks.expect("dave hears of the end", ended.is_some(), "nothing");
    audio
}

/// The first of some devices whose session came up after its mark and is still up a moment later: of several that
/// answer at the same time one wins.
pub(super) async fn winner<'d>(devices: &[&'d Device], marks: &[u64]) -> Option<(&'d Device, SessionId)> {
    first_up(devices, marks).await?;
    tokio::time::sleep(SILENCE).await;
    for (device, mark) in devices.iter().zip(marks) {
        for event in device.log().since(*mark) {
            if let Event::Up { session } = event
                && device.view(session).await.is_ok_and(|view| view.up)
            {
                return Some((device, session));
            }
        }
    }
    None
}

/// The first of some devices whose invitation came up after its mark.
pub(super) async fn first_up<'d>(devices: &[&'d Device], marks: &[u64]) -> Option<(&'d Device, SessionId)> {
    let began = std::time::Instant::now();
    while began.elapsed() < PATIENCE {
        for (device, mark) in devices.iter().zip(marks) {
            let up = device.log().since(*mark).into_iter().find_map(|e| match e {
                Event::Up { session } => Some(session),
                _ => None,
            });
            if let Some(session) = up {
                return Some((device, session));
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

/// `Some` for the end of a session: its cause.
pub(super) fn ended_of(event: &Event, session: SessionId) -> Option<Option<u16>> {
    match event {
        Event::Ended { session: s, cause, .. } if *s == session => Some(*cause),
        _ => None,
    }
}

/// An answer that comes in time.
pub(super) async fn answered(receiver: ue::Answered) -> Option<u16> {
    tokio::time::timeout(PATIENCE, receiver).await.ok()?.ok()
}
