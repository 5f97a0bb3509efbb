//! Reasons: the label values that a counter can have. Never free text.

/// A closed set of label values, one counter each.
pub trait Reason: Copy + 'static {
    /// Every value, in the order of [`Reason::index`].
    const ALL: &'static [Self];

    /// The value of the label.
    fn label(self) -> &'static str;

    /// Its position in [`Reason::ALL`].
    fn index(self) -> usize;
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $label:literal,)+ })+) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value of the label.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }
        }

        impl Reason for $name {
            const ALL: &'static [Self] = Self::ALL;

            fn label(self) -> &'static str {
                self.label()
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    )+ };
}

reasons! {
    /// Why a frame that was received was lost, against our will.
    DropReason {
        /// The queue to the upstream was full, and the policy is to drop.
        QueueFull => "queue_full",
        /// Longer than `max_message_size`, and the policy is to drop those.
        Oversize => "oversize",
        /// A datagram from a source that is not allowed.
        Acl => "acl",
        /// Still queued when the time for draining was over.
        Shutdown => "shutdown",
        /// A datagram that the upstream cannot take in one piece.
        TooLarge => "too_large",
        /// The spool's disk could not give it back.
        SpoolDamaged => "spool_damaged",
        /// The upstream answered that it will not have it.
        Refused => "refused",
        /// A compressed message, and the upstream's framing cannot carry it.
        Compressed => "compressed",
        /// A rule says so: the only one that is on purpose.
        Rule => "rule",
        /// It was in the hands of a task that panicked.
        Panic => "panic",
    }

    /// What was wrong with a frame, or with the octets where one should have been.
    FrameErrorReason {
        /// Longer than `max_message_size`; its head was kept or the frame dropped, as configured.
        Oversize => "oversize",
        /// A MSG-LEN that nobody can mean; taken as text.
        CountTooLarge => "count_too_large",
        /// The stream ended inside a frame.
        Incomplete => "incomplete",
        /// Octet counting was forced and there was no octet count.
        BadFrame => "bad_frame",
        /// Octets that break RELP; their connection was closed.
        Relp => "relp",
        /// A frame was begun and not ended in time.
        Timeout => "timeout",
        /// A datagram larger than the receive buffer; its head was forwarded.
        Truncated => "truncated",
    }

    /// Why a connection was closed before a frame was taken from it.
    RejectReason {
        /// The listener has as many connections as it may.
        Limit => "limit",
        /// That source has as many connections as one source may.
        SourceLimit => "source_limit",
        /// The source is not allowed.
        Acl => "acl",
        /// A TLS client on a plaintext listener.
        TlsOnPlaintext => "tls_on_plaintext",
        /// A RELP client on a listener for syslog frames.
        RelpOnSyslog => "relp_on_syslog",
        /// An HTTP client.
        Http => "http",
        /// A load balancer's header before what its client sends.
        ProxyProtocol => "proxy_protocol",
        /// A stream that is compressed as a whole.
        Zlib => "zlib",
        /// Text in UTF-16.
        Utf16 => "utf16",
    }

    /// What made a summary go out.
    SummaryReason {
        /// The window ended.
        Window => "window",
        /// The mark was evicted to stay within the memory budget.
        Evicted => "evicted",
        /// The configuration was reloaded.
        Reload => "reload",
        /// The relay stopped.
        Stop => "stop",
        /// The survivor was dropped after copies had been held back, so its window was opened again.
        Reopened => "reopened",
    }

    /// What the spool's disk said when it refused.
    SpoolErrno {
        /// The spool is as large as it may be.
        MaxSize => "max_size",
        /// The disk or the quota is full.
        NoSpace => "ENOSPC",
        /// The disk can only be read.
        ReadOnly => "EROFS",
        /// The directory was removed.
        Gone => "ENOENT",
        /// The directory is not at its path any more.
        Moved => "moved",
        /// A file is not safe to open.
        Unsafe => "unsafe",
        /// Anything else.
        Other => "EIO",
    }

    /// What the sender of a RELP transaction was told.
    AnswerResult {
        /// 200: it may forget the message.
        Ok => "ok",
        /// 500: the message was lost, or may have been.
        Refused => "refused",
    }

    /// What takes memory, and has a bound of its own.
    MemoryPart {
        /// Windows: `dedup.memory`.
        Windows => "windows",
        /// What waits for an upstream: `forward.queue`.
        Queue => "queue",
        /// Copies that wait: `suppressed.queue`.
        Copies => "copies",
        /// What was written and is kept to be sent again: `forward.resend_max`.
        Resend => "resend",
        /// Batches on their way to upstreams.
        Sending => "sending",
        /// What is on its way to the spool's disk and back.
        Spool => "spool",
        /// Connections, and answers owed on them.
        Connections => "connections",
        /// What has come of messages that are not whole yet.
        Unfinished => "unfinished",
        /// What connections hold that wait for room in the queue.
        Waiting => "waiting",
        /// Buffers of datagram sockets.
        Datagrams => "datagrams",
        /// Caches of regular expressions.
        Expressions => "expressions",
        /// The program and its threads.
        Program => "program",
    }

    /// What panicked.
    PanicTask {
        /// The task of a connection.
        Connection => "connection",
        /// The task that accepts the connections of a listener.
        Listener => "listener",
        /// The thread of a datagram socket.
        Datagram => "datagram",
        /// The forwarder.
        Forwarder => "forwarder",
        /// The forwarder of suppressed copies.
        Copies => "copies",
        /// The timer that ends windows.
        Windows => "windows",
        /// The main task: start, reload and stop.
        Main => "main",
        /// A task that only informs.
        Housekeeping => "housekeeping",
        /// A request to the admin port, or its connection.
        Admin => "admin",
    }

    /// What became of a request to reload the configuration.
    ReloadResult {
        /// The new configuration is in force.
        Ok => "ok",
        /// The old configuration was kept.
        Refused => "refused",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn check<R: Reason>() {
        let labels: HashSet<_> = R::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(
            labels.len(),
            R::ALL.len(),
            "a label stands twice: {labels:?}"
        );
        for (index, reason) in R::ALL.iter().enumerate() {
            assert_eq!(reason.index(), index, "{}", reason.label());
        }
    }

    #[test]
    fn every_reason_has_a_label_and_a_place_of_its_own() {
        check::<DropReason>();
        check::<FrameErrorReason>();
        check::<RejectReason>();
        check::<SpoolErrno>();
        check::<SummaryReason>();
        check::<AnswerResult>();
        check::<MemoryPart>();
        check::<ReloadResult>();
        check::<PanicTask>();
    }
}
