//! Connections: what one stranger can take from the others.

use super::*;

const IMPATIENT: &str = "[sip.limits]\nmessage_ms = 400\n";

fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset is a close too.
    let _ = stream.read_to_end(&mut rest);
}

/// Twenty connections that trickle octets hold nobody up and are cut loose.
#[test]
fn a_slow_client_holds_nobody_up() {
    let node = node(IMPATIENT);
    let mut slow: Vec<_> = (0..20).map(|_| node.tcp()).collect();
    let start = Instant::now();
    let text = options(1, "TCP");
    for (i, octet) in text.as_bytes().iter().take(100).enumerate() {
        for stream in &mut slow {
            // Fails once it has been cut loose.
            let _ = stream.write_all(&[*octet]);
        }
        if i % 20 == 0 {
            let asked = Instant::now();
            let mut other = node.tcp();
            other.write_all(options(100 + u32::try_from(i).unwrap(), "TCP").as_bytes()).unwrap();
            assert_eq!(code(&response(&mut other)), 200);
            assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    for stream in &mut slow {
        closed(stream);
    }
    assert!(start.elapsed() >= Duration::from_millis(400));
    node.reaches("weir_control_connections_closed_total{reason=\"slow\"}", 20);
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let node = node(IMPATIENT);
    let mut silent = node.tcp();
    closed(&mut silent);
    node.reaches("weir_control_connections_closed_total{reason=\"slow\"}", 1);
}

/// A body that never comes is as slow as a head that never ends.
#[test]
fn a_body_that_does_not_come_is_slow() {
    let node = node(IMPATIENT);
    let mut stream = node.tcp();
    stream.write_all(options(1, "TCP").as_bytes()).unwrap();
    assert_eq!(code(&response(&mut stream)), 200);
    stream
        .write_all(options(2, "TCP").replace("Content-Length: 0", "Content-Length: 10").as_bytes())
        .unwrap();
    closed(&mut stream);
    node.reaches("weir_control_connections_closed_total{reason=\"slow\"}", 1);
}

/// Between messages a connection may rest for longer than a message may take.
#[test]
fn a_connection_may_rest_between_messages() {
    let node = node(IMPATIENT);
    let mut stream = node.tcp();
    for n in 1..=2 {
        stream.write_all(options(n, "TCP").as_bytes()).unwrap();
        assert_eq!(code(&response(&mut stream)), 200);
        std::thread::sleep(Duration::from_millis(700));
    }
    stream.write_all(options(3, "TCP").as_bytes()).unwrap();
    assert_eq!(code(&response(&mut stream)), 200);
}

#[test]
fn an_idle_connection_is_closed() {
    let node = node("[sip.limits]\nidle_ms = 200\n");
    let mut stream = node.tcp();
    stream.write_all(options(1, "TCP").as_bytes()).unwrap();
    assert_eq!(code(&response(&mut stream)), 200);
    closed(&mut stream);
    node.reaches("weir_control_connections_closed_total{reason=\"idle\"}", 1);
}

/// A peer that asks and does not read is cut loose when its answers are too many to keep.
#[test]
fn a_peer_that_does_not_read_is_cut_loose() {
    let node = node("[sip.limits]\nwrite_queue_max = 20000\nmessage_ms = 60000\n");
    let stream = node.tcp();
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let start = Instant::now();
    let mut n = 0;
    let mut asking = true;
    while asking && start.elapsed() < PATIENCE * 3 {
        let many: String = (n..n + 200).map(|n| options(n, "TCP")).collect();
        n += 200;
        asking = match (&stream).write_all(many.as_bytes()) {
            Ok(()) => true,
            Err(error) => {
                matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
            }
        };
        // Meanwhile others are served.
        let mut other = node.tcp();
        other.write_all(options(1_000_000 + n, "TCP").as_bytes()).unwrap();
        assert_eq!(code(&response(&mut other)), 200);
    }
    node.reaches("weir_control_connections_closed_total{reason=\"unread\"}", 1);
}

#[test]
fn one_address_may_have_so_many_connections() {
    let node = node("[sip.limits]\nconnections_per_address_max = 3\n");
    let served = |stream: &mut TcpStream, n| {
        stream.write_all(options(n, "TCP").as_bytes()).unwrap();
        assert_eq!(code(&response(stream)), 200);
    };
    let mut three: Vec<_> = (0..3).map(|_| node.tcp()).collect();
    for (stream, n) in three.iter_mut().zip(1..) {
        served(stream, n);
    }
    let mut fourth = node.tcp();
    closed(&mut fourth);
    node.reaches("weir_control_connections_closed_total{reason=\"limit\"}", 1);
    // One leaves, one may come.
    drop(three.pop());
    node.reaches("weir_control_connections_closed_total{reason=\"peer\"}", 1);
    served(&mut node.tcp(), 9);
}
