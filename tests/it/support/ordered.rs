//! Ordered messages: each is sent once and has a place, so that missing, misplaced and repeated messages can be
//! recognised.

use std::collections::BTreeSet;

use super::numbered::repeats;

/// Message number `place` of a source, at least `octets` long.
pub(crate) fn ordered(source: usize, place: usize, octets: usize) -> String {
    let head = format!("<13>Mar  1 12:00:00 host app-{source}: place {place:08} ");
    let filler = octets.saturating_sub(head.len());
    head + &"x".repeat(filler)
}

/// The first `count` messages of one source.
pub(crate) fn ordered_all(count: usize, octets: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |place| ordered(0, place, octets))
}

/// Source and place of a message as it arrived.
///
/// # Panics
///
/// If the message is not whole: if its length or filling is not as [`ordered`] made it.
#[track_caller]
pub(crate) fn place_of(message: &[u8], octets: usize) -> (usize, usize) {
    let text = String::from_utf8_lossy(message);
    let number = |after: &str, until: char| {
        let rest = text.split_once(after)?.1;
        rest.split_once(until)?.0.parse::<usize>().ok()
    };
    let found = number("app-", ':').zip(number("place ", ' '));
    let (source, place) =
        found.unwrap_or_else(|| panic!("a message that this test did not send: {text}"));
    assert_eq!(
        text,
        ordered(source, place, octets),
        "the message was changed on its way"
    );
    (source, place)
}

/// The places of one source's messages in the order of arrival.
#[track_caller]
pub(crate) fn places(messages: &[Vec<u8>], octets: usize) -> Vec<usize> {
    messages
        .iter()
        .map(|message| place_of(message, octets).1)
        .collect()
}

/// Asserts that each of the first `count` places arrived, that at most `again_max` arrived again, and that the first
/// copies came in the order of sending.
#[track_caller]
pub(crate) fn assert_ordered(places: &[usize], count: usize, again_max: u64) {
    let mut seen = BTreeSet::new();
    let firsts: Vec<_> = places.iter().filter(|&&place| seen.insert(place)).collect();
    let missing: Vec<_> = (0..count).filter(|place| !seen.contains(place)).collect();
    assert!(
        missing.is_empty(),
        "{} are missing, in runs of {:?}",
        missing.len(),
        runs(&missing)
    );
    assert_eq!(seen.len(), count, "some were never sent");
    assert!(firsts.is_sorted(), "first copies out of order");
    let again = (places.len() - count) as u64;
    assert!(
        again <= again_max,
        "{again} came again, at most {again_max} expected"
    );
}

/// Runs of consecutive places: the first place and the length of each; at most ten runs.
fn runs(places: &[usize]) -> Vec<(usize, usize)> {
    let follow = places.chunk_by(|a, b| a + 1 == *b).take(10);
    follow.map(|run| (run[0], run.len())).collect()
}

/// Asserts that no message is a summary, so nothing was suppressed.
pub(crate) fn without_summaries(messages: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let is_summary = |message: &Vec<u8>| repeats(&String::from_utf8_lossy(message)).is_some();
    messages.into_iter().filter(|m| !is_summary(m)).collect()
}
