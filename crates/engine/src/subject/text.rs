//! Short ASCII text that stays in place and is wiped; and how wide letters are folded.

use zeroize::Zeroize;

/// At most `N` ASCII characters, held without the heap so that no copy is left behind.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Text<const N: usize> {
    bytes: [u8; N],
    len: u8,
}

impl<const N: usize> Text<N> {
    /// No characters yet.
    pub(super) fn new() -> Self {
        const { assert!(N <= u8::MAX as usize) };
        Text { bytes: [0; N], len: 0 }
    }

    /// Those characters, if they are ASCII and not more than fit.
    pub(super) fn collect(chars: impl IntoIterator<Item = char>) -> Option<Self> {
        let mut text = Text::new();
        for c in chars {
            text.push(c)?;
        }
        Some(text)
    }

    /// A text that is ASCII and not longer than fits.
    pub(super) fn of(text: &str) -> Option<Self> {
        let mut taken = Text::new();
        taken.bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        taken.len = text.len() as u8;
        text.is_ascii().then_some(taken)
    }

    /// Appends a character; `None` if it is not ASCII or does not fit.
    pub(super) fn push(&mut self, c: char) -> Option<()> {
        let place = self.bytes.get_mut(self.len as usize)?;
        *place = u8::try_from(c).ok().filter(u8::is_ascii)?;
        self.len += 1;
        Some(())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    pub(super) fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).expect("only ASCII is ever pushed")
    }
}

impl<const N: usize> Drop for Text<N> {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

/// Whether there are digits only: eight at a time, of which the last eight are looked at twice, because numbers are
/// short and there are many.
#[inline]
pub(super) fn are_digits(text: &[u8]) -> bool {
    match text.last_chunk() {
        None => text.iter().all(u8::is_ascii_digit),
        Some(last) => text.as_chunks().0.iter().all(are_eight_digits) && are_eight_digits(last),
    }
}

/// The high half of each byte is 3, and stays so when 6 is added.
#[inline]
fn are_eight_digits(text: &[u8; 8]) -> bool {
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    let word = u64::from_le_bytes(*text);
    let more = word.wrapping_add(0x0606_0606_0606_0606);
    (word & HIGH | (more & HIGH) >> 4) == 0x3333_3333_3333_3333
}

/// A full-width form (U+FF01 to U+FF5E, U+3000) as the ASCII character it stands for.
///
/// Chinese input methods write digits and letters in this form when the wide mode is left on.
pub(super) fn fold_wide(c: char) -> char {
    match c {
        '\u{FF01}'..='\u{FF5E}' => char::from_u32(c as u32 - 0xFEE0).expect("the result lies in ASCII"),
        '\u{3000}' => ' ',
        _ => c,
    }
}

/// Signs people set between groups of digits: blanks and hyphens of every kind.
pub(super) fn is_separator(c: char) -> bool {
    c.is_whitespace() || is_hyphen(c)
}

/// Everything that is typed for a hyphen.
pub(super) fn is_hyphen(c: char) -> bool {
    matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{FE58}' | '\u{FE63}' | '\u{FF0D}')
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn digits_are_digits(text in "[0-9]{0,20}", at in 0usize..20, byte: u8) {
            let mut bytes = text.into_bytes();
            proptest::prop_assert!(are_digits(&bytes));
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            proptest::prop_assert_eq!(are_digits(&bytes), bytes.iter().all(u8::is_ascii_digit));
        }
    }
}
