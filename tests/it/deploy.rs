//! The files in `deploy/`, checked by the programs that read them.
//!
//! systemd parses the units and measures their exposure. No systemd runs where the tests run, so no unit is started.
//! The Dockerfile and the compose file are parsed and checked for what matters (nothing in the image but a static
//! binary, a user that is not root, flags that the binary knows), because no container engine runs here either.
//! `.ci/run` assembles the image without one (deploy/build-image.sh, buildah) and runs the binary inside it. The base
//! images that docker would pull are never pulled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::support::process::run;
use super::support::tersed::BINARY;

#[test]
fn systemd_has_nothing_to_say_against_the_units() {
    let complaints = verify(&fs::read_to_string(deploy("tersed.service")).unwrap());
    assert_eq!(complaints, "");
}

#[test]
fn systemd_would_notice_a_misspelt_setting() {
    let service = fs::read_to_string(deploy("tersed.service")).unwrap();
    let complaints = verify(&service.replace("NoNewPrivileges", "NoNewPrivilege"));
    assert!(
        complaints.contains("Unknown key 'NoNewPrivilege'"),
        "{complaints}"
    );
}

#[test]
fn the_service_is_exposed_at_1_5_at_most() {
    let service = deploy("tersed.service");
    let args = [
        "security",
        "--offline=true",
        "--no-pager",
        service.to_str().unwrap(),
    ];
    let report = run("systemd-analyze", &args, "systemd");
    let (_, verdict) = report
        .rsplit_once("Overall exposure level for tersed.service: ")
        .unwrap_or_else(|| panic!("no verdict: {report}"));
    let exposure: f64 = verdict.split(' ').next().unwrap().parse().unwrap();
    assert!(exposure <= 1.5, "{report}");
}

#[test]
fn sysusers_makes_the_user_that_the_service_runs_as() {
    let file = deploy("sysusers.d/tersed.conf");
    let root = TempDir::new().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let root_arg = format!("--root={}", root.path().display());
    let args = [root_arg.as_str(), file.to_str().unwrap()];
    run("systemd-sysusers", &args, "systemd");
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    let service = fs::read_to_string(deploy("tersed.service")).unwrap();
    let user = value(&service, "User=");
    assert!(
        users
            .lines()
            .any(|line| line.starts_with(&format!("{user}:"))),
        "{users}"
    );
}

