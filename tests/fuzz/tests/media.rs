//! Descriptions, RTP and RTCP, STUN, and control's protocol.

use bytes::BytesMut;
use sdp::{Limits, Session};

// RFC 8866, RFC 3264: what we write of a description that we have read is read again, and says the same.
#[test]
fn sdp_session() {
    let limits = Limits::default();
    fuzz::target!().for_each(|data: &[u8]| {
        let Ok(session) = Session::parse(data, &limits) else { return };
        let written = session.to_bytes();
        let again = Session::parse(&written, &limits).expect("what we write is read");
        assert_eq!(again.lines.len(), session.lines.len());
        assert_eq!(again.to_bytes(), written);
        let _ = session.bundle();
    });
}

#[test]
fn rtp_views() {
    fuzz::target!().for_each(|data: &[u8]| {
        let _ = rtp::kind(data);
        if let Ok(view) = rtp::RtpView::parse(data) {
            let count = view.csrcs().count() + view.elements().count();
            assert!(count <= data.len());
        }
        for reduced in [false, true] {
            let Ok(packets) = rtp::compound(data, reduced) else { continue };
            let octets: usize = packets
                .with_octets()
                .map(|(octets, packet)| {
                    std::hint::black_box(format!("{packet:?}"));
                    octets.len()
                })
                .sum();
            assert!(octets <= data.len());
        }
        let _ = rtp::stun::Message::parse(data);
    });
}

// DESIGN §3: frames of the contract, from whoever has a certificate.
#[test]
fn contract_frames() {
    use contract::{ToDataplane, decode_frame, encode_frame};
    fuzz::target!().for_each(|data: &[u8]| {
        let mut read = BytesMut::from(data);
        while let Ok(Some(frame)) = decode_frame::<ToDataplane>(&mut read) {
            let mut written = BytesMut::new();
            encode_frame(&frame, &mut written);
            let again = decode_frame::<ToDataplane>(&mut written);
            // A number that is none is equal to nothing, itself included.
            assert_eq!(format!("{again:?}"), format!("{:?}", Ok::<_, ()>(Some(frame))));
        }
    });
}
