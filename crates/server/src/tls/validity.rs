//! When a certificate ends. A walk to one member, not a parser: rustls checks certificates.

use engine::clock::Millis;
use engine::subject::Date;

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;

/// `notAfter` of a certificate in DER; `None` when it is not where it must be.
pub fn not_after(certificate: &[u8]) -> Option<Millis> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if let Some((_, after)) = element(rest, VERSION) {
        rest = after;
    }
    // Serial number, signature algorithm, issuer; then the validity.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        rest = element(rest, tag)?.1;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let not_before = [UTC_TIME, GENERALIZED_TIME].iter().find_map(|tag| element(validity, *tag))?;
    let rest = not_before.1;
    if let Some((text, _)) = element(rest, UTC_TIME) {
        let (year, rest) = number(text, 2)?;
        // As RFC 5280 reads two digits.
        return instant(if year < 50 { 2000 + year } else { 1900 + year }, rest);
    }
    let (text, _) = element(rest, GENERALIZED_TIME)?;
    let (year, rest) = number(text, 4)?;
    instant(year, rest)
}

/// Content of the element with this tag at the start, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

fn number(text: &[u8], digits: usize) -> Option<(i64, &[u8])> {
    let (number, rest) = text.split_at_checked(digits)?;
    let number = std::str::from_utf8(number).ok()?;
    Some((number.parse().ok()?, rest))
}

/// Milliseconds of `MMDDhhmmssZ` in this year.
fn instant(year: i64, rest: &[u8]) -> Option<Millis> {
    let (month, rest) = number(rest, 2)?;
    let (day, rest) = number(rest, 2)?;
    let (hour, rest) = number(rest, 2)?;
    let (minute, rest) = number(rest, 2)?;
    let (second, rest) = number(rest, 2)?;
    let date = Date::new(year.try_into().ok()?, month.try_into().ok()?, day.try_into().ok()?)?;
    (rest == b"Z").then_some((((date.unix_days() * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::clock::utc_text;

    #[test]
    fn the_end_is_what_was_asked_for() {
        for (year, month, day) in [(2026, 11, 21), (2028, 2, 29), (2049, 12, 31), (2050, 1, 1), (2100, 3, 1)]
        {
            let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, month, day);
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let end = not_after(certificate.der()).unwrap();
            assert_eq!(utc_text(end), format!("{year:04}-{month:02}-{day:02}T00:00:00Z"));
        }
    }

    #[test]
    fn what_is_cut_off_has_no_end() {
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        for length in 0..certificate.der().len() {
            assert_eq!(not_after(&certificate.der()[..length]), None);
        }
    }
}
