//! Conferences: a group by recipient list with text and audio, and one that is pre-defined.

use std::sync::Arc;
use std::time::Duration;

use ue::audio::voice;
use ue::{Call, Device, Draft, Event, SessionId};

use super::cast::{Cast, PATIENCE, SILENCE, letters, letters_at, notices};
use super::checks::Checks;
use super::pairs::{Audio, answered, ended_of, first_up};

/// Octets of the large message.
const LARGE: usize = 1 << 20;
/// Seconds of speech.
const SPEECH_S: f64 = 4.0;

/// One device in the conference.
struct Member<'c> {
    device: &'c Device,
    session: SessionId,
    chat: ue::Chat,
}

/// CPM-FACTS flow F4, without interworking, with audio.
pub(super) async fn ad_hoc(checks: &mut Checks, cast: &Cast) -> Audio {
    checks.step("a group by recipient list: ann invites bob, carol and dave, with chat and audio");
    let others = [&cast.bob_phone, &cast.bob_tablet, &cast.carol, &cast.dave];
    let marks = others.map(|d| d.log().mark());
    let recipients = [cast.bob_phone.address(), cast.carol.address(), cast.dave.address()];
    let call = Call::group(&cast.factory, &recipients).with_audio().subject("Weekend");
    let Some(session) = checks.worked("the factory answers", cast.ann.invite(call).await) else {
        return Audio::new();
    };
    let focus = cast.ann.view(session).await.is_ok_and(|view| view.focus);
    checks.expect("its Contact says isfocus", focus, "it does not");
    checks.worked("ann subscribes to the conference", cast.ann.subscribe(session).await);

    let mut members = Vec::new();
    if let Some(chat) = checks.worked("ann's MSRP session is connected", cast.ann.chat(session).await) {
        members.push(Member { device: &cast.ann, session, chat });
    }
    for (device, mark) in others.iter().zip(marks) {
        let up = first_up(&[device], &[mark]).await;
        if !checks.expect(
            format!("{} is invited and joins", device.name()),
            up.is_some(),
            "no session came up",
        ) {
            continue;
        }
        if let Some((device, session)) = up
            && let Some(chat) = checks
                .worked(format!("{}'s MSRP session is connected", device.name()), device.chat(session).await)
        {
            members.push(Member { device, session, chat });
        }
    }
    if members.len() < 5 {
        return Audio::new();
    }
    roster(checks, &cast.ann, session, "the roster shows four, connected", |r| {
        r.len() == 4 && r.iter().all(|s| s == "connected")
    })
    .await;
    text(checks, cast, &members).await;
    private(checks, cast, &members).await;
    large(checks, &members).await;
    let audio = speech(checks, &members).await;
    expel_and_bring_back(checks, cast, session, &mut members).await;
    leave(checks, &members).await;
    audio
}

