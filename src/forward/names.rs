//! Names: look-ups run on threads of their own, because the system's resolver may block for any time.
//!
//! # Guarantees
//!
//! - A look-up that never returns occupies one thread, and delays neither other names nor the stop.
//! - At most [`EACH_MAX`] look-ups of one name, and [`THREADS_MAX`] of all names, block at once.
//! - If the system makes no thread for the first look-up, the caller gets an error and tries again later.
//!
//! # Left out
//!
//! A time limit: the caller stops waiting.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::{Arc, LazyLock, Mutex},
};

use crate::lock::lock;
use crate::{
    config::{UpstreamConfig, UpstreamUrl},
    thread::{CallError, Pool},
};

/// All addresses of `host`, in the resolver's order. An address is returned without a look-up.
///
/// # Errors
///
/// The resolver's error; there is no thread to ask it; or too many look-ups of this name have not returned yet.
pub(super) async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    NAMES.look_up(host, port).await
}

/// Makes a thread for look-ups if one of `upstreams` has a name.
///
/// # Errors
///
/// The system makes no thread.
pub(super) fn keep_thread_for(upstreams: &[UpstreamConfig]) -> io::Result<()> {
    let has_name = |upstream: &UpstreamConfig| match &upstream.url {
        UpstreamUrl::Tcp { host, .. }
        | UpstreamUrl::Relp { host, .. }
        | UpstreamUrl::Udp { host, .. } => host.parse::<IpAddr>().is_err(),
        UpstreamUrl::UnixStream(_)
        | UpstreamUrl::UnixDgram(_)
        | UpstreamUrl::File(_)
        | UpstreamUrl::Stdout => false,
    };
    if upstreams.iter().any(has_name) {
        NAMES.pool.keep(1)?;
    }
    Ok(())
}

static NAMES: LazyLock<Names> =
    LazyLock::new(|| Names::new(|host, port| Ok((host, port).to_socket_addrs()?.collect())));

/// Asks the resolver; blocks.
type Ask = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

#[derive(Debug)]
struct Names {
    pool: Pool,
    ask: Ask,
    under_way: Arc<Mutex<UnderWay>>,
}

/// How many look-ups of each name have not returned.
type UnderWay = HashMap<String, usize>;

impl Names {
    fn new(ask: Ask) -> Self {
        Self {
            pool: Pool::new("tersed-names", THREADS_MAX),
            ask,
            under_way: Arc::default(),
        }
    }

    async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let turn = Turn::take(&self.under_way, host)?;
        let (ask, host) = (self.ask, host.to_owned());
        let asked = self.pool.call(move || {
            let answer = ask(&host, port);
            drop(turn);
            answer
        });
        match asked.await {
            Ok(answer) => answer,
            Err(CallError::NoThread(error)) => Err(error),
            Err(CallError::Broken(broken)) => Err(io::Error::other(broken)),
        }
    }
}

/// One of the look-ups that a name may have under way; ends when it returns.
struct Turn {
    under_way: Arc<Mutex<UnderWay>>,
    host: String,
}

impl Turn {
    fn take(under_way: &Arc<Mutex<UnderWay>>, host: &str) -> io::Result<Self> {
        let mut counts = lock(under_way);
        let count = counts.get(host).copied().unwrap_or(0);
        if count >= EACH_MAX {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{count} look-ups of this name have not returned yet"),
            ));
        }
        counts.insert(host.to_owned(), count + 1);
        drop(counts);
        Ok(Self {
            under_way: Arc::clone(under_way),
            host: host.to_owned(),
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut counts = lock(&self.under_way);
        let count = counts.get_mut(&self.host);
        let count = count.expect("a turn counts under its name until it ends");
        *count -= 1;
        if *count == 0 {
            counts.remove(&self.host);
        }
    }
}

/// Look-ups of one name that may block at once: one may hang for good while the next one succeeds.
const EACH_MAX: usize = 4;

/// Look-ups of all names that may block at once. Others wait for their turn.
const THREADS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Poll};

    use super::*;

    /// A resolver that never answers for `stuck` while the test runs.
    fn names() -> Names {
        Names::new(|host, port| match host {
            "stuck" => loop {
                std::thread::park();
            },
            "none" => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(vec![SocketAddr::from(([192, 0, 2, 1], port))]),
        })
    }

    #[tokio::test]
    async fn addresses_are_not_looked_up() {
        let names = names();
        for (host, expected) in [
            ("192.0.2.7", "192.0.2.7:1"),
            ("2001:db8::7", "[2001:db8::7]:1"),
        ] {
            let found = names.look_up(host, 1).await.unwrap();
            assert_eq!(found, [expected.parse().unwrap()]);
        }
    }

    #[tokio::test]
    async fn a_look_up_that_never_returns_holds_up_no_other() {
        let names = names();
        for _ in 0..EACH_MAX {
            let mut stuck = pin!(names.look_up("stuck", 1));
            // The caller stops waiting.
            let pending = std::future::poll_fn(|context| {
                Poll::Ready(stuck.as_mut().poll(context).is_pending())
            });
            assert!(pending.await);
        }
        let refused = names.look_up("stuck", 1).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "4 look-ups of this name have not returned yet"
        );
        for port in 1..=100 {
            let found = names.look_up("other", port).await.unwrap();
            assert_eq!(found, [SocketAddr::from(([192, 0, 2, 1], port))]);
        }
    }

    /// Look-ups that returned or failed are not counted any more.
    #[tokio::test]
    async fn a_name_can_be_asked_for_again_and_again() {
        let names = names();
        for _ in 0..10 * EACH_MAX {
            let error = names.look_up("none", 1).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
        assert!(lock(&names.under_way).is_empty());
    }

    #[tokio::test]
    async fn the_systems_resolver_is_asked() {
        let found = look_up("localhost", 7).await.unwrap();
        let is_ours = |address: &SocketAddr| address.ip().is_loopback() && address.port() == 7;
        assert!(!found.is_empty() && found.iter().all(is_ours), "{found:?}");
    }
}
