//! Header extension elements, one-byte and two-byte form (RFC 8285 §4), and the audio level (RFC 6464).

/// The elements of an extension: their ids and their data. Ends at the first one that does not fit.
#[derive(Clone, Copy, Debug)]
pub struct Elements<'a> {
    form: Form,
    rest: &'a [u8],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    None,
    OneByte,
    TwoByte,
}

impl Form {
    /// Of an extension with this profile.
    const fn of(profile: u16) -> Self {
        match profile {
            0xbede => Form::OneByte,
            0x1000..=0x100f => Form::TwoByte,
            _ => Form::None,
        }
    }
}

impl<'a> Elements<'a> {
    pub(crate) const fn new(profile: u16, body: &'a [u8]) -> Self {
        Elements { form: Form::of(profile), rest: body }
    }

    /// The data of the element `id`.
    pub fn element(mut self, id: u8) -> Option<&'a [u8]> {
        self.find(|(found, _)| *found == id).map(|(_, data)| data)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            let (id, length, rest) = match self.form {
                Form::None => return None,
                _ if first == 0 => {
                    self.rest = rest; // padding
                    continue;
                }
                // RFC 8285 §4.2: id 15 ends the processing.
                Form::OneByte if first >> 4 == 15 => return None,
                Form::OneByte => (first >> 4, usize::from(first & 0x0f) + 1, rest),
                Form::TwoByte => {
                    let (&length, rest) = rest.split_first()?;
                    (first, usize::from(length), rest)
                }
            };
            let (data, after) = rest.split_at_checked(length)?;
            self.rest = after;
            return Some((id, data));
        }
    }
}

/// Gives the elements of a packet's header extension other ids, in place. One for which `map` has none, or none that its form
/// can hold, becomes padding (RFC 8285 §4.1.1): nothing moves. Extensions of other profiles stay as they are.
pub fn map_extensions(packet: &mut [u8], map: impl Fn(u8) -> Option<u8>) {
    let Some((form, mut rest)) = extension_mut(packet) else { return };
    let highest = if form == Form::OneByte { 14 } else { 255 };
    while let Some(&first) = rest.first() {
        let (id, length) = match form {
            _ if first == 0 => (0, 1),
            // RFC 8285 §4.2: id 15 ends the processing. What follows it means nothing to anybody.
            Form::OneByte if first >> 4 == 15 => return rest.fill(0),
            Form::OneByte => (first >> 4, usize::from(first & 0x0f) + 2),
            _ => (first, rest.get(1).map_or(usize::MAX, |length| usize::from(*length) + 2)),
        };
        if length > rest.len() {
            return rest.fill(0); // What is longer than the extension is no element.
        }
        let (element, after) = rest.split_at_mut(length);
        rest = after;
        match (map(id).filter(|id| (1..=highest).contains(id)), element.first_mut()) {
            (Some(id), Some(head)) if form == Form::OneByte => *head = id << 4 | *head & 0x0f,
            (Some(id), Some(head)) => *head = id,
            _ => element.fill(0),
        }
    }
}

/// Writes one more element into a packet that is the first `length` octets of `room`, with an extension made for it where there
/// is none; the new length. `None`, and nothing is changed: the room does not suffice, or the packet has an extension that has
/// no place for it (of another profile, or of the one-byte form).
pub fn add_element(room: &mut [u8], length: usize, id: u8, data: &[u8]) -> Option<usize> {
    let first = *room.get(..length)?.first()?;
    let begin = 12 + 4 * usize::from(first & 0x0f);
    let short = (1..=14).contains(&id) && (1..=16).contains(&data.len());
    let has = first & 0x10 != 0;
    // Where the element goes, in which form, and how many words are there already.
    let (at, form, words) = if has {
        let [p0, p1, w0, w1] = *room.get(begin..length)?.first_chunk::<4>()?;
        let words = usize::from(u16::from_be_bytes([w0, w1]));
        (begin + 4 + 4 * words, Form::of(u16::from_be_bytes([p0, p1])), words)
    } else {
        (begin, if short { Form::OneByte } else { Form::TwoByte }, 0)
    };
    let mut element = [0; 4 + 2 + 255 + 3];
    let head = if has { 0 } else { 4 };
    let used = match form {
        Form::OneByte if short => {
            *element.get_mut(head)? = id << 4 | (data.len() - 1) as u8;
            1
        }
        Form::TwoByte if id != 0 => {
            *element.get_mut(head)? = id;
            *element.get_mut(head + 1)? = u8::try_from(data.len()).ok()?;
            2
        }
        _ => return None,
    };
    element.get_mut(head + used..head + used + data.len())?.copy_from_slice(data);
    let body = (used + data.len()).next_multiple_of(4);
    let count = u16::try_from(words + body / 4).ok()?.to_be_bytes();
    let added = head + body;
    if at > length || length + added > room.len() {
        return None;
    }
    room.copy_within(at..length, at + added);
    room.get_mut(at..at + added)?.copy_from_slice(element.get(..added)?);
    let profile: [u8; 2] = if form == Form::OneByte { [0xbe, 0xde] } else { [0x10, 0x00] };
    if !has {
        room.get_mut(begin..begin + 2)?.copy_from_slice(&profile);
        *room.first_mut()? |= 0x10;
    }
    room.get_mut(begin + 2..begin + 4)?.copy_from_slice(&count);
    Some(length + added)
}

