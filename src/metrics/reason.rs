//! Reasons: the values that a counter's label can have. They are a closed set, never free text.

/// A closed set of label values, one counter each.
pub(crate) trait Reason: Copy + 'static {
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
        pub(crate) enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value of the label.
            #[must_use]
            pub(crate) const fn label(self) -> &'static str {
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
    /// Why a received frame was lost.
    DropReason {
        /// The queue was full, and `when_full` says to drop.
        QueueFull => "queue_full",
        /// Longer than `max_message_size`, and `oversize` says to drop.
        Oversize => "oversize",
        /// A datagram from a source that is not allowed.
        Acl => "acl",
        /// Still queued when the shutdown grace period expired, or when the forwarder failed.
        Shutdown => "shutdown",
        /// Too long for one datagram to the upstream.
        TooLarge => "too_large",
        /// The spool could not read it back from the disk.
        SpoolDamaged => "spool_damaged",
        /// The upstream answered that it refuses it.
        Refused => "refused",
        /// Compressed, and the upstream's framing cannot carry it.
        Compressed => "compressed",
        /// A rule drops it. Only this reason is on purpose.
        Rule => "rule",
        /// It was in the hands of a task that panicked.
        Panic => "panic",
    }

    /// What was wrong with a frame, or with octets that are not a frame.
    FrameErrorReason {
        /// Longer than `max_message_size`; it was cut or dropped, as configured.
        Oversize => "oversize",
        /// Implausibly large octet count; taken as text.
        CountTooLarge => "count_too_large",
        /// The stream ended inside a frame.
        Incomplete => "incomplete",
        /// Octet counting was forced and there was no octet count.
        BadFrame => "bad_frame",
        /// Not RELP; the connection was closed.
        Relp => "relp",
        /// A frame was begun and did not end in time.
        Timeout => "timeout",
        /// A datagram larger than the receive buffer; its head was forwarded.
        Truncated => "truncated",
    }

    /// Why a connection was closed before a frame was taken from it.
    RejectReason {
        /// The listener has `connections_max` connections.
        Limit => "limit",
        /// That address has as many connections as one address may have.
        SourceLimit => "source_limit",
        /// The source is not allowed.
        Acl => "acl",
        /// A TLS client on a plaintext listener.
        TlsOnPlaintext => "tls_on_plaintext",
        /// A RELP client on a listener for syslog frames.
        RelpOnSyslog => "relp_on_syslog",
        Http => "http",
        /// A load balancer's header before what its client sends.
        ProxyProtocol => "proxy_protocol",
        /// A stream that is compressed as a whole.
        Zlib => "zlib",
        Utf16 => "utf16",
    }

    /// What caused a summary.
    SummaryReason {
        Window => "window",
        /// The window was evicted to stay within the memory limit.
        Evicted => "evicted",
        /// The configuration was reloaded.
        Reload => "reload",
        Stop => "stop",
        /// The survivor was dropped after copies had been suppressed, so the next copy goes through.
        Reopened => "reopened",
    }

    /// Why the spool's disk failed.
    SpoolErrno {
        /// The spool has reached its configured size.
        MaxSize => "max_size",
        /// The disk or the quota is full.
        NoSpace => "ENOSPC",
        /// The disk is read-only.
        ReadOnly => "EROFS",
        /// The directory was removed.
        Gone => "ENOENT",
        /// Another directory is at its path now.
        Moved => "moved",
        /// A file is not safe to open.
        Unsafe => "unsafe",
        Other => "EIO",
    }

    /// What the sender of a RELP transaction was told.
    AnswerResult {
        /// 200: the sender may forget the message.
        Ok => "ok",
        /// 500: the message was lost, or may have been.
        Refused => "refused",
    }

    /// A part of the process that takes memory and has its own limit.
    MemoryPart {
        Windows => "windows",
        /// The queue to the upstreams: `forward.queue`.
        Queue => "queue",
        /// The copies' queue: `suppressed.queue`.
        Copies => "copies",
        /// The resend ring: `forward.resend_max`.
        Resend => "resend",
        /// Batches on their way to upstreams.
        Sending => "sending",
        /// Batches on their way to the spool's disk and back.
        Spool => "spool",
        /// Connections, and RELP answers that are due on them.
        Connections => "connections",
        /// Messages that have arrived in part.
        Unfinished => "unfinished",
        /// Batches of connections that wait for room in the queue.
        Waiting => "waiting",
        /// Buffers of datagram sockets.
        Datagrams => "datagrams",
        /// Caches of regular expressions.
        Expressions => "expressions",
        /// The program and its threads.
        Program => "program",
    }

    PanicTask {
        /// The task of a connection.
        Connection => "connection",
        /// The task that accepts the connections of a listener.
        Listener => "listener",
        /// The thread of a datagram socket.
        Datagram => "datagram",
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

    /// The result of a request to reload the configuration.
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
