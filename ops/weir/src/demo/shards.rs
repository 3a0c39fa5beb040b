//! Contexts at home on every shard: the same small session again and again, until each shard was home to one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ue::audio::voice;
use ue::{Call, Chat, Device, Draft, SessionId};

use super::cast::{Cast, PATIENCE, letters_at};
use super::checks::Checks;
use super::pairs::{ended_of, first_up};
use crate::config::Config;
use crate::status;

/// Where a context is at home is drawn: with so many sessions none of a few shards stays empty.
const SESSIONS_MAX: usize = 64;
/// The endpoint shows a new context after the shard's tick.
const SHOWN: Duration = Duration::from_secs(3);

/// Does nothing on a node with one shard.
pub(super) async fn every(checks: &mut Checks, cast: &Cast, config: &Config) {
    let shards = config.dataplane.cores().len();
    if shards < 2 {
        return;
    }
    checks.step(&format!(
        "chats with audio between carol and dave, until each of {shards} shards was home to one"
    ));
    let before = homes(config).await;
    let (mut missing, mut sessions) = (shards, 0);
    while missing > 0 && sessions < SESSIONS_MAX {
        sessions += 1;
        if session(checks, cast, sessions).await.is_none() {
            break;
        }
        let began = Instant::now();
        loop {
            let now = homes(config).await;
            let new = |shard: &String| now.get(shard) > before.get(shard);
            missing = shards.saturating_sub(now.keys().filter(|shard| new(shard)).count());
            let shown = now.values().sum::<u64>() >= before.values().sum::<u64>() + sessions as u64;
            if shown || began.elapsed() > SHOWN {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let what = format!("each of {shards} shards was home to a session");
    checks.expect(what, missing == 0, format!("{missing} were not, in {sessions} sessions"));
}

/// One session: a message each way, half a second of audio each way, and its end.
async fn session(checks: &mut Checks, cast: &Cast, number: usize) -> Option<()> {
    let (carol, dave) = (&cast.carol, &cast.dave);
    let mark = dave.log().mark();
    let call = Call::chat(dave.address()).with_audio();
    let own = checks.worked(format!("session {number} is up"), carol.invite(call).await)?;
    let (_, theirs) = first_up(&[dave], &[mark]).await?;
    let ends = [(carol, own), (dave, theirs)];
    for (n, (device, session)) in ends.into_iter().enumerate() {
        checks.worked(
            format!("{} speaks", device.name()),
            device.play(session, Arc::new(voice(20 + n as u64, 0.5)), n as u16).await,
        )?;
    }
    for (from, to) in [(ends[0], ends[1]), (ends[1], ends[0])] {
        says(checks, number, from, to.0).await?;
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    for (device, session) in ends {
        let stats = checks
            .worked(format!("{}'s audio is counted", device.name()), device.audio_stats(session).await)?;
        let good = stats.heard() == 25 && stats.lost() == 0;
        let seen = format!("{} heard, {} lost", stats.heard(), stats.lost());
        checks.expect(format!("{} hears all 25 packets", device.name()), good, seen);
    }
    checks.worked("carol ends it", carol.hang_up(own, 200).await)?;
    let ended = dave.log().wait(mark, PATIENCE, |e| ended_of(e, theirs)).await;
    checks.expect("dave hears of the end", ended.is_some(), "nothing").then_some(())
}

async fn says(
    checks: &mut Checks,
    number: usize,
    (from, session): (&Device, SessionId),
    to: &Device,
) -> Option<()> {
    let mark = to.log().mark();
    let text = format!("{} in session {number}", from.name());
    let chat: Chat = checks.worked(format!("{} has a chat", from.name()), from.chat(session).await)?;
    checks.worked(format!("{} says something", from.name()), chat.send(&Draft::text(text.clone())).await)?;
    let count = letters_at(to, mark, &text, 1).await;
    checks.expect(format!("{} gets it once", to.name()), count == 1, format!("{count} times")).then_some(())
}

/// Contexts that came to each shard so far.
async fn homes(config: &Config) -> BTreeMap<String, u64> {
    let Some(address) = config.dataplane_metrics() else { return BTreeMap::new() };
    let text = status::scrape(address).await.unwrap_or_default();
    let of = |line: &str| {
        let (shard, count) =
            line.strip_prefix("weir_dataplane_shard_contexts_total{shard=\"")?.split_once("\"} ")?;
        Some((shard.to_owned(), count.trim().parse().ok()?))
    };
    text.lines().filter_map(of).collect()
}
