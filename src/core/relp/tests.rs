//! Streams and the frames that must come out of them however they are cut, sessions and their faults.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that indexes wrongly shall fail"
)]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const MAX: usize = 40;

/// The frames in `reads`, in words, and the fault that ended them.
fn run<'a>(reads: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, Option<RelpFault>) {
    let mut buffer = Vec::new();
    let mut seen = Vec::new();
    for read in reads {
        buffer.extend_from_slice(read);
        loop {
            match Frame::first(&buffer, MAX) {
                Ok(None) => break,
                Ok(Some((frame, consumed))) => {
                    seen.push(format!(
                        "{} {} {}",
                        frame.txnr.number(),
                        frame.command.word().escape_ascii(),
                        frame.data.escape_ascii()
                    ));
                    buffer.drain(..consumed);
                }
                Err(fault) => return (seen, Some(fault)),
            }
        }
        assert!(buffer.len() < MAX + FRAME_OCTETS_EXTRA);
    }
    (seen, None)
}

/// Checks `stream` whole, octet by octet and cut in two at each place.
fn check(stream: &[u8], frames: &[&str], fault: Option<RelpFault>) {
    let expected = (
        frames.iter().map(|&frame| frame.to_owned()).collect(),
        fault,
    );
    assert_eq!(run([stream]), expected, "{}", stream.escape_ascii());
    assert_eq!(run(stream.chunks(1)), expected, "octet by octet");
    for at in 0..stream.len() {
        let (one, two) = stream.split_at(at);
        assert_eq!(run([one, two]), expected, "cut at {at}");
    }
}

#[test]
fn frames_survive_any_cut() {
    check(b"", &[], None);
    check(b"1 open 3 a=b\n", &["1 open a=b"], None);
    check(
        b"1 syslog 3 a\nb\n2 syslog 1 \n\n3 close 0\n",
        &["1 syslog a\\nb", "2 syslog \\n", "3 close "],
        None,
    );
    // With a superfluous space.
    check(b"3 close 0 \n4 rsp 0\n", &["3 close ", "4 rsp "], None);
    check(b"0 serverclose 0\n", &["0 serverclose "], None);
    check(b"000000007 x 01 y\n", &["7 x y"], None);
    check(b"999999999 syslog 2 a", &[], None);
    check(
        b"1 abcdefghijklmnopqrstuvwxyzABCDEF 0\n",
        &["1 abcdefghijklmnopqrstuvwxyzABCDEF "],
        None,
    );
    check(b"1 syslogs 1 a\n", &["1 syslogs a"], None);
}

#[test]
fn every_fault_of_a_frame_is_named_whatever_the_cut() {
    for (stream, fault) in [
        (&b" open 0\n"[..], RelpFault::BadTxnr),
        (b"\n", RelpFault::BadTxnr),
        (b"x", RelpFault::BadTxnr),
        (b"<13>a message", RelpFault::BadTxnr),
        (b"1\n", RelpFault::BadTxnr),
        (b"+1 open 0\n", RelpFault::BadTxnr),
        (b"1234567890 open 0\n", RelpFault::BadTxnr),
        (b"1  0\n", RelpFault::BadCommand),
        (b"1 op-en 0\n", RelpFault::BadCommand),
        (b"1 open\n", RelpFault::BadCommand),
        (b"123 <13>octet counted", RelpFault::BadCommand),
        (
            b"1 abcdefghijklmnopqrstuvwxyzABCDEFG 0\n",
            RelpFault::BadCommand,
        ),
        (b"1 open \n", RelpFault::BadDataLen),
        (b"1 open x\n", RelpFault::BadDataLen),
        (b"1 open 1\n", RelpFault::BadDataLen),
        (b"1 open 0000000000\n", RelpFault::BadDataLen),
        (b"1 open 1000000000 a", RelpFault::BadDataLen),
        (
            b"1 open 999999999 a",
            RelpFault::TooLong {
                data_len: 999_999_999,
                max: MAX,
            },
        ),
        (
            b"1 open 41 a",
            RelpFault::TooLong {
                data_len: 41,
                max: MAX,
            },
        ),
        (b"1 syslog 1 ab\n", RelpFault::NoTrailer),
        (b"1 syslog 1 a2 syslog 1 b\n", RelpFault::NoTrailer),
        (b"1 close 0 x\n", RelpFault::NoTrailer),
        // A TLS client and a web browser.
        (b"\x16\x03\x01\x02\x00", RelpFault::BadTxnr),
        (b"GET / HTTP/1.1\r\n", RelpFault::BadTxnr),
    ] {
        check(stream, &[], Some(fault));
        let behind = [b"7 syslog 1 a\n", stream].concat();
        check(&behind, &["7 syslog a"], Some(fault));
    }
}

