//! Command lines and environments, and the commands that they are parsed to.

use std::time::Duration;

use super::*;
use crate::config::{Config, ListenUrl, UpstreamUrl};
use crate::explain::Depth;

const EMPTY: [(&str, &str); 0] = [];

fn command<const N: usize>(
    line: &str,
    variables: [(&str, &str); N],
) -> Result<Command, clap::Error> {
    parse(line.split(' '), &Environment::new(variables))
}

/// The configuration of the command `line` with `variables`.
fn config<const N: usize>(line: &str, variables: [(&str, &str); N]) -> Result<Config, String> {
    match command(line, variables).unwrap() {
        Command::Run(args) => Config::load(&args).map_err(|errors| errors.to_string()),
        other => panic!("{line}: {other:?}"),
    }
}

fn help(line: &str) -> String {
    let text = command(line, EMPTY).unwrap_err();
    assert_eq!(text.exit_code(), 0, "{line}");
    text.to_string()
}

/// Every flag with the variable that stands for it.
const FLAGS: [(&str, &str); 10] = [
    ("--config", "TERSED_CONFIG"),
    ("--listen", "TERSED_LISTEN"),
    ("--forward", "TERSED_FORWARD"),
    ("--window", "TERSED_WINDOW"),
    ("--summary", "TERSED_SUMMARY"),
    ("--memory", "TERSED_MEMORY"),
    ("--when-full", "TERSED_WHEN_FULL"),
    ("--admin", "TERSED_ADMIN"),
    ("--log-level", "TERSED_LOG"),
    ("--log-format", "TERSED_LOG_FORMAT"),
];

#[test]
fn the_definition_of_the_command_line_is_sound() {
    CommandLine::command().debug_assert();
    assert_eq!(FLAGS.map(|(_, variable)| variable), environment::VARIABLES);
}

#[test]
fn a_bare_command_runs_the_default() {
    assert_eq!(
        command("tersed", EMPTY).unwrap(),
        Command::Run(RunArgs::default())
    );
    assert_eq!(config("tersed", EMPTY), Ok(Config::default()));
    assert_eq!(config("tersed run", EMPTY), Ok(Config::default()));
}

#[test]
fn flags_mean_the_same_with_and_without_run() {
    let line =
        "--listen udp://[::]:1 --listen udp://[::]:2 --forward stdout: --window 1s --admin [::]:3";
    let Command::Run(bare) = command(&format!("tersed {line}"), EMPTY).unwrap() else {
        panic!()
    };
    assert_eq!(
        command(&format!("tersed run {line}"), EMPTY).unwrap(),
        Command::Run(bare.clone())
    );
    assert_eq!(
        command(&format!("tersed check {line}"), EMPTY).unwrap(),
        Command::Check(bare.clone(), CheckFormat::Text)
    );
    assert_eq!(
        (bare.listen.len(), bare.forward.len(), bare.overrides.len()),
        (2, 1, 2)
    );
}

#[test]
fn the_error_for_a_wrong_flag_or_variable_names_it() {
    for (flag, variable) in &FLAGS[1..] {
        let text = config(&format!("tersed {flag} \u{7}"), EMPTY).unwrap_err();
        assert!(
            text.starts_with(&format!("{flag}: invalid \"\\u{{7}}\", expected ")),
            "{text}"
        );
        let text = config("tersed", [(*variable, "\u{7}")]).unwrap_err();
        assert!(
            text.starts_with(&format!("{variable}: invalid \"\\u{{7}}\", expected ")),
            "{text}"
        );
        // A valid flag hides an invalid variable, which is then not read.
        let right = match *flag {
            "--listen" => "udp://[::]:0",
            "--forward" => "stdout:",
            "--window" => "1s",
            "--summary" => "none",
            "--memory" => "1MiB",
            "--when-full" => "wait",
            "--admin" => "off",
            "--log-level" => "info",
            _ => "text",
        };
        assert!(
            config(&format!("tersed {flag} {right}"), [(*variable, "\u{7}")]).is_ok(),
            "{flag}"
        );
    }
}

