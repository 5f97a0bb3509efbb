//! A stream may be cut anywhere: the frames do not depend on the pieces in which it is read.

use std::collections::{BTreeMap, HashMap};

use super::support::originator::Originator;
use super::support::sink::{Sink, show};
use super::support::tersed::Setup;
use super::support::wire::Wire;

#[test]
fn every_cut_of_a_mixed_stream_gives_the_same_frames() {
    // Every framing, alone and after another. `#` stands for the connection's number.
    let parts: &[(&[u8], &[&[u8]])] = &[
        (b"<13>#### line\n", &[b"<13>#### line"]),
        (b"<13>#### CR LF\r\n", &[b"<13>#### CR LF"]),
        (b"<13>#### CR\rinside\r\r\n", &[b"<13>#### CR\rinside\r"]),
        (b"<13>#### NUL\0", &[b"<13>#### NUL"]),
        (
            b"2026 Mar 11 13:42:44 leaf-12 #### a year\n",
            &[b"2026 Mar 11 13:42:44 leaf-12 #### a year"],
        ),
        (b"15 <13>#### a\nb\0cd", &[b"<13>#### a\nb\0cd"]),
        (b"12 <13>#### one\n\n\0", &[b"<13>#### one"]),
        (
            b"99999999999 #### too many digits\n",
            &[b"99999999999 #### too many digits"],
        ),
        (
            b"<13>#### \xe2\x82\xac \xef\xbb\xbf \xff\n",
            &[b"<13>#### \xe2\x82\xac \xef\xbb\xbf \xff"],
        ),
        (
            b"<13>#### no line feed at the end",
            &[b"<13>#### no line feed at the end"],
        ),
    ];
    check("auto", parts);
}

#[test]
fn every_cut_of_a_counted_stream_gives_the_same_frames() {
    check(
        "octet-counting",
        &[
            (b"8 <13>####", &[b"<13>####"]),
            (b"13 <13>#### 7 in\n", &[b"<13>#### 7 in"]),
            (b"12 #### no PRI!", &[b"#### no PRI!"]),
            (b"not counted\n", &[]),
            (b"12 <13>#### z\n\n", &[b"<13>#### z\n\n"]),
        ],
    );
}

#[test]
fn every_cut_of_a_byte_order_mark_before_a_count_gives_the_same_frames() {
    let mark = "\u{feff}";
    let counted = format!("{mark}8 <13>####");
    let last = format!("\n{mark}12 <13>#### two");
    check(
        "octet-counting",
        &[
            (counted.as_bytes(), &[b"<13>####"]),
            (b"12 <13>#### one", &[b"<13>#### one"]),
            (last.as_bytes(), &[b"<13>#### two"]),
        ],
    );
    let (line, marked) = (
        format!("{mark}<13>#### a line\n"),
        format!("{mark}<13>#### a line"),
    );
    check(
        "auto",
        &[
            (counted.as_bytes(), &[b"<13>####"]),
            (b"12 <13>#### one", &[b"<13>#### one"]),
            (last.as_bytes(), &[b"<13>#### two"]),
            (line.as_bytes(), &[marked.as_bytes()]),
            (
                b"\xef\xbb<13>#### half a mark\n",
                &[b"\xef\xbb<13>#### half a mark"],
            ),
        ],
    );
}

#[test]
fn every_cut_of_lines_and_of_nul_ended_records_gives_the_same_frames() {
    check(
        "lf",
        &[
            (b"<13>#### a\0b\r\n", &[b"<13>#### a\0b"]),
            (b"8 <13>####\n\n", &[b"8 <13>####"]),
            (b"<13>#### last\r", &[b"<13>#### last\r"]),
        ],
    );
    check(
        "nul",
        &[
            (b"<13>#### a\nb\r\n\0", &[b"<13>#### a\nb\r\n"]),
            (b"8 <13>####\0\0", &[b"8 <13>####"]),
            (b"<13>#### last", &[b"<13>#### last"]),
        ],
    );
}

#[test]
fn every_cut_of_an_oversize_frame_gives_the_same_head() {
    let long = [b"<13>#### ".as_slice(), &[b'x'; 480 - 9]].concat();
    let other = [b"<14>#### ".as_slice(), &[b'x'; 480 - 9]].concat();
    let line = [&long[..], b"y <13>#### forged 8 <13>forg\r\n"].concat();
    let counted = [b"495 ".as_slice(), &other, b"\n<13>forged\n12\n"].concat();
    check(
        "auto",
        &[
            (&line, &[&long]),
            (&counted, &[&other]),
            (b"<13>####\n", &[b"<13>####"]),
        ],
    );
}

/// For each place at which the octets of all `parts` can be cut in two, sends them over a new connection. The second
/// piece follows when the first was read. The frames must be those of the parts.
#[track_caller]
fn check(framing: &str, parts: &[(&[u8], &[&[u8]])]) {
    let stream: Vec<u8> = parts
        .iter()
        .flat_map(|(octets, _)| *octets)
        .copied()
        .collect();
    let frames: Vec<&[u8]> = parts
        .iter()
        .flat_map(|(_, frames)| *frames)
        .copied()
        .collect();
    let sink = Sink::tcp_framed(Wire::OctetCounting);
    let keys = format!(
        "framing = \"{framing}\"\nmax_message_size = \"480B\"\nconnections_per_source_max = 1024"
    );
    let tersed = Setup::new()
        .listener(TCP, &keys)
        .forward_counted(&sink, "")
        .window("1h")
        .start();
    let address = tersed.address(TCP);
    let cuts = 1..stream.len();
    let mut connections: Vec<_> = cuts
        .clone()
        .map(|cut| {
            let mut originator = Originator::tcp(address).without_delay();
            originator.send_octets(&numbered(&stream, cut)[..cut]);
            (originator, cut)
        })
        .collect();
    Originator::wait_all_read(connections.iter().map(|(originator, _)| originator));
    for (originator, cut) in &mut connections {
        originator.send_octets(&numbered(&stream, *cut)[*cut..]);
        originator.half_close();
    }
    for (originator, _) in connections {
        originator.wait_closed();
    }
    let messages = sink.wait_messages(frames.len() * cuts.len());
    let mut arrived: BTreeMap<Option<usize>, Vec<Vec<u8>>> = BTreeMap::new();
    let owner: HashMap<_, _> = cuts
        .clone()
        .flat_map(|cut| frames.iter().map(move |frame| (numbered(frame, cut), cut)))
        .collect();
    for message in messages {
        let cut = owner.get(&message).copied();
        arrived.entry(cut).or_default().push(message);
    }
    if let Some(alien) = arrived.get(&None) {
        panic!("{framing}: frames that were never sent: {}", show(alien));
    }
    for cut in cuts {
        let expected: Vec<_> = frames.iter().map(|frame| numbered(frame, cut)).collect();
        let arrived = arrived.remove(&Some(cut)).unwrap_or_default();
        assert_eq!(
            arrived,
            expected,
            "{framing}, cut at {cut}: {}",
            show(&arrived)
        );
    }
    tersed.finish();
}

/// `octets` with the connection's number in place of each `####`.
fn numbered(octets: &[u8], number: usize) -> Vec<u8> {
    let mut octets = octets.to_vec();
    let digits = format!("{number:04}").into_bytes();
    while let Some(at) = octets.windows(4).position(|window| window == b"####") {
        octets[at..at + 4].copy_from_slice(&digits);
    }
    octets
}

const TCP: &str = "tcp://127.0.0.1:0";
