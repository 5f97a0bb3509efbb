//! Measures how fast masks find and fold the variable parts of typical messages.
//!
//! ```text
//! cargo bench --bench core -- mask
//! ```
//!
//! The table has a line for each set of masks: MB of MSG per second of processor time, nanoseconds per
//! message, and the share of octets folded. The messages are made here after those of common daemons, with
//! numbers and addresses drawn at random. The first set of each text folds nothing and only copies.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io;
use std::time::Duration;

use tersed::core::identity::mask::{Builtin, BuiltinSet, Masks, Pattern};

use crate::cpu_time;

/// Makes the next line of a text.
type Line = fn(&mut Random) -> String;

pub(crate) fn run(smoke: bool) -> io::Result<()> {
    let (count, rounds) = if smoke { (100, 1) } else { (20_000, 15) };
    let texts: [(&str, Line); 3] = [("mixed", mixed), ("prose", prose), ("dense", dense)];
    let set = |builtins: &[Builtin]| builtins.iter().copied().collect();
    let inner: BuiltinSet = Builtin::ALL
        .into_iter()
        .filter(|builtin| ![Builtin::Quoted, Builtin::Path].contains(builtin))
        .collect();
    let pattern = |name: &str, regex: &str| Pattern {
        name: name.to_owned(),
        regex: regex.to_owned(),
    };
    let user = vec![
        pattern("user", r"user[= ]\w+"),
        pattern("session", r"session[= ][0-9a-z]+"),
    ];
    let sets = [
        ("none", BuiltinSet::EMPTY, vec![]),
        ("number", set(&[Builtin::Number]), vec![]),
        (
            "number, hex, ipv4",
            set(&[Builtin::Number, Builtin::Hex, Builtin::Ipv4]),
            vec![],
        ),
        ("all but quoted, path", inner, vec![]),
        ("all", set(&Builtin::ALL), vec![]),
        ("two of the user's", BuiltinSet::EMPTY, user.clone()),
        ("all, and two of the user's", set(&Builtin::ALL), user),
    ];

    println!("| text | masks | MB/s | ns/message | folded |");
    println!("|---|---|--:|--:|--:|");
    for (text, line) in texts {
        let mut random = Random(1);
        let lines: Vec<_> = (0..count).map(|_| line(&mut random)).collect();
        for (name, builtins, patterns) in &sets {
            let masks =
                Masks::new(*builtins, patterns.clone()).expect("the patterns above are valid");
            measure(text, name, &masks, &lines, rounds);
        }
    }
    Ok(())
}

fn measure(text: &str, name: &str, masks: &Masks, lines: &[String], rounds: usize) {
    let octets: usize = lines.iter().map(String::len).sum();
    let mut folded = 0;
    for line in lines {
        masks.each(line.as_bytes(), |range, _| folded += range.len());
    }
    let mut out = Vec::new();
    let mut best = Duration::MAX;
    for _ in 0..rounds {
        let before = cpu_time();
        for line in lines {
            out.clear();
            masks.write_identity(black_box(line.as_bytes()), &mut out);
            black_box(&out);
        }
        best = best.min(cpu_time().saturating_sub(before));
    }
    let seconds = best.as_secs_f64().max(f64::MIN_POSITIVE);
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let (octets, folded, count) = (octets as f64, folded as f64, lines.len() as f64);
    println!(
        "| {text} | {name} | {:.0} | {:.0} | {:.0} % |",
        octets / seconds / 1e6,
        seconds * 1e9 / count,
        folded * 100.0 / octets
    );
}

/// Messages of a server's daemons, drawn at random.
fn mixed(random: &mut Random) -> String {
    let (pid, port, ip) = (random.below(65_536), random.below(65_536), random.ipv4());
    match random.below(12) {
        0 => format!("Failed password for invalid user admin from {ip} port {port} ssh2"),
        1 => format!(
            "Accepted publickey for deploy from {ip} port {port} ssh2: RSA SHA256:Zk3vQ8m2yPq0c7rW1t"
        ),
        2 => format!("Connection closed by authenticating user root {ip} port {port} [preauth]"),
        3 => format!(
            "{ip} - - [22/Nov/2026:10:{:02}:{:02} +0000] \"GET /api/v1/items/{pid} HTTP/1.1\" 200 {port} \"-\" \
             \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\"",
            pid % 60,
            port % 60
        ),
        4 => format!(
            "[{pid}.{port:06}] eth0: link becomes ready, speed 1000 Mb/s, full duplex, flow control off"
        ),
        5 => format!(
            "Started Session {pid} of user deploy, scope session-{pid}.scope, slice user-1000.slice"
        ),
        6 => "(root) CMD (cd / && run-parts --report /etc/cron.hourly >/dev/null 2>&1)".to_owned(),
        7 => format!(
            "named[{pid}]: client @0x7f{:08x} {ip}#{port} (example.net): query (cache) denied",
            pid * 77
        ),
        8 => format!(
            "postfix/smtpd: disconnect from unknown[{ip}] ehlo=1 auth=0/1 quit=1 commands=2/3"
        ),
        9 => format!(
            "level=warn msg=\"slow request\" request_id={:08x}-9dad-11d1-80b4-00c04fd430c8 took={port}ms retries=3",
            pid
        ),
        10 => format!(
            "DHCPACK on {ip} to 00:00:5e:00:{:02x}:{:02x} (workstation) via br-lan",
            pid % 256,
            port % 256
        ),
        _ => format!(
            "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={ip} user=root"
        ),
    }
}

/// Words with hardly a number in them.
fn prose(random: &mut Random) -> String {
    let mut line = String::from("daemon reports that");
    for _ in 0..12 + random.below(8) {
        const WORDS: [&str; 16] = [
            "connection",
            "failed",
            "accepted",
            "because",
            "the",
            "configuration",
            "cannot",
            "be",
            "read",
            "service",
            "started",
            "after",
            "a",
            "timeout",
            "while",
            "device",
        ];
        line.push(' ');
        line.push_str(WORDS[usize::try_from(random.below(16)).expect("it is below 16")]);
    }
    line
}

/// Almost all of it is folded.
fn dense(random: &mut Random) -> String {
    let mut line = String::new();
    for _ in 0..12 {
        let number = random.below(100_000);
        let written = match random.below(4) {
            0 => write!(line, "{number} "),
            1 => write!(line, "{} ", random.ipv4()),
            2 => write!(line, "0x{number:x} "),
            _ => write!(line, "t={number}ms "),
        };
        written.expect("writing to a string cannot fail");
    }
    line
}

/// A linear congruential generator: the same lines in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn ipv4(&mut self) -> String {
        let [a, b, c] = [self.below(223) + 1, self.below(256), self.below(256)];
        format!("{a}.{b}.{c}.{}", self.below(256))
    }
}
