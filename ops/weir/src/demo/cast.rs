//! Who takes part: four users, one of them with two devices, over three transports.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::Entropy;
use ue::{Account, Counters, Device, Event, Identity, Transport};

use super::checks::Checks;
use crate::config::Config;

/// How long anything may take on one host.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long to look for what must not come.
pub(super) const SILENCE: Duration = Duration::from_millis(500);

/// The devices.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) ann: Device,
    pub(super) bob_phone: Device,
    pub(super) bob_tablet: Device,
    pub(super) carol: Device,
    pub(super) dave: Device,
    pub(super) factory: String,
    pub(super) book_club: String,
}

impl Cast {
    /// Starts and registers everybody; `None` when somebody could not.
    pub(super) async fn register(checks: &mut Checks, config: &Config) -> anyhow::Result<Option<Cast>> {
        checks.step("registering four users with five devices, over UDP, TCP and TLS");
        let mut entropy = seeded();
        let identity = Arc::new(Identity::generate(&["ue.invalid"])?);
        let domain = config.domain().to_owned();
        let mut devices = Vec::new();
        for (user, device, transport) in [
            ("ann", "phone", Transport::Udp),
            ("bob", "phone", Transport::Tcp),
            ("bob", "tablet", Transport::Tls),
            ("carol", "laptop", Transport::Tls),
            ("dave", "phone", Transport::Udp),
        ] {
            let server = server(config, transport)?;
            let mut account = Account::new(user, &domain, user, server, transport, &mut entropy);
            account.name = format!("{user}/{device}");
            account.rtcp_every = Duration::from_secs(1);
            let counters = Arc::new(Counters::default());
            let device = Device::start(account, counters, Arc::clone(&identity), entropy.child()).await?;
            let registered = device.register().await;
            let what = format!("{} registers over {transport}", device.name());
            if checks.worked(what, registered).is_some() {
                devices.push(device);
            }
        }
        let Ok([ann, bob_phone, bob_tablet, carol, dave]) = <[Device; 5]>::try_from(devices) else {
            return Ok(None);
        };
        let factory = config.factory();
        Ok(Some(Cast {
            ann,
            bob_phone,
            bob_tablet,
            carol,
            dave,
            factory,
            book_club: format!("sip:book-club@{domain}"),
        }))
    }

    /// Every device.
    pub(super) fn all(&self) -> [&Device; 5] {
        [&self.ann, &self.bob_phone, &self.bob_tablet, &self.carol, &self.dave]
    }

    /// Everybody goes.
    pub(super) async fn unregister(&self, checks: &mut Checks) {
        checks.step("unregistering");
        for device in self.all() {
            checks.worked(format!("{} unregisters", device.name()), device.unregister().await);
        }
    }
}

fn server(config: &Config, transport: Transport) -> anyhow::Result<SocketAddr> {
    config.sip(transport).ok_or_else(|| anyhow::anyhow!("the node does not listen for SIP over {transport}"))
}

/// Randomness from the system.
pub(crate) fn seeded() -> Entropy {
    ue::system_entropy()
}

/// Waits until a text came to every device that should get it, then a moment longer for one too many; how often it
/// came to each.
pub(super) async fn letters(wanted: &[(&Device, u64, usize)], text: &str) -> Vec<usize> {
    let fits =
        |event: &Event| matches!(event, Event::Letter(letter) if letter.body.as_ref() == text.as_bytes());
    let count = |(device, mark, _): &(&Device, u64, usize)| {
        device.log().since(*mark).iter().filter(|e| fits(e)).count()
    };
    let began = std::time::Instant::now();
    while wanted.iter().any(|one| count(one) < one.2) && began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(SILENCE).await;
    wanted.iter().map(count).collect()
}

/// The same for one device; the count.
pub(super) async fn letters_at(device: &Device, mark: u64, text: &str, wanted: usize) -> usize {
    letters(&[(device, mark, wanted)], text).await.iter().sum()
}

/// The same for notifications about a message.
pub(super) async fn notices(
    device: &Device,
    mark: u64,
    message_id: &str,
    status: &str,
    wanted: usize,
) -> usize {
    settled(device, mark, wanted, |event| {
        matches!(event, Event::Notice(notice) if notice.message_id == message_id && notice.status == status)
    })
    .await
}

/// Waits until as many events as wanted fit, then a moment longer for one too many.
pub(super) async fn settled(
    device: &Device,
    mark: u64,
    wanted: usize,
    fits: impl Fn(&Event) -> bool,
) -> usize {
    let count = || device.log().since(mark).iter().filter(|e| fits(e)).count();
    let began = std::time::Instant::now();
    while count() < wanted && began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(SILENCE).await;
    count()
}
