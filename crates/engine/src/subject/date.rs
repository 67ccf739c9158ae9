//! Calendar days, as identity numbers and expiry need them: no time, no zone, no clock.

/// A day that exists in the Gregorian calendar, years 1 to 9999. Ordered by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// That day, if there is one: month 1 to 12, day 1 to the end of the month.
    pub fn new(year: u16, month: u8, day: u8) -> Option<Date> {
        let real = (1..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in_month(year, month)).contains(&day);
        real.then_some(Date { year, month, day })
    }

    /// The day it is in China (UTC+8, without summer time) at a Unix time in seconds.
    ///
    /// Times outside the years 1 to 9999 give the nearest day inside.
    pub fn in_beijing(unix_s: i64) -> Date {
        Date::in_utc(unix_s.saturating_add(8 * 3600))
    }

    /// The day it is in Greenwich at a Unix time in seconds; clamped likewise.
    pub fn in_utc(unix_s: i64) -> Date {
        // 0001-01-01 and 9999-12-31, counted in days from 1970-01-01.
        from_unix_days(unix_s.div_euclid(86_400).clamp(-719_162, 2_932_896))
    }

    /// Year, 1 to 9999.
    pub fn year(self) -> u16 {
        self.year
    }

    /// Month, 1 to 12.
    pub fn month(self) -> u8 {
        self.month
    }

    /// Day of the month, 1 to 31.
    pub fn day(self) -> u8 {
        self.day
    }

    /// Days since 1970-01-01; before it negative.
    pub fn unix_days(self) -> i64 {
        // In years that begin on 1 March, as in `from_unix_days`.
        let (year, month) = match (i64::from(self.year), i64::from(self.month)) {
            (year, month @ 3..) => (year, month - 3),
            (year, month) => (year - 1, month + 9),
        };
        let leap_days = year / 4 - year / 100 + year / 400;
        year * 365 + leap_days + (153 * month + 2) / 5 + i64::from(self.day) - 1 - 719_468
    }
}

fn days_in_month(year: u16, month: u8) -> u8 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: u16) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// Counts in years that begin on 1 March, so that the leap day comes last.
fn from_unix_days(days: i64) -> Date {
    let days = days + 719_468; // from 0000-03-01
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    Date { year: year as u16, month: month as u8, day: day as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(date: Date) -> (u16, u8, u8) {
        (date.year(), date.month(), date.day())
    }

    #[test]
    fn only_days_that_exist() {
        assert!(Date::new(2024, 2, 29).is_some() && Date::new(2000, 2, 29).is_some());
        for (year, month, day) in [
            (2023, 2, 29),
            (1900, 2, 29),
            (2023, 4, 31),
            (2023, 13, 1),
            (2023, 0, 1),
            (2023, 1, 0),
            (0, 1, 1),
        ] {
            assert_eq!(Date::new(year, month, day), None);
        }
    }

    #[test]
    fn the_day_changes_at_midnight_in_beijing() {
        assert_eq!(parts(Date::in_beijing(0)), (1970, 1, 1));
        assert_eq!(parts(Date::in_beijing(1_709_135_999)), (2024, 2, 28));
        assert_eq!(parts(Date::in_beijing(1_709_136_000)), (2024, 2, 29));
        assert_eq!(parts(Date::in_beijing(i64::MAX)), (9999, 12, 31));
        assert_eq!(parts(Date::in_beijing(i64::MIN)), (1, 1, 1));
    }

    proptest! {
        #[test]
        fn every_time_gives_a_real_day_and_the_next_day_is_later(unix_s in -62_000_000_000i64..253_000_000_000) {
            let (today, tomorrow) = (Date::in_beijing(unix_s), Date::in_beijing(unix_s + 86_400));
            prop_assert_eq!(Date::new(today.year, today.month, today.day), Some(today));
            prop_assert!(today < tomorrow);
            prop_assert_eq!(today.unix_days(), (unix_s + 8 * 3600).div_euclid(86_400));
        }
    }
}
