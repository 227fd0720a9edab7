//! Looking for single bytes in long texts, many at a time.

/// Bytes looked at together: what a register of every 64-bit processor of today holds.
const LANE: usize = 16;

/// Calls `found` with the place of each byte that is `wanted`, in order.
pub(crate) fn each(bytes: &[u8], wanted: impl Fn(u8) -> bool, mut found: impl FnMut(usize)) {
    let (lanes, rest) = bytes.as_chunks::<LANE>();
    let mut one_by_one = |start: usize, part: &[u8]| {
        let places = part.iter().enumerate().filter(|(_, byte)| wanted(**byte));
        places.for_each(|(within, _)| found(start + within));
    };
    for (index, lane) in lanes.iter().enumerate() {
        // Without a way out in the middle, the compiler compares a whole lane at once.
        if lane.iter().fold(false, |any, &byte| any | wanted(byte)) {
            one_by_one(index * LANE, lane);
        }
    }
    one_by_one(lanes.len() * LANE, rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_one_is_found_wherever_it_is(text in "[ab]{0,40}\"{0,3}[ab]{0,40}\"?") {
            let mut found = Vec::new();
            each(text.as_bytes(), |byte| byte == b'"', |at| found.push(at));
            let places: Vec<_> = text.match_indices('"').map(|(at, _)| at).collect();
            prop_assert_eq!(found, places);
        }
    }
}
