//! The floor: the least that a relay can do. Receives, splits at LF, and drops or forwards. A process of its
//! own, so that it is measured like the others.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    thread,
};

/// The first argument of a process that is the floor.
pub(crate) const WORD: &str = "floor";

/// `floor tcp|udp ADDRESS SINK drop|forward`
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let [_, transport, address, sink, mode] = arguments else {
        return ExitCode::from(2);
    };
    let sink = TcpStream::connect(sink).expect("the sink listens");
    let forward = mode == "forward";
    if transport == "udp" {
        datagrams(
            &UdpSocket::bind(address).expect("the port is free"),
            sink,
            forward,
        );
    } else {
        let listener = TcpListener::bind(address).expect("the port is free");
        while let Ok((connection, _)) = listener.accept() {
            let sink = sink.try_clone().expect("a socket can be cloned");
            thread::spawn(move || stream(connection, sink, forward));
        }
    }
    ExitCode::SUCCESS
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
            if forward || line.starts_with(crate::load::LAST) {
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
        if forward || datagram.starts_with(crate::load::LAST) {
            let framed = [datagram, b"\n"].concat();
            if sink.write_all(&framed).is_err() {
                return;
            }
        }
    }
}
