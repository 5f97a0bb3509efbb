//! Streams, and the frames that must come out of them however they are cut.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that indexes wrongly shall fail"
)]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// An [`Outcome`] that owns its octets and is never [`Outcome::More`].
#[derive(Clone, Debug, Eq, PartialEq)]
enum Seen {
    Whole(String),
    Head(String),
    Empty,
    Fault(FrameFault),
    Hopeless,
}

fn whole(octets: impl AsRef<[u8]>) -> Seen {
    Seen::Whole(octets.as_ref().escape_ascii().to_string())
}

fn head(octets: impl AsRef<[u8]>) -> Seen {
    Seen::Head(octets.as_ref().escape_ascii().to_string())
}

fn frames(octets: &[&str]) -> Vec<Seen> {
    octets.iter().map(whole).collect()
}

const INCOMPLETE: Seen = Seen::Fault(FrameFault::Incomplete);
const TOO_LARGE: Seen = Seen::Fault(FrameFault::CountTooLarge);
const BAD: Seen = Seen::Fault(FrameFault::BadFrame);

/// Feeds `reads` one after the other as a connection would, and checks the framer's guarantees after
/// each.
fn run<'a>(
    framer: &mut Framer,
    reads: impl IntoIterator<Item = &'a [u8]>,
    end: Option<End>,
) -> Vec<Seen> {
    let mut buffer = Vec::new();
    let mut seen = Vec::new();
    for read in reads {
        buffer.extend_from_slice(read);
        drain(&mut buffer, &mut seen, |input| framer.next(input));
        assert!(
            buffer.len() <= framer.buffer_octets_max(),
            "{} octets held",
            buffer.len()
        );
        assert!(
            !framer.between_frames() || buffer.is_empty(),
            "{framer:?} forgets {buffer:?}"
        );
    }
    if let Some(end) = end {
        drain(&mut buffer, &mut seen, |input| framer.finish(input, end));
        assert!(
            buffer.is_empty() && framer.between_frames(),
            "{framer:?} left {buffer:?}"
        );
    }
    seen
}

fn drain(
    buffer: &mut Vec<u8>,
    seen: &mut Vec<Seen>,
    mut step: impl for<'a> FnMut(&'a [u8]) -> Step<'a>,
) {
    let mut standing_still = 0;
    loop {
        let Step { consumed, outcome } = step(buffer);
        assert!(consumed <= buffer.len());
        standing_still = if consumed > 0 { 0 } else { standing_still + 1 };
        assert!(standing_still < 4, "{outcome:?} for ever");
        match outcome {
            Outcome::Frame(Frame {
                octets,
                oversize: false,
            }) => seen.push(whole(octets)),
            Outcome::Frame(Frame {
                octets,
                oversize: true,
            }) => seen.push(head(octets)),
            Outcome::Empty => seen.push(Seen::Empty),
            Outcome::Fault(fault) => seen.push(Seen::Fault(fault)),
            Outcome::Hopeless => seen.push(Seen::Hopeless),
            Outcome::More => {
                buffer.drain(..consumed);
                return;
            }
        }
        buffer.drain(..consumed);
    }
}

/// What comes out of `input` in one read, followed by the end.
fn seen_whole(framing: Framing, max: usize, input: &[u8], end: End) -> Vec<Seen> {
    run(&mut Framer::new(framing, max), [input], Some(end))
}

/// Whole, octet by octet, cut at every position, and (when short) at every pair of positions.
fn check_end(framing: Framing, max: usize, input: &[u8], end: End, expected: &[Seen]) {
    let check_cut = |reads: &[&[u8]]| {
        let seen = run(
            &mut Framer::new(framing, max),
            reads.iter().copied(),
            Some(end),
        );
        assert_eq!(
            seen,
            expected,
            "{framing:?} max {max}: {}",
            cuts_shown(reads)
        );
    };
    check_cut(&[input]);
    check_cut(&input.chunks(1).collect::<Vec<_>>());
    for first in 0..input.len() {
        check_cut(&[&input[..first], &input[first..]]);
        if input.len() <= 64 {
            for second in first..input.len() {
                check_cut(&[&input[..first], &input[first..second], &input[second..]]);
            }
        }
    }
}

fn cuts_shown(reads: &[&[u8]]) -> String {
    reads
        .iter()
        .map(|read| read.escape_ascii().to_string())
        .collect::<Vec<_>>()
        .join(" | ")
}