#[test]
fn the_longest_data_pass_and_one_octet_more_does_not() {
    let data = vec![b'x'; MAX];
    let mut wire = Vec::new();
    let frame = Frame {
        txnr: Txnr::LAST,
        command: Command::Syslog,
        data: &data,
    };
    frame.write(&mut wire);
    assert_eq!(Frame::first(&wire, MAX), Ok(Some((frame, wire.len()))));
    assert_eq!(
        Frame::first(&wire, MAX - 1),
        Err(RelpFault::TooLong {
            data_len: 40,
            max: 39
        })
    );
    assert_eq!(wire.len(), frame.wire_octets());
}

#[test]
fn numbers_wrap_and_skip_zero() {
    assert_eq!(Txnr::LAST.next(), Txnr::FIRST);
    assert_eq!(Txnr::FIRST.plus(999_999_998), Txnr::LAST);
    assert_eq!(Txnr::FIRST.plus(999_999_999), Txnr::FIRST);
    assert_eq!(Txnr::LAST.plus(0), Txnr::LAST);
    assert_eq!(Txnr::LAST.plus(5), Txnr(5));
    // 4294967302 less four times 999999999.
    assert_eq!(Txnr(7).plus(u32::MAX), Txnr(294_967_306));
}

#[test]
fn responses_are_a_code_a_text_and_a_rest() {
    let response =
        |code, text: &'static [u8], rest: &'static [u8]| Ok(Response { code, text, rest });
    for (data, expected) in [
        (&b""[..], response(200, b"", b"")),
        (b"200", response(200, b"", b"")),
        (b"200 OK", response(200, b"OK", b"")),
        (b"200 OK\na=b\nc=d", response(200, b"OK", b"\na=b\nc=d")),
        (b"200\na=b", response(200, b"", b"\na=b")),
        (b"500 no such thing", response(500, b"no such thing", b"")),
        (b"20", Err(RelpFault::BadResponse)),
        (b"OK", Err(RelpFault::BadResponse)),
        (b"2000", Err(RelpFault::BadResponse)),
        (b"2x0 OK", Err(RelpFault::BadResponse)),
    ] {
        assert_eq!(Response::of(data), expected, "{}", data.escape_ascii());
    }
}

const OPEN: &str = "1 open 30 relp_version=0\ncommands=syslog\n";

/// The requests that a server takes from `stream`, in words, and the fault that ended them.
fn serve(stream: &str) -> (Vec<String>, Option<RelpFault>) {
    let mut server = Server::new();
    let mut input = stream.as_bytes();
    let mut heard = Vec::new();
    while let Some((frame, consumed)) = Frame::first(input, 1000).unwrap() {
        match server.take(frame) {
            Ok(Request::Syslog(data)) => heard.push(data.escape_ascii().to_string()),
            Ok(request) => heard.push(format!("{request:?}")),
            Err(fault) => {
                let after = Frame {
                    txnr: server.next(),
                    command: Command::Syslog,
                    data: b"a",
                };
                assert!(server.take(after).is_err(), "over is over");
                return (heard, Some(fault));
            }
        }
        input = &input[consumed..];
    }
    assert!(input.is_empty(), "{}", input.escape_ascii());
    (heard, None)
}

#[test]
fn a_session_is_open_messages_close() {
    assert_eq!(
        serve(&format!(
            "{OPEN}2 syslog 1 a\n0 hint 0\n3 syslog 0\n4 close 0\n"
        )),
        (
            ["Open", "a", "Hint", "", "Close"].map(str::to_owned).into(),
            None
        )
    );
}

#[test]
fn every_fault_of_a_client_is_named_and_final() {
    let out_of_order = |found, expected| RelpFault::OutOfOrder { found, expected };
    for (stream, fault) in [
        ("1 syslog 1 a\n".to_owned(), RelpFault::NotOpen),
        ("1 close 0\n".to_owned(), RelpFault::NotOpen),
        (format!("{OPEN}{OPEN}"), RelpFault::OpenTwice),
        (format!("{OPEN}2 open 0\n"), RelpFault::OpenTwice),
        (format!("{OPEN}2 rsp 0\n"), RelpFault::UnknownCommand),
        (format!("{OPEN}2 Syslog 0\n"), RelpFault::UnknownCommand),
        (format!("{OPEN}2 starttls 0\n"), RelpFault::UnknownCommand),
        ("1 serverclose 0\n".to_owned(), RelpFault::UnknownCommand),
        (OPEN.replacen('1', "2", 1), out_of_order(2, 1)),
        (format!("{OPEN}3 syslog 1 a\n"), out_of_order(3, 2)),
        (format!("{OPEN}1 syslog 1 a\n"), out_of_order(1, 2)),
        (
            format!("{OPEN}2 syslog 1 a\n2 syslog 1 a\n"),
            out_of_order(2, 3),
        ),
        (
            format!("{OPEN}2 close 0\n3 syslog 1 a\n"),
            RelpFault::NotOpen,
        ),
        (
            "1 open 15 commands=syslog\n".to_owned(),
            RelpFault::Offers(offers::OfferError::Version),
        ),
        (
            "1 open 14 relp_version=0\n".to_owned(),
            RelpFault::Offers(offers::OfferError::Syslog),
        ),
    ] {
        assert_eq!(serve(&stream).1, Some(fault), "{stream:?}");
    }
}

