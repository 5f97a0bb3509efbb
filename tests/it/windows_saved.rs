//! Windows over restarts: windows that are open at a clean stop are open again after it, and older. A crash forgets
//! them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::clocks;
use super::support::numbered::repeats;
use super::support::originator::Originator;
use super::support::sink::{RefusingPort, Sink};
use super::support::tersed::{Setup, Stopped, Tersed};

/// A storm of twenty messages lasts over two restarts.
#[test]
fn two_restarts_in_a_storm_let_nothing_through() {
    for identity in ["exact", "compact"] {
        let place = Place::new();
        let sink = Sink::tcp();
        let keys = format!("window = \"1h\"\nidentity = \"{identity}\"");
        let mut suppressed = 0;
        for run in 0..3 {
            // The number of shards may change.
            let keys = format!("{keys}\nshards = {}", [4, 1, 16][run]);
            let tersed = place.start(Setup::new(), &keys, &sink);
            let mut originator = Originator::tcp(tersed.address(TCP));
            for round in 0..5_u64 {
                originator.send_all((0..20).map(|n| message(&format!("storm {n}"))));
                tersed.wait_received(20 * (round + 1));
            }
            let (metrics, stopped) = tersed.finish();
            let forwarded = if run == 0 { 20 } else { 0 };
            let balance = stopped.balance();
            assert!(balance.holds(), "{balance:?}");
            assert_eq!((balance.received, balance.forwarded), (100, forwarded));
            assert_eq!(metrics.total("tersed_live_messages"), 20);
            assert_eq!(field(&stopped, "windows saved", "windows"), "20");
            let read_back = if run == 0 { 0 } else { 1 };
            assert_eq!(stopped.log_count("windows read back"), read_back);
            assert_eq!(fs::metadata(place.path()).unwrap().mode() & 0o777, 0o600);
            assert_eq!(warnings(&stopped), "");
            suppressed += balance.suppressed;
        }
        // Each run reports what it suppressed itself, and only the first one forwarded.
        let messages = sink.wait_messages(20 + 3 * 20);
        let texts = messages.iter().map(|message| text(message));
        let (summaries, survivors): (Vec<_>, Vec<_>) =
            texts.partition(|text| repeats(text).is_some());
        assert_eq!(survivors.len(), 20);
        let reported: u64 = summaries.iter().filter_map(|text| repeats(text)).sum();
        assert_eq!((reported, suppressed), (280, 280));
    }
}

#[test]
fn without_a_file_a_restart_forgets() {
    let sink = Sink::tcp();
    for run in 1..=2 {
        let tersed = Setup::new()
            .window("1h")
            .listen(TCP)
            .forward(&sink.url())
            .start();
        Originator::tcp(tersed.address(TCP)).send(message("foo"));
        sink.wait_messages(run);
        let (_, stopped) = tersed.finish();
        assert_eq!(stopped.log_count("windows saved"), 0);
    }
}

/// The relay's clocks are manipulated: its wall clock jumps by years, and its machine was suspended.
#[test]
fn the_time_away_counts() {
    let place = Place::new();
    let suspended = place.dir.path().join("suspended");
    let sink = Sink::tcp();
    let keys = "window = \"1h\"";
    let run = |texts: &[&str]| {
        let tersed = place.start(clocks::bend(Setup::new(), &suspended), keys, &sink);
        let mut originator = Originator::tcp(tersed.address(TCP));
        originator.send_all(texts.iter().map(|text| message(text)));
        tersed.wait_received(texts.len() as u64);
        tersed.finish().1
    };
    run(&["foo"]);
    fs::write(&suspended, "1800").unwrap();
    assert_eq!(run(&["foo", "bar"]).balance().suppressed, 1);
    // The hour of the first message ends while no relay runs; that of the other does not.
    fs::write(&suspended, "3601").unwrap();
    let stopped = run(&["foo", "bar"]);
    assert_eq!(field(&stopped, "windows read back", "open"), "1");
    assert_eq!(field(&stopped, "windows read back", "over"), "1");
    let balance = stopped.balance();
    assert_eq!((balance.forwarded, balance.suppressed), (1, 1));
}