fn check(framing: Framing, max: usize, input: impl AsRef<[u8]>, expected: &[Seen]) {
    check_end(framing, max, input.as_ref(), End::Closed, expected);
}

fn auto(input: impl AsRef<[u8]>, expected: &[&str]) {
    check(Framing::Auto, 480, input, &frames(expected));
}

#[test]
fn lines_end_at_lf_cr_lf_and_nul() {
    auto(
        "<13>a\n<13>b\r\n<13>c\0<13>d\n",
        &["<13>a", "<13>b", "<13>c", "<13>d"],
    );
}

#[test]
fn only_one_cr_before_lf_belongs_to_the_trailer() {
    auto("a\r\r\nb\rc\nd\r\0e\r", &["a\r", "b\rc", "d\r", "e\r"]);
    auto("\r\r\n", &["\r"]);
}

#[test]
fn a_last_line_without_lf_is_a_frame() {
    auto("<13>a\n<13>b", &["<13>a", "<13>b"]);
    auto("12", &["12"]);
    auto("12 ", &["12 "]);
    auto("<", &["<"]);
}

#[test]
fn a_last_line_may_be_a_fragment_if_the_end_is_a_truncation() {
    let expected = [whole("<13>a"), INCOMPLETE];
    check_end(
        Framing::Auto,
        480,
        b"<13>a\n<13>b",
        End::Truncated,
        &expected,
    );
    check_end(
        Framing::Auto,
        480,
        b"<13>a\n7 <13>",
        End::Truncated,
        &expected,
    );
    check_end(
        Framing::Auto,
        480,
        b"<13>a\n",
        End::Truncated,
        &expected[..1],
    );
    check_end(
        Framing::Auto,
        480,
        b"5 hello",
        End::Truncated,
        &[whole("hello")],
    );
}

#[test]
fn octet_counted_frames_survive_any_cut() {
    auto("5 hello3 bye", &["hello", "bye"]);
    auto("9 <13>hello7 <13>bye", &["<13>hello", "<13>bye"]);
}

#[test]
fn nothing_inside_a_counted_body_is_looked_at() {
    auto("14 <13>a\n7 <13>\0b5 <1>ab", &["<13>a\n7 <13>\0b", "<1>ab"]);
    auto("10 <13>\r\n\r\n\r\n<13>x\n", &["<13>\r\n\r\n\r\n", "<13>x"]);
    auto("6 <13>\u{e9}", &["<13>\u{e9}"]);
}

#[test]
fn stray_trailers_behind_counted_frames_are_skipped() {
    auto(
        "6 <13>ab\n6 <13>cd\0\n\0\n<13>e\n\n",
        &["<13>ab", "<13>cd", "<13>e"],
    );
    auto("\n\0\n", &[]);
}

#[test]
fn openbsd_counts_the_lf() {
    auto("7 <13>ab\n7 <13>cd\n", &["<13>ab\n", "<13>cd\n"]);
    auto("3 ab\n3 cd\n", &["ab\n", "cd\n"]);
}

#[test]
fn an_empty_line_is_counted_and_ignored() {
    let cr_lf = [Seen::Empty, whole("a"), Seen::Empty];
    check(Framing::Auto, 480, "\r\na\n\n\r\n", &cr_lf);
    check(Framing::Lf, 480, "\na\r\n\r\n", &cr_lf);
    check(Framing::Nul, 480, "\0a\0\0", &cr_lf);
}

#[test]
fn both_methods_mix_on_one_connection() {
    auto(
        "<13>a\n6 <13>bc<13>d\r\n6 <13>ef\n<13>g",
        &["<13>a", "<13>bc", "<13>d", "<13>ef", "<13>g"],
    );
}

#[test]
fn a_line_that_begins_with_a_year_keeps_its_neighbours() {
    auto(
        "2026 Mar 11 13:42:44 leaf-12 %ETHPORT-5-IF_DOWN: Ethernet1/1\n<13>next\n",
        &[
            "2026 Mar 11 13:42:44 leaf-12 %ETHPORT-5-IF_DOWN: Ethernet1/1",
            "<13>next",
        ],
    );
    auto("12 monkeys\n<13>next\n", &["12 monkeys", "<13>next"]);
    // The look-ahead holds no trailer in 4 octets, and a blank stands where the next frame would begin.
    auto("3 little pigs\n<13>next\n", &["3 little pigs", "<13>next"]);
}

