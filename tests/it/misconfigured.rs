//! Probable mistakes in the configuration are reported by a start, a reload and `tersed check` alike.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use super::support::command::{self, Logs, argument};
use super::support::originator::Originator;
use super::support::pipe::make_fifo;
use super::support::sink::Sink;
use super::support::tersed::{BINARY, Setup, Tersed};
use super::support::wait::{LIMIT, wait_until};

#[test]
fn a_configuration_comes_from_a_file_or_from_a_given_pipe_and_not_from_a_fifo() {
    let text = b"[dedup]\nwindow = \"7s\"\n[forward]\nto = [\"tcp://127.0.0.1:1\"]\n";
    for path in ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"] {
        let checked = command::tersed(&["check", "--format", "json", path], text);
        assert_eq!(checked.json()["dedup"]["window"], "7s", "{path}");
    }
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    make_fifo(&fifo);
    let fifo = fifo.to_str().unwrap();
    for args in [["check", fifo], ["run", &format!("--config={fifo}")]] {
        let refused = command::tersed(&args, b"");
        assert_eq!(refused.code, Some(1), "{args:?}");
        assert_eq!(
            refused.stderr,
            format!("{fifo}: a FIFO, expected a file\n"),
            "{args:?}"
        );
    }
}

/// Each is a remainder of a file that is just being written. With it, survivors would go to standard output, or
/// listeners would move.
#[test]
fn a_file_that_lost_what_matters_replaces_nothing_at_sighup() {
    let sink = Sink::tcp();
    let listener = "[[listener]]\nname = \"in\"\nurl = \"tcp://127.0.0.1:0\"\n";
    let forward = format!("[forward]\nto = [\"{}\"]\n", sink.url());
    let whole = format!("{listener}{forward}[dedup]\nwindow = \"1h\"\n");
    let tersed = Setup::new().config(&whole).start();
    let mut originator = Originator::tcp(tersed.address("in"));
    originator.send("<13>1 - h a - - - first");
    sink.wait_messages(1);

    for (number, (text, reason)) in [
        ("", "sets nothing: it is empty, or has only comments"),
        ("# tersed.toml\n\n", "sets nothing"),
        (listener, "no longer has forward.to"),
        (
            &format!("{listener}[forward]\nqueue = \"1MiB\"\n"),
            "no longer has forward.to",
        ),
        (&forward, "no longer has a [[listener]]"),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(tersed.config_file(), text).unwrap();
        tersed.signal(Signal::SIGHUP);
        wait_until("the reload to be judged", LIMIT, || {
            tersed.log_count("reload refused") + tersed.log_count("reloaded") == number + 1
        });
        let log = tersed.log();
        let line = log.iter().rfind(|line| line.message.starts_with("reload"));
        let line = line.unwrap();
        assert!(line.mentions(reason), "{text:?}: {line:?}");
        assert!(line.mentions("and send SIGHUP"), "{line:?}");
    }
    originator.send("<13>1 - h a - - - second");
    sink.wait_messages(2);
    Originator::tcp(tersed.address("in")).send("<13>1 - h a - - - third");
    sink.wait_messages(3);

    // If the intention is written out, the reload succeeds. A table that is gone causes a warning.
    fs::write(tersed.config_file(), format!("{listener}{forward}")).unwrap();
    tersed.signal(Signal::SIGHUP);
    tersed.wait_log("reloaded");
    assert!(
        warns(&tersed, "no longer has [dedup]"),
        "{:#?}",
        tersed.log()
    );
    tersed.finish();
}