#[test]
fn the_longest_window_outlives_restarts_to_its_end_and_no_longer() {
    let place = Place::new();
    let suspended = place.dir.path().join("suspended");
    let sink = Sink::tcp();
    let mut secs = 0;
    // A restart each day, and one after the window has ended.
    for passes in [1, 0, 0, 0, 0, 0, 0, 1] {
        fs::write(&suspended, secs.to_string()).unwrap();
        let setup = clocks::bend(Setup::new(), &suspended);
        let tersed = place.start(setup, "window = \"7days\"", &sink);
        Originator::tcp(tersed.address(TCP)).send(message("foo"));
        tersed.wait_received(1);
        let (_, stopped) = tersed.finish();
        assert_eq!(stopped.balance().forwarded, passes, "after {secs} s");
        secs += 24 * 3600;
    }
}

/// As far as the relay can see, the machine was booted meanwhile.
#[test]
fn after_a_boot_the_wall_clock_counts_unless_it_makes_no_sense() {
    let sink = Sink::tcp();
    let keys = "window = \"1h\"";
    for lies in [false, true] {
        let place = Place::new();
        let run = |booted: bool| {
            let mut setup = Setup::new();
            if booted {
                let id = "01234567-89ab-cdef-0123-456789abcdef\n";
                fs::write(setup.path("boot_id"), id).unwrap();
                setup = setup.with_mounts("mount --bind boot_id /proc/sys/kernel/random/boot_id");
            }
            if lies {
                setup = clocks::bend(setup, &place.dir.path().join("never"));
            }
            let tersed = place.start(setup, keys, &sink);
            Originator::tcp(tersed.address(TCP)).send(message("foo"));
            tersed.wait_received(1);
            tersed.finish().1
        };
        run(false);
        let stopped = run(true);
        assert_eq!(stopped.balance().forwarded, u64::from(lies));
        if lies {
            let line = warnings(&stopped);
            let why = ["ran backwards", "more than a year later"];
            assert!(why.iter().any(|why| line.contains(why)), "{line}");
        }
    }
}

#[test]
fn a_file_that_is_not_right_is_not_used_and_the_log_says_why() {
    let sink = Sink::tcp();
    let damage = |path: &PathBuf| {
        let mut octets = fs::read(path).unwrap();
        let middle = octets.len() - 40;
        octets[middle] ^= 1;
        fs::write(path, octets).unwrap();
    };
    let foreign = |path: &PathBuf| fs::write(path, "precious").unwrap();
    let open = |path: &PathBuf| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    };
    let link = |path: &PathBuf| {
        let other = path.with_extension("other");
        fs::rename(path, &other).unwrap();
        symlink(other, path).unwrap();
    };
    let cut = |path: &PathBuf| {
        let octets = fs::read(path).unwrap();
        fs::write(path, &octets[..octets.len() / 2]).unwrap();
    };
    // What was done to the file, what the log says about it, and whether the stop saves again.
    type Case<'a> = (&'a dyn Fn(&PathBuf), &'a str, bool);
    let cases: [Case<'_>; 5] = [
        (&damage, "damaged: ", true),
        (&cut, "damaged: the file ends", true),
        (&foreign, "not a file of saved windows", false),
        (
            &open,
            "mode 0644 allows access by others; expected 0600",
            true,
        ),
        (&link, "a symbolic link, which is not followed", false),
    ];
    for (change, why, saves) in cases {
        let place = Place::new();
        let run = || {
            let tersed = place.start(Setup::new(), "window = \"1h\"", &sink);
            Originator::tcp(tersed.address(TCP)).send(message("foo"));
            tersed.wait_received(1);
            tersed.finish().1
        };
        assert_eq!(run().balance().forwarded, 1);
        change(&place.path());
        let stopped = run();
        assert_eq!(stopped.balance().forwarded, 1, "{why}");
        assert!(warnings(&stopped).contains(why), "{}", warnings(&stopped));
        assert_eq!(stopped.log_count("windows saved"), usize::from(saves));
        assert_eq!(run().balance().suppressed, u64::from(saves), "{why}");
    }
}

