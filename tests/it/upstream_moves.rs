//! The name of an upstream is looked up anew for each connection.

use std::fs;

use super::support::originator::Originator;
use super::support::sink::Sink;
use super::support::tersed::Setup;
use super::support::wait::{LIMIT, wait_until};

/// The relay has its own `/etc/hosts`, and no name server.
#[test]
fn a_name_that_moves_is_followed_at_the_next_connection() {
    let mut here = Sink::tcp_at(([127, 0, 0, 2], 0).into());
    let port = here.address().port();
    let there = Sink::tcp_at(([127, 0, 0, 3], port).into());
    let setup = Setup::new();
    let hosts = setup.path("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    fs::write(setup.path("nsswitch.conf"), "hosts: files\n").unwrap();
    let tersed = setup
        .with_mounts("mount --bind hosts /etc/hosts; mount --bind nsswitch.conf /etc/nsswitch.conf")
        .config("[dedup]\nwindow = \"1h\"\n[forward]\nretry_max = \"200ms\"\n")
        .listen(TCP)
        .forward(&format!("tcp://collector.example:{port}"))
        .start();
    let mut originator = Originator::tcp(tersed.address(TCP));
    let lost = tersed.wait_log("cannot connect to upstream");
    assert!(
        lost.mentions("cannot resolve collector.example"),
        "{lost:?}"
    );
    originator.send("<13>app: one");
    tersed.wait_received(1);

    // Written in place, because the mount is of the file, not of its name.
    fs::write(&hosts, "127.0.0.2 collector.example\n").unwrap();
    assert_eq!(here.wait_messages(1), [b"<13>app: one"]);

    fs::write(&hosts, "127.0.0.3 collector.example\n").unwrap();
    originator.send("<13>app: two");
    // An open connection stays where it is.
    here.wait_messages(2);
    here.stop();
    wait_until("a connection to the new address", LIMIT, || {
        there.connection_count() == 1
    });
    originator.send("<13>app: three");
    wait_until("the third message", LIMIT, || {
        there.messages().contains(&b"<13>app: three".to_vec())
    });
    assert_eq!(here.count(), 2);
    tersed.finish();
}

const TCP: &str = "tcp://127.0.0.1:0";
