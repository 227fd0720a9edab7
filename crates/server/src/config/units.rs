//! Lengths of time and amounts of bytes as people write them.
//!
//! `10s`, `1h30m`, `64KiB`, `1MB`. A length of time always has a unit, because a bare number has
//! been read as seconds by one reader and milliseconds by the next; a bare amount is bytes.

use std::time::Duration;

/// Units of time, longest first so that printing takes the coarsest that fits.
const TIMES: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of bytes: binary ones first, since printing prefers them.
const SIZES: [(&str, u64); 8] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads `250ms`, `10s`, `5m`, `1h`, `2d` or several together, `1h30m`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut millis = 0_u64;
    while !rest.is_empty() {
        let (count, after) = leading_number(rest)?;
        let unit_end = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let (_, factor) = TIMES.iter().find(|(name, _)| *name == unit)?;
        millis = millis.checked_add(count.checked_mul(*factor)?)?;
        rest = after.trim_start();
    }
    Some(Duration::from_millis(millis))
}

/// Writes a length of time so that [`parse_duration`] reads the same one.
pub(super) fn print_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    print_whole(millis, &TIMES).unwrap_or_else(|| format!("{millis}ms"))
}

/// Reads `4096`, `64KiB`, `1MB`; letters of either case.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let (count, unit) = leading_number(text.trim())?;
    let unit = unit.trim();
    if unit.is_empty() {
        return Some(count);
    }
    let (_, factor) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    count.checked_mul(*factor)
}

/// Writes an amount of bytes so that [`parse_size`] reads the same one.
pub(super) fn print_size(bytes: u64) -> String {
    if bytes == 0 {
        return "0B".to_owned();
    }
    print_whole(bytes, &SIZES).unwrap_or_else(|| format!("{bytes}B"))
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

fn print_whole(amount: u64, units: &[(&str, u64)]) -> Option<String> {
    let (name, factor) = units.iter().find(|(_, factor)| amount.is_multiple_of(*factor))?;
    Some(format!("{}{name}", amount / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_has_a_unit() {
        assert_eq!(parse_duration("10s"), Some(Duration::from_secs(10)));
        assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(parse_duration(" 1h 30m "), Some(Duration::from_secs(5400)));
        for wrong in ["", "10", "s", "10x", "-1s", "1.5h", "10s5", "99999999999999999999d"] {
            assert_eq!(parse_duration(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_amount_of_bytes_may_have_a_unit() {
        assert_eq!(parse_size("4096"), Some(4096));
        assert_eq!(parse_size("64KiB"), Some(65_536));
        assert_eq!(parse_size("64 kib"), Some(65_536));
        assert_eq!(parse_size("1MB"), Some(1_000_000));
        for wrong in ["", "KiB", "1.5MiB", "-1", "1 potato", "99999999999GiB"] {
            assert_eq!(parse_size(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for millis in [0, 1, 1_500, 10_000, 90_000, 3_600_000, 86_400_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&print_duration(duration)), Some(duration));
        }
        for bytes in [0, 1, 1_000, 1_024, 65_536, 1_000_001, 256 << 20] {
            assert_eq!(parse_size(&print_size(bytes)), Some(bytes));
        }
        assert_eq!(print_duration(Duration::from_secs(90)), "90s");
        assert_eq!(print_size(256 << 20), "256MiB");
    }
}
