//! Standard output and `file://` as pipes: full, slow, not read at all, shared, without a reader. Frames arrive whole
//! and once, and what the pipe took is what is counted.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;

use super::support::ordered::{ordered, ordered_all, places};
use super::support::originator::Originator;
use super::support::pipe::{Reader, flags, make_fifo, set_flags};
use super::support::sink::Sink;
use super::support::tersed::{Setup, Tersed, url};
use super::support::wait::{LIMIT, wait_until};
use super::support::wire::Wire;

/// How the process that shares the relay's standard output opened it.
#[derive(Clone, Copy, Debug)]
enum Shared {
    /// As a shell does.
    Blocking,
    /// By a program that uses non-blocking output.
    NonBlocking,
    /// As a shell does, but the pipe belongs to another user, so the relay cannot open it again.
    Foreign,
}

const ALL: [Shared; 3] = [Shared::Blocking, Shared::NonBlocking, Shared::Foreign];

#[test]
fn a_slow_reader_gets_every_frame_whole_and_once() {
    for shared in ALL {
        let (mut reader, stdout) = Reader::pipe(4096);
        let (tersed, _kept) = to_stdout(shared, stdout, "");
        Originator::tcp(tersed.address(TCP)).send_all(ordered_all(3000, OCTETS));
        let lines = reader.wait_lines(3000, 700);
        assert_eq!(places(&lines, OCTETS), in_order(0..3000), "{shared:?}");
        let (metrics, _) = tersed.finish();
        assert_eq!(metrics.balance().forwarded, 3000);
        assert_eq!(metrics.total("tersed_upstream_frames_total"), 3000);
        assert_eq!(metrics.total("tersed_upstream_errors_total"), 0);
        reader.read_all();
        assert_eq!(reader.lines().1, b"", "{shared:?}");
    }
}

/// Frames in the pipe are forwarded, the others are dropped, and none is both or neither.
#[test]
fn a_stop_counts_what_a_full_pipe_took() {
    for shared in ALL {
        for capacity in [4096, 65_536] {
            let (mut reader, stdout) = Reader::pipe(capacity);
            let (mut tersed, kept) = to_stdout(shared, stdout, "");
            let of_ours = flags(&kept);
            Originator::tcp(tersed.address(TCP)).send_all(ordered_all(1000, OCTETS));
            tersed.wait_received(1000);
            wait_full(&reader, capacity);
            assert_eq!(flags(&kept), of_ours, "the description is not ours");
            tersed.balance_at_exit();
            let stopped = tersed.terminate();
            assert_eq!(stopped.status.code(), Some(0), "{}", stopped.status);
            reader.read_all();
            let (lines, rest) = reader.lines();
            assert_eq!(rest, b"", "{shared:?}: a torn frame");
            assert_eq!(places(&lines, OCTETS), in_order(0..lines.len()));
            let balance = stopped.balance();
            assert!(balance.holds() && balance.queued == 0, "{balance:?}");
            assert_eq!(balance.forwarded, lines.len() as u64, "{shared:?}");
            assert_eq!(balance.dropped, 1000 - lines.len() as u64);
        }
    }
}

/// The same with octet counting.
#[test]
fn a_stop_counts_what_a_full_pipe_took_of_counted_frames() {
    let setup = Setup::new();
    let fifo = setup.path("fifo");
    let mut reader = Reader::fifo(&fifo, 16_384);
    let to = url("file", &fifo);
    let mut tersed = setup
        .config(&format!(
            "{QUICK}to = [{{ url = \"{to}\", framing = \"octet-counting\" }}]\n[shutdown]\ngrace = \"100ms\"\n"
        ))
        .listen(TCP)
        .start();
    // Of many lengths.
    let message = |place: usize| ordered(0, place, 100 + place % 7 * 900);
    Originator::tcp(tersed.address(TCP)).send_all((0..1000).map(message));
    tersed.wait_received(1000);
    wait_until("the pipe to be full", LIMIT, || reader.unread() > 8000);
    tersed.balance_at_exit();
    let stopped = tersed.terminate();
    reader.read_all();
    let mut rest = reader.octets();
    let mut count = 0;
    while let Some((frame, octets)) = Wire::OctetCounting.decode(rest) {
        assert_eq!(frame, message(count).as_bytes());
        (count, rest) = (count + 1, &rest[octets..]);
    }
    assert_eq!(rest, b"", "a torn frame");
    let balance = stopped.balance();
    assert!(balance.holds(), "{balance:?}");
    assert_eq!(balance.forwarded, count as u64);
    assert_eq!(balance.dropped, 1000 - count as u64);
}

