//! Looking for single bytes in long texts, many at a time.

/// Bytes looked at together: what a register of every 64-bit processor of today holds.
const LANE: usize = 16;

/// The place of the first byte that is `wanted`.
pub(crate) fn position(bytes: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let (lanes, rest) = bytes.as_chunks::<LANE>();
    // Without a way out in the middle, the compiler compares a whole lane at once.
    let has = |lane: &[u8; LANE]| lane.iter().fold(false, |found, &byte| found | wanted(byte));
    let clean = lanes.iter().position(has).map_or(bytes.len() - rest.len(), |lane| lane * LANE);
    let within = bytes[clean..].iter().position(|&byte| wanted(byte))?;
    Some(clean + within)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_one_is_found_wherever_it_is(bytes in "[ab]{0,70}", also in 0..80_usize) {
            let mut bytes = bytes.into_bytes();
            if let Some(byte) = bytes.get_mut(also) {
                *byte = b'"';
            }
            let slow = bytes.iter().position(|byte| *byte == b'"');
            prop_assert_eq!(position(&bytes, |byte| byte == b'"'), slow);
        }
    }
}