#[test]
fn a_flag_beats_its_variable_and_the_variable_beats_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    std::fs::write(&path, "[dedup]\nwindow = \"1s\"").unwrap();
    let path = path.to_str().unwrap();
    let with_file = format!("tersed --config {path}");
    let window = |line: &str, variable: &str| {
        let variables = [("TERSED_WINDOW", variable), ("TERSED_CONFIG", "")];
        config(line, variables).unwrap().dedup.policy.window.window
    };
    assert_eq!(window("tersed", ""), Duration::from_secs(10));
    assert_eq!(window(&with_file, ""), Duration::from_secs(1));
    assert_eq!(window(&with_file, "2s"), Duration::from_secs(2));
    assert_eq!(
        window(&format!("{with_file} --window 3s"), "2s"),
        Duration::from_secs(3)
    );

    let by_variable = config("tersed", [("TERSED_CONFIG", path)]).unwrap();
    assert_eq!(
        by_variable.dedup.policy.window.window,
        Duration::from_secs(1)
    );
    // The file named by the flag is read, not the variable's.
    let absent = format!("{path}.absent");
    assert!(config("tersed", [("TERSED_CONFIG", absent.as_str())]).is_err());
    assert!(config(&with_file, [("TERSED_CONFIG", absent.as_str())]).is_ok());
}

#[test]
fn a_variable_holds_a_list_between_commas() {
    let config = config(
        "tersed",
        [
            ("TERSED_LISTEN", "udp://[::]:1, tcp://[::]:2"),
            ("OTHER", "x"),
        ],
    )
    .unwrap();
    let names: Vec<&str> = config
        .listeners
        .iter()
        .map(|listener| listener.name.as_str())
        .collect();
    assert_eq!(names, ["udp://[::]:1", "tcp://[::]:2"]);
}

#[test]
fn variables_that_an_orchestrator_sets_are_ignored() {
    let variables = [
        ("TERSED_PORT", "tcp://10.0.0.1:514"),
        ("TERSED_SERVICE_HOST", "10.0.0.1"),
    ];
    assert_eq!(config("tersed", variables), Ok(Config::default()));
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    for line in [
        "tersed --windw 1s",
        "tersed --window",
        "tersed --window 1s --window 2s",
        "tersed walk",
        "tersed --window 1s run",
        "tersed completions cmd",
        "tersed check --format xml",
        "tersed explain --format xml",
        "tersed explain --framing relp",
        "tersed explain --source somewhere",
        "tersed replay --format json log",
        "tersed replay --report --format xml log",
        "tersed replay --listen stdout:",
        "tersed --format json",
    ] {
        assert_eq!(command(line, EMPTY).unwrap_err().exit_code(), 2, "{line}");
    }
}

#[test]
fn a_variable_that_is_not_utf_8_is_a_usage_error() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let broken = OsStr::from_bytes(b"\xff");
    let environment = Environment::new([("TERSED_WINDOW", broken)]);
    let err = parse(["tersed"], &environment).unwrap_err();
    assert_eq!(
        (err.exit_code(), err.to_string().as_str()),
        (2, "error: TERSED_WINDOW: not UTF-8\n")
    );
    // A path may be any octets.
    let environment = Environment::new([("TERSED_CONFIG", broken)]);
    let args = RunArgs {
        file: Some(broken.into()),
        ..RunArgs::default()
    };
    assert_eq!(parse(["tersed"], &environment).unwrap(), Command::Run(args));
}

#[test]
fn help_names_every_flag_and_its_variable() {
    let defined = CommandLine::command();
    let defined = defined
        .get_arguments()
        .filter_map(|argument| argument.get_long());
    assert_eq!(
        defined.collect::<Vec<_>>(),
        FLAGS.map(|(flag, _)| flag.trim_start_matches('-'))
    );
    for line in [
        "tersed --help",
        "tersed -h",
        "tersed run --help",
        "tersed check --help",
    ] {
        // Lines may be wrapped anywhere between words.
        let text = help(line).split_whitespace().collect::<Vec<_>>().join(" ");
        for (flag, variable) in FLAGS {
            assert!(text.contains(&format!("{flag} <")), "{line}: {flag}");
            assert!(
                text.contains(&format!("[env: {variable}]")),
                "{line}: {variable}"
            );
        }
    }
}

#[test]
fn help_teaches_examples_signals_and_exit_statuses() {
    let text = help("tersed --help");
    for part in [
        "Examples:",
        "SIGHUP",
        "SIGTERM",
        "Exit status:",
        "udp://127.0.0.1:5514",
    ] {
        assert!(text.contains(part), "{part}");
    }
    assert!(!text.contains("completions"));
    assert!(help("tersed check --help").contains("--format <FORMAT>"));
    for line in [
        "tersed -h",
        "tersed run -h",
        "tersed run --help",
        "tersed check --help",
    ] {
        let kinds = [ListenUrl::FORMS, UpstreamUrl::FORMS].map(|forms| forms.split(", "));
        for form in kinds.into_iter().flatten() {
            let kind = form.split(':').next().unwrap();
            assert!(help(line).contains(kind), "{line}: {kind}");
        }
    }
    for line in ["tersed run --help", "tersed check --help"] {
        for url in ["relp://ADDRESS:PORT", "relp://HOST:PORT"] {
            assert!(help(line).contains(url), "{line}: {url}");
        }
    }
}

