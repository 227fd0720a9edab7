//! What the kernel counts for the whole machine.

use std::fs;

/// Connects that were sent again because nobody answered; `None` where that is not counted.
///
/// It is the machine's count (`TCPSynRetrans` in `/proc/net/netstat`), so others who connect
/// meanwhile are in it.
pub(crate) fn repeated_connects() -> Option<u64> {
    counted(&fs::read_to_string("/proc/net/netstat").ok()?, "TCPSynRetrans")
}

/// A count by its name: lines come in pairs, names and then their numbers.
fn counted(text: &str, name: &str) -> Option<u64> {
    let lines: Vec<_> = text.lines().collect();
    lines.chunks_exact(2).find_map(|pair| {
        let at = pair[0].split_ascii_whitespace().position(|word| word == name)?;
        pair[1].split_ascii_whitespace().nth(at)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_stands_below_its_name() {
        let text = "TcpExt: A B C\nTcpExt: 1 2 3\nIpExt: D\nIpExt: 4\n";
        assert_eq!(counted(text, "B"), Some(2));
        assert_eq!(counted(text, "D"), Some(4));
        assert_eq!(counted(text, "E"), None);
    }
}
