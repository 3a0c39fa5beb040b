//! What protection costs: AES-GCM-128 towards 16 receivers, a key for each, over the same without, and over a loop that
//! only encrypts the same octets with the same library (RFC 7714, aws-lc-rs).

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::bare::Running;
use super::load::{Load, Sample};
use super::race::{Kind, Race};
use super::weir::{self, Setup};
use super::{PACKET_BYTES, Plan, clock, median};
use crate::report::{Reach, Report};

const TARGETS: usize = 16;
/// The RTP header stays in clear, and is authenticated.
const HEAD: usize = 12;

/// Each packet by itself, so that the difference is protection's alone.
fn setup(core: usize) -> Setup {
    Setup { gso: false, ..Setup::new("uring", core) }
}

fn plain(load: &Load, core: usize) -> anyhow::Result<Running> {
    weir::distribute(&setup(core), load, false)
}

fn guarded(load: &Load, core: usize) -> anyhow::Result<Running> {
    weir::distribute(&setup(core), load, true)
}

const KINDS: &[Kind] = &[Kind { name: "plain", start: plain }, Kind { name: "guarded", start: guarded }];

pub(super) fn run(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let load = || Load::distribute(TARGETS, PACKET_BYTES);
    let race = Race { row: "srtp_gcm_extra".to_owned(), kinds: KINDS, load: &load };
    let (_, core) = clock::cores();
    let (mut extra, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let turn = Plan { rounds: 1, only: None, ..*plan };
        let samples = race.measure(&turn)?;
        let [plain, guarded] = samples.as_slice() else { continue };
        let ns = |of: &[Sample]| median(of, |s| s.ns_per_packet);
        extra.push(ns(guarded) - ns(plain));
        bare.push(encrypt(core, Duration::from_millis(plan.slice_ms))?);
    }
    let (extra, bare) = (median(&extra, |ns| *ns), median(&bare, |ns| *ns));
    let note = format!(
        "what AES-GCM-128 adds to a sent packet of {PACKET_BYTES} octets at 1:{TARGETS}, over {bare:.0} ns of a loop that \
         only encrypts: copy, nonce, index and the way through the engine's own buffer are in it"
    );
    report.held("srtp_gcm_extra", extra / bare, "ratio", Reach::AtMost(1.5), note);
    report.row("srtp_gcm_extra_ns", extra, "ns/packet", "median of the differences of neighbouring turns");
    Ok(())
}

/// Nanoseconds of the measured core to encrypt a packet, one key after the other.
fn encrypt(core: usize, time: Duration) -> anyhow::Result<f64> {
    let thread = std::thread::spawn(move || -> anyhow::Result<f64> {
        clock::pin(core);
        let refused = |_| anyhow::anyhow!("the library refuses");
        let keys = (0..TARGETS as u8)
            .map(|key| Ok(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[key; 16]).map_err(refused)?)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut packets = vec![[0x5a; PACKET_BYTES]; TARGETS];
        let who = clock::Who::Thread(clock::own_thread());
        let (start, before, mut count) = (Instant::now(), clock::busy_ns(who, core), 0u64);
        while start.elapsed() < time {
            for _ in 0..64 {
                count += 1;
                for (key, packet) in keys.iter().zip(&mut packets) {
                    let mut nonce = [0; 12];
                    nonce[4..].copy_from_slice(&count.to_be_bytes());
                    let (head, payload) = packet.split_at_mut(HEAD);
                    let nonce = Nonce::assume_unique_for_key(nonce);
                    let tag = key.seal_in_place_separate_tag(nonce, Aad::from(&*head), payload);
                    let _ = black_box(tag.map_err(refused)?);
                }
            }
        }
        Ok((clock::busy_ns(who, core) - before) as f64 / (count * TARGETS as u64) as f64)
    });
    thread.join().map_err(|_| anyhow::anyhow!("the loop died"))?
}