#[test]
fn the_examples_of_the_help_are_valid() {
    let lines = AFTER_LONG_HELP
        .lines()
        .filter(|line| line.starts_with("  tersed"));
    let mut seen = 0;
    for line in lines {
        // The redirection is for the shell.
        let line = line.split(" <").next().unwrap();
        match command(line.trim(), EMPTY).unwrap() {
            Command::Run(args) => assert!(Config::load(&args).is_ok(), "{line}"),
            Command::Check(args, CheckFormat::Text) => assert!(args.file.is_some()),
            Command::Check(args, CheckFormat::Json) => assert_eq!(args, RunArgs::default()),
            Command::Explain(args) => assert_eq!(args.depth, Depth::Reasons),
            Command::Replay(args) => assert!(args.wants_report() && args.files.len() == 2),
            other => panic!("{line}: {other:?}"),
        }
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn packagers_get_a_manual_page_and_completions() {
    let mut page = Vec::new();
    man(&mut page).unwrap();
    let page = String::from_utf8(page).unwrap();
    assert!(page.contains(".TH tersed 1") && page.contains("\\-\\-when\\-full"));
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut script = Vec::new();
        completions(shell, &mut script).unwrap();
        assert!(
            String::from_utf8(script).unwrap().contains("when-full"),
            "{shell}"
        );
    }
}

#[test]
fn explain_and_replay_take_the_file_and_the_window_by_flag_or_variable() {
    let variables = [("TERSED_CONFIG", "c.toml"), ("TERSED_WINDOW", "1m")];
    let Command::Replay(args) = command("tersed replay log", variables).unwrap() else {
        panic!()
    };
    assert_eq!(args.config.file, Some("c.toml".into()));
    let (_, window) = &args.config.overrides[0];
    assert_eq!((window.name, window.text.as_str()), ("TERSED_WINDOW", "1m"));

    let line = "tersed replay --window 2m --config d.toml a b";
    let Command::Replay(args) = command(line, variables).unwrap() else {
        panic!()
    };
    assert_eq!(args.config.file, Some("d.toml".into()));
    let (_, window) = &args.config.overrides[0];
    assert_eq!((window.name, window.text.as_str()), ("--window", "2m"));
    assert_eq!(args.files, [PathBuf::from("a"), PathBuf::from("b")]);

    let Command::Explain(args) = command("tersed explain", EMPTY).unwrap() else {
        panic!()
    };
    assert_eq!(args.config, RunArgs::default());
    assert_eq!(
        (args.format_on(true), args.format_on(false)),
        (explain::Format::Text, explain::Format::Json)
    );
}

#[test]
fn help_of_explain_and_replay_teaches_by_examples() {
    for (line, parts) in [
        (
            "tersed explain --help",
            ["Keys:", "Examples:", "Exit status:"],
        ),
        (
            "tersed replay --help",
            ["Time:", "Examples:", "Exit status:"],
        ),
    ] {
        let text = help(line);
        for part in parts {
            assert!(text.contains(part), "{line}: {part}");
        }
        assert!(text.contains("[env: TERSED_CONFIG]"), "{line}");
    }
}

#[test]
fn the_error_for_a_stray_file_or_a_list_names_the_right_flag() {
    let refused = |arguments: &[&str]| {
        let line = [&["tersed"], arguments].concat();
        let error = parse(line, &Environment::new(EMPTY)).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    for arguments in [&["run", "x.toml"][..], &["./x.toml"]] {
        let text = refused(arguments);
        let file = arguments.last().unwrap();
        assert!(text.contains(&format!("'--config {file}'")), "{text}");
    }
    assert!(!refused(&["run", "word"]).contains("--config word"));
    let text = refused(&["--listen", "udp://[::1]:1,tcp://[::1]:1"]);
    assert!(
        text.contains("repeat the flag: --listen udp://[::1]:1 --listen tcp://[::1]:1"),
        "{text}"
    );
    let text = refused(&["--forward", "stdout:, tcp://a:1"]);
    assert!(
        text.contains("--forward stdout: --forward tcp://a:1"),
        "{text}"
    );
    let line = ["tersed", "--listen", "unix-dgram:///a,b"];
    assert!(parse(line, &Environment::new(EMPTY)).is_ok());
}