#[test]
fn digits_that_are_no_count_begin_a_line() {
    for line in [
        "0 a",
        "05 <13>a",
        "12345678901 <13>a",
        "99999999999999999999999999 <13>a",
        "12:34:56 a",
        "5\ta",
        "5",
        "-5 <13>",
        "+5 <13>",
        " 5 <13>",
        "5  <13>abcdefg",
    ] {
        auto(format!("{line}\n<13>next\n"), &[line, "<13>next"]);
    }
}

#[test]
fn a_pri_confirms_a_count_only_if_the_count_covers_it() {
    auto("4 <13>5 <13>a", &["<13>", "<13>a"]);
    auto("3 <13>a\n<13>b\n", &["3 <13>a", "<13>b"]);
    auto("3 <1>4 <13>", &["<1>", "<13>"]);
    auto("9 <1234>abc\n<13>b\n", &["<1234>abc", "<13>b"]);
    auto("20 <>abc\n<13>b\n", &["20 <>abc", "<13>b"]);
    auto("20 <1\n<13>b\n", &["20 <1", "<13>b"]);
}

#[test]
fn a_count_without_pri_is_confirmed_by_where_it_ends() {
    auto("5 hello\n3 bye\n", &["hello", "bye"]);
    auto("5 hello\0", &["hello"]);
    auto("5 hell\n", &["hell\n"]);
    auto("5 hel\n<13>a\n", &["5 hel", "<13>a"]);
    auto("5 hello", &["hello"]);
    auto("5 hell", &["5 hell"]);
    auto("5 hello6 <13>ab", &["hello", "<13>ab"]);
    auto("5 hello0", &["5 hello0"]);
    auto("1 a1 b", &["a", "b"]);
    auto("1 \n1 b", &["\n", "b"]);
}

#[test]
fn one_counted_frame_decides_what_digits_mean_on_its_connection() {
    auto(
        "6 <13>ab8 2 and 2\n4 a\nb\n",
        &["<13>ab", "2 and 2\n", "a\nb\n"],
    );
    // Without an earlier counted frame the same octets are lines.
    auto("<13>ab\n10 2 and 2\n", &["<13>ab", "10 2 and 2"]);
}

#[test]
fn an_implausible_count_is_text() {
    let next = || whole("<13>next");
    check(
        Framing::Auto,
        480,
        "16777217 <13>a\n<13>next\n",
        &[TOO_LARGE, whole("16777217 <13>a"), next()],
    );
    check(
        Framing::Auto,
        480,
        "9999999999 <191>a\n<13>next\n",
        &[TOO_LARGE, whole("9999999999 <191>a"), next()],
    );
    // Without a PRI it is no count: a line may well begin with ten digits.
    auto("9999999999 a\n<13>next\n", &["9999999999 a", "<13>next"]);
    auto(
        "9999999999 <13\n<13>next\n",
        &["9999999999 <13", "<13>next"],
    );
    auto("9999999999 <1", &["9999999999 <1"]);
    // An earlier counted frame does not make such a count believable.
    check(
        Framing::Auto,
        480,
        "4 <13>4294967297 <13>a\n",
        &[whole("<13>"), TOO_LARGE, whole("4294967297 <13>a")],
    );
}

/// CVE-2018-16881, GHSA-cj5r-wh2m-7w29: the count overflowed, or became negative at the end of an
/// oversize frame.
#[test]
fn counts_at_the_edges_of_integers_are_lines() {
    for count in [
        "2147483647",
        "2147483648",
        "4294967295",
        "4294967296",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
    ] {
        let line = format!("{count} <13>a");
        let mut expected = vec![whole(&line), whole("<13>b")];
        if count.len() <= 10 {
            expected.insert(0, TOO_LARGE);
        }
        check(Framing::Auto, 480, format!("{line}\n<13>b\n"), &expected);
        check(
            Framing::OctetCounting,
            480,
            format!("{line}\n5 <13>b"),
            &[BAD, whole("<13>b")],
        );
    }
}

#[test]
fn an_end_inside_a_counted_frame_drops_the_fragment() {
    check(Framing::Auto, 480, "9 <13>ab", &[INCOMPLETE]);
    check(
        Framing::Auto,
        480,
        "5 <1>ab9 <",
        &[whole("<1>ab"), INCOMPLETE],
    );
    check(Framing::Auto, 4, "9 <13>", &[head("<13>")]);
    check(Framing::Auto, 5, "9 <13>", &[INCOMPLETE]);
    check(Framing::OctetCounting, 480, "9 abc", &[INCOMPLETE]);
    check(Framing::OctetCounting, 480, "9", &[INCOMPLETE]);
}

