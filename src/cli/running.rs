//! `tersed check --running`: print the settings of a running relay, and compare them with its configuration file.
//!
//! ```text
//! relay ──/api/v1/config──▶ settings ──▶ printed as by `tersed check`
//!                              │
//!                              ├──▶ keys that differ
//!                              │
//!            file of the relay, under the relay's own flags
//! ```
//!
//! # Guarantees
//!
//! - One GET request is sent; the relay is not changed. An answer that comes too late or is too long is an error.
//! - A relay of an earlier build, whose keys have old names, is understood.
//! - The exit code is 0 if the file and the relay agree, 1 if they differ or the comparison failed.
//!
//! # Left out
//!
//! The files of relays on other machines: the file is read on this machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value};

use super::CheckFormat;
use super::check::describe;
use crate::admin::{Checked, OverFile, SOURCE, Source};
use crate::config::{Config, Override, RunArgs, rename};
use crate::logging::printable;

/// Asks the relay whose admin address `args` names, and prints its settings in `format`.
///
/// # Errors
///
/// Those of `out` and `err`.
pub(super) fn run(
    args: &RunArgs,
    format: CheckFormat,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitCode> {
    let answer = admin_address(args).and_then(|address| {
        let answer = ask(address).map_err(|error| {
            format!("http://{address}{PATH}: {error}; is the relay running, and is this its admin.address?")
        })?;
        Ok((address, answer))
    });
    let (address, answer) = match answer {
        Ok(answered) => answered,
        Err(error) => return fail(err, &error),
    };
    if format == CheckFormat::Json {
        out.write_all(answer.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let running = match Running::of(&answer) {
        Ok(running) => running,
        Err(error) => {
            let error = format!(
                "http://{address}{PATH}: {error}; is the relay of the same version as this command?"
            );
            return fail(err, &error);
        }
    };
    running.print(args, out, err)
}

fn fail(err: &mut impl Write, error: &str) -> io::Result<ExitCode> {
    for line in error.lines() {
        writeln!(err, "{}", printable(line))?;
    }
    Ok(ExitCode::FAILURE)
}

/// The answer of a running relay.
struct Running {
    file: Option<PathBuf>,
    source: Source,
    /// The settings, by the keys of the configuration file. Listeners that the service manager passed in are left
    /// out, unless there are no others.
    keys: Map<String, Value>,
    /// The same settings.
    config: Config,
}

impl Running {
    fn of(answer: &str) -> Result<Self, String> {
        let mut keys: Map<String, Value> =
            serde_json::from_str(answer).map_err(|error| error.to_string())?;
        rename(&mut keys);
        let source = keys.remove(SOURCE).unwrap_or_default();
        let source: Source = serde_json::from_value(source).map_err(|error| error.to_string())?;
        let file = keys.remove(FILE).unwrap_or_default();
        keys.remove(MEMORY_LIMIT);
        if let Some(Value::Array(listeners)) = keys.get_mut("listener") {
            let is_passed_in = |listener: &Value| {
                let name = listener["name"].as_str().unwrap_or_default();
                source.passed_in.iter().any(|passed_in| passed_in == name)
            };
            // If there are no other listeners, the file has none either, and both agree.
            if !listeners.iter().all(is_passed_in) {
                listeners.retain(|listener| !is_passed_in(listener));
            }
        }
        let config = Config::of_text("the running configuration", &toml(&keys))
            .map_err(|errors| errors.to_string())?;
        Ok(Self {
            file: file.as_str().map(PathBuf::from),
            source,
            keys,
            config,
        })
    }

    fn print(
        &self,
        args: &RunArgs,
        out: &mut impl Write,
        err: &mut impl Write,
    ) -> io::Result<ExitCode> {
        let mut text = Vec::new();
        describe(&self.config, &mut text)?;
        for line in String::from_utf8_lossy(&text).lines() {
            writeln!(out, "{}", printable(line))?;
        }
        for name in &self.source.passed_in {
            writeln!(out, "passed   {}, by the service manager", printable(name))?;
        }
        let file = args.file.clone().or_else(|| self.file.clone());
        self.print_overrides(file.clone(), out)?;
        let from = match &self.file {
            Some(file) => file.display().to_string(),
            None => "defaults (no file)".to_owned(),
        };
        writeln!(
            out,
            "loaded   {}, at {}",
            printable(&from),
            self.source.loaded_at
        )?;
        if let Some(refused) = &self.source.refused {
            writeln!(err, "the last reload, at {}, was refused:", refused.at)?;
            fail(err, &refused.error)?;
        }
        let Some(path) = file.clone() else {
            return Ok(ExitCode::SUCCESS);
        };
        let path = path.display().to_string();
        let written = OverFile::lay_over(file, &self.source.over_file);
        let written = match self.config.load_again(&written) {
            Ok(written) => written,
            Err(errors) => {
                writeln!(err, "{} would be refused by a reload:", printable(&path))?;
                return fail(err, &errors.to_string());
            }
        };
        let mut differences = Vec::new();
        compare(
            "",
            &Value::Object(self.keys.clone()),
            &values(Some(&written)),
            &mut differences,
        );
        if differences.is_empty() {
            let under = match self.source.over_file.is_empty() {
                true => "",
                false => ", except for overrides",
            };
            writeln!(out, "same     as {}{under}", printable(&path))?;
            return Ok(ExitCode::SUCCESS);
        }
        writeln!(
            err,
            "{} differs from the running configuration:",
            printable(&path)
        )?;
        for difference in differences {
            writeln!(err, "  {}", printable(&difference))?;
        }
        Ok(ExitCode::FAILURE)
    }

    /// Prints what overrides `file` in the relay, each with the value that the file alone has.
    fn print_overrides(&self, file: Option<PathBuf>, out: &mut impl Write) -> io::Result<()> {
        if self.source.over_file.is_empty() {
            return Ok(());
        }
        let alone = OverFile::lay_over(file, &[]);
        let alone = values(Config::load(&alone).ok().as_ref());
        for OverFile { key, by, value } in &self.source.over_file {
            let mut line = format!("override {key} = {value}, by {by}");
            let in_file = key.split('.').try_fold(&alone, |table, key| table.get(key));
            if let Some(Value::String(in_file)) = in_file.filter(|in_file| *in_file != value) {
                write!(line, "; the file alone has {in_file}")
                    .expect("writing to a String does not fail");
            }
            writeln!(out, "{}", printable(&line))?;
        }
        Ok(())
    }
}

/// The keys of `config` with their values, as in a file; `Null` if there is no configuration.
fn values(config: Option<&Config>) -> Value {
    let Some(config) = config else {
        return Value::Null;
    };
    let checked = serde_json::to_value(Checked::of(config, None));
    let mut values = checked.expect("a configuration consists of text and numbers");
    if let Value::Object(keys) = &mut values {
        keys.remove(FILE);
        keys.remove(MEMORY_LIMIT);
    }
    values
}

/// The relay's admin address: from `--admin`, or else from the file.
fn admin_address(args: &RunArgs) -> Result<SocketAddr, String> {
    let given = args
        .overrides
        .iter()
        .find(|(key, _)| *key == Override::Admin);
    if let Some((_, argument)) = given {
        let address = argument.text.parse();
        return address.map_err(|_| {
            format!(
                "{}: invalid \"{}\", expected an address and a port (\"127.0.0.1:8514\")",
                argument.name, argument.text
            )
        });
    }
    // Errors in the rest of the file do not matter here; they are reported after the relay has answered.
    if let Some(address) = Config::admin_address(args) {
        return Ok(address);
    }
    let errors = match Config::load(args) {
        Ok(_) => String::new(),
        Err(errors) => format!("{errors}\n"),
    };
    Err(format!(
        "{errors}admin.address is off, so no relay can be asked; use --admin ADDRESS, or --config FILE"
    ))
}

/// Fetches the relay's configuration page, and returns its body.
fn ask(address: SocketAddr) -> Result<String, String> {
    let answer = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // In one write: a server that answers after the first octets may have closed before the last.
        let request = format!("GET {PATH} HTTP/1.0\r\nhost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.take(ANSWER_OCTETS_MAX).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = answer().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {}s", PATIENCE.as_secs())
        }
        io::ErrorKind::InvalidData => NOT_TERSED.to_owned(),
        _ => error.to_string(),
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(NOT_TERSED)?;
    let status = head.lines().next().unwrap_or_default();
    if !status.starts_with("HTTP/") {
        return Err(NOT_TERSED.to_owned());
    }
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("answered \"{status}\", so {NOT_TERSED}"));
    }
    match serde_json::from_str::<Map<String, Value>>(body) {
        Ok(keys) if keys.contains_key(SOURCE) => Ok(body.to_owned()),
        _ => Err(NOT_TERSED.to_owned()),
    }
}

