//! The log of the relay under test, line by line: level, message and fields.
//!
//! Only complete lines are read. A line that is not JSON fails the test, except what is known to be for people.

use serde_json::Value;

use super::process::Process;

/// A line of the relay's log.
#[derive(Clone, Debug)]
pub(crate) struct LogLine {
    /// `INFO` and so on.
    pub(crate) level: String,
    /// The static message.
    pub(crate) message: String,
    fields: Value,
}

impl LogLine {
    /// A field of the line, as text.
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        match self.fields.get(name)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// Whether the line contains `text`, in its message or in a field.
    pub(crate) fn mentions(&self, text: &str) -> bool {
        self.message.contains(text)
            || self.fields.as_object().is_some_and(|fields| {
                fields
                    .keys()
                    .any(|name| self.field(name).is_some_and(|field| field.contains(text)))
            })
    }
}

/// The complete lines of the log so far.
///
/// # Panics
///
/// If a line is not JSON. Only the text of a panic is not; it is then shown.
pub(crate) fn log_lines(process: &Process) -> Vec<LogLine> {
    let stderr = process.stderr();
    let Some((complete, _)) = stderr.rsplit_once('\n') else {
        return Vec::new();
    };
    complete
        .lines()
        .filter(|line| {
            let of_launcher = |words: &&str| line.starts_with(*words);
            // The last line of an exit with status 1 is for people.
            !OF_SOCKET_ACTIVATE.iter().any(of_launcher) && !line.starts_with("tersed: ")
        })
        .map(parse_log_line)
        .collect()
}

fn parse_log_line(line: &str) -> LogLine {
    let json: Value =
        serde_json::from_str(line).unwrap_or_else(|err| panic!("not JSON ({err}): {line}"));
    // Fields are in the object "fields", or, if flattened, beside the level.
    let fields = json.get("fields").cloned().unwrap_or_else(|| json.clone());
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or("").to_owned();
    LogLine {
        level: text(json.get("level")),
        message: text(fields.get("message")),
        fields,
    }
}

/// What `systemd-socket-activate` prints before it execs the relay.
const OF_SOCKET_ACTIVATE: [&str; 3] = ["Listening on ", "Communication attempt ", "Execing "];
