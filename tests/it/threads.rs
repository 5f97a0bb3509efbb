//! Threads: if the system cannot make threads for a moment, that costs only time; and every socket has a thread that
//! reads it.
//!
//! The limit is RLIMIT_NPROC, which counts the threads of a user, so each test has its own user.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::thread;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::support::command;
use super::support::ordered::{assert_ordered, ordered, places};
use super::support::originator::Originator;
use super::support::proc_fs;
use super::support::process::run;
use super::support::sink::{RefusingPort, Sink};
use super::support::tersed::{Setup, Tersed, url};
use super::support::wait::{LIMIT, now, wait_until};

/// With room for no worker, for the workers only, and for all but the last thread that a start needs.
#[test]
fn a_start_without_threads_ends_with_the_limits_that_forbid_them() {
    let with = |count: usize| {
        let user = user(100 + u32::try_from(count).unwrap());
        let setup = Setup::new().listen(UDP).listen(TCP).config(TWO_WORKERS);
        limited(setup, user, count)
    };
    let started = with(800).start();
    let all = proc_fs::threads(started.id());
    started.finish();
    // The thread that writes is made later, when there is an upstream; if that fails, it is tried again.
    let limits = [1, 2, 4, all - 2];
    let refuse = |count: usize| {
        let begun = now();
        let (status, said) = with(count).start_refused();
        assert_eq!(status.code(), Some(1), "{count}: {said}");
        assert!(
            begun.elapsed() < LIMIT / 2,
            "{count}: {:?}",
            begun.elapsed()
        );
        let last = said.lines().last().unwrap();
        let own = format!("RLIMIT_NPROC (ulimit -u, now {count})");
        for part in [
            "tersed: cannot start: ",
            &own,
            "pids.max",
            "TasksMax",
            "; gave up after 5s",
        ] {
            assert!(last.contains(part), "{count}: no {part:?} in {said}");
        }
        assert!(!said.contains("panicked"), "{count}: {said}");
    };
    thread::scope(|scope| {
        for count in limits {
            scope.spawn(move || refuse(count));
        }
    });
}

#[test]
fn a_start_waits_for_threads_that_are_there_a_moment_later() {
    let sink = Sink::tcp();
    let setup = Setup::new().listen(UDP).forward(&sink.url());
    let tersed = limited(setup, user(1), 2).start_while(|process| {
        wait_until("the relay to be refused a thread", LIMIT, || {
            process.stderr().contains(NOT_ENOUGH)
        });
        set_limit(process.id(), 1000);
    });
    assert_eq!(tersed.log_count("enough threads now; starting"), 1);
    Originator::udp(tersed.address(UDP)).send("<13>first");
    sink.wait_messages(1);
    tersed.finish();
}

