//! Unix seconds to the two UTC texts this wire needs: the date of a credential scope and the time
//! in an error message. No clock is read here.

/// Seconds of a day.
const DAY_S: i64 = 86_400;

/// The UTC date as `YYYY-MM-DD`; `None` outside the years 0 to 9999.
///
/// On the stack because every TC3 request is checked against it.
pub(super) fn date(unix_s: i64) -> Option<[u8; 10]> {
    let (year, month, day) = civil(unix_s.div_euclid(DAY_S));
    if !(0..=9999).contains(&year) {
        return None;
    }
    let digit = |n: i64| b'0' + (n % 10) as u8;
    Some([
        digit(year / 1000),
        digit(year / 100),
        digit(year / 10),
        digit(year),
        b'-',
        digit(month / 10),
        digit(month),
        b'-',
        digit(day / 10),
        digit(day),
    ])
}

/// The UTC time as `2018-10-09T11:22:34Z`; the bare number outside the years 0 to 9999.
pub(super) fn iso8601(unix_s: i64) -> String {
    let Some(date) = date(unix_s) else {
        return unix_s.to_string();
    };
    let second = unix_s.rem_euclid(DAY_S);
    format!(
        "{}T{:02}:{:02}:{:02}Z",
        String::from_utf8_lossy(&date),
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
///
/// Counts in 400-year eras that begin on 1 March, so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::{date, iso8601};

    #[test]
    fn known_days() {
        for (unix_s, text) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_539_084_154, "2018-10-09"),
            (1_551_113_065, "2019-02-25"),
            (1_795_284_372, "2026-11-21"),
            (-1, "1969-12-31"),
            (253_402_300_799, "9999-12-31"),
        ] {
            assert_eq!(date(unix_s).as_ref().map(|d| &d[..]), Some(text.as_bytes()));
        }
        assert_eq!(date(253_402_300_800), None);
        assert_eq!(iso8601(1_539_084_154), "2018-10-09T11:22:34Z");
    }
}
