//! What is read of RTCP, and what our writer makes.

use super::*;
use proptest::prelude::*;
use rtcp_types::prelude::*;

#[test]
fn compounds_that_do_not_add_up_are_refused() {
    let rr = [0x80, 201, 0, 1, 0, 0, 0, 9];
    assert_eq!(compound(&rr, false).unwrap().count(), 1);
    assert_eq!(compound(&rr[..7], false).err(), Some(Malformed::Rtcp));
    assert_eq!(compound(&[0x80], false).err(), Some(Malformed::Short));
    assert_eq!(compound(&[0x81, 201, 0, 1, 0, 0, 0, 9], false).err(), Some(Malformed::Rtcp), "no block");
    assert_eq!(compound(&[0x40, 201, 0, 1, 0, 0, 0, 9], false).err(), Some(Malformed::Version));
    assert_eq!(compound(&[0x80, 203, 0, 0], false).err(), Some(Malformed::Rtcp), "BYE comes first");
    assert_eq!(compound(&[0x80, 203, 0, 0], true).unwrap().count(), 1);
    assert_eq!(compound(&[0xa0, 201, 0, 1, 0, 0, 0, 0], false).err(), Some(Malformed::Rtcp), "padding 0");
    assert_eq!(compound(&[0x80, 201, 0xff, 0xff, 0, 0, 0, 0], false).err(), Some(Malformed::Rtcp));
}

#[test]
fn the_sign_of_cumulative_loss_survives() {
    let mut rr = vec![0x81, 201, 0, 7, 0, 0, 0, 9, 0, 0, 0, 1, 3, 0xff, 0xff, 0xfe];
    rr.extend_from_slice(&[0; 16]);
    let Some(Packet::Receiver(9, mut blocks)) = compound(&rr, false).unwrap().next() else { panic!() };
    let block = blocks.next().unwrap();
    assert_eq!((block.fraction_lost, block.cumulative_lost), (3, -2));
}

/// What one writer wrote, as one reader reads it.
fn only(writer: &RtcpWriter) -> Packet<'_> {
    let mut packets = compound(writer.octets(), true).unwrap();
    let packet = packets.next().unwrap();
    assert!(packets.next().is_none());
    packet
}

#[test]
fn rfc3550_s6_1_a_full_compound_begins_with_a_report_and_names_its_sender() {
    let full = |write: &dyn Fn(&mut RtcpWriter)| {
        let mut writer = RtcpWriter::new();
        write(&mut writer);
        compound(writer.octets(), true).unwrap().is_full()
    };
    assert!(full(&|w| {
        w.receiver(1, &[]).description([(1, "a")].into_iter());
    }));
    assert!(!full(&|w| {
        w.receiver(1, &[]);
    }));
    assert!(!full(&|w| {
        w.description([(1, "a")].into_iter()).receiver(1, &[]);
    }));
    assert!(!full(&|w| {
        w.picture_loss(1, 2);
    }));
}

#[test]
fn descriptions_are_walked_to_their_end() {
    let mut writer = RtcpWriter::new();
    writer.description([(1, "a"), (2, "bcd@example"), (3, "")].into_iter());
    let Packet::Description(chunks) = only(&writer) else { panic!() };
    let read: Vec<_> = chunks.map(|c| (c.ssrc, c.cname().unwrap())).collect();
    assert_eq!(read, [(1, &b"a"[..]), (2, b"bcd@example"), (3, b"")]);
    for broken in [
        &[0x81, 202, 0, 1, 0, 0, 0, 1][..],            // no end of the list
        &[0x81, 202, 0, 2, 0, 0, 0, 1, 1, 9, b'a', 0], // an item beyond the end
        &[0x82, 202, 0, 2, 0, 0, 0, 1, 1, 0, 0, 0],    // a chunk too few
        &[0x80, 202, 0, 2, 0, 0, 0, 1, 1, 0, 0, 0],    // a chunk too many
    ] {
        assert_eq!(compound(broken, true).err(), Some(Malformed::Rtcp), "{broken:?}");
    }
}