/// Larger than what a pipe takes at once, and smaller than the pipe: it is in the pipe whole, or not at all.
#[test]
fn a_large_frame_is_in_the_pipe_whole_or_not_at_all() {
    for shared in ALL {
        let (mut reader, stdout) = Reader::pipe(65_536);
        let (mut tersed, _kept) = to_stdout(shared, stdout, "");
        let mut originator = Originator::tcp(tersed.address(TCP));
        originator.send_all(ordered_all(50, 20_000));
        let lines = reader.wait_lines(20, 7000);
        assert_eq!(places(&lines, 20_000), in_order(0..lines.len()));
        wait_until("the relay to have filled the pipe", LIMIT, || {
            reader.unread() > 0
        });
        tersed.balance_at_exit();
        let stopped = tersed.terminate();
        reader.read_all();
        let (lines, rest) = reader.lines();
        assert_eq!(rest.len(), 0, "{shared:?}: a torn frame");
        assert_eq!(places(&lines, 20_000), in_order(0..lines.len()));
        let balance = stopped.balance();
        assert!(balance.holds(), "{balance:?}");
        assert_eq!(balance.forwarded, lines.len() as u64, "{shared:?}");
    }
}

/// Larger than the pipe: it continues where it stopped. If a stop breaks it off, it is not counted.
#[test]
fn a_frame_larger_than_the_pipe_goes_on_where_it_stopped() {
    for shared in ALL {
        let (mut reader, stdout) = Reader::pipe(4096);
        let (mut tersed, _kept) = to_stdout(shared, stdout, "");
        let mut originator = Originator::tcp(tersed.address(TCP));
        originator.send_all(ordered_all(10, 10_000));
        reader.wait_lines(5, 1500);
        wait_full(&reader, 4096);
        tersed.balance_at_exit();
        let stopped = tersed.terminate();
        reader.read_all();
        let (lines, rest) = reader.lines();
        assert_eq!(places(&lines, 10_000), in_order(0..lines.len()));
        assert!(!rest.is_empty(), "the stop came between two frames");
        let balance = stopped.balance();
        assert!(balance.holds(), "{balance:?}");
        assert_eq!(balance.forwarded, lines.len() as u64, "{shared:?}");
        assert_eq!(balance.dropped, 10 - lines.len() as u64);
    }
}

/// A frame that was begun before the stop is finished, if the reader reads on.
#[test]
fn a_stop_finishes_a_frame_that_was_begun_if_there_is_room() {
    let (mut reader, stdout) = Reader::pipe(4096);
    let (mut tersed, _kept) = to_stdout(Shared::Blocking, stdout, "grace = \"1ms\"");
    Originator::tcp(tersed.address(TCP)).send_all(ordered_all(2, 5000));
    tersed.wait_received(2);
    wait_full(&reader, 4096);
    tersed.balance_at_exit();
    tersed.signal(Signal::SIGTERM);
    tersed.wait_log("shutdown grace period expired");
    reader.wait_lines(1, 4096);
    let stopped = tersed.wait_stopped();
    reader.read_all();
    let (lines, rest) = reader.lines();
    assert_eq!(places(&lines, 5000), [0]);
    assert_eq!(rest, b"");
    let balance = stopped.balance();
    assert_eq!((balance.forwarded, balance.dropped), (1, 1));
}

