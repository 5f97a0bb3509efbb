//! Tests of a session whose server does what a real one rarely does.

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    join,
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::delivery::chunk::Entry;

/// A session that is open, and its server. There is room for few octets between them.
async fn opened() -> (Relp, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    SockRef::from(&listener)
        .set_recv_buffer_size(SOCKET_OCTETS)
        .unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async {
        let (mut server, _) = listener.accept().await.unwrap();
        let mut unread = Vec::new();
        read_frames(&mut server, &mut unread, 1).await;
        let offers = "200 OK\nrelp_version=0\ncommands=syslog";
        let answer = format!("1 rsp {} {offers}\n", offers.len());
        server.write_all(answer.as_bytes()).await.unwrap();
        server
    };
    let open = Relp::open("127.0.0.1", port, STALL, Patience::new(LIMIT));
    let (session, server) = join!(open, serve);
    let session = session.unwrap();
    let Socket::Tcp(stream) = &session.socket else {
        panic!("RELP runs over TCP");
    };
    SockRef::from(stream)
        .set_send_buffer_size(SOCKET_OCTETS)
        .unwrap();
    (session, server)
}

/// Reads until `read` has `count` frames.
async fn read_frames(server: &mut TcpStream, read: &mut Vec<u8>, count: usize) {
    while frames(read) < count {
        let octets = server.read_buf(read).await.unwrap();
        assert!(octets > 0, "the session goes on");
    }
}

/// How many whole frames `octets` begins with.
fn frames(octets: &[u8]) -> usize {
    let (mut at, mut count) = (0, 0);
    while let Some((_, octets)) = Frame::first(&octets[at..], ANSWER_OCTETS_MAX).unwrap() {
        at += octets;
        count += 1;
    }
    count
}

/// The messages that were on the wire were still written. Each was sent a second time in the next session.
#[tokio::test]
async fn nothing_is_written_after_the_server_has_announced_its_close() {
    let (mut session, mut server) = opened().await;
    let before = session.uncounted.1;
    let mut chunk = Chunk::default();
    for _ in 0..MESSAGES {
        chunk.push(&[b'x'; 1000], Entry::Summary(1));
    }
    session.take(vec![chunk]);
    // The server reads nothing.
    while session.ends.is_empty() {
        let progress = timeout(TURN, session.progress()).await;
        assert!(progress.is_err(), "{progress:?}");
    }
    server.write_all(b"0 serverclose 0\n").await.unwrap();
    while !session.is_leaving {
        let progress = timeout(TURN, session.progress()).await;
        assert!(progress.is_err(), "{progress:?}");
    }
    let written = usize::try_from(session.uncounted.1 - before).unwrap();

    let mut read = Vec::new();
    let read_all = async {
        while read.len() < written {
            server.read_buf(&mut read).await.unwrap();
        }
    };
    select! {
        biased;
        ended = session.progress() => panic!("not all is answered, but it ended: {ended:?}"),
        () = read_all => {}
    }
    let arrived = frames(&read);
    assert!(0 < arrived && arrived < MESSAGES, "{arrived} arrived");
    for number in 2..arrived + 2 {
        let answer = format!("{number} rsp 6 200 OK\n");
        server.write_all(answer.as_bytes()).await.unwrap();
    }
    let mut answered = 0;
    let ended = loop {
        let progress = timeout(LIMIT, session.progress()).await;
        match progress.expect("all that was written is answered") {
            Ok(()) => {
                answered += session
                    .answered
                    .drain(..)
                    .map(|(_, count)| count)
                    .sum::<usize>()
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(ended, UpstreamError::Leaving), "{ended:?}");
    assert_eq!(answered, arrived);
    let (again, sent) = session.take_back();
    assert_eq!(again.iter().map(Chunk::len).sum::<usize>(), MESSAGES);
    assert_eq!(sent, arrived);
    drop(session);
    server.read_to_end(&mut read).await.unwrap();
    assert_eq!(read.len(), written);
}

/// A server that kept the connection open made each stop last for two seconds. After a long silence, its answer was not
/// waited for at all.
#[tokio::test]
async fn a_session_ends_with_the_answer_to_its_close() {
    let (mut session, mut server) = opened().await;
    session.since = Tick::ZERO;
    let serve = async {
        let mut read = Vec::new();
        read_frames(&mut server, &mut read, 1).await;
        assert_eq!(read, b"2 close 0\n");
        server.write_all(b"2 rsp 0\n").await.unwrap();
    };
    let closed = timeout(LIMIT, async { join!(session.close(Duration::MAX), serve) }).await;
    assert!(closed.is_ok(), "the answer has come");
    assert_eq!(session.client.unanswered(), 0);
}

#[tokio::test]
async fn a_server_that_closes_the_session_is_not_asked_to() {
    let (mut session, mut server) = opened().await;
    server.write_all(b"0 serverclose 0\n").await.unwrap();
    let progress = timeout(LIMIT, session.progress()).await.unwrap();
    assert!(matches!(progress, Err(UpstreamError::Leaving)));
    timeout(LIMIT, session.close(Duration::MAX)).await.unwrap();
    drop(session);
    let mut read = Vec::new();
    server.read_to_end(&mut read).await.unwrap();
    assert!(read.is_empty(), "{}", read.escape_ascii());
}

#[tokio::test]
async fn a_server_that_leaves_before_it_opens_a_session_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async {
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(b"0 serverclose 0\n").await.unwrap();
        server
    };
    let open = Relp::open("127.0.0.1", port, STALL, Patience::new(LIMIT));
    let (session, _server) = join!(open, serve);
    assert!(matches!(session, Err(UpstreamError::Leaving)));
}

const MESSAGES: usize = 1000;
/// Far less than all messages together.
const SOCKET_OCTETS: usize = 16 * 1024;
const STALL: Duration = Duration::from_secs(60);
const LIMIT: Duration = Duration::from_secs(10);
/// How long a session is driven before its state is looked at.
const TURN: Duration = Duration::from_millis(20);
