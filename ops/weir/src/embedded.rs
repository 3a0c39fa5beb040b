//! What `weir up` and `weir demo` run without a configuration: everything on loopback, in one folder, with users and
//! a group to try things with.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context;
use base::Private;
use controld::{Listener, Transport};
use service::{GroupEntry, SubscriberEntry, UserId};

use crate::choices::Choices;
use crate::config::Config;
use crate::ports;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// How far from a wanted port the search goes.
const PORT_TRIES: u16 = 400;
/// UDP ports for RTP.
const RTP_PORTS: u16 = 2000;
/// Who is there; the password of each is its name.
pub(crate) const USERS: [&str; 6] = ["ann", "bob", "carol", "dave", "eve", "frank"];
/// The group that is there; everybody is a member.
pub(crate) const GROUP: &str = "book-club";

/// The configuration for a folder. Each port is the usual one or the next that is free.
pub(crate) fn config(folder: &Path, choices: Choices) -> anyhow::Result<Config> {
    let mut config = Config::default();
    config.control.folder = folder.to_owned();
    config.dataplane.folder = folder.to_owned();
    choices.apply(&mut config);
    choose_ports(&mut config)?;
    populate(&mut config)?;
    Ok(config)
}

fn choose_ports(config: &mut Config) -> anyhow::Result<()> {
    let mut taken = Vec::new();
    let mut free = |wanted: u16, count: u16| -> anyhow::Result<SocketAddr> {
        let port = ports::next_free(LOOPBACK, wanted, count, PORT_TRIES, &taken)
            .with_context(|| format!("no port is free from {wanted} on"))?;
        taken.extend(port..port + count);
        Ok(SocketAddr::new(LOOPBACK, port))
    };
    let sip = free(5060, 1)?;
    let sips = free(sip.port() + 1, 1)?;
    let listener = |transport, address| Listener { transport, address, advertised: None };
    config.control.sip.listeners =
        vec![listener(Transport::Udp, sip), listener(Transport::Tcp, sip), listener(Transport::Tls, sips)];
    config.control.metrics.address = free(config.control.metrics.address.port(), 1)?;
    config.dataplane.metrics.address = free(config.dataplane.metrics.address.port(), 1)?;
    // Two listeners a shard.
    let shards = u16::try_from(config.dataplane.cores().len()).unwrap_or(64).min(64);
    config.dataplane.msrp.port = free(config.dataplane.msrp.port, 2 * shards)?.port();
    let first = ports::free_range(LOOPBACK, config.dataplane.rtp.port_first, RTP_PORTS)
        .context("no ports for RTP")?;
    config.dataplane.rtp.port_first = first;
    config.dataplane.rtp.port_last = first + RTP_PORTS - 1;
    Ok(())
}

fn populate(config: &mut Config) -> anyhow::Result<()> {
    let service = &mut config.control.service;
    let domain = service.domain().to_owned();
    let user = |name: &str| UserId::parse(&format!("sip:{name}@{domain}")).context("a sample user");
    for name in USERS {
        service.subscribers.push(SubscriberEntry {
            address: user(name)?,
            name: Private::new(name.to_owned()),
            password: Private::new(name.to_owned()),
        });
    }
    service.controlling.groups.push(GroupEntry {
        address: user(GROUP)?,
        subject: "The book club".to_owned(),
        members: USERS.iter().map(|name| user(name)).collect::<Result<_, _>>()?,
        admins: vec![user(USERS[0])?],
        invite_members: false,
        open: false,
        media: Vec::new(),
    });
    // Quick rosters, for people who look at them.
    service.controlling.notify_interval_ms = 200;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Driver;

    #[test]
    fn the_embedded_node_is_sound_and_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), Choices { driver: Some(Driver::Mio), shards: Some(2) }).unwrap();
        let file = dir.path().join("running.toml");
        config.write(&file).unwrap();
        assert_eq!(Config::read(&file).unwrap(), config);
        assert_eq!(config.dataplane.driver.kind, "mio");
    }
}