#[test]
fn a_line_of_exactly_the_maximum_is_whole() {
    for end in ["\n", "\r\n", ""] {
        check(
            Framing::Auto,
            8,
            format!("<13>abcd{end}"),
            &[whole("<13>abcd")],
        );
        check(
            Framing::Lf,
            8,
            format!("<13>abcd{end}"),
            &[whole("<13>abcd")],
        );
    }
    check(Framing::Auto, 8, "<13>abcd\0", &[whole("<13>abcd")]);
    check(Framing::Nul, 8, "<13>abcd\0", &[whole("<13>abcd")]);
}

#[test]
fn a_line_of_one_octet_more_is_oversize() {
    let expected = [head("<13>abcd"), whole("<13>b")];
    check(Framing::Auto, 8, "<13>abcde\n<13>b\n", &expected);
    check(Framing::Auto, 8, "<13>abcde\r\n<13>b\n", &expected);
    check(Framing::Auto, 8, "<13>abcd\r\r\n<13>b\n", &expected);
    check(Framing::Auto, 8, "<13>abcd\r\0<13>b\n", &expected);
    check(Framing::Auto, 8, "<13>abcd\rx\n<13>b\n", &expected);
    check(Framing::Lf, 8, "<13>abcd\0\n<13>b\n", &expected);
    check(Framing::Nul, 8, "<13>abcd\n\0<13>b\0", &expected);
    check(Framing::Nul, 8, "<13>abcd\r\0<13>b\0", &expected);
    check(Framing::Auto, 8, "<13>abcd\r", &expected[..1]);
    check(Framing::Auto, 8, "<13>abcde", &expected[..1]);
}

/// F31: they would be injected messages.
#[test]
fn frames_in_the_remainder_of_an_oversize_frame_are_not_frames() {
    check(
        Framing::Auto,
        8,
        "25 <13>abcd<1>x\n5 <13>y\n<1>z<1>a\n",
        &[head("<13>abcd"), whole("<1>a")],
    );
    check(
        Framing::Auto,
        8,
        "<13>abcde5 <13>x<13>y 5 <13>z\n<1>a\n",
        &[head("<13>abcd"), whole("<1>a")],
    );
}

#[test]
fn a_count_beyond_the_maximum_needs_a_pri_or_the_lock() {
    check(
        Framing::Auto,
        8,
        "9 abcdefghi9 abcdefghi",
        &[head("9 abcdef")],
    );
    check(
        Framing::Auto,
        8,
        "8 abcdefgh8 abcdefgh",
        &frames(&["abcdefgh", "abcdefgh"]),
    );
    check(
        Framing::Auto,
        8,
        "9 <1>defghi\n1 a",
        &[head("<1>defgh"), whole("a")],
    );
    check(
        Framing::Auto,
        8,
        "1 a1 b9 abcdefghi1 c",
        &[whole("a"), whole("b"), head("abcdefgh"), whole("c")],
    );
    // The look-ahead is as long as the maximum and fails: the line is longer than the maximum.
    check(
        Framing::Auto,
        8,
        "8 abcdefghx\n<1>a\n",
        &[head("8 abcdef"), whole("<1>a")],
    );
    check(Framing::Auto, 8, "8 abcdefg", &[head("8 abcdef")]);
}

#[test]
fn forced_lf_takes_nul_and_digits_as_they_are() {
    check(
        Framing::Lf,
        480,
        "5 <13>a\0b\r\n\0\n",
        &[whole("5 <13>a\0b"), whole("\0")],
    );
}

#[test]
fn forced_nul_takes_lf_and_cr_as_they_are() {
    check(
        Framing::Nul,
        480,
        "5 <13>a\nb\r\n\0c",
        &[whole("5 <13>a\nb\r\n"), whole("c")],
    );
}

