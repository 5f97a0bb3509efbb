//! Cuts a stream into reads.

/// The parts of `stream` with the lengths `reads`, and the rest of it as the last part.
pub fn cut<'a>(stream: &'a [u8], reads: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = stream;
    let mut parts = Vec::new();
    for &octets in reads {
        let (part, behind) = rest.split_at(usize::from(octets).min(rest.len()));
        parts.push(part);
        rest = behind;
    }
    parts.push(rest);
    parts.into_iter()
}
