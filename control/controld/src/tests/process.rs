//! The process: start, ports, the admin socket, shutdown.

use super::*;

#[test]
fn it_ends_when_asked_on_the_admin_socket() {
    let node = node("");
    let admin = node.running.addresses().admin.clone();
    assert_eq!(node.ask("{\"ask\":\"shutdown\"}")["ok"], true);
    node.running.join().unwrap();
    assert!(!admin.exists());
}

#[test]
fn it_ends_when_its_switch_is_thrown() {
    let node = node("");
    let (switch, udp) = (node.running.shutdown().clone(), node.sip(Transport::Udp));
    let start = Instant::now();
    switch.trigger();
    node.running.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    UdpSocket::bind(udp).unwrap();
}

#[test]
fn status_says_where_it_is_and_what_it_does() {
    let node = node("name = \"here\"\n[lanes]\ncount = 3\n");
    let socket = node.udp();
    socket.send(options(1, "UDP").as_bytes()).unwrap();
    datagram(&socket);
    let status = node.ask("{\"ask\":\"status\"}");
    assert_eq!((&status["ok"], &status["name"], &status["epoch"]), (&true.into(), &"here".into(), &1.into()));
    assert_eq!(status["sip"][0]["address"], node.sip(Transport::Udp).to_string());
    assert_eq!(status["lanes"].as_array().unwrap().len(), 3);
    assert_eq!(status["messages"]["received"], 1);
    assert_eq!(status["dataplane"]["linked"], false);
}

#[test]
fn a_question_that_nobody_knows_is_refused() {
    let node = node("");
    for line in
        ["{\"ask\":\"weather\"}", "{\"ask\":\"drain\"}", "not json", "{\"ask\":\"status\",\"extra\":1}"]
    {
        let answer = node.ask(line);
        assert_eq!(answer["ok"], false, "{line}");
        assert!(answer["error"].is_string());
    }
}

#[test]
fn a_capture_without_a_data_plane_is_refused() {
    let node = node("");
    let answer = node.ask("{\"ask\":\"capture\",\"context\":7,\"on\":true,\"file\":\"a.pcap\"}");
    assert_eq!((&answer["ok"], &answer["error"]), (&false.into(), &"no data plane is linked".into()));
}

#[test]
fn while_it_drains_it_takes_no_new_session() {
    let node = node("");
    assert_eq!(node.ask("{\"ask\":\"drain\",\"on\":true}")["draining"], true);
    let socket = node.udp();
    let invite = options(1, "UDP").replace("OPTIONS", "INVITE");
    let contact = "Contact: <sip:alice@127.0.0.1:9>\r\nContent-Length";
    socket.send(invite.replace("Content-Length", contact).as_bytes()).unwrap();
    let mut answer = datagram(&socket);
    while code(&answer) < 200 {
        answer = datagram(&socket);
    }
    assert_eq!(code(&answer), 503);
    assert!(answer.contains("Retry-After: 5\r\n"), "{answer}");
    node.reaches("weir_control_messages_discarded_total{reason=\"draining\"}", 1);
    // What is no new session goes on.
    socket.send(options(2, "UDP").as_bytes()).unwrap();
    while !cseq(&answer).ends_with("OPTIONS") {
        answer = datagram(&socket);
    }
    assert_eq!(code(&answer), 200);
}

/// Two runs with the default listeners: the second one moves aside and says where it is.
#[test]
fn the_default_port_gives_way() {
    let up = || {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("folder = \"{}\"\n", folder.path().display());
        let running = start(Config::parse(&text).unwrap(), Shutdown::new()).unwrap();
        Node { folder, running }
    };
    let (first, second) = (up(), up());
    for node in [&first, &second] {
        let (udp, tcp) = (node.sip(Transport::Udp), node.sip(Transport::Tcp));
        assert_eq!(udp, tcp);
        assert_eq!(node.sip(Transport::Tls).port(), udp.port() + 1);
        let socket = node.udp();
        socket.send(options(1, "UDP").as_bytes()).unwrap();
        assert_eq!(code(&datagram(&socket)), 200);
        assert!(node.metrics().contains("weir_control_process_uptime_seconds"));
    }
    assert_ne!(first.sip(Transport::Udp), second.sip(Transport::Udp));
}

/// A port that was asked for does not give way.
#[test]
fn a_configured_port_that_is_taken_is_a_fault() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), "");
    config.sip.listeners[0].address = taken.local_addr().unwrap();
    let error = start(config, Shutdown::new()).unwrap_err();
    assert!(format!("{error:#}").contains(&taken.local_addr().unwrap().to_string()), "{error:#}");
}

/// What a run before left behind does not stop the next one, a run that lives does.
#[test]
fn one_folder_has_one_run_at_a_time_and_each_has_a_higher_epoch() {
    let node = node("");
    let path = node.folder.path().to_owned();
    assert!(start(config(&path, ""), Shutdown::new()).is_err());
    assert_eq!(node.ask("{\"ask\":\"status\"}")["epoch"], 1);
    let Node { folder, running } = node;
    running.shutdown().trigger();
    running.join().unwrap();
    // A socket file without anybody behind it.
    drop(std::os::unix::net::UnixListener::bind(path.join("control.sock")).unwrap());
    let running = start(config(&path, ""), Shutdown::new()).unwrap();
    let node = Node { folder, running };
    assert_eq!(node.ask("{\"ask\":\"status\"}")["epoch"], 2);
}
