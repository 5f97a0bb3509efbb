//! The spool against its slow obvious twin: a queue in memory.