/// Adds a line to `differences` for each key at or below `key` whose values differ.
fn compare(key: &str, running: &Value, written: &Value, differences: &mut Vec<String>) {
    let below = |name: &str| match key {
        "" => name.to_owned(),
        key => format!("{key}.{name}"),
    };
    match (running, written) {
        (Value::Object(running), Value::Object(written)) => {
            let names: BTreeMap<&String, ()> = running
                .keys()
                .chain(written.keys())
                .map(|name| (name, ()))
                .collect();
            for name in names.into_keys() {
                let of =
                    |object: &Map<String, Value>| object.get(name).cloned().unwrap_or_default();
                compare(&below(name), &of(running), &of(written), differences);
            }
        }
        (Value::Array(running), Value::Array(written))
            if running.iter().chain(written).all(Value::is_object) =>
        {
            for (name, running, written) in pairs(running, written) {
                compare(&format!("{key}[{name}]"), running, written, differences);
            }
            let order = |array: &[Value]| array.iter().map(name_of).collect::<Vec<_>>();
            let (mut one, mut other) = (order(running), order(written));
            if one != other {
                one.sort_unstable();
                other.sort_unstable();
                if one == other {
                    differences.push(format!("{key}: different order"));
                }
            }
        }
        (running, written) if running == written => {}
        (running, Value::Null) => differences.push(format!(
            "{key}: running {}, not in the file",
            short(running)
        )),
        (Value::Null, written) => {
            differences.push(format!("{key}: not running, file {}", short(written)))
        }
        (running, written) => differences.push(format!(
            "{key}: running {}, file {}",
            short(running),
            short(written)
        )),
    }
}

