//! System calls and allocator calls for which no crate has a safe function. The only file with unsafe code.
//!
//! # Guarantees
//!
//! - Each function that asks the kernel makes one system call, on a descriptor that the caller keeps open. The kernel
//!   writes into a buffer of the function's own.

#![expect(
    unsafe_code,
    reason = "getsockopt and ioctl with structures that no safe wrapper has, setpriority and malloc_trim"
)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

/// Datagrams that the kernel dropped on this socket since it was opened, because room or memory was short
/// (`SK_MEMINFO_DROPS`; wraps at 2^32).
///
/// `SO_RXQ_OVFL` reports the same number, but only along with a later datagram. This can be read
/// when no datagram arrives any more.
///
/// # Errors
///
/// The error of `getsockopt(SO_MEMINFO)`.
pub(crate) fn socket_drops(socket: BorrowedFd<'_>) -> io::Result<u32> {
    const DROPS: usize = 8;
    let mut meminfo = [0_u32; DROPS + 1];
    let octets = socket_option(socket, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut meminfo)?;
    if octets < size_of_val(&meminfo) {
        return Err(io::Error::from(io::ErrorKind::Unsupported));
    }
    Ok(meminfo[DROPS])
}

/// Octets written to this TCP socket that the peer's kernel has not acknowledged (`SIOCOUTQ`). Can still be
/// read after the connection broke.
///
/// On a Unix stream: at least the octets that the peer has not read, because the kernel counts its own overhead
/// too; zero once either end is closed.
///
/// # Errors
///
/// The error of `ioctl(SIOCOUTQ)`.
pub(crate) fn unacknowledged_octets(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut octets: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (the same number as SIOCOUTQ) writes one int through the pointer, which is
    // valid for the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut octets) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(octets).unwrap_or(0))
}

/// Octets that can be read from this stream socket or pipe now (`FIONREAD`). For a pipe either end may ask.
///
/// # Errors
///
/// The error of `ioctl(FIONREAD)`.
pub(crate) fn readable_octets(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut octets: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int through the pointer, which is valid for the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut octets) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(octets).unwrap_or(0))
}

/// The largest receive window that the peer of this TCP socket can ever advertise, in octets: a window is 16
/// bits, scaled as both ends agreed when the connection was opened (RFC 7323 2.2; `tcpi_snd_wscale`).
///
/// # Errors
///
/// The error of `getsockopt(TCP_INFO)`; `Unsupported` if the kernel's answer is too short to hold it.
pub(crate) fn peer_window_octets_max(socket: BorrowedFd<'_>) -> io::Result<usize> {
    /// `struct tcp_info` begins with eight octets. The seventh holds both scales, four bits each.
    const SCALES: usize = 6;
    let mut info = [0_u32; 2];
    let octets = socket_option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    if octets < size_of_val(&info) {
        return Err(io::Error::from(io::ErrorKind::Unsupported));
    }
    let [_, word] = info;
    let scales = word.to_ne_bytes()[SCALES - size_of::<u32>()];
    // The peer's scale is the first of two bit fields, whose order depends on the machine's byte order.
    let scale = if cfg!(target_endian = "little") {
        scales & 0xf
    } else {
        scales >> 4
    };
    Ok(usize::from(u16::MAX) << scale)
}

/// The kernel's estimate of how long an acknowledgement takes on this TCP socket (`tcpi_rtt`).
///
/// # Errors
///
/// The error of `getsockopt(TCP_INFO)`; `Unsupported` if the kernel's answer is too short to hold it.
pub(crate) fn round_trip(socket: BorrowedFd<'_>) -> io::Result<Duration> {
    /// Its place in `struct tcp_info`, in words. In microseconds.
    const ROUND_TRIP: usize = 17;
    let mut info = [0_u32; ROUND_TRIP + 1];
    let octets = socket_option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    if octets < size_of_val(&info) {
        return Err(io::Error::from(io::ErrorKind::Unsupported));
    }
    Ok(Duration::from_micros(info[ROUND_TRIP].into()))
}

