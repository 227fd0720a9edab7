//! Dates and times as `to_jsonb` prints them, as numbers that compare.
//!
//! As text they would not: years have four digits or more, those before Christ end with `BC`, and
//! offsets from UTC differ.

/// Days from 1970-01-01 to PostgreSQL's own beginning, 2000-01-01.
///
/// Counted from 1970, its latest timestamps would not fit into 64 bits of microseconds.
const EPOCH: i64 = 10_957;

const DAY: i64 = 86_400_000_000;

/// Days since 2000-01-01.
pub(super) fn date(text: &str) -> Option<i64> {
    endless(text).or_else(|| {
        let (text, before_christ) = era(text);
        days(text, before_christ)
    })
}

/// Microseconds since 2000-01-01 00:00, in UTC where the text has an offset.
pub(super) fn timestamp(text: &str) -> Option<i64> {
    endless(text).or_else(|| {
        let (text, before_christ) = era(text);
        let (date, time) = text.split_once('T')?;
        let days = days(date, before_christ)?;
        let (time, offset) = match time.find(['+', '-', 'Z']) {
            Some(at) => time.split_at(at),
            None => (time, ""),
        };
        let micros = days.checked_mul(DAY)?.checked_add(clock(time)?)?;
        micros.checked_sub(self::offset(offset)?)
    })
}

fn endless(text: &str) -> Option<i64> {
    match text {
        "infinity" => Some(i64::MAX),
        "-infinity" => Some(i64::MIN),
        _ => None,
    }
}

fn era(text: &str) -> (&str, bool) {
    match text.strip_suffix(" BC") {
        Some(rest) => (rest, true),
        None => (text, false),
    }
}

/// `2024-02-29` in the proleptic Gregorian calendar.
fn days(text: &str, before_christ: bool) -> Option<i64> {
    let mut parts = text.splitn(3, '-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // There is no year 0: 1 BC comes before 1.
    let year = if before_christ { 1 - year } else { year };
    // The year begins in March here, so that the odd day is its last.
    let year = if month <= 2 { year - 1 } else { year };
    let (century, of_century) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_century = of_century * 365 + of_century / 4 - of_century / 100 + day_of_year;
    Some(century * 146_097 + day_of_century - 719_468 - EPOCH)
}

/// `10:00:00.5` in microseconds.
fn clock(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = whole.splitn(3, ':').map(number);
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    if fraction.len() > 6 {
        return None;
    }
    let micros = match fraction {
        "" => 0,
        digits => number(digits)? * 10_i64.pow(6 - u32::try_from(digits.len()).ok()?),
    };
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}

/// `+05:30`, `-08`, `Z` or nothing, in microseconds.
fn offset(text: &str) -> Option<i64> {
    let Some(rest) = text.strip_prefix(['+', '-']) else {
        return matches!(text, "" | "Z").then_some(0);
    };
    let mut seconds = 0;
    for (part, unit) in rest.splitn(3, ':').zip([3_600, 60, 1]) {
        seconds += number(part)? * unit;
    }
    Some(if text.starts_with('-') { -seconds } else { seconds } * 1_000_000)
}

/// Digits only; few enough that nothing computed from them overflows.
fn number(text: &str) -> Option<i64> {
    if text.len() > 8 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}