#[test]
fn a_start_that_leads_to_standard_output_unasked_says_so() {
    for (config, text) in [
        ("", "sets nothing: it is empty, or has only comments"),
        (
            "[dedup]\nallow = 2\n",
            "messages go to standard output; if you want that, write to = [\"stdout:\"]",
        ),
    ] {
        let tersed = Setup::new()
            .config(config)
            .listen("tcp://127.0.0.1:0")
            .start();
        assert!(warns(&tersed, text), "{:#?}", tersed.log());
        tersed.finish();
    }
    let asked = "[forward]\nto = [\"stdout:\"]\n";
    let tersed = Setup::new()
        .config(asked)
        .listen("tcp://127.0.0.1:0")
        .start();
    assert!(!warns(&tersed, ""), "{:#?}", tersed.log());
    tersed.finish();
}

#[test]
fn a_variable_that_is_none_is_warned_of_and_those_of_kubernetes_are_not() {
    let variables = [
        ("TERSED_WINDW", "1h"),
        ("TERSED_SERVICE_HOST", "10.0.0.11"),
        ("TERSED_PORT", "tcp://10.0.0.11:514"),
        ("TERSED_PORT_514_TCP_ADDR", "10.0.0.11"),
        ("TERSED_EU_SERVICE_PORT_SYSLOG", "514"),
    ];
    let text = "the variable TERSED_WINDW has no effect; did you mean TERSED_WINDOW?";
    let mut setup = Setup::new().listen("tcp://127.0.0.1:0").forward("stdout:");
    for (name, value) in variables {
        setup = setup.environment(name, value);
    }
    let tersed = setup.start();
    assert!(warns(&tersed, text), "{:#?}", tersed.log());
    assert_eq!(tersed.log_count("configuration"), 1);
    tersed.finish();

    let mut check = Command::new(BINARY);
    check.arg("check").env_clear().envs(variables);
    let (code, _, err) = said(&check.output().unwrap());
    assert_eq!((code, err), (Some(0), format!("warning: {text}\n")));
}

#[test]
fn check_says_what_it_judged() {
    let files = Logs::new();
    let file = files.write("t.toml", "[forward]\nto = [\"stdout:\"]\n");
    let first = |args: &[&str]| {
        let ran = command::tersed(args, b"");
        ran.text().lines().next().unwrap().to_owned()
    };
    assert_eq!(
        first(&["check"]),
        "file     none: the defaults, with flags and variables"
    );
    for args in [&["check", &file][..], &["check", "--config", &file]] {
        assert_eq!(first(args), format!("file     {file}"));
    }
    let json = command::tersed(&["check", "--format", "json", &file], b"").json();
    assert_eq!(json["file"], *file);
    let both = command::tersed(&["check", &file, "--config", &file], b"");
    assert_eq!(both.code, Some(2));
}

/// In its own mount namespace, where the usual file can be created.
#[test]
fn check_and_run_name_the_usual_file_if_it_is_there_and_not_read() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test mounts file systems: run it as root, as .ci/run does"
    );
    let script = "mount -t tmpfs none /etc && mkdir /etc/tersed && echo >/etc/tersed/tersed.toml && exec \"$0\" check";
    let output = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-ec",
            script,
            BINARY,
        ])
        // This variable is for the syslog-ng tests, and is not one of the relay's.
        .env_remove("TERSED_TEST_SYSLOG_NG")
        .output()
        .unwrap();
    let (code, out, err) = said(&output);
    assert_eq!(
        (code, err.as_str()),
        (
            Some(0),
            "note: /etc/tersed/tersed.toml exists but was not checked; to check it: tersed check \
             /etc/tersed/tersed.toml\n"
        )
    );
    assert!(out.starts_with("file     none: the defaults"), "{out}");

    let tersed = Setup::new()
        .listen("tcp://127.0.0.1:0")
        .forward("stdout:")
        .with_mounts("mount -t tmpfs none /etc; mkdir /etc/tersed; echo >/etc/tersed/tersed.toml")
        .start();
    let line =
        tersed.wait_log("a configuration file exists but is not read; name it with --config");
    assert_eq!(
        line.field("file").as_deref(),
        Some("/etc/tersed/tersed.toml")
    );
    tersed.finish();
}