#[test]
fn the_image_holds_the_binary_alone_and_runs_as_nobody() {
    let dockerfile = fs::read_to_string(deploy("Dockerfile")).unwrap();
    let (_, last_stage) = dockerfile.rsplit_once("\nFROM ").expect("two stages");
    assert!(
        last_stage.starts_with("scratch\n"),
        "the last stage is from scratch"
    );
    let copies: Vec<_> = last_stage
        .lines()
        .filter(|line| line.starts_with("COPY"))
        .collect();
    assert_eq!(copies, ["COPY --from=build /out/tersed /tersed"]);
    assert!(
        dockerfile.contains("target-feature=+crt-static"),
        "the binary is static"
    );
    assert!(
        dockerfile.contains("--locked"),
        "the dependencies are those of Cargo.lock"
    );

    let user = value(last_stage, "USER ");
    let ids: Vec<u32> = user
        .split(':')
        .map(|id| id.parse().expect("numbers"))
        .collect();
    assert!(
        ids.len() == 2 && ids.iter().all(|&id| id > 0),
        "USER {user}"
    );
    assert_eq!(value(last_stage, "ENTRYPOINT "), r#"["/tersed"]"#);
    let command: Vec<String> = serde_json::from_str(value(last_stage, "CMD ")).unwrap();
    check_flags(&command);
}

#[test]
fn what_the_image_is_built_from_is_there_and_let_in() {
    let dockerfile = fs::read_to_string(deploy("Dockerfile")).unwrap();
    let ignore = fs::read_to_string(root(".dockerignore")).unwrap();
    let copies = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "));
    let mut sources = Vec::new();
    for copy in copies.filter(|copy| !copy.starts_with("--from")) {
        let (from, _) = copy.rsplit_once(' ').unwrap();
        sources.extend(from.split(' '));
    }
    assert!(sources.contains(&"src"), "{sources:?}");
    for source in sources {
        assert!(
            root(source).exists(),
            "deploy/Dockerfile copies {source}, which is not there"
        );
        let line = format!("!{source}");
        assert!(
            ignore.lines().any(|other| other == line),
            ".dockerignore keeps {source} out"
        );
    }
}

#[test]
fn the_compose_file_runs_the_relay_confined_and_with_flags_it_knows() {
    // Debian's own Python, for which python3-yaml is installed.
    let program = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let file = deploy("compose.yaml");
    let args = ["-c", program, file.to_str().unwrap()];
    let json = run("/usr/bin/python3", &args, "python3 and python3-yaml");
    let compose: Value = serde_json::from_str(&json).unwrap();

    let services = compose["services"].as_object().unwrap();
    for (name, service) in services {
        assert!(service["image"].is_string(), "{name} has no image");
        for needed in service["depends_on"].as_array().into_iter().flatten() {
            let needed = needed.as_str().unwrap();
            assert!(
                services.contains_key(needed),
                "{name} depends on {needed}, which is not there"
            );
        }
    }
    let tersed = &services["tersed"];
    assert_eq!(tersed["read_only"], true);
    assert_eq!(tersed["cap_drop"], serde_json::json!(["ALL"]));
    assert!(
        deploy(".")
            .join(tersed["build"]["context"].as_str().unwrap())
            .exists()
    );
    let command: Vec<String> = serde_json::from_value(tersed["command"].clone()).unwrap();
    check_flags(&command);
    for port in tersed["ports"].as_array().unwrap() {
        let port = port.as_str().unwrap();
        assert!(
            port.starts_with("127.0.0.1:"),
            "{port} is open to the world"
        );
    }
    let target = command
        .iter()
        .find_map(|arg| arg.strip_prefix("--forward=tcp://"))
        .unwrap();
    let (host, port) = target.split_once(':').unwrap();
    let collector = services[host]["command"][1].as_str().unwrap();
    assert!(
        collector.starts_with(&format!("TCP-LISTEN:{port},")),
        "{collector}"
    );
}

/// systemd's remarks on the units, with this service in place of the shipped one.
///
/// The binary need not be installed: the `ExecStart` of the service is changed to name the one under test.
fn verify(service: &str) -> String {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("tersed.service");
    assert!(
        service.contains("ExecStart=/usr/bin/tersed "),
        "where packages put it"
    );
    let service = service.replace(
        "ExecStart=/usr/bin/tersed ",
        &format!("ExecStart={BINARY} "),
    );
    fs::write(&path, service).unwrap();
    let socket = dir.path().join("tersed.socket");
    fs::copy(deploy("tersed.socket"), &socket).unwrap();
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .args([path, socket])
        .output()
        .unwrap_or_else(|err| panic!("systemd-analyze: {err}; install systemd (tests/run does)"));
    let said = String::from_utf8_lossy(&output.stderr);
    // Units of the system that ours refer to are loaded as well. They are not checked.
    let ours: Vec<_> = said
        .lines()
        .filter(|line| line.contains("tersed."))
        .collect();
    assert!(
        output.status.success() || !ours.is_empty(),
        "{}: {said}",
        output.status
    );
    ours.join("\n")
}

/// Asserts that the binary knows each flag of a `tersed run` command line.
fn check_flags(command: &[String]) {
    assert_eq!(command[0], "run");
    let help = run(BINARY, &["run", "--help"], "tersed itself");
    let flags: Vec<_> = command.iter().filter(|arg| arg.starts_with("--")).collect();
    assert!(!flags.is_empty());
    for flag in flags {
        let name = flag.split('=').next().unwrap();
        let known = help
            .split_whitespace()
            .any(|word| word.trim_end_matches(',') == name);
        assert!(known, "tersed run knows no {name}:\n{help}");
    }
}

/// The text after `key` at the start of a line.
fn value<'a>(text: &'a str, key: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.unwrap_or_else(|| panic!("no {key} in {text}"))
}

fn deploy(name: &str) -> PathBuf {
    root("deploy").join(name)
}

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
