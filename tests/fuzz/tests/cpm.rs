//! What CPM peers say inside SIP and MSRP.

use cpm::cpim::{Address, Head, Progress};
use cpm::{Limits, composing, conference, imdn, nickname, reginfo, resource_lists};

// RFC 3862: a head is the same whether it came at once or grew, and what we write in its place is read as we meant it.
#[test]
fn cpim() {
    let limits = Limits::default();
    let ours = Address::uri("sip:ours@example.com");
    fuzz::target!().for_each(|data: &[u8]| {
        let Ok(head) = Head::parse_whole(data, &limits) else { return };
        let early = data.get(..head.body_offset()).unwrap_or_default();
        let Ok(Progress::Done(again)) = Head::parse(early, &limits) else { panic!("whole, and then not") };
        assert_eq!(head.body_offset(), again.body_offset());
        for address in head.to().chain([head.from()]).flatten() {
            assert!(!address.uri.is_empty());
        }
        for header in head.headers() {
            let _ = header.value();
        }
        let _ = (
            head.date_time(),
            head.content_type(),
            head.mime("Content-Disposition"),
            imdn::Request::of(&head),
        );
        if head.from().is_ok()
            && let Ok(written) = head.with_from(data, &ours)
        {
            let body = data.get(head.body_offset()..).unwrap_or_default();
            let whole = [&written, body].concat();
            let read = Head::parse_whole(&whole, &limits).expect("what we write is read");
            assert_eq!(read.from().expect("a sender").uri, ours.uri);
            assert_eq!(whole.get(read.body_offset()..), Some(body));
        }
    });
}

#[test]
fn documents() {
    let limits = Limits::default();
    fuzz::target!().for_each(|data: &[u8]| {
        if let Ok(read) = imdn::Imdn::read(data, &limits) {
            let again = imdn::Imdn::read(read.write().as_bytes(), &limits).expect("what we write is read");
            assert_eq!(read.write(), again.write());
        }
        if let Ok(read) = composing::Composing::read(data, &limits) {
            composing::Composing::read(read.write().as_bytes(), &limits).expect("what we write is read");
        }
        if let Ok(read) = conference::ConferenceInfo::read(data, &limits) {
            conference::ConferenceInfo::read(read.write().as_bytes(), &limits)
                .expect("what we write is read");
        }
        if let Ok(read) = resource_lists::ResourceList::read(data, &limits) {
            resource_lists::ResourceList::read(read.write().as_bytes(), &limits)
                .expect("what we write is read");
        }
        if let Ok(read) = reginfo::RegInfo::read(data, &limits) {
            reginfo::RegInfo::read(read.write().as_bytes(), &limits).expect("what we write is read");
        }
        if let Ok(text) = std::str::from_utf8(data)
            && let Ok(name) = nickname::enforce(text)
        {
            // RFC 8266 §2.4: enforcing what was enforced changes nothing.
            assert_eq!(nickname::enforce(&name).as_ref(), Ok(&name));
            assert_eq!(nickname::key(&name), nickname::key(text));
        }
    });
}