#[test]
fn forced_octet_counting_skips_to_the_next_lf() {
    check(
        Framing::OctetCounting,
        480,
        "5 hello<13>bad\n\n\x003 bye5x\n16777217 no\n1 \n1 a",
        &[
            whole("hello"),
            BAD,
            whole("bye"),
            BAD,
            BAD,
            whole("\n"),
            whole("a"),
        ],
    );
    check(Framing::OctetCounting, 480, "12\n1 a", &[BAD, whole("a")]);
    check(Framing::OctetCounting, 480, "bad", &[BAD]);
    check(
        Framing::OctetCounting,
        2,
        "3 abc1 d",
        &[head("ab"), whole("d")],
    );
}

#[test]
fn a_good_frame_makes_up_for_bad_ones() {
    let mut input = String::new();
    let mut expected = Vec::new();
    for _ in 0..3 {
        input += &"x\n".repeat(7);
        expected.extend(vec![BAD; 7]);
        input += "1 a";
        expected.push(whole("a"));
    }
    check(Framing::OctetCounting, 480, input, &expected);
}

#[test]
fn eight_bad_frames_in_a_row_are_hopeless() {
    let mut expected = vec![BAD; 8];
    expected.push(Seen::Hopeless);
    check(Framing::OctetCounting, 480, "x\n".repeat(8), &expected);
    check(
        Framing::OctetCounting,
        480,
        "x\n".repeat(9) + "1 a",
        &expected,
    );
}

#[test]
fn pending_octets_and_skipped_octets_are_inside_a_frame() {
    for (input, between) in [
        ("", true),
        ("\n", true),
        ("<13>a\n", true),
        ("5 <13>a", true),
        ("<", false),
        ("1", false),
        ("1 ", false),
        ("5 <13>", false),
        ("<13>abcdef", false),
        ("<13>abcdef\n", true),
        ("9 <13>abcd", false),
        ("9 <13>abcde", true),
    ] {
        let mut framer = Framer::new(Framing::Auto, 8);
        run(&mut framer, [input.as_bytes()], None);
        assert_eq!(framer.between_frames(), between, "{input:?}");
    }
}

/// F30: memory stays flat, one frame is oversize, and the connection continues.
#[test]
fn a_giant_line_costs_one_head() {
    let read = [b'a'; 65_536];
    let reads = std::iter::repeat_n(&read[..], 1_024).chain([&b"\n<13>b\n"[..]]);
    let seen = run(&mut Framer::new(Framing::Auto, 512), reads, None);
    assert_eq!(seen, [head(&read[..512]), whole("<13>b")]);
}

#[test]
fn a_giant_counted_frame_costs_one_head() {
    let read = [b'\n'; 65_536];
    let reads = [&b"16777216 <13>"[..]]
        .into_iter()
        .chain(std::iter::repeat_n(&read[..], 255))
        .chain([&read[4..], b"5 <13>b"]);
    let seen = run(&mut Framer::new(Framing::Auto, 512), reads, None);
    assert_eq!(
        seen,
        [head([b"<13>", &read[4..512]].concat()), whole("<13>b")]
    );
}

/// F32, CVE-2022-24903: digits were written past a buffer. Other octets kept the scanner busy.
#[test]
fn floods_are_one_oversize_line_each() {
    for octet in [b'1', b'0', b'\r', b'<', b' ', 0xff] {
        let flood = vec![octet; 300];
        let mut expected = vec![head(&flood[..100])];
        check(Framing::Auto, 100, &flood, &expected);
        let mut followed = flood.clone();
        followed.extend_from_slice(b"\n<13>a\n");
        expected.push(whole("<13>a"));
        check(Framing::Auto, 100, followed, &expected);
    }
    for octet in [0, b'\n'] {
        check(Framing::Auto, 100, vec![octet; 300], &[]);
    }
}

/// F32: scanning for trailers is linear, however small the reads. The state says where the next scan
/// begins.
#[test]
fn waiting_does_not_scan_again() {
    for (input, scanned) in [
        (&b"<13>abcdef"[..], State::Line { scanned: 10 }),
        (
            b"99 abcdef",
            State::Classify {
                mark: 0,
                scanned: 9,
            },
        ),
        (
            b"99 <13>abc",
            State::Body {
                header_octets: 3,
                msg_len: 99,
            },
        ),
    ] {
        let mut framer = Framer::new(Framing::Auto, 480);
        for end in 0..=input.len() {
            assert_eq!(framer.next(&input[..end]), Step::MORE);
        }
        assert_eq!(framer.state, scanned);
    }
}