#[test]
fn a_crash_forgets_windows_and_no_messages() {
    let place = Place::new();
    let sink = Sink::tcp();
    let start = || place.start(Setup::new(), "window = \"1h\"", &sink);
    let tersed = start();
    Originator::tcp(tersed.address(TCP)).send(message("foo"));
    sink.wait_messages(1);
    tersed.finish();
    // The relay continues the window, and then it is killed: what was saved before is not used again.
    let mut tersed = start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all([message("foo"), message("bar")]);
    sink.wait_messages(2);
    tersed.wait_received(2);
    tersed.assert_balance();
    tersed.stop_by(Signal::SIGKILL);
    assert!(!place.path().exists());

    let tersed = start();
    Originator::tcp(tersed.address(TCP)).send_all([message("foo"), message("bar")]);
    sink.wait_messages(4);
    let (_, stopped) = tersed.finish();
    assert_eq!(stopped.balance().forwarded, 2);
    assert_eq!(
        stopped.log_count("no saved windows; starting without any"),
        1
    );
    assert_eq!(warnings(&stopped), "");
}

#[test]
fn a_directory_that_is_not_there_is_said_at_the_start_and_stops_nobody() {
    let place = Place::new();
    let sink = Sink::tcp();
    let tersed = Setup::new()
        .config(&format!(
            "[dedup]\nstate = \"{}/none/windows\"\n",
            place.dir.path().display()
        ))
        .listen(TCP)
        .forward(&sink.url())
        .start();
    Originator::tcp(tersed.address(TCP)).send(message("foo"));
    sink.wait_messages(1);
    let (_, stopped) = tersed.finish();
    let at_start = "the directory does not exist; windows will not be saved";
    assert_eq!(stopped.log_count(at_start), 1);
    assert!(
        warnings(&stopped).contains("cannot write"),
        "{}",
        warnings(&stopped)
    );
}

/// Law 7 over a restart.
#[test]
fn what_the_deadline_cut_off_passes_after_the_restart() {
    let place = Place::new();
    let port = RefusingPort::new();
    let keys = "window = \"1h\"\n[shutdown]\ngrace = \"300ms\"";
    let start = || {
        Setup::new()
            .config(&place.config(keys))
            .listen(TCP)
            .forward(&port.url())
            .start()
    };
    let tersed = start();
    Originator::tcp(tersed.address(TCP)).send_all([message("foo"), message("foo")]);
    tersed.wait_received(2);
    let (_, stopped) = tersed.finish();
    let balance = stopped.balance();
    assert_eq!((balance.dropped, balance.suppressed), (1, 1));
    assert_eq!(field(&stopped, "windows saved", "windows"), "0");

    let tersed = start();
    let sink = port.open();
    Originator::tcp(tersed.address(TCP)).send(message("foo"));
    sink.wait_messages(1);
    tersed.finish();
}

#[test]
fn a_rule_that_changed_loses_its_own_windows_alone() {
    let place = Place::new();
    let sink = Sink::tcp();
    let rule = |name, window| {
        format!("[[rule]]\nname = \"{name}\"\nmsg = \"{name}\"\nwindow = \"{window}\"\n")
    };
    let run = |rules: &[String]| {
        let keys = format!("window = \"1h\"\n{}", rules.concat());
        let tersed = place.start(Setup::new(), &keys, &sink);
        let texts = ["foo", "bar", "baz"];
        Originator::tcp(tersed.address(TCP)).send_all(texts.map(message));
        tersed.wait_received(3);
        tersed.finish().1
    };
    run(&[rule("foo", "2h"), rule("bar", "3h")]);
    // In another order, and one of them with another window.
    let stopped = run(&[rule("bar", "4h"), rule("foo", "2h")]);
    let balance = stopped.balance();
    assert_eq!((balance.forwarded, balance.suppressed), (1, 2));
    let line = "windows read back";
    assert_eq!(field(&stopped, line, "open"), "2");
    assert_eq!(field(&stopped, line, "of_other_policies"), "1");
}

