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

impl<'a> Elements<'a> {
    pub(crate) fn new(profile: u16, body: &'a [u8]) -> Self {
        let form = match profile {
            0xbede => Form::OneByte,
            0x1000..=0x100f => Form::TwoByte,
            _ => Form::None,
        };
        Elements { form, rest: body }
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
}