/// As with service managers and super-servers. A socket takes parts of frames; a last partial frame is not counted.
#[test]
fn a_socket_as_standard_output_is_waited_for_and_counted_in_whole_frames() {
    for shared in [Shared::Blocking, Shared::NonBlocking] {
        let (mut ours, stdout) = UnixStream::pair().unwrap();
        let (mut tersed, kept) = to_stdout(shared, stdout.into(), "");
        Originator::tcp(tersed.address(TCP)).send_all(ordered_all(20_000, OCTETS));
        tersed.wait_log("upstream takes nothing; waiting for it");
        let mut octets = Vec::new();
        let mut buffer = [0; 10_000];
        wait_until("it to continue", LIMIT, || {
            let count = ours.read(&mut buffer).unwrap();
            octets.extend_from_slice(&buffer[..count]);
            tersed.log_count("upstream takes frames again") > 0
        });
        tersed.balance_at_exit();
        let stopped = tersed.terminate();
        assert_eq!(stopped.status.code(), Some(0), "{}", stopped.status);
        drop(kept);
        ours.read_to_end(&mut octets).unwrap();
        let mut lines: Vec<_> = octets.split(|&octet| octet == b'\n').collect();
        lines.pop();
        let lines: Vec<_> = lines.into_iter().map(<[u8]>::to_vec).collect();
        assert_eq!(places(&lines, OCTETS), in_order(0..lines.len()));
        let balance = stopped.balance();
        assert!(balance.holds(), "{balance:?}");
        assert_eq!(balance.forwarded, lines.len() as u64, "{shared:?}");
    }
}

/// `tersed | less`: nothing is given up, lost or sent twice, however long the reader pauses.
#[test]
fn an_unread_standard_output_is_waited_for_and_named_once() {
    let (mut reader, stdout) = Reader::pipe(4096);
    let (tersed, _kept) = to_stdout(Shared::Blocking, stdout, "");
    Originator::tcp(tersed.address(TCP)).send_all(ordered_all(1000, OCTETS));
    let waiting = tersed.wait_log("upstream takes nothing; waiting for it");
    assert_eq!(waiting.field("upstream").as_deref(), Some("stdout:"));
    let balance = tersed.metrics().balance();
    assert!(balance.holds() && balance.queued > 900, "{balance:?}");
    let lines = reader.wait_lines(1000, 4096);
    assert_eq!(places(&lines, OCTETS), in_order(0..1000));
    tersed.wait_log("upstream takes frames again");
    let (metrics, stopped) = tersed.finish();
    assert_eq!(metrics.total("tersed_upstream_errors_total"), 0);
    assert_eq!(
        stopped.log_count("upstream takes nothing; waiting for it"),
        1
    );
}

#[test]
fn a_reload_does_not_wait_for_an_unread_pipe() {
    let (mut reader, stdout) = Reader::pipe(4096);
    let (tersed, _kept) = to_stdout(Shared::Blocking, stdout, "");
    Originator::tcp(tersed.address(TCP)).send_all(ordered_all(1000, OCTETS));
    tersed.wait_received(1000);
    wait_full(&reader, 4096);
    let sink = Sink::tcp();
    let config = std::fs::read_to_string(tersed.config_file()).unwrap();
    std::fs::write(tersed.config_file(), config.replace("stdout:", &sink.url())).unwrap();
    tersed.signal(Signal::SIGHUP);
    wait_until("the rest at the sink", LIMIT, || {
        tersed.metrics().balance().queued == 0
    });
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, 1000);
    reader.read_all();
    let (mut all, rest) = reader.lines();
    assert_eq!(rest, b"");
    all.extend(sink.messages());
    assert_eq!(places(&all, OCTETS), in_order(0..1000));
}

