//! Nicknames in a room: which are well-formed, and which are the same (RFC 7701 §7, RFC 8266 §2).

use unicode_normalization::UnicodeNormalization;

use crate::Error;

/// Octets of a nickname (RFC 7701 §9).
pub const OCTETS_MAX: usize = 1023;

/// Puts a nickname into the form that is shown: blanks at the ends gone, blanks between joined into one
/// space, compatibility forms composed (RFC 8266 §2.3). What holds nothing visible, or a control, or a
/// character that turns the text around, is malformed: 424.
pub fn enforce(text: &str) -> Result<String, Error> {
    if text.len() > OCTETS_MAX {
        return Err(Error::TooLarge("nickname"));
    }
    if text.chars().any(is_forbidden) {
        return Err(Error::Characters);
    }
    let shown = composed(text);
    // Composition may uncover what was not there before.
    match shown.len() {
        0 => Err(Error::Missing("nickname")),
        n if n > OCTETS_MAX => Err(Error::TooLarge("nickname")),
        _ if shown.chars().any(is_forbidden) => Err(Error::Characters),
        _ => Ok(shown),
    }
}

/// The form that compares: two nicknames are one when their keys are equal (RFC 8266 §2.4). Folds case until
/// nothing changes any more, since folding and composing undo each other's work for a few characters. It is composed
/// before it is folded: what stands after a letter decides how it folds (a final sigma), so that a nickname has
/// the key of the form that is shown.
pub fn key(nickname: &str) -> String {
    let mut key = composed(nickname);
    // RFC 8266 §2.1: at most three more rounds, or the string is left as it is.
    for _ in 0..4 {
        let next = composed(&key.to_lowercase());
        if next == key {
            break;
        }
        key = next;
    }
    key
}

/// Compatibility forms composed, blanks at the ends gone, blanks between joined into one space.
fn composed(text: &str) -> String {
    let composed: String = text.nfkc().collect();
    composed.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Controls, formatting that is not seen but turns or joins text, private use, and what is no character.
fn is_forbidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e000}'..='\u{f8ff}'
            | '\u{fdd0}'..='\u{fdef}' | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}')
        || u32::from(c) & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // RFC 8266 §3: the examples of nicknames and of what they compare to.
    #[test]
    fn the_examples_of_the_rfc() {
        for (text, compares) in [
            ("Foo", "foo"),
            ("foo", "foo"),
            ("Foo Bar", "foo bar"),
            ("  Foo   Bar ", "foo bar"),
            ("Σ", "σ"),
            ("ς", "ς"),
            ("♚", "♚"),
            ("Richard Ⅳ", "richard iv"),
            ("\u{3000}Ann\u{a0}B", "ann b"),
        ] {
            assert_eq!(key(&enforce(text).unwrap()), compares, "{text}");
        }
    }

    // RFC 8266 §2.1, §2.4: the sigma of `Σ㍱` is not the last letter of the word `Σhpa`.
    #[test]
    fn a_nickname_has_the_key_of_what_is_shown_of_it() {
        for text in ["AΣ\u{3371}", "AΣ", "A\u{3a3}\u{a0}\u{3371}"] {
            assert_eq!(key(text), key(&enforce(text).unwrap()), "{text}");
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for bad in
            ["", "   ", "\u{a0}", "a\nb", "a\u{0}", "\u{202e}nna", "a\u{200b}nn", "\u{e001}", "\u{ffff}"]
        {
            assert!(enforce(bad).is_err(), "{bad:?}");
        }
        assert_eq!(enforce(&"x".repeat(1024)), Err(Error::TooLarge("nickname")));
        assert!(enforce(&"x".repeat(1023)).is_ok());
    }

    proptest! {
        // RFC 8266 §2.1: applying the rules again changes nothing.
        #[test]
        fn both_forms_are_stable(text in "\\PC{0,30}") {
            if let Ok(shown) = enforce(&text) {
                prop_assert_eq!(enforce(&shown), Ok(shown.clone()));
                prop_assert_eq!(key(&key(&shown)), key(&shown));
                prop_assert_eq!(key(&text), key(&shown));
            }
        }
    }
}