#[test]
fn a_server_goes_on_after_the_last_number() {
    let mut server = Server::new();
    let open = Frame::first(OPEN.as_bytes(), 100).unwrap().unwrap().0;
    assert_eq!(server.take(open), Ok(Request::Open));
    server.next = Txnr::LAST;
    for txnr in [Txnr::LAST, Txnr::FIRST, Txnr(2)] {
        let frame = Frame {
            txnr,
            command: Command::Syslog,
            data: b"a",
        };
        assert_eq!(server.take(frame), Ok(Request::Syslog(b"a")));
    }
}

/// The frames in `wire`.
fn frames(mut wire: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while let Some((frame, consumed)) = Frame::first(wire, 1000).unwrap() {
        frames.push(frame);
        wire = &wire[consumed..];
    }
    assert!(wire.is_empty());
    frames
}

#[test]
fn our_two_ends_understand_each_other() {
    let (mut server, mut client) = (Server::new(), Client::new());
    let (mut there, mut back) = (Vec::new(), Vec::new());
    client.open(&mut there);
    client.syslog(b"one", &mut there);
    client.syslog(b"two\n", &mut there);
    client.close(&mut there);
    for frame in frames(&there) {
        match server.take(frame).unwrap() {
            Request::Open => Server::accept(&mut back),
            Request::Syslog(b"one") => Server::answer(frame.txnr, 200, &mut back),
            Request::Syslog(_) => Server::answer(frame.txnr, 500, &mut back),
            Request::Close => Server::goodbye(frame.txnr, &mut back),
            Request::Hint => unreachable!("none was sent"),
        }
    }
    Server::leave(&mut back);
    let heard: Vec<_> = frames(&back)
        .into_iter()
        .map(|frame| client.take(frame).unwrap())
        .collect();
    assert_eq!(
        heard,
        [
            Heard::Opened,
            Heard::Answered(Answer::Ok),
            Heard::Answered(Answer::Refused(500)),
            Heard::Answered(Answer::Ok),
            Heard::ServerClose,
        ]
    );
    assert_eq!(client.unanswered(), 0);
}

#[test]
fn a_server_that_refuses_to_open_says_why() {
    let mut wire = Vec::new();
    Server::refuse(offers::OfferError::Syslog, &mut wire);
    let mut client = Client::new();
    client.open(&mut Vec::new());
    assert_eq!(
        client.take(frames(&wire)[0]),
        Err(RelpFault::Refused { code: 500 })
    );
}

#[test]
fn every_fault_of_a_server_is_named() {
    for (stream, fault) in [
        ("1 syslog 1 a\n", RelpFault::UnknownCommand),
        ("1 open 1 a\n", RelpFault::UnknownCommand),
        (
            "2 rsp 6 200 OK\n",
            RelpFault::OutOfOrder {
                found: 2,
                expected: 1,
            },
        ),
        (
            "0 rsp 6 200 OK\n",
            RelpFault::OutOfOrder {
                found: 0,
                expected: 1,
            },
        ),
        ("1 rsp 2 OK\n", RelpFault::BadResponse),
        (
            "1 rsp 6 200 OK\n",
            RelpFault::Offers(offers::OfferError::Version),
        ),
        ("1 rsp 6 501 no\n", RelpFault::Refused { code: 501 }),
    ] {
        let mut client = Client::new();
        client.open(&mut Vec::new());
        assert_eq!(client.take(frames(stream.as_bytes())[0]), Err(fault));
    }
    let nothing_sent = Client::new().take(frames(b"1 rsp 6 200 OK\n")[0]);
    assert_eq!(nothing_sent, Err(RelpFault::Unasked));
    let hint = Client::new().take(frames(b"0 news 0\n")[0]);
    assert_eq!(hint, Ok(Heard::Hint));
}

proptest! {
    #[test]
    fn any_frame_writes_and_reads_back(
        txnr in 0_u32..=999_999_999,
        word in "[a-zA-Z]{1,32}",
        data in vec(any::<u8>(), 0..MAX),
    ) {
        let command = Command::of(word.as_bytes());
        let frame = Frame { txnr: Txnr(txnr), command, data: &data };
        let mut wire = Vec::new();
        frame.write(&mut wire);
        prop_assert_eq!(wire.len(), frame.wire_octets());
        prop_assert_eq!(Frame::first(&wire, MAX), Ok(Some((frame, wire.len()))));
    }

    #[test]
    fn any_octets_yield_the_same_frames_and_fault_however_they_are_cut(
        stream in vec(prop_oneof![
            Just(b' '), Just(b'\n'), Just(b'0'), Just(b'1'), Just(b'2'), Just(b'a'), any::<u8>(),
        ], 0..60),
        at in 0_usize..60,
    ) {
        let whole = run([stream.as_slice()]);
        prop_assert_eq!(run(stream.chunks(1)), whole.clone());
        let (one, two) = stream.split_at(at.min(stream.len()));
        prop_assert_eq!(run([one, two]), whole);
    }
}