#[test]
fn rfc3611_blocks_there_and_back() {
    let dlrr = [Dlrr { ssrc: 1, last: 2, delay: 3 }, Dlrr { ssrc: 4, last: 5, delay: 6 }];
    let voip = VoipMetrics {
        ssrc: 9,
        loss_rate: 1,
        discard_rate: 2,
        burst_density: 3,
        gap_density: 4,
        burst_ms: 500,
        gap_ms: 600,
        round_trip_ms: 700,
        end_system_ms: 800,
        signal_level: -20,
        noise_level: -70,
        echo_return_loss: VoipMetrics::UNKNOWN,
        gap_min: 16,
        r_factor: 93,
        external_r_factor: VoipMetrics::UNKNOWN,
        mos_listening: 43,
        mos_conversational: 42,
        receiver_configuration: 0xb0,
        buffer_nominal_ms: 40,
        buffer_max_ms: 60,
        buffer_absolute_ms: 120,
    };
    let mut writer = RtcpWriter::new();
    writer.extended(
        7,
        &[
            WriteExtended::ReceiverReference(Ntp(0x0102_0304_0506_0708)),
            WriteExtended::Dlrr(&dlrr),
            WriteExtended::Voip(voip),
        ],
    );
    assert_eq!(writer.octets().len(), 8 + 12 + 28 + 36);
    let Packet::Extended(7, mut blocks) = only(&writer) else { panic!() };
    assert_eq!(blocks.next(), Some(Extended::ReceiverReference(0x0102_0304_0506_0708)));
    let Some(Extended::Dlrr(list)) = blocks.next() else { panic!() };
    assert_eq!(list.collect::<Vec<_>>(), dlrr);
    assert_eq!(blocks.next(), Some(Extended::Voip(voip)));
    assert_eq!(blocks.next(), None);
    // A block beyond the end; a known type with another length is not understood.
    assert!(compound(&[0x80, 207, 0, 2, 0, 0, 0, 7, 9, 0, 0, 1], true).is_err());
    let odd = [0x80, 207, 0, 3, 0, 0, 0, 7, 4, 0, 0, 1, 0, 0, 0, 0];
    let Some(Packet::Extended(7, mut blocks)) = compound(&odd, true).unwrap().next() else { panic!() };
    assert_eq!(blocks.next(), Some(Extended::Other(4)));
}

#[test]
fn receiver_estimates_are_rounded_down_and_their_lists_end() {
    for (bits, read) in
        [(0, 0), (64_000, 64_000), (262_143, 262_143), (1_000_001, 1_000_000), (u64::MAX, 0x3_ffff << 46)]
    {
        let mut writer = RtcpWriter::new();
        writer.receiver_estimate(1, bits, &[5, 6]);
        let Packet::Payload(feedback) = only(&writer) else { panic!() };
        let estimate = feedback.receiver_estimate().unwrap();
        assert_eq!(estimate.bits_per_second, read);
        assert_eq!(estimate.ssrcs.collect::<Vec<_>>(), [5, 6]);
    }
    let beyond = Feedback { sender: 1, media: 0, format: 15, fci: b"REMB\x02\xff\xff\xff\0\0\0\x01" };
    assert_eq!(beyond.receiver_estimate(), None);
    let most = Feedback { fci: b"REMB\0\xff\xff\xff", ..beyond };
    assert_eq!(most.receiver_estimate().unwrap().bits_per_second, u64::MAX);
}

// The example of the draft's chunks: a run, a vector of one bit, a vector of two.
#[test]
fn transport_wide_chunks_are_read() {
    let fci = [
        0, 10, 0, 24, 0, 0, 1, 7, // first 10, 24 packets, reference 1, number 7
        0x00, 0x03, // three not received
        0xa0, 0x00, // one-bit vector: the first of fourteen received
        0xd9, 0x00, // two-bit vector: small, large, small, then none
        4, 0xff, 0xfc, 0x00, 8, // deltas: 4, 255, -1024, 8
    ];
    let feedback = Feedback { sender: 1, media: 2, format: 15, fci: &fci };
    let wide = feedback.transport_wide().unwrap();
    assert_eq!((wide.first, wide.count, wide.reference, wide.number), (10, 24, 1, 7));
    let arrived: Vec<_> = wide.arrivals().filter_map(|(n, at)| Some((n, at?))).collect();
    // 0xa000 = 10 1 0...: packet 13. 0xd900 = 11 01 10 01 00...: packets 27, 28, 29.
    assert_eq!(arrived, [(13, 4), (27, 4 + 255), (28, 4 + 255 - 1024), (29, 4 + 255 - 1024 + 8)]);
    assert_eq!(wide.arrivals().count(), 24);
    for (cut, why) in [(fci.len() - 1, "a delta short"), (12, "a chunk short"), (7, "no head")] {
        let short = Feedback { fci: &fci[..cut], ..feedback };
        assert_eq!(short.transport_wide(), None, "{why}");
    }
    assert_eq!(wide.arrived(), 4);
    let nothing = Feedback { fci: &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], ..feedback };
    assert_eq!(nothing.transport_wide(), None, "a run of none");
    let reserved = Feedback { fci: &[0, 0, 0, 1, 0, 0, 0, 0, 0x60, 1, 0, 0], ..feedback };
    assert_eq!(reserved.transport_wide(), None, "a symbol that has no meaning");
}