#[test]
fn one_place_in_two_spellings_is_refused() {
    for (config, reason) in [
        (
            "[forward]\nto = [\"file:///d/../d/z\", \"file:///d/z\"]\n",
            "expected each upstream once",
        ),
        (
            "[forward]\nto = [\"tcp://Collector:514\", \"tcp://collector:514\"]\n",
            "expected each upstream once",
        ),
        (
            "[forward]\nto = [\"file:///d/z\"]\n[suppressed]\nto = \"file:///d/../d/z\"\n",
            "expected a destination that is not in forward.to",
        ),
        (
            "[[listener]]\nurl = \"unix-dgram:///tmp/l\"\n[forward]\nto = [\"unix-dgram:///tmp/x/../l\"]\n",
            "unix-dgram:///tmp/x/../l",
        ),
    ] {
        let (code, out, err) = check(config);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{config}{err}");
        assert!(err.contains(reason), "{config}{err}");
    }
}

#[test]
fn check_refuses_the_paths_that_run_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| argument(&dir.path().join(name));
    fs::write(at("file"), "").unwrap();
    fs::create_dir(at("open")).unwrap();
    fs::set_permissions(at("open"), fs::Permissions::from_mode(0o777)).unwrap();
    let spool = |path: &str| format!("[spool]\ndirectory = \"{}\"\n", at(path));
    let socket = |path: &str| format!("[[listener]]\nurl = \"unix-dgram://{}\"\n", at(path));
    for (config, reason) in [
        (spool("missing/spool"), "does not exist; create it"),
        (
            spool("open/spool"),
            "is not safe: mode 0777 allows group or others to write; chmod go-w",
        ),
        (spool("file"), "it is not a directory"),
        (
            socket("file"),
            "is a file, not a socket; remove it or choose another path",
        ),
    ] {
        let (code, out, err) = check(&config);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{config}{err}");
        assert!(err.contains(reason), "{config}{err}");
        let listen = if config.contains("[[listener]]") {
            ""
        } else {
            "[[listener]]\nurl = \"tcp://127.0.0.1:0\"\n"
        };
        let forward = "[forward]\nto = [\"stdout:\"]\n";
        let (status, said) = Setup::new()
            .config(&format!("{config}{listen}{forward}"))
            .start_refused();
        assert_eq!(status.code(), Some(1), "{config}{said}");
    }
    assert!(!Path::new(&at("missing")).exists());
    // Root checks a configuration that another user runs: not refused.
    fs::create_dir(at("theirs")).unwrap();
    std::os::unix::fs::chown(at("theirs"), Some(12345), None).unwrap();
    let (code, _, err) = check(&spool("theirs/spool"));
    assert_eq!(code, Some(0), "{err}");
    assert!(
        err.contains("ignore this only if tersed runs as another user"),
        "{err}"
    );
    assert!(!Path::new(&at("theirs/spool")).exists(), "nothing is made");
    // A valid path.
    assert_eq!(check(&spool("spool")).0, Some(0));
    assert!(!Path::new(&at("spool")).exists(), "nothing is made");
}

/// `run` starts without these directories, so the configuration is valid.
#[test]
fn check_warns_of_directories_that_are_not_there_yet() {
    let dir = tempfile::tempdir().unwrap();
    let missing = argument(&dir.path().join("missing"));
    let (code, _, err) = check(&format!(
        "[dedup]\nstate = \"{missing}/windows\"\n[suppressed]\nto = \"file://{missing}/copies\"\n\
         [forward]\nto = [\"file://{missing}/once\"]\n"
    ));
    assert_eq!(code, Some(0), "{err}");
    let keys: Vec<_> = err
        .lines()
        .map(|line| line.split(": ").nth(1).unwrap())
        .collect();
    assert_eq!(
        keys,
        ["dedup.state", "forward.to", "suppressed.to"],
        "{err}"
    );
    for line in err.lines() {
        assert!(
            line.contains(&format!("the directory {missing} does not exist")),
            "{line}"
        );
    }
}

