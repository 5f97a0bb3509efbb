//! The storm: how much memory endless new messages take in tersed, and how much of it remains afterwards.
//!
//! A relay with a window of two seconds is observed (its resident memory, and its own metrics) while nothing happens,
//! while a storm of new messages goes through it, and after the last window has ended, until its memory has not changed
//! for five seconds.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::bed::{
    case::{Case, Mix},
    load::Load,
    median, now,
    peer::{Peer, Settings},
    run::{Relay, free_tcp_port},
    sink::Sink,
};

/// Measures storms of one and three million messages, and prints the table.
pub(crate) fn measure(rounds: usize) -> io::Result<()> {
    println!("Resident memory of tersed in MB, `--window 2s`, medians of {rounds} rounds.\n");
    print!("| storm of |");
    for (name, _) in COLUMNS {
        print!(" {name} |");
    }
    println!("\n|--:|{}", "--:|".repeat(COLUMNS.len()));
    let case = Case::tcp(Mix::Unique, 1);
    for messages in [1_000_000, 3_000_000] {
        let load = Load::build(&case, messages);
        let mut storms = Vec::new();
        for round in 1..=rounds {
            eprint!("\r\x1b[Kstorm of {messages}, round {round}/{rounds}");
            storms.push(storm(&case, &load)?);
        }
        eprint!("\r\x1b[K");
        print!("| {messages} |");
        for (_, figure) in COLUMNS {
            print!(" {:.1} |", median(storms.iter().map(figure).collect()));
        }
        println!();
    }
    Ok(())
}

/// The figures of one storm.
#[derive(Clone, Copy, Debug, Default)]
struct Storm {
    idle: u64,
    peak: u64,
    /// The largest count in the relay's metrics, looked at every 20 ms.
    live_peak: u64,
    counted_peak: u64,
    after: u64,
    counted_after: u64,
    /// From the last message until memory stayed as it was.
    stable_after: Duration,
}

fn storm(case: &Case, load: &Load) -> io::Result<Storm> {
    let admin = free_tcp_port()?;
    let arguments = ["--window", "2s", "--admin", &admin.to_string()];
    let settings = Settings {
        arguments: &arguments,
        ..Settings::default()
    };
    let sink = Sink::open()?;
    let relay = Relay::start(Peer::Tersed, case, sink.address, &settings)?;
    let (idle, _) = wait_stable(&relay, admin)?;
    let mut storm = Storm {
        idle,
        ..Storm::default()
    };
    let over = AtomicBool::new(false);
    let peaks = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peaks = Gauges::default();
            while !over.load(Ordering::Relaxed) {
                let gauges = gauges(admin)?;
                peaks.live = peaks.live.max(gauges.live);
                peaks.counted = peaks.counted.max(gauges.counted);
                thread::sleep(Duration::from_millis(20));
            }
            io::Result::Ok(peaks)
        });
        let sent = relay.send_all(case, load, &sink);
        over.store(true, Ordering::Relaxed);
        let peaks = watch.join().expect("the watch does not panic");
        sent.and(peaks)
    })?;
    let ended = now();
    (storm.live_peak, storm.counted_peak) = (peaks.live, peaks.counted);
    let (after, stable_for) = wait_stable(&relay, admin)?;
    storm.stable_after = ended.elapsed().saturating_sub(stable_for);
    storm.after = after;
    storm.counted_after = gauges(admin)?.counted;
    storm.peak = relay.process.peak_octets()?;
    Ok(storm)
}

/// Waits until no message is live and resident memory is stable. Returns how much that is, and for how long it has been
/// so.
fn wait_stable(relay: &Relay, admin: SocketAddr) -> io::Result<(u64, Duration)> {
    let deadline = now() + PATIENCE;
    let (mut resident, mut since) = (0, now());
    loop {
        let held = relay.process.resident_octets()?;
        if held != resident || gauges(admin)?.live > 0 {
            (resident, since) = (held, now());
        }
        if since.elapsed() > STABLE {
            return Ok((resident, since.elapsed()));
        }
        if now() > deadline {
            return Err(io::Error::other(
                "the memory of the relay does not become stable",
            ));
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// Figures from the relay's metrics.
#[derive(Clone, Copy, Debug, Default)]
struct Gauges {
    live: u64,
    /// Octets that count against the memory budget.
    counted: u64,
}

fn gauges(admin: SocketAddr) -> io::Result<Gauges> {
    let mut connection = TcpStream::connect(admin)?;
    connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    connection.read_to_string(&mut page)?;
    let gauge = |name: &str| {
        page.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            .ok_or_else(|| io::Error::other(format!("no {name} among the metrics")))
    };
    Ok(Gauges {
        live: gauge("tersed_live_messages ")?,
        counted: gauge("tersed_memory_bytes ")?,
    })
}

type Column = (&'static str, fn(&Storm) -> f64);

const COLUMNS: [Column; 7] = [
    ("idle", |storm| storm.idle as f64 / 1e6),
    ("peak", |storm| storm.peak as f64 / 1e6),
    ("1,000 live at most", |storm| storm.live_peak as f64 / 1e3),
    ("counted at most", |storm| storm.counted_peak as f64 / 1e6),
    ("after", |storm| storm.after as f64 / 1e6),
    ("counted after", |storm| storm.counted_after as f64 / 1e6),
    ("stable after s", |storm| storm.stable_after.as_secs_f64()),
];

/// Memory is stable if it has not changed for so long.
const STABLE: Duration = Duration::from_secs(5);

const PATIENCE: Duration = Duration::from_secs(60);
