//! The collector behind the relay: it counts lines, and recognises the last message of each connection.

use std::{
    io::{self, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::load::TAG;

/// Accepts everything over TCP, and counts it.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    lines: AtomicU64,
    lasts: AtomicU64,
}

impl Sink {
    pub(crate) fn open() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let counts = Arc::new(Counts::default());
        let counting = Arc::clone(&counts);
        // This thread ends with the benchmark. Until then, late connections do no harm.
        thread::spawn(move || {
            while let Ok((connection, _)) = listener.accept() {
                let counts = Arc::clone(&counting);
                thread::spawn(move || count(connection, &counts));
            }
        });
        Ok(Self { address, counts })
    }

    /// Lines so far, last messages included.
    pub(crate) fn lines(&self) -> u64 {
        self.counts.lines.load(Ordering::Acquire)
    }

    /// Last messages so far.
    pub(crate) fn lasts(&self) -> u64 {
        self.counts.lasts.load(Ordering::Acquire)
    }
}

fn count(mut connection: TcpStream, counts: &Counts) {
    let mut buffer = vec![0; 1 << 20];
    let mut held = 0;
    while let Ok(octets) = connection.read(&mut buffer[held..]) {
        if octets == 0 {
            return;
        }
        let end = held + octets;
        let Some(whole) = memchr::memrchr(b'\n', &buffer[..end]).map(|lf| lf + 1) else {
            held = end;
            continue;
        };
        let lines = memchr::memchr_iter(b'\n', &buffer[..whole]).count() as u64;
        let lasts = memchr::memmem::find_iter(&buffer[..whole], TAG).count() as u64;
        counts.lines.fetch_add(lines, Ordering::Release);
        counts.lasts.fetch_add(lasts, Ordering::Release);
        buffer.copy_within(whole..end, 0);
        held = end - whole;
    }
}
