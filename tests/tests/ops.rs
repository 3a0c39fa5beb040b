//! What `ops/` holds fits the processes: the sample configuration has every key with its default, and dashboards and
//! alerts ask for metrics that exist.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tests::workspace::{read, root};

/// The one file: a table per process.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    control: controld::Config,
    dataplane: dataplaned::Config,
}

fn sample() -> String {
    read(&root().join("ops/weir.toml"))
}

#[test]
fn the_sample_is_the_default() {
    let parsed: Config = toml::from_str(&sample()).expect("ops/weir.toml");
    assert_eq!(parsed, Config::default());
}

#[test]
fn the_sample_has_every_key() {
    let has: toml::Table = sample().parse().expect("ops/weir.toml");
    let wants = toml::Table::try_from(Config::default()).expect("the defaults");
    let mut missing = Vec::new();
    walk("", &wants, &has, &mut missing);
    assert!(missing.is_empty(), "ops/weir.toml lacks {missing:?}");
}

fn walk(path: &str, wants: &toml::Table, has: &toml::Table, missing: &mut Vec<String>) {
    for (key, value) in wants {
        let path = format!("{path}.{key}");
        match (value, has.get(key)) {
            (_, None) => missing.push(path),
            (toml::Value::Table(wants), Some(toml::Value::Table(has))) => walk(&path, wants, has, missing),
            _ => {}
        }
    }
}

#[test]
fn what_is_commented_out_in_the_sample_is_a_key_too() {
    let on: String = sample()
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) && rest.contains(" = ") => {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    assert_ne!(on, sample());
    let parsed: Config = toml::from_str(&on).expect("the sample with its optional keys");
    parsed.control.check().expect("[control]");
    parsed.dataplane.check().expect("[dataplane]");
}

#[test]
fn the_examples_at_the_end_of_the_sample_parse() {
    let text = sample();
    let examples: String =
        text.lines().filter_map(|line| line.strip_prefix("#   ")).map(|line| format!("{line}\n")).collect();
    let parsed: Config = toml::from_str(&examples).expect("the examples");
    let service = &parsed.control.service;
    assert_eq!(
        (service.subscribers.len(), service.controlling.groups.len(), parsed.control.sip.listeners.len()),
        (1, 1, 1)
    );
}

/// The names of every metric that the two processes export.
fn exported() -> BTreeSet<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let free = || {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        held.local_addr().expect("its address")
    };
    let mut dataplane =
        dataplaned::Config { folder: folder.path().to_owned(), ..dataplaned::Config::default() };
    dataplane.driver.kind = "mio".to_owned();
    dataplane.msrp.port = 0;
    dataplane.metrics.address = free();
    let mut control = controld::Config { folder: folder.path().to_owned(), ..controld::Config::default() };
    control.metrics.address = free();
    let listener = |transport| controld::Listener {
        transport,
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        advertised: None,
    };
    control.sip.listeners = vec![listener(controld::Transport::Udp)];
    let dataplane = dataplaned::start(dataplane).expect("the data plane");
    let control = controld::start(control, controld::Shutdown::new()).expect("control");
    let addresses =
        [control.addresses().metrics, dataplane.addresses().metrics].map(|a| a.expect("an endpoint"));
    let mut names = BTreeSet::new();
    for address in addresses {
        for line in scrape(address).lines().filter(|line| line.starts_with("# TYPE ")) {
            let mut words = line.split(' ').skip(2);
            let (name, kind) = (words.next().expect("a name"), words.next().expect("a kind"));
            names.insert(name.to_owned());
            if kind.trim() == "histogram" {
                names.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
            }
        }
    }
    names
}

fn scrape(address: SocketAddr) -> String {
    let began = Instant::now();
    loop {
        let asked = TcpStream::connect(address).and_then(|mut stream| {
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        });
        match asked {
            Ok(text) if text.contains("# TYPE weir_") => return text,
            other => assert!(began.elapsed() < Duration::from_secs(20), "{address}: {other:?}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Every word that begins like a metric of ours.
fn asked_for(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.split(|c| !is_name(c))
        .filter(|word| word.starts_with("weir_control_") || word.starts_with("weir_dataplane_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn dashboards_alerts_and_runbook_ask_for_metrics_that_exist() {
    let exported = exported();
    for file in ["ops/grafana/weir.json", "ops/prometheus/alerts.yml", "ops/runbook.md"] {
        let asked = asked_for(&read(&root().join(file)));
        assert!(asked.len() > 5, "{file} asks for too little: {asked:?}");
        let unknown: Vec<_> = asked.difference(&exported).collect();
        assert!(unknown.is_empty(), "{file} asks for what nobody exports: {unknown:?}");
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&read(&root().join("ops/grafana/weir.json"))).expect("ops/grafana/weir.json");
    assert!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 10));
}