/// Returns free memory to the system. glibc keeps most of it otherwise; with another C library, which returns it by
/// itself, this does nothing. Takes a while after a storm: call it on a thread that no task waits for.
pub(crate) fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the allocator's own locks, and touches only free memory.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives this thread the lowest priority. If that is not allowed (a service manager may filter system calls), the
/// thread keeps its priority.
pub(crate) fn lower_priority() {
    const SELF: libc::id_t = 0;
    // SAFETY: takes numbers only; Linux applies it to the calling thread alone.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, SELF, 19);
    }
}

/// Reads a socket option made of 32-bit words. Returns how many octets the kernel wrote.
fn socket_option<const WORDS: usize>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &mut [u32; WORDS],
) -> io::Result<usize> {
    let mut octets =
        libc::socklen_t::try_from(size_of_val(value)).expect("an option has a few words");
    // SAFETY: the kernel writes at most `octets` octets to `value`, which has that length, and the
    // written length to `octets`. Any bit pattern is a valid u32.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut octets,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(octets).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
        os::{fd::AsFd, unix::net::UnixStream},
    };

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn drops_are_counted_when_no_thread_reads() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(socket_drops(receiver.as_fd()).unwrap(), 0);
        let mut sent = 0_u32;
        while socket_drops(receiver.as_fd()).unwrap() == 0 && sent < 100_000 {
            sender
                .send_to(&[0; 1400], receiver.local_addr().unwrap())
                .unwrap();
            sent += 1;
        }
        assert_eq!(
            socket_drops(receiver.as_fd()).unwrap(),
            1,
            "after {sent} datagrams"
        );
    }

    #[test]
    fn acknowledged_octets_leave_the_output_queue() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"hello").unwrap();
        let mut hello = [0; 5];
        server.peek(&mut hello).unwrap();
        assert_eq!(readable_octets(server.as_fd()).unwrap(), 5);
        server.read_exact(&mut hello).unwrap();
        assert_eq!(unacknowledged_octets(client.as_fd()).unwrap(), 0);
    }

    #[test]
    fn what_a_unix_peer_has_not_read_is_in_the_output_queue() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        near.write_all(&[0; 1000]).unwrap();
        near.write_all(&[0; 1000]).unwrap();
        far.read_exact(&mut [0; 1500]).unwrap();
        assert!(unacknowledged_octets(near.as_fd()).unwrap() >= 500);
        far.read_exact(&mut [0; 500]).unwrap();
        assert_eq!(unacknowledged_octets(near.as_fd()).unwrap(), 0);
    }

    /// The kernel measures in microseconds. Another word of its answer would be zero, a size or a count.
    #[test]
    fn a_round_trip_on_this_machine_is_short_and_takes_some_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let round_trip = round_trip(client.as_fd()).unwrap();
        assert!(round_trip > Duration::ZERO && round_trip < Duration::from_secs(1));
    }

    /// The peer chooses its scale for the largest buffer that it may get when it listens. A small buffer needs none.
    #[test]
    fn the_largest_window_is_that_of_the_peers_largest_buffer() {
        let window_max = |receive_buffer| {
            let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            if let Some(octets) = receive_buffer {
                listener.set_recv_buffer_size(octets).unwrap();
            }
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            listener.bind(&any.into()).unwrap();
            listener.listen(1).unwrap();
            let address = listener.local_addr().unwrap().as_socket().unwrap();
            let client = TcpStream::connect(address).unwrap();
            peer_window_octets_max(client.as_fd()).unwrap()
        };
        assert_eq!(window_max(Some(16 * 1024)), 65_535);
        let tcp_rmem = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_rmem").unwrap();
        let largest: usize = tcp_rmem.split_whitespace().last().unwrap().parse().unwrap();
        let window = window_max(None);
        assert!(2 * window >= largest, "{window}, and buffers of {largest}");
    }
}