#[test]
fn an_unread_fifo_is_given_up_where_another_upstream_stands_by() {
    let setup = Setup::new();
    let fifo = setup.path("fifo");
    let (mut reader, sink) = (Reader::fifo(&fifo, 4096), Sink::tcp());
    let tersed = setup
        .config(QUICK)
        .listen(TCP)
        .forward(&url("file", &fifo))
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(ordered_all(1000, OCTETS));
    let lost = tersed.wait_log("upstream lost");
    assert!(lost.mentions("took nothing for 200ms"), "{lost:?}");
    wait_until("the rest at the sink", LIMIT, || {
        tersed.metrics().balance().queued == 0
    });
    // The FIFO is full, so it does not count as back.
    let errors = || tersed.metrics().total("tersed_upstream_errors_total");
    wait_until("some attempts", LIMIT, || errors() > 5);
    assert_eq!(tersed.log_count("upstream lost"), 1);
    reader.read_all();
    let (mut all, rest) = reader.lines();
    assert_eq!(rest, b"");
    all.extend(sink.messages());
    assert_eq!(places(&all, OCTETS), in_order(0..1000));
    // With room in it, it does.
    let fifo_url = url("file", &fifo);
    tersed.wait_metric("tersed_upstream_up", &[("upstream", &fifo_url)], 1);
    originator.send_all((1000..1010).map(|place| ordered(0, place, OCTETS)));
    let before = reader.lines().0.len();
    let lines = reader.wait_lines(before + 10, 4096);
    assert_eq!(places(&lines[before..], OCTETS), in_order(1000..1010));
    tersed.finish();
}

/// The frame is larger than the FIFO, and broken off there. It goes elsewhere, and what follows here begins on a new
/// line.
#[test]
fn what_follows_a_torn_frame_begins_on_a_line_of_its_own() {
    let setup = Setup::new();
    let fifo = setup.path("fifo");
    let (mut reader, sink) = (Reader::fifo(&fifo, 4096), Sink::tcp());
    let to = url("file", &fifo);
    let tersed = setup
        .config(QUICK)
        .listen(TCP)
        .forward(&to)
        .forward(&sink.url())
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send(ordered(0, 0, 10_000));
    assert_eq!(places(&sink.wait_messages(1), 10_000), [0]);
    reader.read_all();
    tersed.wait_metric("tersed_upstream_up", &[("upstream", &to)], 1);
    originator.send_all([ordered(0, 1, OCTETS), ordered(0, 2, OCTETS)]);
    let lines = reader.wait_lines(3, 4096);
    assert_eq!(lines[0], ordered(0, 0, 10_000).as_bytes()[..4096]);
    assert_eq!(places(&lines[1..], OCTETS), [1, 2]);
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, 3);
    assert_eq!(reader.lines().1, b"");
}

#[test]
fn a_fifo_without_a_reader_is_away_until_there_is_one() {
    let setup = Setup::new();
    let fifo = setup.path("fifo");
    make_fifo(&fifo);
    let tersed = setup
        .config(QUICK)
        .listen(TCP)
        .forward(&url("file", &fifo))
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all(ordered_all(10, OCTETS));
    let lost = tersed.wait_log("cannot connect to upstream");
    assert!(lost.mentions("No such device or address"), "{lost:?}");
    let mut reader = Reader::fifo(&fifo, 4096);
    assert_eq!(
        places(&reader.wait_lines(10, 4096), OCTETS),
        in_order(0..10)
    );
    // The reader goes away; what comes then waits for the next reader.
    drop(reader);
    originator.send_all((10..20).map(|place| ordered(0, place, OCTETS)));
    tersed.wait_received(20);
    wait_until("the loss to be seen", LIMIT, || {
        tersed.log_count("upstream lost") == 1
    });
    let mut reader = Reader::fifo(&fifo, 4096);
    assert_eq!(
        places(&reader.wait_lines(10, 4096), OCTETS),
        in_order(10..20)
    );
    let (metrics, _) = tersed.finish();
    assert_eq!(metrics.balance().forwarded, 20);
}

