//! Moments as text, without a calendar library.

/// Microseconds in a second, and seconds in a day.
const MICROS: i64 = 1_000_000;
const DAY: i64 = 86_400;

/// Microseconds since 1970 as RFC 3339 in UTC with milliseconds: `2026-01-01T00:00:00.000Z`.
pub fn rfc3339(micros: i64) -> String {
    let (seconds, micros) = (micros.div_euclid(MICROS), micros.rem_euclid(MICROS));
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let milli = micros / 1_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Year, month and day of a day since 1970, by Gregory's rule for all times.
///
/// Counted from 1 March of year 0, so that the day a leap year adds is the last of its year, in
/// cycles of 400 years, which have equally many days.
fn date(days: i64) -> (i64, i64, i64) {
    const CYCLE: i64 = 146_097;
    const MARCH_OF_YEAR_0: i64 = 719_468;
    let days = days + MARCH_OF_YEAR_0;
    let (cycle, day) = (days.div_euclid(CYCLE), days.rem_euclid(CYCLE));
    // Without the days of leap years before it, each year has 365.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Five months of 153 days repeat: 31, 30, 31, 30, 31.
    let month = (5 * day + 2) / 153;
    let first = (153 * month + 2) / 5;
    let (year, month_of_year) = match month {
        0..=9 => (year, month + 3),
        _ => (year + 1, month - 9),
    };
    (cycle * 400 + year, month_of_year, day - first + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_in_the_usual_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_767_225_599, "2025-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(seconds * MICROS), text);
        }
        assert_eq!(rfc3339(1_234_567), "1970-01-01T00:00:01.234Z");
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let mut last = date(-1);
        for day in 0..146_097 {
            let (year, month, day) = date(day);
            let next = (last.0, last.1, last.2 + 1);
            let begins = day == 1 && (month != last.1) && (year == last.0 || month == 1);
            assert!((year, month, day) == next || begins, "{last:?} then {year}-{month}-{day}");
            last = (year, month, day);
        }
        assert_eq!(last, (2369, 12, 31));
    }
}
