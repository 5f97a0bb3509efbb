//! The floor: the least that a relay can do. It receives, splits at LF, and drops or forwards. It is a process of its
//! own, so that it is measured like the others.
//!
//! Over UDP there are two floors. One asks the kernel for one datagram at a time, as soon as it is there. The other
//! takes all that wait, and then pauses for [`PAUSE`]. The difference shows what batches save, and what they cost
//! in latency.

use std::{
    io::{IoSliceMut, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    process::ExitCode,
    thread,
    time::Duration,
};

use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg};
use socket2::{Domain, Socket, Type};

/// The first argument of a floor process.
pub(crate) const WORD: &str = "floor";

/// `floor tcp|udp|udp+pause ADDRESS SINK drop|forward`
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let [_, transport, address, sink, mode] = arguments else {
        return ExitCode::from(2);
    };
    let sink = TcpStream::connect(sink).expect("the sink listens");
    let forward = mode == "forward";
    match transport.as_str() {
        "udp" => datagrams(&bind(address), sink, forward),
        "udp+pause" => batches(&bind(address), sink, forward),
        _ => {
            let listener = TcpListener::bind(address).expect("the port is free");
            while let Ok((connection, _)) = listener.accept() {
                let sink = sink.try_clone().expect("a socket can be cloned");
                thread::spawn(move || stream(connection, sink, forward));
            }
        }
    }
    ExitCode::SUCCESS
}

/// Binds with the same receive buffer as the others ask for.
fn bind(address: &str) -> UdpSocket {
    let address: SocketAddr = address.parse().expect("an address");
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("the kernel has UDP");
    // The kernel grants as much as it allows, the same for each.
    socket.set_recv_buffer_size(8 << 20).ok();
    socket.bind(&address.into()).expect("the port is free");
    socket.into()
}

fn stream(mut connection: TcpStream, mut sink: TcpStream, forward: bool) {
    let mut buffer = vec![0; 256 * 1024];
    let mut held = 0;
    while let Ok(octets) = connection.read(&mut buffer[held..]) {
        if octets == 0 {
            return;
        }
        let end = held + octets;
        let mut start = 0;
        let mut out = Vec::new();
        for lf in memchr::memchr_iter(b'\n', &buffer[..end]) {
            let line = &buffer[start..=lf];
            if forward || line.starts_with(super::load::LAST) {
                out.extend_from_slice(line);
            }
            start = lf + 1;
        }
        if !out.is_empty() && sink.write_all(&out).is_err() {
            return;
        }
        buffer.copy_within(start..end, 0);
        held = end - start;
    }
}

fn datagrams(socket: &UdpSocket, mut sink: TcpStream, forward: bool) {
    let mut buffer = vec![0; 65_536];
    while let Ok(octets) = socket.recv(&mut buffer) {
        let datagram = &buffer[..octets];
        if forward || datagram.starts_with(super::load::LAST) {
            let framed = [datagram, b"\n"].concat();
            if sink.write_all(&framed).is_err() {
                return;
            }
        }
    }
}

fn batches(socket: &UdpSocket, mut sink: TcpStream, forward: bool) {
    let mut buffers = vec![0; BATCH * SLOT_OCTETS];
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    let mut out = Vec::new();
    loop {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> = buffers
            .chunks_exact_mut(SLOT_OCTETS)
            .map(|slot| [IoSliceMut::new(slot)])
            .collect();
        // Waits for the first datagram, and takes the others that have arrived.
        let received = recvmmsg(
            socket.as_raw_fd(),
            &mut headers,
            &mut slices,
            MsgFlags::MSG_WAITFORONE,
            None,
        );
        let Ok(received) = received else { return };
        let mut count = 0;
        out.clear();
        for datagram in received {
            count += 1;
            let octets = datagram.iovs().next().unwrap_or_default();
            if forward || octets.starts_with(super::load::LAST) {
                out.extend_from_slice(octets);
                out.push(b'\n');
            }
        }
        if !out.is_empty() && sink.write_all(&out).is_err() {
            return;
        }
        if count < BATCH {
            thread::sleep(PAUSE);
        }
    }
}

const BATCH: usize = 128;

/// More than any frame of a load over UDP.
const SLOT_OCTETS: usize = 2048;

const PAUSE: Duration = Duration::from_micros(200);