/// The elements of both lists, paired by name.
fn pairs<'a>(running: &'a [Value], written: &'a [Value]) -> Vec<(String, &'a Value, &'a Value)> {
    const NONE: &Value = &Value::Null;
    let find = |list: &'a [Value], name: &str| list.iter().find(|element| name_of(element) == name);
    let both = running.iter().map(|element| {
        let name = name_of(element);
        let other = find(written, &name).unwrap_or(NONE);
        (name, element, other)
    });
    let new = written
        .iter()
        .map(|element| (name_of(element), NONE, element));
    let new = new.filter(|(name, _, _)| find(running, name).is_none());
    both.chain(new).collect()
}

/// The name of an element of a list; without one, its URL.
fn name_of(element: &Value) -> String {
    let name = element["name"].as_str().or_else(|| element["url"].as_str());
    name.unwrap_or_default().to_owned()
}

/// A value in one line; of a list element only its name or URL.
fn short(value: &Value) -> String {
    match value {
        Value::Object(_) => format!("\"{}\"", name_of(value)),
        value => value.to_string(),
    }
}

/// `keys` as a configuration file.
fn toml(keys: &Map<String, Value>) -> String {
    let mut text = String::new();
    for (key, value) in keys {
        text.push_str(&string(key));
        text.push_str(" = ");
        inline(value, &mut text);
        text.push('\n');
    }
    text
}

fn inline(value: &Value, text: &mut String) {
    match value {
        Value::Null => text.push_str("\"\""),
        Value::Bool(flag) => text.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => text.push_str(&number.to_string()),
        Value::String(words) => text.push_str(&string(words)),
        Value::Array(elements) => {
            text.push('[');
            for element in elements {
                inline(element, text);
                text.push_str(", ");
            }
            text.push(']');
        }
        Value::Object(keys) => {
            text.push_str("{ ");
            for (index, (key, value)) in keys.iter().enumerate() {
                if index > 0 {
                    text.push_str(", ");
                }
                text.push_str(&string(key));
                text.push_str(" = ");
                inline(value, text);
            }
            text.push_str(" }");
        }
    }
}