fn extension_mut(packet: &mut [u8]) -> Option<(Form, &mut [u8])> {
    let first = *packet.first()?;
    if first & 0x10 == 0 {
        return None;
    }
    let (head, rest) = packet.get_mut(12 + 4 * usize::from(first & 0x0f)..)?.split_first_chunk_mut::<4>()?;
    let [p0, p1, w0, w1] = *head;
    let form = Form::of(u16::from_be_bytes([p0, p1]));
    (form != Form::None).then_some(())?;
    Some((form, rest.get_mut(..4 * usize::from(u16::from_be_bytes([w0, w1])))?))
}

/// Client-to-mixer audio level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AudioLevel {
    /// The sender's voice activity bit.
    pub voice: bool,
    /// -dBov: 0 is the loudest, 127 is silence.
    pub level: u8,
}

impl AudioLevel {
    /// From an element's data (RFC 6464 §3: one octet, V and seven bits).
    pub fn parse(data: &[u8]) -> Option<Self> {
        data.first().map(|octet| AudioLevel { voice: octet & 0x80 != 0, level: octet & 0x7f })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_broken_ones_end() {
        let one = Elements::new(0xbede, &[0x10, 0xff, 0x00, 0x21, 1, 2, 0x00]);
        assert_eq!(one.collect::<Vec<_>>(), [(1, &[0xff][..]), (2, &[1, 2][..])]);
        let two = Elements::new(0x1000, &[1, 0, 0, 7, 2, 8, 9]);
        assert_eq!(two.collect::<Vec<_>>(), [(1, &[][..]), (7, &[8, 9][..])]);
        assert_eq!(Elements::new(0xbede, &[0xf0, 1, 0x10, 1]).count(), 0, "id 15 stops");
        assert_eq!(Elements::new(0xbede, &[0x1f, 1]).count(), 0, "longer than the extension");
        assert_eq!(Elements::new(0x1234, &[0x10, 1]).count(), 0, "another profile");
        assert_eq!(one.element(2), Some(&[1, 2][..]));
        assert_eq!(AudioLevel::parse(&[0x85]), Some(AudioLevel { voice: true, level: 5 }));
    }
    fn extended(profile: u16, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x91, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 9, 9, 9, 9];
        packet.extend_from_slice(&profile.to_be_bytes());
        packet.extend_from_slice(&((body.len() / 4) as u16).to_be_bytes());
        packet.extend_from_slice(body);
        packet.extend_from_slice(&[0x11, 0x22]);
        packet
    }