/// Chat both ways, with one notification per recipient.
async fn text(checks: &mut Checks, cast: &Cast, members: &[Member<'_>]) {
    checks.step("chat in the group, both ways");
    for (from, text) in [(0, "Who is in for a hike?"), (1, "I am, from the phone."), (3, "Me too.")] {
        let Some(member) = members.get(from) else { continue };
        let (name, mark) = (member.device.name(), member.device.log().mark());
        let marks: Vec<u64> = members.iter().map(|m| m.device.log().mark()).collect();
        let Some(sent) =
            checks.worked(format!("{name} says something"), member.chat.send(&Draft::text(text)).await)
        else {
            continue;
        };
        let accepted = answered(sent.receipt.accepted).await;
        checks.expect("the room takes it", accepted == Some(200), format!("{accepted:?}"));
        heard(checks, members, &marks, text, "gets no echo", |index| index != from).await;
        let count = notices(member.device, mark, &sent.message_id, "delivered", 3).await;
        checks.expect(
            format!("{name} hears `delivered` from three recipients"),
            count == 3,
            format!("{count} times"),
        );
    }
    let nickname = members.first().map(|m| &m.chat);
    if let Some(chat) = nickname {
        let status = chat.nickname("Annie").await;
        checks.expect("ann gets a nickname", matches!(status, Ok(200)), format!("{status:?}"));
    }
    let same = match members.iter().find(|m| m.device.name() == cast.dave.name()) {
        Some(dave) => dave.chat.nickname(" annie ").await,
        None => Ok(0),
    };
    checks.expect("dave does not get the same one", matches!(same, Ok(425)), format!("{same:?}"));
}

/// Who should get a text gets it once, and nobody else does.
async fn heard(
    checks: &mut Checks,
    members: &[Member<'_>],
    marks: &[u64],
    text: &str,
    otherwise: &str,
    should: impl Fn(usize) -> bool,
) {
    let wanted: Vec<_> = members
        .iter()
        .zip(marks)
        .enumerate()
        .map(|(index, (member, mark))| (member.device, *mark, usize::from(should(index))))
        .collect();
    let counts = letters(&wanted, text).await;
    for ((device, _, wanted), count) in wanted.iter().zip(counts) {
        let what = if *wanted == 1 { "gets it once, whole" } else { otherwise };
        checks.expect(format!("{} {what}", device.name()), count == *wanted, format!("{count} times"));
    }
}

/// RFC 7701 §6.
async fn private(checks: &mut Checks, cast: &Cast, members: &[Member<'_>]) {
    checks.step("a private message in the group, from ann to carol");
    let Some(ann) = members.first() else { return };
    let marks: Vec<u64> = members.iter().map(|m| m.device.log().mark()).collect();
    let text = "Do not tell the others.";
    let draft = Draft::text(text).to(cast.carol.address());
    if checks.worked("ann sends it", ann.chat.send(&draft).await).is_none() {
        return;
    }
    let is_carol = |index: usize| members.get(index).is_some_and(|m| m.device.name() == cast.carol.name());
    heard(checks, members, &marks, text, "does not get it", is_carol).await;
}

/// One message of 1 MiB in chunks.
async fn large(checks: &mut Checks, members: &[Member<'_>]) {
    checks.step("one message of 1 MiB, in chunks, from carol");
    let Some(carol) = members.get(3) else { return };
    let text: String = (0..LARGE).map(|n| char::from(b'a' + (n * 7 % 26) as u8)).collect();
    let marks: Vec<u64> = members.iter().map(|m| m.device.log().mark()).collect();
    let mark = carol.device.log().mark();
    let Some(sent) = checks.worked("carol sends it", carol.chat.send(&Draft::text(text.clone())).await)
    else {
        return;
    };
    let (accepted, reported) = (answered(sent.receipt.accepted).await, answered(sent.receipt.reported).await);
    checks.expect("every chunk is taken", accepted == Some(200), format!("{accepted:?}"));
    checks.expect("the whole is reported", reported == Some(200), format!("{reported:?}"));
    heard(checks, members, &marks, &text, "gets no echo", |index| index != 3).await;
    let count = notices(carol.device, mark, &sent.message_id, "delivered", 3).await;
    checks.expect("carol hears `delivered` from three recipients", count == 3, format!("{count} times"));
}

/// One speaks, all hear.
async fn speech(checks: &mut Checks, members: &[Member<'_>]) -> Audio {
    checks.step("dave speaks for four seconds, the others listen");
    let Some(dave) = members.last() else { return Audio::new() };
    let packets = (SPEECH_S * 50.0) as u64;
    let played = dave.device.play(dave.session, Arc::new(voice(23, SPEECH_S)), 40).await;
    if checks.worked("dave's audio is sent", played).is_none() {
        return Audio::new();
    }
    tokio::time::sleep(Duration::from_secs_f64(SPEECH_S) + SILENCE).await;
    let mut audio = Audio::new();
    for member in members {
        let name = member.device.name();
        let Some(stats) = checks
            .worked(format!("{name}'s audio is counted"), member.device.audio_stats(member.session).await)
        else {
            continue;
        };
        if name == dave.device.name() {
            checks.expect(format!("{name} sent {packets} packets"), stats.sent == packets, stats.sent);
            checks.expect(format!("{name} does not hear himself"), stats.heard() == 0, stats.heard());
        } else {
            let seen = format!("{} heard, {} lost", stats.heard(), stats.lost());
            checks.expect(
                format!("{name} hears every packet"),
                stats.heard() == packets && stats.lost() == 0,
                seen,
            );
        }
        audio.push((name.to_owned(), stats));
    }
    audio
}

/// REFER with BYE and with INVITE (RFC 4579 §5.5, §5.11).
async fn expel_and_bring_back<'c>(
    checks: &mut Checks,
    cast: &'c Cast,
    session: SessionId,
    members: &mut Vec<Member<'c>>,
) {
    checks.step("ann removes dave and brings him back, by REFER");
    let Some(dave) = members.pop() else { return };
    let (mark, dave_mark) = (cast.ann.log().mark(), cast.dave.log().mark());
    if checks
        .worked("the focus takes the REFER", cast.ann.remove(session, cast.dave.address()).await)
        .is_none()
    {
        return;
    }
    let ended = cast.dave.log().wait(dave_mark, PATIENCE, |e| ended_of(e, dave.session)).await;
    checks.expect("dave is out", ended.is_some(), "no BYE");
    roster(checks, &cast.ann, session, "the roster shows three", |r| {
        r.iter().filter(|s| *s == "connected").count() == 3
    })
    .await;
    let text = "Is he gone?";
    if let Some(ann) = members.first() {
        checks.worked("ann says something", ann.chat.send(&Draft::text(text)).await);
    }
    let count = letters_at(&cast.dave, dave_mark, text, 0).await;
    checks.expect("dave does not get it", count == 0, format!("{count} times"));
    let back_mark = cast.dave.log().mark();
    checks.worked("the focus takes the REFER", cast.ann.add(session, cast.dave.address()).await);
    let Some((device, back)) = first_up(&[&cast.dave], &[back_mark]).await else {
        checks.expect("dave is back", false, "no session came up");
        return;
    };
    checks.expect("dave is back", true, "");
    let Some(chat) = checks.worked("dave's MSRP session is connected", device.chat(back).await) else {
        return;
    };
    members.push(Member { device, session: back, chat });
    roster(checks, &cast.ann, session, "the roster shows four again", |r| {
        r.iter().filter(|s| *s == "connected").count() == 4
    })
    .await;
    let text = "Welcome back.";
    if let Some(ann) = members.first() {
        checks.worked("ann greets him", ann.chat.send(&Draft::text(text)).await);
    }
    let count = letters_at(&cast.dave, back_mark, text, 1).await;
    checks.expect("dave gets it once", count == 1, format!("{count} times"));
    let partial = cast.ann.log().since(mark).iter().any(|e| matches!(e, Event::Roster { full: false, .. }));
    checks.expect("ann's roster came by partial notifications too", partial, "only full ones");
}

/// CPM-FACTS flow F6: who is last hears that the group is gone.
async fn leave(checks: &mut Checks, members: &[Member<'_>]) {
    checks.step("everybody leaves; who is left alone hears that the group is gone");
    let marks: Vec<u64> = members.iter().map(|m| m.device.log().mark()).collect();
    for member in members.iter().filter(|m| !m.device.name().starts_with("carol")) {
        checks.worked(
            format!("{} leaves", member.device.name()),
            member.device.hang_up(member.session, 200).await,
        );
    }
    for (member, mark) in members.iter().zip(marks).filter(|(m, _)| m.device.name().starts_with("carol")) {
        let cause = member.device.log().wait(mark, PATIENCE, |e| ended_of(e, member.session)).await;
        checks.expect("carol gets BYE with cause 410", cause == Some(Some(410)), format!("{cause:?}"));
    }
}

/// A group from the configuration: members join one by one.
pub(super) async fn pre_defined(checks: &mut Checks, cast: &Cast) {
    checks.step("a group that is pre-defined: the book club");
    let mut members = Vec::new();
    for device in [&cast.ann, &cast.bob_tablet, &cast.carol] {
        let joined = device.invite(Call::join(&cast.book_club)).await;
        let Some(session) = checks.worked(format!("{} joins", device.name()), joined) else { return };
        let Some(chat) = checks
            .worked(format!("{}'s MSRP session is connected", device.name()), device.chat(session).await)
        else {
            return;
        };
        members.push(Member { device, session, chat });
    }
    for (from, text) in [(0, "Chapter one?"), (1, "Read it."), (2, "Twice.")] {
        let marks: Vec<u64> = members.iter().map(|m| m.device.log().mark()).collect();
        if let Some(member) = members.get(from) {
            checks.worked(
                format!("{} says something", member.device.name()),
                member.chat.send(&Draft::text(text)).await,
            );
        }
        heard(checks, &members, &marks, text, "gets no echo", |index| index != from).await;
    }
    for member in &members {
        checks.worked(
            format!("{} leaves", member.device.name()),
            member.device.hang_up(member.session, 200).await,
        );
    }
}

/// Waits until the statuses in a roster are as they should be.
async fn roster(
    checks: &mut Checks,
    device: &Device,
    session: SessionId,
    what: &str,
    good: impl Fn(&[String]) -> bool,
) {
    let began = std::time::Instant::now();
    let mut seen = Vec::new();
    while began.elapsed() < PATIENCE {
        seen = match device.view(session).await {
            Ok(view) => view.roster.into_iter().map(|e| e.status.unwrap_or_default()).collect(),
            Err(_) => Vec::new(),
        };
        if good(&seen) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    checks.expect(what, good(&seen), format!("{seen:?}"));
}