/// `words` as a basic string of TOML.
fn string(words: &str) -> String {
    let mut text = String::from("\"");
    for c in words.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => {
                write!(text, "\\u{:04X}", u32::from(c)).expect("writing to a String does not fail");
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

/// The error for a server whose answer is not the page.
const NOT_TERSED: &str = "the server at this address is not tersed";

const PATH: &str = "/api/v1/config";
const FILE: &str = "file";
const MEMORY_LIMIT: &str = "memory_limit";

/// For each step of the request: connecting, writing, each read.
const PATIENCE: Duration = Duration::from_secs(5);

/// More than any configuration takes.
const ANSWER_OCTETS_MAX: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_that_differ_are_named_with_both_values() {
        let running = json!({
            "dedup": { "window": "10s", "allow": 1, "state": "off" },
            "listener": [{ "name": "a", "url": "udp://a:1" }, { "name": "b", "url": "udp://b:1" }],
            "rule": [{ "name": "x", "mask": ["hex"] }, { "name": "y" }],
        });
        let written = json!({
            "dedup": { "window": "5m", "allow": 1, "max_quiet": "1m" },
            "listener": [{ "name": "b", "url": "udp://b:2" }, { "name": "c", "url": "udp://c:1" }],
            "rule": [{ "name": "y" }, { "name": "x", "mask": ["hex"] }],
        });
        let mut differences = Vec::new();
        compare("", &running, &written, &mut differences);
        assert_eq!(
            differences,
            [
                "dedup.max_quiet: not running, file \"1m\"",
                "dedup.state: running \"off\", not in the file",
                "dedup.window: running \"10s\", file \"5m\"",
                "listener[a]: running \"a\", not in the file",
                "listener[b].url: running \"udp://b:1\", file \"udp://b:2\"",
                "listener[c]: not running, file \"c\"",
                "rule: different order",
            ]
        );
        let mut differences = Vec::new();
        compare("", &running, &running, &mut differences);
        assert_eq!(differences, [""; 0]);
    }

    #[test]
    fn a_relay_that_has_old_names_of_keys_does_not_differ_because_of_them() {
        let text =
            "[forward]\nto = [\"tcp://a:601\"]\nresend_max = \"1MiB\"\nresend_age = \"2s\"\n";
        let written = Config::of_text("t.toml", text).unwrap();
        let mut page = values(Some(&written));
        let forward = page["forward"].as_object_mut().unwrap();
        for (new, old) in [("resend_max", "replay_max"), ("resend_age", "replay_age")] {
            let value = forward.remove(new).unwrap();
            forward.insert(old.to_owned(), value);
        }
        page[SOURCE] = json!({
            "loaded_at": "", "changed": false, "refused": null, "over_file": [], "passed_in": [],
        });
        let running = Running::of(&page.to_string()).unwrap();
        assert_eq!(running.config, written);
        assert_eq!(running.config.warnings(), [""; 0]);
        let mut differences = Vec::new();
        let (running, written) = (Value::Object(running.keys), values(Some(&written)));
        compare("", &running, &written, &mut differences);
        assert_eq!(differences, [""; 0]);
    }

    /// Every key, and characters that have to be escaped.
    #[test]
    fn the_configuration_can_be_read_back_from_the_page() {
        let text = r#"
            [[listener]]
            url = "udp://127.0.0.1:514"
            name = "qu\"ote \\ back\u202E"
            allow = ["192.0.2.0/24"]
            [[listener]]
            url = "unix-stream:///run/t.sock"
            [[listener]]
            url = "relp://[::1]:2514"
            [forward]
            to = [{ url = "tcp://a:601", framing = "octet-counting" }, { url = "file:///b", rotate_age = "1h" }]
            rebind = "1h"
            resend_max = "off"
            [suppressed]
            to = "file:///c"
            [spool]
            directory = "/var/spool/t"
            [mask]
            session = 'sid=([0-9a-f]+)\b'
            [dedup]
            refresh = true
            mask = ["session", "number"]
            [[rule]]
            name = "drop these"
            severity = "debug"
            msg = 'a "b" \d+'
            action = "drop"
            mode = "tag"
            [[rule]]
            name = "cron"
            app_name = ["cron*"]
            fields = ["app_name", "msg"]
            window = "1h 30m"
        "#;
        let config = Config::of_text("t.toml", text).unwrap();
        for config in [config, Config::default()] {
            let page = serde_json::to_value(Checked::of(&config, None)).unwrap();
            let mut keys = page.as_object().unwrap().clone();
            keys.remove(FILE);
            keys.remove(MEMORY_LIMIT);
            let again = Config::of_text("page", &toml(&keys)).unwrap();
            assert_eq!(again, config);
        }
    }
}
