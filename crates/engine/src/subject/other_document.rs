//! Documents that people hold and that cannot be verified, recognised by their form.
//!
//! Only to say "not this kind of document" instead of "wrong number". Every form here is shorter
//! than 17 characters, or has a check character of its own: an 18-digit number with a slip in it
//! never looks like another document. The bare six or seven digits of a police card are left out
//! for that reason: nothing tells them from a number typed only in part.

use super::date::Date;
use super::resident_id;
use super::text::fold_wide;
use zeroize::Zeroizing;

/// Whether a text has the form of a document other than the resident identity card.
pub(super) fn is_recognised(text: &str, today: Date) -> bool {
    let text = text.trim();
    if text.len() > 100 {
        return false;
    }
    let mut folded = Zeroizing::new(String::with_capacity(text.len()));
    folded.extend(text.chars().map(fold_wide).map(|c| c.to_ascii_uppercase()));
    is_travel_document(&folded)
        || is_service_card(&folded)
        || resident_id::is_foreign_permanent(&folded, today)
}

/// Passports, permits, and the foreign permanent resident's card before 2023: some letters, then
/// digits.
fn is_travel_document(text: &str) -> bool {
    let letters = text.bytes().take_while(u8::is_ascii_uppercase).count();
    let digits = &text[letters..];
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    match (letters, digits.len()) {
        // Passports; also the permits for Hong Kong and Macau in today's form, H or M and 8 digits.
        (1 | 2, 7 | 8) => true,
        // The same permits with two digits for the number of renewals.
        (1, 10) => text.starts_with(['H', 'M']),
        // Taiwan permits, today's and the older form.
        (0, 8 | 10) => true,
        // Foreign permanent residents: nationality in three letters.
        (3, 12) => true,
        _ => false,
    }
}

/// Officers, soldiers and police: `军字第2001988号`, `士字第…号`, `Z字第…号`, `警字第…号`.
fn is_service_card(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || ('\u{4E00}'..='\u{9FFF}').contains(&c);
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let marked = text.contains('字') || text.starts_with(['军', '士', '兵', '警', '武', '文']);
    marked && (4..=12).contains(&digits) && text.chars().count() <= 20 && text.chars().all(is_part)
}
