//! Numbers with an exponent written out, as `numeric` prints them.

use super::Misshapen;

/// Most digits before the point that `numeric` has.
const MOST_WHOLE: i64 = 131_072;

/// Most digits after the point that `numeric` has.
const MOST_FRACTION: i64 = 16_383;

/// Appends the number without its exponent; `-0` loses its sign, as it does in `numeric`.
///
/// # Errors
/// When it is no number, or one that `numeric` cannot hold.
pub(super) fn expand(text: &str, out: &mut String) -> Result<(), Misshapen> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse().map_err(|_| Misshapen)?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if whole.is_empty() || !digits().all(|digit| digit.is_ascii_digit()) {
        return Err(Misshapen);
    }
    if digits().any(|digit| digit != b'0') {
        out.push_str(sign);
    }
    match exponent {
        0 => out.push_str(mantissa),
        _ => move_point(whole, fraction, exponent, out)?,
    }
    Ok(())
}

fn move_point(
    whole: &str,
    fraction: &str,
    exponent: i32,
    out: &mut String,
) -> Result<(), Misshapen> {
    let exponent = i64::from(exponent);
    let length = |text: &str| i64::try_from(text.len()).unwrap_or(i64::MAX);
    // Where the point is in the digits, and how many come after it.
    let point = length(whole) + exponent;
    let scale = (length(fraction) - exponent).max(0);
    if point > MOST_WHOLE || scale > MOST_FRACTION {
        return Err(Misshapen);
    }
    let digits = [whole, fraction].concat();
    let digit = |at: i64| {
        let digit = usize::try_from(at).ok().and_then(|at| digits.as_bytes().get(at));
        char::from(digit.copied().unwrap_or(b'0'))
    };
    let first = (0..point).find(|&at| digit(at) != '0').unwrap_or(point);
    if first >= point {
        out.push('0');
    }
    out.extend((first..point).map(digit));
    if scale > 0 {
        out.push('.');
        out.extend((point..point + scale).map(digit));
    }
    Ok(())
}
