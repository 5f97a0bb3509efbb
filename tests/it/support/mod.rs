//! Support for the tests: the relay under test, and the programs that it talks to.

pub(crate) mod command;
pub(crate) mod log_lines;
pub(crate) mod logger;
pub(crate) mod metrics;
pub(crate) mod network;
pub(crate) mod numbered;
pub(crate) mod ordered;
pub(crate) mod originator;
pub(crate) mod pipe;
pub(crate) mod proc_fs;
pub(crate) mod process;
pub(crate) mod relp;
pub(crate) mod rsyslogd;
pub(crate) mod sink;
pub(crate) mod syslog_ng;
pub(crate) mod tersed;
pub(crate) mod wait;
pub(crate) mod wire;
