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