#[test]
fn masks_beside_a_profile_are_added_and_shown() {
    let rule = |mask: &str| {
        format!(
            "[forward]\nto = [\"stdout:\"]\n[mask]\njob = 'job-[0-9]+'\n[[rule]]\nname = \"a\"\n\
             profile = \"cisco-asa\"\nmask = {mask}\n"
        )
    };
    let of_profile = "asa_connection, asa_client_port, asa_client_port_in_parentheses, asa_duration, asa_octets, asa_hits";
    for (mask, expected) in [
        (
            "[\"job\", \"ipv4\"]",
            format!("mask ipv4, job, {of_profile}"),
        ),
        ("[\"none\", \"job\"]", "mask job".to_owned()),
    ] {
        let (code, out, err) = check(&rule(mask));
        assert_eq!((code, err.as_str()), (Some(0), ""));
        let line = out.lines().find(|line| line.starts_with("rule ")).unwrap();
        assert!(line.ends_with(&format!("; {expected}")), "{line}");
        let files = Logs::new();
        let file = files.write("t.toml", rule(mask));
        let json = command::tersed(&["check", "--format", "json", "--config", &file], b"").json();
        let names = json["rule"][0]["mask"].as_array().unwrap();
        let names: Vec<_> = names.iter().map(|name| name.as_str().unwrap()).collect();
        assert_eq!(format!("mask {}", names.join(", ")), expected);
    }
    let (code, _, err) = check(&rule("[]"));
    assert_eq!(code, Some(1));
    assert!(err.contains("mask = [\"none\"] for no masks"), "{err}");
    // A mask that nothing uses.
    let (code, _, err) = check(&rule("[\"ipv4\"]"));
    assert_eq!(code, Some(0));
    assert!(err.contains("warning: mask \"job\" has no effect"), "{err}");
}

#[test]
fn words_and_keys_that_are_nearly_right_are_told_with_what_was_meant() {
    for (config, hint) in [
        (
            "[forward]\nstrategy = \"ballance\"\n",
            "(did you mean balance?)",
        ),
        ("[forward]\nto = [\"udp:a:1\"]\n", "(did you mean udp://?)"),
        (
            "[forward]\nto = [\"tcp://a:1\"]\nframing = \"octet-counting\"\n",
            "(framing belongs to one destination: to = [{ url = \"tcp://collector.example:601\", framing = \
             \"octet-counting\" }])",
        ),
        (
            "window = \"5m\"\n",
            "(window belongs to [[listener]], [dedup] or [[rule]])",
        ),
    ] {
        let (code, _, err) = check(config);
        assert_eq!(code, Some(1), "{config}");
        assert!(err.trim_end().ends_with(hint), "{err}");
    }
    let ran = command::tersed(&["chek"], b"");
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("'check'"), "{}", ran.stderr);
}

#[test]
fn sizes_are_shown_as_they_were_written() {
    let (_, out, _) = check(
        "[forward]\nto = [\"stdout:\"]\nqueue = \"64MB\"\n[dedup]\nmemory = \"1500MiB\"\nwindow = \"1h 30m\"\n",
    );
    for part in ["queue    64MB,", "memory   1500MiB,", "once in 1h 30m;"] {
        assert!(out.contains(part), "{part}\n{out}");
    }
}

/// The result of `tersed check` for a file with this text.
fn check(config: &str) -> (Option<i32>, String, String) {
    let files = Logs::new();
    let file = files.write("t.toml", config);
    let ran = command::tersed(&["check", "--config", &file], b"");
    (ran.code, String::from_utf8(ran.stdout).unwrap(), ran.stderr)
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Whether a warning about the configuration contains `text`.
fn warns(tersed: &Tersed, text: &str) -> bool {
    let log = tersed.log();
    let mut warnings = log
        .iter()
        .filter(|line| line.level == "WARN" && line.message == "configuration");
    warnings.any(|line| line.mentions(text))
}
