//! Days and moments as `to_jsonb` writes them.
//!
//! Beside the `T`, the zone is where it differs from `DateStyle` ISO: `+00:00` for `+00`.

use std::borrow::Cow;

/// `2020-01-01T00:00:00+00:00` for `2020-01-01 00:00:00+00`; a day and an infinity as they are.
pub(super) fn iso(text: &str) -> Cow<'_, str> {
    let (moment, era) = match text.strip_suffix(" BC") {
        Some(moment) => (moment, " BC"),
        None => (text, ""),
    };
    let Some((day, time)) = moment.split_once(' ') else { return Cow::Borrowed(text) };
    // A zone has a sign; `+00` alone means that there are no minutes to tell.
    let short_zone = time.len() > 3 && matches!(time.as_bytes()[time.len() - 3], b'+' | b'-');
    let minutes = if short_zone { ":00" } else { "" };
    Cow::Owned([day, "T", time, minutes, era].concat())
}
