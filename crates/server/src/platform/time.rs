//! Times as the management API writes and reads them.

use engine::clock::{Millis, utc_text};

const DAY_MS: i64 = 86_400_000;

/// `2026-11-22T08:30:00.123000Z`.
pub fn iso(at: Millis) -> String {
    let seconds = utc_text(at);
    format!("{}.{:03}000Z", seconds.trim_end_matches('Z'), at.rem_euclid(1000))
}

/// Reads `2026-11-22`, `2026-11-22T08:30:00Z`, with a fraction or an offset; a day alone is its beginning.
/// The second value tells that it was a day alone.
pub fn parse(text: &str) -> Option<(Millis, bool)> {
    let (date, rest) = text.split_at_checked(10)?;
    let mut parts = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let begin = days(year, month, day) * DAY_MS;
    let Some(rest) = rest.strip_prefix(['T', ' ', 't']) else {
        return rest.is_empty().then_some((begin, true));
    };
    let (clock, offset_ms) = split_offset(rest)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
    let in_range = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..=60).contains(&second);
    if !in_range || !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    Some((begin + (hour * 3600 + minute * 60 + second) * 1000 + millis - offset_ms, false))
}

/// What a zone is east of Greenwich: an offset such as `+08:00`, or one of a few names without summer time.
/// Anything else is UTC, as the original does.
pub fn zone_offset_ms(zone: &str) -> i64 {
    match zone {
        "Asia/Shanghai" | "Asia/Hong_Kong" | "Asia/Singapore" | "Asia/Taipei" | "PRC" => 8 * 3_600_000,
        "Asia/Tokyo" => 9 * 3_600_000,
        offset => split_offset(&format!("00:00{offset}")).map_or(0, |(_, offset)| offset),
    }
}

/// `2026-11-22` of a day counted from 1970-01-01.
pub fn day_text(day: i64) -> String {
    utc_text(day * DAY_MS)[..10].to_owned()
}

/// The beginning of the month a time is in.
pub fn month_begin(at: Millis) -> Millis {
    parse(&format!("{}-01", &utc_text(at)[..7])).map_or(0, |(begin, _)| begin)
}

fn split_offset(text: &str) -> Option<(&str, i64)> {
    if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let Some(at) = text.rfind(['+', '-']) else { return Some((text, 0)) };
    let (clock, offset) = text.split_at(at);
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = offset[1..].split_once(':')?;
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    (hours <= 14 && minutes < 60).then_some((clock, sign * (hours * 60 + minutes) * 60_000))
}

/// Days from 1970-01-01, counted in eras of 400 years that begin on 1 March.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for at in [0, 951_782_400_000, 1_795_276_799_123, 4_102_444_800_000] {
            assert_eq!(parse(&iso(at)), Some((at, false)), "{}", iso(at));
        }
        assert_eq!(parse("2026-11-21"), Some((1_795_219_200_000, true)));
        assert_eq!(parse("2026-11-21T08:00:00+08:00"), Some((1_795_219_200_000, false)));
        assert_eq!(parse("2026-11-21T00:00:00.5Z"), Some((1_795_219_200_500, false)));
        for wrong in ["", "today", "2026-13-01", "2026-11-21T25:00:00Z", "2026-11-21x", "二〇二六-11-21"]
        {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(month_begin(1_795_276_799_123), parse("2026-11-01").unwrap().0);
        assert_eq!((zone_offset_ms("+08:00"), zone_offset_ms("Mars")), (28_800_000, 0));
    }
}