proptest! {
    #[test]
    fn feedback_that_we_write_is_read_alike(
        lost in prop::collection::vec(any::<u16>(), 0..60), first in any::<u16>(),
        gaps in prop::collection::vec(prop::option::of(-300i32..3000), 0..300),
        same in 0usize..300,
    ) {
        let mut writer = RtcpWriter::new();
        writer.nack(1, 2, lost.iter().copied());
        let Packet::Transport(nack) = only(&writer) else { panic!() };
        let read: std::collections::BTreeSet<_> = nack.lost().collect();
        prop_assert_eq!(read, lost.iter().copied().collect());

        let mut at = 0;
        let mut moments: Vec<_> = gaps.iter().map(|gap| gap.map(|gap| { at += gap; at })).collect();
        moments.extend(std::iter::repeat_n(None, same));
        let mut writer = RtcpWriter::new();
        let arrivals = Arrivals { first, reference: 0x12_3456, number: 9, moments: &moments };
        writer.transport_wide(1, 2, &arrivals);
        prop_assert!(!writer.is_cut());
        let Packet::Transport(feedback) = only(&writer) else { panic!() };
        let wide = feedback.transport_wide().unwrap();
        prop_assert_eq!((wide.first, wide.reference, wide.number), (first, 0x12_3456, 9));
        let (numbers, read): (Vec<_>, Vec<_>) = wide.arrivals().unzip();
        prop_assert_eq!(read, moments);
        prop_assert!(numbers.iter().enumerate().all(|(n, number)| *number == first.wrapping_add(n as u16)));
    }

    #[test]
    fn feedback_of_any_octets_ends(fci in prop::collection::vec(any::<u8>(), 0..64)) {
        let feedback = Feedback { sender: 1, media: 2, format: 15, fci: &fci };
        prop_assert!(feedback.lost().count() <= fci.len() / 4 * 17);
        if let Some(wide) = feedback.transport_wide() {
            prop_assert_eq!(wide.arrivals().count(), usize::from(wide.count));
            prop_assert_eq!(wide.arrived(), wide.arrivals().filter(|(_, at)| at.is_some()).count());
        }
        let _ = feedback.receiver_estimate().map(|r| r.ssrcs.count());
        prop_assert!(feedback.full_intra().count() <= 8);
    }
}

proptest! {
    #[test]
    fn octets_of_any_kind_never_panic_and_what_rtcp_types_writes_is_read(
        bytes in prop::collection::vec(any::<u8>(), 0..200), ssrc in any::<u32>(), lost in 0u32..0x80_0000,
    ) {
        for reduced in [false, true] {
            if let Ok(packets) = compound(&bytes, reduced) {
                for packet in packets {
                    if let Packet::Sender(_, blocks) | Packet::Receiver(_, blocks) = packet { blocks.count(); }
                    if let Packet::Payload(f) = packet { f.fir_targets().count(); }
                    if let Packet::Description(chunks) = packet { chunks.map(|c| c.items().count()).sum::<usize>(); }
                    if let Packet::Extended(_, blocks) = packet { blocks.count(); }
                }
            }
        }
        let rr = rtcp_types::ReceiverReport::builder(ssrc).add_report_block(
            rtcp_types::ReportBlock::builder(7).cumulative_lost(lost).interarrival_jitter(5));
        let mut wire = vec![0; 200];
        let length = rr.write_into(&mut wire).unwrap();
        let mut packets = compound(&wire[..length], false).unwrap();
        let Some(Packet::Receiver(by, mut blocks)) = packets.next() else { panic!() };
        let block = blocks.next().unwrap();
        prop_assert_eq!((by, block.ssrc, block.cumulative_lost, block.jitter), (ssrc, 7, lost as i32, 5));
    }
}

#[test]
fn a_compound_is_all_of_its_packets() {
    let mut writer = RtcpWriter::new();
    writer.receiver(1, &[Block::default()]).description([(1, "name")].into_iter()).bye(&[1, 2]);
    let bytes = writer.octets();
    let parts: Vec<(&[u8], Packet<'_>)> = compound(bytes, false).unwrap().with_octets().collect();
    assert_eq!(parts.len(), 3);
    assert_eq!(parts.iter().flat_map(|(octets, _)| octets.iter().copied()).collect::<Vec<_>>(), bytes);
    for (octets, packet) in parts {
        assert_eq!(compound(octets, true).unwrap().next(), Some(packet));
    }
}