#[test]
fn memory_is_bounded_while_windows_are_read_back_and_the_youngest_are_kept() {
    let place = Place::new();
    let sink = Sink::tcp();
    let run = |memory: &str, sent: &mut dyn Iterator<Item = u32>| {
        let keys = format!("window = \"1h\"\nshards = 1\nmemory = \"{memory}\"");
        let tersed = place.start(Setup::new(), &keys, &sink);
        let texts: Vec<_> = sent.map(|n| message(&format!("number {n}"))).collect();
        let count = texts.len() as u64;
        Originator::tcp(tersed.address(TCP)).send_all(texts);
        tersed.wait_received(count);
        tersed.finish()
    };
    run("64MiB", &mut (0..40_000));
    // The youngest first, because new messages evict old ones.
    let (metrics, stopped) = run("1MiB", &mut (30_000..40_000).rev().step_by(10).take(100));
    let budget = metrics.total("tersed_memory_budget_bytes");
    assert!(metrics.total("tersed_memory_bytes") <= budget);
    assert_eq!(stopped.balance().suppressed, 100);
    let line = "windows read back";
    let open: u64 = field(&stopped, line, "open").parse().unwrap();
    let without_room: u64 = field(&stopped, line, "without_room").parse().unwrap();
    assert_eq!(open + without_room, 40_000);
    assert!((1000..20_000).contains(&open), "{open}");
}

#[test]
fn a_reload_says_from_now_on_where_windows_are_saved() {
    let place = Place::new();
    let sink = Sink::tcp();
    let keys = "window = \"1h\"";
    let tersed = Setup::new()
        .config(&format!("[dedup]\n{keys}\n"))
        .listen(TCP)
        .forward(&sink.url())
        .start();
    Originator::tcp(tersed.address(TCP)).send(message("foo"));
    sink.wait_messages(1);
    fs::write(tersed.config_file(), place.config(keys)).unwrap();
    tersed.signal(Signal::SIGHUP);
    tersed.wait_log("reloaded");
    let (_, stopped) = tersed.finish();
    assert_eq!(stopped.log_count("windows saved"), 1);

    let tersed = place.start(Setup::new(), keys, &sink);
    Originator::tcp(tersed.address(TCP)).send(message("foo"));
    tersed.wait_received(1);
    assert_eq!(tersed.finish().1.balance().suppressed, 1);
}

/// The place where windows are saved, from one relay to the next.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: TempDir::with_prefix("tersed-it-").unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("windows")
    }

    /// A configuration whose `[dedup]` has these keys; more sections may follow.
    fn config(&self, keys: &str) -> String {
        format!("[dedup]\nstate = \"{}\"\n{keys}\n", self.path().display())
    }

    #[track_caller]
    fn start(&self, setup: Setup, keys: &str, sink: &Sink) -> Tersed {
        setup
            .config(&self.config(keys))
            .listen(TCP)
            .forward(&sink.url())
            .start()
    }
}

/// A field of the only line of the log with this message.
#[track_caller]
fn field(stopped: &Stopped, message: &str, name: &str) -> String {
    let mut lines = stopped.log.iter().filter(|line| line.message == message);
    let line = lines.next().expect(message);
    assert!(lines.next().is_none(), "{message} is logged once");
    line.field(name).expect(name)
}

/// Why saved windows were not used.
fn warnings(stopped: &Stopped) -> String {
    let lines = stopped.log.iter().filter(|line| line.level == "WARN");
    let errors = lines.filter_map(|line| line.field("error"));
    errors.collect::<Vec<_>>().join("\n")
}

fn message(text: &str) -> String {
    format!("<13>1 2026-03-01T12:00:00Z host app - - - {text}")
}

fn text(message: &[u8]) -> String {
    String::from_utf8(message.to_vec()).unwrap()
}

const TCP: &str = "tcp://127.0.0.1:0";
