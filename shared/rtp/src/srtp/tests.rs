//! The vectors of the documents, and what no vector shows: order, loss, replays, rollovers, forgeries, restarts.

use super::derive::{Label, derive};
use super::seal::{Place, Session};
use super::*;
use base::Entropy;
use proptest::prelude::*;

fn octets(hex: &str) -> Vec<u8> {
    hex::decode(hex.split_whitespace().collect::<String>()).unwrap()
}

/// RFC 3711 appendix B.3.
fn appendix_b(suite: Suite) -> Keying {
    Keying::new(suite, &octets("E1F97A0D3E018BE0D64FA32C06DE4139 0EC675AD498AFEEBB6960B3AABE6")).unwrap()
}

/// A packet with an extension, a CSRC and some payload.
fn packet(ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x91, 0x60];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 9]);
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(&[7, 7, 7, 7, 0xbe, 0xde, 0, 1, 0x10, 0x85, 0, 0]);
    packet.extend_from_slice(payload);
    packet
}

fn report(ssrc: u32) -> Vec<u8> {
    let mut report = vec![0x80, 201, 0, 1];
    report.extend_from_slice(&ssrc.to_be_bytes());
    report.extend_from_slice(&[0x81, 202, 0, 2, 0, 0, 0, 1, 1, 0, 0, 0]);
    report
}

fn pair(suite: Suite) -> (Outbound, Inbound) {
    let keying = Keying::draw(suite, &mut Entropy::from_number(3));
    let config = Config::default();
    (Outbound::new(&keying, config).unwrap(), Inbound::new(&keying, config).unwrap())
}

fn protect(outbound: &mut Outbound, clear: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut buffer = clear.to_vec();
    buffer.resize(clear.len() + TRAILER_MAX, 0);
    let length = outbound.rtp(&mut buffer, clear.len())?;
    buffer.truncate(length);
    Ok(buffer)
}