    #[test]
    fn ids_change_and_what_is_not_agreed_becomes_padding() {
        let map = |id| match id {
            1 => Some(4),
            2 => Some(200),
            14 => Some(1),
            _ => None,
        };
        for (profile, before, after) in [
            (0xbede, [0x10, 0xaa, 0xe1, 1, 2, 0, 0x30, 0xbb], [0x40, 0xaa, 0x11, 1, 2, 0, 0, 0]),
            // 200 does not fit the one-byte form.
            (0xbede, [0x21, 1, 2, 0x10, 3, 0, 0, 0], [0, 0, 0, 0x40, 3, 0, 0, 0]),
            (0x1000, [1, 0, 2, 3, 7, 8, 9, 0], [4, 0, 200, 3, 7, 8, 9, 0]),
            (0x100f, [3, 2, 7, 7, 1, 2, 8, 9], [0, 0, 0, 0, 4, 2, 8, 9]),
            // Broken ones end, and leave nothing unread behind them.
            (0xbede, [0x10, 1, 0xf0, 5, 0x10, 1, 2, 3], [0x40, 1, 0, 0, 0, 0, 0, 0]),
            (0xbede, [0x10, 1, 0x1f, 5, 0x10, 1, 2, 3], [0x40, 1, 0, 0, 0, 0, 0, 0]),
            (0x1000, [1, 1, 5, 2, 200, 1, 2, 3], [4, 1, 5, 0, 0, 0, 0, 0]),
            (0x1000, [1, 5, 5, 5, 5, 5, 5, 1], [4, 5, 5, 5, 5, 5, 5, 0]),
            (0x4321, [0x10, 1, 2, 3, 4, 5, 6, 7], [0x10, 1, 2, 3, 4, 5, 6, 7]),
        ] {
            let mut packet = extended(profile, &before);
            map_extensions(&mut packet, map);
            assert_eq!(packet, extended(profile, &after), "{before:02x?}");
        }
    }

    #[test]
    fn an_element_is_added_where_there_is_a_place_for_it() {
        let added = |packet: &[u8], id, data: &[u8]| {
            let mut room = packet.to_vec();
            room.resize(packet.len() + 32, 0xee);
            let length = add_element(&mut room, packet.len(), id, data)?;
            room.truncate(length);
            Some(room)
        };
        let plain = [&[0x81, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 9, 9, 9, 9][..], &[0x11, 0x22]].concat();
        for (packet, id, data, all) in [
            (plain.clone(), 4, &b"v1"[..], vec![(4, b"v1".to_vec())]),
            (plain.clone(), 200, b"v1", vec![(200, b"v1".to_vec())]),
            (extended(0xbede, &[0x10, 7, 0, 0]), 4, b"video", vec![(1, vec![7]), (4, b"video".to_vec())]),
            (extended(0x1000, &[1, 1, 7, 0]), 4, b"0", vec![(1, vec![7]), (4, b"0".to_vec())]),
            (extended(0xbede, &[]), 14, b"0123456789abcdef", vec![(14, b"0123456789abcdef".to_vec())]),
        ] {
            let wrote = added(&packet, id, data).unwrap();
            let view = crate::RtpView::parse(&wrote).unwrap();
            let found: Vec<_> = view.elements().map(|(id, data)| (id, data.to_vec())).collect();
            assert_eq!((found, view.payload()), (all, &[0x11, 0x22][..]));
            assert_eq!((&wrote[1..16], wrote[0] & 0xef), (&packet[1..16], packet[0] & 0xef));
        }
        // RFC 8285 §4.2: no id over 14 and no element over 16 octets in the one-byte form; another profile is another's.
        for (packet, id, data) in [
            (extended(0xbede, &[0; 4]), 15, &b"0"[..]),
            (extended(0xbede, &[0; 4]), 4, b"0123456789abcdefg"),
            (extended(0xbede, &[0; 4]), 4, b""),
            (extended(0x4321, &[0; 4]), 4, b"0"),
            (plain.clone(), 0, b"0"),
        ] {
            assert_eq!(added(&packet, id, data), None);
        }
        let mut room = plain.clone();
        assert_eq!(add_element(&mut room, plain.len(), 4, b"v"), None);
        assert_eq!(room, plain);
    }

    proptest::proptest! {
        // Whatever comes in: the length stays, and only mapped elements are left.
        #[test]
        fn what_is_left_is_what_was_mapped(two in proptest::bool::ANY, words in 0usize..9, seed in proptest::collection::vec(0u8.., 36), keep in 1u8..15) {
            let profile = if two { 0x1000 } else { 0xbede };
            let mut packet = extended(profile, &seed[..4 * words]);
            let before = packet.clone();
            let data = |packet: &[u8], id| {
                let view = crate::RtpView::parse(packet).unwrap();
                view.elements().filter(|(found, _)| *found == id).map(|(_, d)| d.to_vec()).collect::<Vec<_>>()
            };
            map_extensions(&mut packet, |id| (id == keep).then_some(15 - keep));
            proptest::prop_assert_eq!(packet.len(), before.len());
            proptest::prop_assert_eq!(data(&packet, 15 - keep), data(&before, keep));
            let left = crate::RtpView::parse(&packet).unwrap().elements().filter(|(id, _)| *id != 15 - keep).count();
            proptest::prop_assert_eq!(left, 0);
        }
    }
}