/// A relay makes all threads that it needs later at its start: the spool is used for the first time, and admin pages
/// are served.
#[test]
fn nothing_is_lost_while_no_thread_can_be_made() {
    let dir = TempDir::with_prefix("tersed-threads-").unwrap();
    let spool = dir.path().join("spool");
    fs::create_dir(&spool).unwrap();
    chown(dir.path(), Some(user(2)), None).unwrap();
    chown(&spool, Some(user(2)), None).unwrap();
    let port = RefusingPort::new();
    let config = |more: &str| {
        format!(
            "[forward]\nto = [\"{}\"]\nqueue = \"1MiB\"\nretry_min = \"10ms\"\nretry_max = \"20ms\"\n\
             [spool]\ndirectory = \"{}\"\n[dedup]\nstate = \"{}\"\n[[listener]]\nurl = \"{TCP}\"\n{more}",
            port.url(),
            spool.display(),
            dir.path().join("windows").display()
        )
    };
    let tersed = limited(Setup::new().config(&config("")), user(2), 1000).start();
    exhaust(&tersed);
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send_all((0..MANY).map(|place| ordered(0, place, OCTETS)));
    tersed.wait_received(MANY as u64);
    wait_until("the spool to be used", LIMIT, || {
        tersed.metrics().total("tersed_spool_frames") > MANY as u64 / 2
    });
    assert_eq!(tersed.metrics().balance().queued, MANY as u64);
    assert_eq!(tersed.metrics().total("tersed_spool_failing"), 0);

    // Changes that need a thread are refused with the reason, and nothing has changed.
    let added = format!("[[listener]]\nurl = \"{UDP}\"\n");
    let copies = url("file", &tersed.path("copies.log"));
    let copies = format!("[suppressed]\nto = \"{copies}\"\n");
    for (index, (more, reason)) in [
        (&added, "listener \"udp://127.0.0.1:0\": only 0 of "),
        (&copies, "suppressed.to: cannot make thread tersed-copies: "),
    ]
    .into_iter()
    .enumerate()
    {
        reload(&tersed, &config(more));
        wait_until("the reload", LIMIT, || {
            tersed.log_count("reload refused") > index
        });
        let mut refused = tersed
            .log()
            .into_iter()
            .filter(|line| line.message == "reload refused");
        let error = refused.next_back().unwrap().field("error").unwrap();
        assert!(error.starts_with(reason), "{error}");
        for part in [
            "Resource temporarily unavailable",
            "RLIMIT_NPROC",
            "TasksMax",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
    assert_eq!(tersed.get("/readyz").0, 200);
    originator.send_all((MANY..MANY + 10).map(|place| ordered(0, place, OCTETS)));
    tersed.wait_received(MANY as u64 + 10);

    set_limit(tersed.id(), 1000);
    reload(&tersed, &config(&(added + &copies)));
    tersed.wait_log("reloaded");
    Originator::udp(tersed.address(UDP)).send(ordered(0, MANY + 10, OCTETS));
    tersed.wait_received(MANY as u64 + 11);
    let sink = port.open();
    wait_until("everything at the sink", LIMIT, || {
        sink.count() >= MANY + 11
    });
    exhaust(&tersed);
    let (metrics, stopped) = tersed.finish();
    assert_eq!(stopped.log_count("windows saved"), 1);
    assert_eq!(metrics.total("tersed_frames_dropped_total"), 0);
    assert_ordered(&places(&sink.messages(), OCTETS), MANY + 11, 0);
}

/// A look-up needs a thread. While none can be made, it fails as if the name server were away.
#[test]
fn a_name_that_is_new_is_looked_up_when_there_is_a_thread() {
    let sink = Sink::tcp();
    let (_, port) = sink
        .url()
        .rsplit_once(':')
        .map(|(url, port)| (url.to_owned(), port.to_owned()))
        .unwrap();
    let nobody = RefusingPort::new();
    let config = |to: &str| {
        format!(
            "[forward]\nto = [\"{to}\"]\nretry_min = \"10ms\"\nretry_max = \"20ms\"\n[[listener]]\nurl = \"{TCP}\"\n"
        )
    };
    let setup = Setup::new().config(&config(&nobody.url()));
    let tersed = limited(setup, user(3), 1000).start();
    exhaust(&tersed);
    reload(&tersed, &config(&format!("tcp://localhost:{port}")));
    tersed.wait_log("reloaded");
    wait_until("the look-up to fail", LIMIT, || {
        let mut log = tersed.log().into_iter();
        log.any(|line| line.mentions("cannot resolve localhost") && line.mentions("tersed-names"))
    });
    let mut originator = Originator::tcp(tersed.address(TCP));
    originator.send("<13>kept");
    tersed.wait_received(1);
    set_limit(tersed.id(), 1000);
    assert_eq!(sink.wait_messages(1), [b"<13>kept"]);
    tersed.finish();
}

/// The resolver waits for minutes. Other names are still looked up, only a limited number of threads waits with it, and
/// a stop does not wait.
#[test]
fn a_name_server_that_never_answers_holds_up_one_name_alone() {
    let sink = Sink::tcp();
    let port = sink.url().rsplit_once(':').unwrap().1.to_owned();
    let (setup, _silent) = with_a_silent_name_server(1);
    let tersed = setup
        .forward("tcp://stuck.example:514")
        .forward(&format!("tcp://known.example:{port}"))
        .start();
    Originator::tcp(tersed.address(TCP)).send("<13>first");
    assert_eq!(sink.wait_messages(1), [b"<13>first"]);
    wait_attempts(&tersed, &["tcp://stuck.example:514".to_owned()], 20);
    let told = tersed.wait_log("cannot connect to upstream");
    let step =
        "looking up stuck.example took longer than 50ms (forward.connect_timeout); check the name";
    assert!(told.mentions(step), "{told:?}");
    // After four look-ups that do not return, no further one is started.
    wait_until("the page to say so", LIMIT, || {
        let page = tersed.get("/readyz").1;
        page.contains("4 look-ups of this name have not returned yet")
    });
    assert_threads_and_stop(tersed, 20);
}

/// Several upstreams, each with its own name, are tried again and again: the limit is for all names together.
#[test]
fn many_names_that_are_never_answered_pile_up_no_threads() {
    let (setup, _silent) = with_a_silent_name_server(2);
    let urls: Vec<_> = (0..12)
        .map(|number| format!("tcp://stuck{number}.example:514"))
        .collect();
    let setup = setup.append("strategy = \"balance\"");
    let setup = urls.iter().fold(setup, |setup, url| setup.forward(url));
    let tersed = setup.start();
    wait_attempts(&tersed, &urls, 20);
    // Without that limit, 12 names might have 48.
    assert_threads_and_stop(tersed, 32 + 16);
}

/// A relay that uses a name server which answers only for known.example, and that server.
fn with_a_silent_name_server(number: u8) -> (Setup, UdpSocket) {
    let id = std::process::id();
    let address = [127, 77 + number, (id >> 8 & 0xff) as u8, (id & 0xff) as u8];
    let silent = UdpSocket::bind(SocketAddr::from((address, 53))).expect("a name server's port");
    let setup = Setup::new();
    let server = silent.local_addr().unwrap().ip();
    let resolv = format!("nameserver {server}\noptions timeout:30 attempts:5\n");
    fs::write(setup.path("resolv.conf"), resolv).unwrap();
    fs::write(setup.path("hosts"), "127.0.0.1 known.example\n").unwrap();
    fs::write(setup.path("nsswitch.conf"), "hosts: files dns\n").unwrap();
    let setup = setup
        .with_mounts(
            "mount --bind resolv.conf /etc/resolv.conf; mount --bind hosts /etc/hosts; \
             mount --bind nsswitch.conf /etc/nsswitch.conf",
        )
        .config(TWO_WORKERS)
        .append(
            "[forward]\nconnect_timeout = \"50ms\"\nretry_min = \"10ms\"\nretry_max = \"20ms\"\n",
        )
        .listen(TCP);
    (setup, silent)
}

/// Waits until each upstream of `urls` was tried more than `count` times.
#[track_caller]
fn wait_attempts(tersed: &Tersed, urls: &[String], count: u64) {
    wait_until("many attempts", LIMIT, || {
        let metrics = tersed.metrics();
        urls.iter().all(|url| {
            let label = [("upstream", url.as_str())];
            metrics.total_where("tersed_upstream_errors_total", &label) > count
        })
    });
}

/// Most of the existing threads wait for the name server; a stop does not wait for them.
#[track_caller]
fn assert_threads_and_stop(tersed: Tersed, most: usize) {
    let threads = proc_fs::threads(tersed.id());
    assert!(threads < most, "{threads} threads wait for the name server");
    let begun = now();
    tersed.finish();
    assert!(
        begun.elapsed() < LIMIT / 4,
        "it stopped after {:?}",
        begun.elapsed()
    );
}

/// Far more sockets than tokio has threads for blocking work: each of them is read.
#[test]
fn each_socket_of_very_many_workers_is_read() {
    let tersed = Setup::new()
        .config("[runtime]\nworkers = 600\n[dedup]\nwindow = \"1h\"\n")
        .listen(UDP)
        .start();
    let to = tersed.address(UDP);
    // The kernel picks the socket by the sender's port. With ten senders a socket, it is extremely unlikely that one
    // gets none.
    for sender in 0..6000 {
        send_once(to, &format!("<13>sender {sender}"));
    }
    tersed.wait_received(6000);
    tersed.finish();
}

#[test]
fn each_of_very_many_listeners_is_read() {
    const LISTENERS: usize = 260;
    let listeners: String = (0..LISTENERS)
        // Each on its own address: listeners on one address might get the same free port.
        .map(|number| (number, number / 250, number % 250 + 1))
        .map(|(number, high, low)| {
            format!("[[listener]]\nurl = \"udp://127.1.{high}.{low}:0\"\nname = \"n{number}\"\n")
        })
        .collect();
    let tersed = Setup::new()
        .config(&format!("{listeners}{TWO_WORKERS}"))
        .start();
    for number in 0..LISTENERS {
        let to = tersed.address(&format!("n{number}"));
        for sender in 0..16 {
            send_once(to, &format!("<13>listener {number} sender {sender}"));
        }
    }
    tersed.wait_received(16 * LISTENERS as u64);
    let metrics = tersed.metrics();
    for number in 0..LISTENERS {
        let name = format!("n{number}");
        let received = metrics.total_where("tersed_frames_received_total", &[("listener", &name)]);
        assert_eq!(received, 16, "{name}");
    }
    tersed.finish();
}

#[test]
fn more_sockets_than_are_believable_are_refused() {
    let dir = TempDir::with_prefix("tersed-threads-").unwrap();
    let file = dir.path().join("t.toml");
    let listeners: String = (0..7)
        .map(|number| {
            format!(
                "[[listener]]\nurl = \"udp://127.0.0.1:{}\"\n",
                5514 + number
            )
        })
        .collect();
    fs::write(&file, format!("[runtime]\nworkers = 600\n{listeners}")).unwrap();
    for name in ["check", "run"] {
        let ran = command::tersed(&[name, "--config", file.to_str().unwrap()], b"");
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let sentence = "7 udp and unix-dgram listeners with 600 workers take 4200 sockets";
        assert!(
            ran.stderr.contains(sentence) && ran.stderr.contains("at most 4096"),
            "{ran:?}"
        );
    }
}

/// Runs it as user `user`, who has no other process, with at most `count` threads. Its directory then belongs to that
/// user.
#[track_caller]
fn limited(setup: Setup, user: u32, count: usize) -> Setup {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test becomes another user, because no such limit applies to root: run it as root, as .ci/run does"
    );
    let script = format!(
        "chown -R {user} . && exec setpriv --reuid {user} --clear-groups \
         prlimit --nproc={count}:{THREADS_HARD_MAX} \"$0\" \"$@\""
    );
    setup.launcher(["sh", "-c", &script])
}

/// Lowers the limit to the threads that the relay has already.
#[track_caller]
fn exhaust(tersed: &Tersed) {
    let id = tersed.id();
    // Threads of the start that have ended are counted for a moment.
    let mut last = 0;
    wait_until("its threads to stay", LIMIT, || {
        let before = std::mem::replace(&mut last, proc_fs::threads(id));
        before == last
    });
    set_limit(id, last);
}

/// Run as the user itself: changing the limit of another user takes CAP_SYS_RESOURCE, which root may lack.
#[track_caller]
fn set_limit(process: u32, threads: usize) {
    let owner = fs::metadata(format!("/proc/{process}")).unwrap().uid();
    let (owner, process) = (owner.to_string(), process.to_string());
    let nproc = format!("--nproc={threads}:");
    let args = [
        "--reuid",
        &owner,
        "--clear-groups",
        "prlimit",
        "--pid",
        &process,
        &nproc,
    ];
    run("setpriv", &args, "util-linux");
}

fn reload(tersed: &Tersed, text: &str) {
    fs::write(tersed.config_file(), text).unwrap();
    tersed.signal(Signal::SIGHUP);
}

fn send_once(to: SocketAddr, message: &str) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert_eq!(
        socket.send_to(message.as_bytes(), to).unwrap(),
        message.len()
    );
}

/// A user that no other test and no other run of the tests has.
fn user(test: u32) -> u32 {
    3_000_000 + std::process::id() % 1_000_000 * 1000 + test
}

const UDP: &str = "udp://127.0.0.1:0";
const TCP: &str = "tcp://127.0.0.1:0";
const TWO_WORKERS: &str = "[runtime]\nworkers = 2\n";
const NOT_ENOUGH: &str = "not enough threads to start; retrying";
const MANY: usize = 5000;
const OCTETS: usize = 1000;
/// The hard limit, below which a user may change its own soft limit.
const THREADS_HARD_MAX: usize = 10_000;
