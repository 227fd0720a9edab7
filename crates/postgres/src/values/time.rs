//! Days and moments as `to_jsonb` writes them.
//!
//! Beside the `T`, the zone is where it differs from `DateStyle` ISO: `+00:00` for `+00`.

use tidewire_protocol::json;

/// Appends the string `2020-01-01T00:00:00+00:00` for `2020-01-01 00:00:00+00`; a day and an
/// infinity as they are.
pub(super) fn write(text: &str, out: &mut String) {
    let (moment, era) = match text.strip_suffix(" BC") {
        Some(moment) => (moment, " BC"),
        None => (text, ""),
    };
    let Some(space) = moment.bytes().position(|byte| byte == b' ') else {
        return json::string(out, text);
    };
    let (day, time) = (&moment[..space], &moment[space + 1..]);
    // A zone has a sign; `+00` alone means that there are no minutes to tell.
    let short_zone = time.len() > 3 && matches!(time.as_bytes()[time.len() - 3], b'+' | b'-');
    out.push('"');
    json::content(out, day);
    out.push('T');
    json::content(out, time);
    out.push_str(if short_zone { ":00" } else { "" });
    out.push_str(era);
    out.push('"');
}