fn unprotect(inbound: &mut Inbound, wire: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut buffer = wire.to_vec();
    let length = inbound.rtp(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

fn protect_rtcp(outbound: &mut Outbound, clear: &[u8]) -> Vec<u8> {
    let mut buffer = clear.to_vec();
    buffer.resize(clear.len() + TRAILER_MAX, 0);
    let length = outbound.rtcp(&mut buffer, clear.len()).unwrap();
    buffer.truncate(length);
    buffer
}

fn unprotect_rtcp(inbound: &mut Inbound, wire: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut buffer = wire.to_vec();
    let length = inbound.rtcp(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

#[test]
fn rfc3711_b2_keystream() {
    let cipher = AwsLc::counter(&octets("2B7E151628AED2A6ABF7158809CF4F3C")).unwrap();
    let iv: [u8; 16] = octets("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000").try_into().unwrap();
    let mut stream = vec![0; 0xff02 * 16];
    assert!(cipher.apply(&iv, &mut stream));
    assert_eq!(
        stream[..48],
        octets(
            "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0"
        )
    );
    assert_eq!(
        stream[0xfeff * 16..],
        octets(
            "EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE 6A2CC3787889374FBEB4C81B17BA6C44"
        )
    );
}

#[test]
fn rfc3711_b3_key_derivation() {
    let keying = appendix_b(Suite::AesCm128HmacSha1_80);
    for (label, expected) in [
        (Label::RtpCipher, "C61E7A93744F39EE10734AFE3FF7A087"),
        (Label::RtpSalt, "30CBBC08863D8C85D49DB34A9AE1"),
        (Label::RtpAuth, "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"),
    ] {
        let expected = octets(expected);
        let (key, length) = derive::<AwsLc>(&keying, label, expected.len()).unwrap();
        assert_eq!(key[..length], expected, "{label:?}");
    }
}

#[test]
fn rfc6188_s7_key_derivation_with_256_bits() {
    let keying = Keying::new(
        Suite::AesCm256HmacSha1_80,
        &octets(
            "f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6 3b04803de51ee7c96423ab5b78d2",
        ),
    )
    .unwrap();
    for (label, expected) in [
        (Label::RtpCipher, "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4"),
        (Label::RtpSalt, "fa31791685ca444a9e07c6c64e93"),
        (Label::RtpAuth, "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05"),
    ] {
        let expected = octets(expected);
        let (key, length) = derive::<AwsLc>(&keying, label, expected.len()).unwrap();
        assert_eq!(key[..length], expected, "{label:?}");
    }
}

// The packets that libsrtp checks itself with, under the keys of RFC 3711 appendix B.3.
#[test]
fn whole_packets_under_the_keys_of_rfc3711_b3() {
    let keying = appendix_b(Suite::AesCm128HmacSha1_80);
    let mut outbound: Outbound = Outbound::new(&keying, Config::default()).unwrap();
    let mut inbound: Inbound = Inbound::new(&keying, Config::default()).unwrap();
    let clear = octets("800f1234decafbadcafebabe abababababababababababababababab");
    let wire = octets("800f1234decafbadcafebabe 4e55dc4ce79978d88ca4d215949d2402 b78d6acc99ea179b8dbb");
    assert_eq!(protect(&mut outbound, &clear), Ok(wire.clone()));
    assert_eq!(unprotect(&mut inbound, &wire), Ok(clear));

    let clear = octets("81c8000bcafebabe abababababababababababababababab");
    let wire = octets("81c8000bcafebabe 7128035be487b9bdbef89041f977a5a8 80000001 993e08cd54d6c1230798");
    outbound.resume(&Progress { ssrc: 0xcafe_babe, rtcp_index: 1, ..Progress::default() }, 0).unwrap();
    assert_eq!(protect_rtcp(&mut outbound, &clear), wire);
    assert_eq!(unprotect_rtcp(&mut inbound, &wire), Ok(clear));
}

// RFC 7714 §16 and §17 give session keys, not master keys.
#[test]
fn rfc7714_s16_and_s17_packets() {
    let rtp = octets(
        "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070
         61727465 73207472 6573",
    );
    let rtcp = octets(
        "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef
         deadbeef deadbeef deadbeef",
    );
    let key: Vec<u8> = (0..32).collect();
    for (key, sealed_rtp, sealed_rtcp) in [
        (
            &key[..16],
            "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a
             51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce",
            "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda
             4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4",
        ),
        (
            &key[..],
            "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238 9a58e2f3 b50b2a02
             76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7 6c13",
            "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50 a2eaa5c1 110555be
             8415f658 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c b26ac3be 800005d4",
        ),
    ] {
        let session = Session::<AwsLc>::of_gcm(key, b"Quid pro quo");
        let at = Place { ssrc: 0x5501_a0b2, index: 0xf17b };
        let mut buffer = rtp.clone();
        buffer.resize(rtp.len() + 16, 0);
        assert_eq!(session.seal_rtp(&mut buffer, 12, rtp.len(), at), Ok(rtp.len() + 16));
        assert_eq!(buffer, octets(sealed_rtp));
        assert_eq!(session.open_rtp(&mut buffer, 12, at), Ok(rtp.len()));
        assert_eq!(buffer[..rtp.len()], rtp);

        let at = Place { ssrc: 0x4d61_7273, index: 0x5d4 };
        let mut buffer = rtcp.clone();
        buffer.resize(rtcp.len() + 20, 0);
        assert_eq!(session.seal_rtcp(&mut buffer, rtcp.len(), at), Ok(rtcp.len() + 20));
        assert_eq!(buffer, octets(sealed_rtcp));
        assert_eq!(session.rtcp_index(&buffer), Ok(0x5d4));
        assert_eq!(session.open_rtcp(&mut buffer, at), Ok(rtcp.len()));
        assert_eq!(buffer[..rtcp.len()], rtcp);
    }
    // §17.3: authenticated, not encrypted.
    let session = Session::<AwsLc>::of_gcm(&key[..16], b"Quid pro quo");
    let mut tagged = rtcp.clone();
    tagged.extend(octets("841dd968 3dd78ec9 2ae58790 125f62b3 000005d4"));
    let at = Place { ssrc: 0x4d61_7273, index: 0x5d4 };
    assert_eq!(session.open_rtcp(&mut tagged.clone(), at), Ok(rtcp.len()));
    tagged[9] ^= 1;
    assert_eq!(session.open_rtcp(&mut tagged, at), Err(SrtpError::Unauthentic));
}

#[test]
fn every_suite_there_and_back_over_three_rollovers() {
    for suite in Suite::ALL {
        let (mut outbound, mut inbound) = pair(suite);
        for n in (32_000..200_000u32).step_by(977) {
            let clear = packet(5, n as u16, &n.to_be_bytes());
            let wire = protect(&mut outbound, &clear).unwrap();
            assert_eq!(wire.len(), clear.len() + suite.rtp_octets(), "{suite:?}");
            assert_eq!(wire[..24], clear[..24], "header, CSRC and extension stay in clear");
            assert_ne!(wire[24..28], clear[24..]);
            assert_eq!(unprotect(&mut inbound, &wire), Ok(clear));
            assert_eq!(unprotect(&mut inbound, &wire), Err(SrtpError::Replayed));
        }
        let progress: Vec<_> = inbound.progress().collect();
        assert_eq!((progress.len(), progress[0].rollover), (1, 3));
        for _ in 0..70 {
            let clear = report(5);
            let wire = protect_rtcp(&mut outbound, &clear);
            assert_eq!(wire.len(), clear.len() + suite.rtcp_octets());
            assert_eq!(unprotect_rtcp(&mut inbound, &wire), Ok(clear));
            assert_eq!(unprotect_rtcp(&mut inbound, &wire), Err(SrtpError::Replayed));
        }
    }
}

#[test]
fn a_packet_without_payload_or_with_its_header_alone_is_protected_too() {
    for suite in Suite::ALL {
        let (mut outbound, mut inbound) = pair(suite);
        let clear = packet(5, 1, &[]);
        let wire = protect(&mut outbound, &clear).unwrap();
        assert_eq!(unprotect(&mut inbound, &wire), Ok(clear));
    }
}

#[test]
fn whatever_was_touched_is_refused_and_leaves_no_trace() {
    for suite in Suite::ALL {
        let (mut outbound, mut inbound) = pair(suite);
        let wire = protect(&mut outbound, &packet(5, 1, b"payload")).unwrap();
        let sealed = protect_rtcp(&mut outbound, &report(5));
        for bit in 0..wire.len() * 8 {
            let mut forged = wire.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(unprotect(&mut inbound, &forged).is_err(), "{suite:?} {bit}");
        }
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(unprotect_rtcp(&mut inbound, &forged).is_err(), "{suite:?} {bit}");
        }
        assert_eq!(inbound.progress().count(), 0, "no source was made by a forgery");
        for cut in 0..wire.len() {
            assert!(unprotect(&mut inbound, &wire[..cut]).is_err());
        }
        for cut in 0..sealed.len() {
            assert!(unprotect_rtcp(&mut inbound, &sealed[..cut]).is_err());
        }
        assert!(unprotect(&mut inbound, &wire).is_ok());
        assert!(unprotect_rtcp(&mut inbound, &sealed).is_ok());
        // Another key.
        let other = Keying::draw(suite, &mut Entropy::from_number(4));
        let mut other: Inbound = Inbound::new(&other, Config::default()).unwrap();
        assert_eq!(unprotect(&mut other, &wire), Err(SrtpError::Unauthentic));
    }
}

#[test]
fn the_table_of_sources_has_an_end_and_the_sender_repeats_no_index() {
    let keying = appendix_b(Suite::AesCm128HmacSha1_80);
    let config = Config { window: 64, sources_max: 2 };
    let mut outbound: Outbound = Outbound::new(&keying, config).unwrap();
    let mut generous: Outbound = Outbound::new(&keying, Config::default()).unwrap();
    let mut inbound: Inbound = Inbound::new(&keying, config).unwrap();
    for ssrc in [1, 2] {
        let wire = protect(&mut outbound, &packet(ssrc, 9, b"x")).unwrap();
        assert!(unprotect(&mut inbound, &wire).is_ok());
    }
    assert_eq!(protect(&mut outbound, &packet(3, 9, b"x")), Err(SrtpError::Sources));
    let wire = protect(&mut generous, &packet(3, 9, b"x")).unwrap();
    assert_eq!(unprotect(&mut inbound, &wire), Err(SrtpError::Sources));
    // RFC 3711 §9.1: a keystream twice gives both plaintexts away.
    assert_eq!(protect(&mut outbound, &packet(1, 9, b"y")), Err(SrtpError::Replayed));
    assert!(protect(&mut outbound, &packet(1, 200, b"y")).is_ok());
    assert_eq!(protect(&mut outbound, &packet(1, 136, b"y")), Err(SrtpError::Old));
    assert!(protect(&mut outbound, &packet(1, 137, b"y")).is_ok());
    let mut tight = packet(1, 201, b"y");
    let length = tight.len();
    assert_eq!(outbound.rtp(&mut tight, length), Err(SrtpError::Room));
}

#[test]
fn keys_end_where_rfc3711_s9_2_says() {
    let (mut outbound, _) = pair(Suite::AeadAes128Gcm);
    let last = Progress {
        ssrc: 1,
        started: true,
        rollover: u32::MAX,
        sequence: u16::MAX - 1,
        seen: 1,
        rtcp_index: (1 << 31) - 1,
        rtcp_seen: 1,
    };
    outbound.resume(&last, 0).unwrap();
    assert!(protect(&mut outbound, &packet(1, u16::MAX, b"x")).is_ok());
    assert_eq!(protect(&mut outbound, &packet(1, 0, b"x")), Err(SrtpError::UsedUp));
    let mut buffer = report(1);
    buffer.resize(buffer.len() + TRAILER_MAX, 0);
    assert!(outbound.rtcp(&mut buffer, 20).is_ok());
    assert_eq!(outbound.rtcp(&mut buffer, 20), Err(SrtpError::UsedUp));
}

#[test]
fn a_restart_goes_on_with_the_rollover_counter_and_takes_nothing_twice() {
    for suite in Suite::ALL {
        let keying = Keying::draw(suite, &mut Entropy::from_number(9));
        let (mut outbound, mut inbound) = pair_of(&keying);
        let mut wires = Vec::new();
        for n in 65_000..66_000u32 {
            let wire = protect(&mut outbound, &packet(8, n as u16, b"z")).unwrap();
            if n % 3 != 0 {
                unprotect(&mut inbound, &wire).unwrap();
            }
            wires.push(wire);
        }
        protect_rtcp(&mut outbound, &report(8));
        let (sent, taken): (Vec<_>, Vec<_>) = (outbound.progress().collect(), inbound.progress().collect());
        assert_eq!((sent[0].rollover, sent[0].sequence, sent[0].rtcp_index), (1, 463, 1));

        let (mut outbound, mut inbound) = pair_of(&keying);
        outbound.resume(&sent[0], 0).unwrap();
        inbound.resume(&taken[0]).unwrap();
        for (wire, n) in wires.iter().zip(65_000..66_000u32) {
            let lost = n % 3 == 0;
            // What was lost and lies within 64 of the end is taken late, everything else was there or is too old.
            let late = lost && n > 65_999 - 64;
            assert_eq!(unprotect(&mut inbound, wire).is_ok(), late, "{n}");
        }
        assert_eq!(protect(&mut outbound, &packet(8, 463, b"z")), Err(SrtpError::Replayed));
        let wire = protect(&mut outbound, &packet(8, 464, b"z")).unwrap();
        assert!(unprotect(&mut inbound, &wire).is_ok());
        assert!(protect_rtcp(&mut outbound, &report(8)) != protect_rtcp(&mut outbound, &report(8)));

        // State that may be behind: what it might have sent since is left out.
        let (mut careful, _) = pair_of(&keying);
        careful.resume(&sent[0], 1000).unwrap();
        assert_eq!(protect(&mut careful, &packet(8, 463, b"z")), Err(SrtpError::Replayed));
        let sealed = protect_rtcp(&mut careful, &report(8));
        assert!(unprotect_rtcp(&mut inbound, &sealed).is_ok());
        assert_eq!(careful.progress().next().unwrap().rtcp_index, 1002);
        // State that nobody has: the caller says from where on nothing was sent.
        let (mut blind, _) = pair_of(&keying);
        blind.begin_rtcp_at(5000);
        blind.resume(&sent[0], 0).unwrap();
        for ssrc in [8, 9] {
            assert!(unprotect_rtcp(&mut inbound, &protect_rtcp(&mut blind, &report(ssrc))).is_ok());
        }
        assert!(blind.progress().all(|p| p.rtcp_index == 5001));
    }
}

fn pair_of(keying: &Keying) -> (Outbound, Inbound) {
    let config = Config::default();
    (Outbound::new(keying, config).unwrap(), Inbound::new(keying, config).unwrap())
}

#[test]
fn keys_are_never_printed() {
    let keying = appendix_b(Suite::AesCm128HmacSha1_80);
    let (outbound, inbound) = pair_of(&keying);
    let printed = format!("{keying:?} {outbound:?} {inbound:?}").to_lowercase();
    // Neither as hex nor as a list of numbers: master key, its salt, the session salt.
    for secret in ["e1f9", "225, 249", "14, 198", "48, 203, 188"] {
        assert!(!printed.contains(secret), "{secret}: {printed}");
    }
}

proptest! {
    // Loss, reordering within the window and duplicates: each packet that arrives is taken exactly once.
    #[test]
    fn rfc3711_s3_3_the_receiver_follows_the_sender(
        first in any::<u16>(), seed in any::<u64>(), gap in 1u32..400,
    ) {
        let (mut outbound, mut inbound) = pair(Suite::AeadAes128Gcm);
        let mut entropy = Entropy::from_number(seed);
        // Below 2^15 before the first rollover, so that the first guess is right.
        let first = u32::from(first & 0x7fff);
        let mut flight = Vec::new();
        for n in 0..2000 {
            let clear = packet(6, (first + n * gap) as u16, &n.to_be_bytes());
            flight.push((clear.clone(), protect(&mut outbound, &clear).unwrap()));
        }
        let reach = 1024 / gap as usize;
        for chunk in flight.chunks_mut((reach / 2).max(1)) {
            for at in (1..chunk.len()).rev() { chunk.swap(at, entropy.below(at as u64 + 1) as usize); }
        }
        for (clear, wire) in &flight {
            if entropy.below(10) == 0 { continue; }
            prop_assert_eq!(unprotect(&mut inbound, wire), Ok(clear.clone()));
            prop_assert!(unprotect(&mut inbound, wire).is_err());
        }
    }

    #[test]
    fn octets_of_any_kind_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), first in any::<bool>()) {
        let mut bytes = bytes;
        if first && let Some(octet) = bytes.first_mut() { *octet = 0x80 | (*octet & 0x3f); }
        for suite in Suite::ALL {
            let (mut outbound, mut inbound) = pair(suite);
            prop_assert!(unprotect(&mut inbound, &bytes).is_err());
            prop_assert!(unprotect_rtcp(&mut inbound, &bytes).is_err());
            if let Ok(wire) = protect(&mut outbound, &bytes) {
                prop_assert_eq!(unprotect(&mut inbound, &wire), Ok(bytes.clone()));
            }
        }
    }
}