/// The reader does not read, the relay is killed, and the next one appends to what is in the pipe.
#[test]
fn a_kill_leaves_no_torn_frame_for_the_next_run_to_glue_to() {
    for octets in [OCTETS, 15_000] {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        let mut reader = Reader::fifo(&fifo, 65_536);
        let start = || {
            Setup::new()
                .config(QUICK)
                .listen(TCP)
                .forward(&url("file", &fifo))
                .start()
        };
        let tersed = start();
        Originator::tcp(tersed.address(TCP)).send_all(ordered_all(2000, octets));
        wait_full(&reader, 65_536 - octets - 4096);
        tersed.kill();
        let tersed = start();
        Originator::tcp(tersed.address(TCP)).send_all(ordered_all(20, octets));
        tersed.wait_received(20);
        let first = reader.unread();
        assert!(first > 0, "the FIFO kept what the first run wrote");
        wait_until("all of the second run", LIMIT, || {
            reader.read(5000);
            tersed.metrics().balance().queued == 0
        });
        reader.read_all();
        let (lines, rest) = reader.lines();
        assert_eq!(rest, b"");
        let places = places(&lines, octets);
        let of_first = places.len() - 20;
        assert_eq!(places[..of_first], in_order(0..of_first));
        assert_eq!(places[of_first..], in_order(0..20));
        tersed.finish();
    }
}

/// Standard output is a file on a disk that is full for a while.
#[test]
fn a_full_disk_tears_no_frame_of_standard_output() {
    for redirection in [">", ">>"] {
        let setup = Setup::new();
        let disk = setup.path("disk");
        let out = setup.path("disk/out");
        std::fs::create_dir(&disk).unwrap();
        let launcher = format!("exec \"$0\" \"$@\" {redirection}disk/out");
        let tersed = setup
            .with_mounts(
                "mount -t tmpfs -o size=64k none disk; head -c 40000 /dev/zero >disk/ballast",
            )
            .launcher(["sh", "-c", &launcher])
            .config(QUICK)
            .listen(TCP)
            .forward("stdout:")
            .start();
        Originator::tcp(tersed.address(TCP)).send_all(ordered_all(300, OCTETS));
        let lost = tersed.wait_log("upstream lost");
        assert!(lost.mentions("No space left on device"), "{lost:?}");
        std::fs::remove_file(tersed.seen(&disk.join("ballast"))).unwrap();
        wait_until("everything to be written", LIMIT, || {
            tersed.metrics().balance().queued == 0
        });
        let octets = std::fs::read(tersed.seen(&out)).unwrap();
        let lines = octets.split_inclusive(|&octet| octet == b'\n');
        let lines: Vec<_> = lines.map(|line| line[..line.len() - 1].to_vec()).collect();
        assert_eq!(places(&lines, OCTETS), in_order(0..300), "{redirection}");
        let (metrics, _) = tersed.finish();
        assert_eq!(metrics.balance().forwarded, 300);
    }
}

/// A relay with the standard output `stdout`, and the open file that the test shares with it.
fn to_stdout(shared: Shared, stdout: OwnedFd, stop: &str) -> (Tersed, File) {
    let kept = File::from(stdout.try_clone().unwrap());
    let stop = if stop.is_empty() {
        "grace = \"100ms\""
    } else {
        stop
    };
    let setup = Setup::new()
        .config(&format!("{QUICK}to = [\"stdout:\"]\n[shutdown]\n{stop}\n"))
        .listen(TCP)
        .stdout_to(stdout);
    let setup = match shared {
        Shared::Blocking => setup,
        Shared::NonBlocking => {
            set_flags(&kept, OFlag::O_NONBLOCK);
            setup
        }
        Shared::Foreign => {
            let of_all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            std::fs::set_permissions(setup.path("."), of_all).unwrap();
            setup.launcher([
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
            ])
        }
    };
    (setup.start(), kept)
}

/// Waits until about `capacity` octets are in the pipe.
#[track_caller]
fn wait_full(reader: &Reader, capacity: usize) {
    let enough = capacity - capacity / 16 - OCTETS;
    wait_until("the pipe to be full", LIMIT, || reader.unread() >= enough);
}

fn in_order(places: std::ops::Range<usize>) -> Vec<usize> {
    places.collect()
}

const TCP: &str = "tcp://127.0.0.1:0";
const OCTETS: usize = 100;
const QUICK: &str = "[dedup]\nwindow = \"1h\"\n[forward]\nretry_min = \"10ms\"\nretry_max = \"50ms\"\nsend_timeout = \"200ms\"\n";