#[test]
fn a_count_costs_the_same_whatever_it_counts() {
    let mut input = b"10000 <13>".to_vec();
    input.resize(10_006, b'\n');
    let mut framer = Framer::new(Framing::Auto, 480);
    let step = framer.next(&input);
    assert_eq!(step.consumed, 6 + 480);
    assert_eq!(framer.state, State::SkipOctets { left: 10_000 - 480 });
}

/// Some senders put a byte order mark before the first count, others before each.
#[test]
fn a_byte_order_mark_before_a_count_is_dropped() {
    auto("\u{feff}6 <13>ab6 <13>cd", &["<13>ab", "<13>cd"]);
    auto(
        "\u{feff}6 <13>ab\n\u{feff}6 <13>cd<13>e\n\u{feff}5 <13>f",
        &["<13>ab", "<13>cd", "<13>e", "<13>f"],
    );
    auto("\u{feff}5 hello\n\u{feff}5 world", &["hello", "world"]);
    auto("\u{feff}5 hello", &["hello"]);
    check(
        Framing::OctetCounting,
        480,
        "\u{feff}6 <13>ab\n\u{feff}1 c\u{feff}1 d",
        &frames(&["<13>ab", "c", "d"]),
    );
    // The counted octets begin behind the count.
    auto(
        "\u{feff}8 \u{feff}<13>a6 <13>bc",
        &["\u{feff}<13>a", "<13>bc"],
    );
    auto("6 <13>ab8 \u{feff}<13>c", &["<13>ab", "\u{feff}<13>c"]);
    check(
        Framing::Auto,
        8,
        "\u{feff}9 <13>abcde\u{feff}5 <13>f",
        &[head("<13>abcd"), whole("<13>f")],
    );
}

#[test]
fn a_byte_order_mark_before_a_line_belongs_to_the_line() {
    auto("\u{feff}<13>a\n<13>b\n", &["\u{feff}<13>a", "<13>b"]);
    auto(
        "\u{feff}12 monkeys\n\u{feff}\n\u{feff}",
        &["\u{feff}12 monkeys", "\u{feff}", "\u{feff}"],
    );
    check(
        Framing::Auto,
        480,
        b"\xef\xbb<13>a\n\xef\n\xef\xbb\xbe5 b\n\xef",
        &[
            whole(b"\xef\xbb<13>a"),
            whole(b"\xef"),
            whole(b"\xef\xbb\xbe5 b"),
            whole(b"\xef"),
        ],
    );
    check(
        Framing::Auto,
        480,
        "\u{feff}16777217 <13>a\n",
        &[TOO_LARGE, whole("\u{feff}16777217 <13>a")],
    );
    for framing in [Framing::Lf, Framing::Nul] {
        check(framing, 480, "\u{feff}5 hello", &[whole("\u{feff}5 hello")]);
    }
    check(
        Framing::OctetCounting,
        480,
        "\u{feff}<13>a\n\u{feff}5 hello",
        &[BAD, whole("hello")],
    );
    check(
        Framing::OctetCounting,
        480,
        b"\xef\xbb1 a\n1 b",
        &[BAD, whole("b")],
    );
}

/// rsyslog counts compressed messages, whatever the framing of the others: they hold line ends.
#[test]
fn a_compressed_message_confirms_its_count() {
    for message in [
        &b"zx\x9c\xb2\x31\x34\x36\xb1\xf3\n\0\n"[..],
        b"zx\x01\x00\n\n\xf5\xf5\n\n\n",
        b"zx\xda\xb2\x31\x34\x36\xb1\xf3\xff\n\n",
        b"zx^\xb2\x31\x34\x36\xb1\xf3\n\n",
    ] {
        let stream = [
            b"<13>a\n",
            format!("{} ", message.len()).as_bytes(),
            message,
            b"5 <13>b<13>c\n",
        ]
        .concat();
        let expected = [
            whole("<13>a"),
            whole(message),
            whole("<13>b"),
            whole("<13>c"),
        ];
        check(Framing::Auto, 480, stream, &expected);
    }
    auto("15 zx^2 + zy^2\n<13>a\n", &["15 zx^2 + zy^2", "<13>a"]);
    auto("99 zx^\n<13>a\n", &["99 zx^", "<13>a"]);
    auto("3 zx\n<13>a\n", &["zx\n", "<13>a"]);
}

fn any_framing() -> impl Strategy<Value = Framing> {
    prop_oneof![
        Just(Framing::Auto),
        Just(Framing::OctetCounting),
        Just(Framing::Lf),
        Just(Framing::Nul)
    ]
}

/// Streams of the octets that decide (digits, spaces, PRIs, trailers) and pieces of text between them.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => (1usize..24).prop_map(|count| format!("{count} ").into_bytes()),
        3 => vec(prop_oneof![Just(b'a'), Just(b' '), Just(b'1'), Just(b'<')], 0..12),
        2 => Just(b"<13>".to_vec()),
        2 => Just(b"\n".to_vec()),
        1 => Just(b"\r\n".to_vec()),
        1 => Just(b"\r".to_vec()),
        1 => Just(b"\0".to_vec()),
        1 => Just(b"<1".to_vec()),
        1 => Just(b"\xef\xbb\xbf".to_vec()),
        1 => Just(b"\xef".to_vec()),
        1 => Just(b"zx\x9c\xb2\x31\x34\x36\xb1\xf3".to_vec()),
        1 => Just(b"zx^".to_vec()),
        1 => Just(b"16777217 ".to_vec()),
        1 => Just(b"99999999999".to_vec()),
        1 => vec(any::<u8>(), 0..8),
    ];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn cut<'a>(input: &'a [u8], reads: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = input;
    let mut parts = Vec::new();
    for &octets in reads {
        let (part, behind) = rest.split_at(octets.min(rest.len()));
        parts.push(part);
        rest = behind;
    }
    parts.push(rest);
    parts
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_yields_the_same_outcomes(
        framing in any_framing(),
        max in 1usize..40,
        stream in any_stream(),
        reads in vec(0usize..9, 0..60),
        truncated in any::<bool>(),
    ) {
        let end = if truncated { End::Truncated } else { End::Closed };
        let whole = seen_whole(framing, max, &stream, end);
        let parts = run(&mut Framer::new(framing, max), cut(&stream, &reads), Some(end));
        prop_assert_eq!(parts, whole.clone());
        let octets = run(&mut Framer::new(framing, max), stream.chunks(1), Some(end));
        prop_assert_eq!(octets, whole);
    }

    #[test]
    fn a_byte_order_mark_before_a_count_changes_nothing(
        max in 1usize..40,
        stream in any_stream(),
        reads in vec(0usize..9, 0..60),
    ) {
        let marked = [b"\xef\xbb\xbf", &stream[..]].concat();
        let end = End::Closed;
        if !matches!(stream.first(), None | Some(b'\n' | 0 | 0xef)) {
            let framing = Framing::OctetCounting;
            let seen = run(&mut Framer::new(framing, max), cut(&marked, &reads), Some(end));
            prop_assert_eq!(seen, seen_whole(framing, max, &stream, end));
        }
    }

    #[test]
    fn arbitrary_octets_frame_without_panic(
        framing in any_framing(),
        max in 0usize..600,
        stream in vec(any::<u8>(), 0..2_000),
    ) {
        seen_whole(framing, max, &stream, End::Closed);
    }

    #[test]
    fn lines_and_counted_frames_come_back_as_they_were_sent(
        messages in vec((any::<bool>(), "[^\n\r\0]{0,60}", 0u8..192), 1..20),
        reads in vec(0usize..50, 0..40),
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for (counted, text, prival) in &messages {
            let message = format!("<{prival}>{text}");
            stream.extend(if *counted {
                format!("{} {message}", message.len())
            } else {
                format!("{message}\n")
            }.into_bytes());
            expected.push(whole(message));
        }
        let parts = cut(&stream, &reads);
        prop_assert_eq!(run(&mut Framer::new(Framing::Auto, 480), parts, Some(End::Closed)), expected);
    }

    #[test]
    fn counted_frames_hold_any_octets(
        bodies in vec(vec(any::<u8>(), 1..80), 1..20),
        reads in vec(0usize..50, 0..40),
    ) {
        let mut auto_stream = b"4 <13>".to_vec();
        for body in &bodies {
            auto_stream.extend_from_slice(format!("{} ", body.len()).as_bytes());
            auto_stream.extend_from_slice(body);
        }
        let mut expected = vec![whole("<13>")];
        expected.extend(bodies.iter().map(whole));
        for framing in [Framing::Auto, Framing::OctetCounting] {
            let parts = cut(&auto_stream, &reads);
            let seen = run(&mut Framer::new(framing, 480), parts, Some(End::Closed));
            prop_assert_eq!(seen, expected.clone());
        }
    }
}
