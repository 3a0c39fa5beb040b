//! Two phones that are not ours hold a call through Weir, and meet in a conference. What each one decoded is
//! compared with what the other one played.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::namespace::Namespace;
use ue::audio::{correlation, read_wav, voice, write_wav};

use crate::node::Node;

/// One baresip with its own folder; it plays a file and records what it decodes.
pub struct Phone {
    folder: tempfile::TempDir,
    process: Child,
}

impl Phone {
    pub fn start(
        host: &Namespace,
        node: &Node,
        user: &str,
        port: u16,
        played: &[i16],
        dial: Option<&str>,
    ) -> Phone {
        let password = node.password(user);
        Phone::behind(
            host,
            node.sip_udp(),
            &format!("{user}@{}", node.domain()),
            &password,
            port,
            played,
            dial,
        )
    }

    /// One whose outbound proxy is somebody else's.
    pub fn behind(
        host: &Namespace,
        proxy: SocketAddr,
        address_of_record: &str,
        password: &str,
        port: u16,
        played: &[i16],
        dial: Option<&str>,
    ) -> Phone {
        let user = address_of_record.split('@').next().unwrap_or_default();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        fs::write(path.join("played.wav"), write_wav(played)).expect("a WAV file");
        let address = Namespace::ADDRESS;
        let lines = [
            format!("sip_listen {address}:{port}"),
            "module_path /usr/lib/baresip/modules".into(),
            "module g711.so\nmodule ausine.so\nmodule aufile.so\nmodule sndfile.so".into(),
            "module account.so\nmodule menu.so".into(),
            format!("audio_source aufile,{}/played.wav", path.display()),
            format!("snd_path {}", path.display()),
            format!("rtp_ports {}-{}", port + 1000, port + 1050),
        ];
        fs::write(path.join("config"), lines.join("\n") + "\n").expect("config");
        let account = format!(
            "<sip:{address_of_record};transport=udp>;auth_user={user};auth_pass={password};outbound=\"sip:{proxy};lr\";\
             regint=60;answermode=auto;audio_codecs=pcmu\n"
        );
        fs::write(path.join("accounts"), account).expect("accounts");
        fs::write(path.join("contacts"), "").expect("contacts");
        let log = fs::File::create(path.join("log")).expect("log");
        let mut command = host.command("baresip");
        command.arg("-f").arg(path).args(["-t", "20"]);
        if let Some(target) = dial {
            command.args(["-e", &format!("/dial {target}")]);
        }
        let process = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .spawn()
            .expect("baresip is installed");
        Phone { folder, process }
    }

    /// Waits for the end of the phone's 20 seconds and reads what it decoded.
    pub fn heard(mut self) -> Vec<i16> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(40) && self.process.try_wait().expect("a child").is_none()
        {
            sleep(Duration::from_millis(100));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        let Some(dump) = decoded(self.folder.path()) else {
            panic!(
                "nothing was decoded:\n{}",
                fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
            );
        };
        read_wav(&fs::read(dump).expect("the dump")).expect("a WAV file")
    }
}

fn decoded(folder: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder).ok()?.filter_map(|e| Some(e.ok()?.path()));
    files
        .filter(|p| p.to_string_lossy().ends_with("-dec.wav"))
        .max_by_key(|p| p.metadata().map_or(0, |m| m.len()))
}

/// Jitter buffers may slip within a call, so half a second from the middle is looked for anywhere.
pub fn matches(played: &[i16], heard: &[i16]) -> f64 {
    let middle = played.len() / 2;
    correlation(&played[middle..middle + 4000], heard, heard.len())
}

pub const MATCH_MIN: f64 = 0.8;

#[test]
fn two_phones_hold_a_call_and_hear_each_other() {
    let host = Namespace::new();
    let node = Node::start_in(&host);
    let (of_ann, of_bob) = (voice(1, 15.0), voice(2, 15.0));
    let bob = Phone::start(&host, &node, "bob", 19_010, &of_bob, None);
    sleep(Duration::from_secs(3));
    let target = format!("sip:bob@{}", node.domain());
    let ann = Phone::start(&host, &node, "ann", 19_020, &of_ann, Some(&target));
    let (at_ann, at_bob) = (ann.heard(), bob.heard());
    let (to_bob, to_ann) = (matches(&of_ann, &at_bob), matches(&of_bob, &at_ann));
    println!("match of what bob heard {to_bob:.3}, of what ann heard {to_ann:.3}");
    assert!(to_bob > MATCH_MIN && to_ann > MATCH_MIN);
}

/// A plain phone plays one stream: it is given one slot of the active speakers, never N interleaved SSRCs.
#[test]
fn a_phone_joins_the_conference_and_hears_the_one_who_speaks() {
    let host = Namespace::new();
    let node = Node::start_in(&host);
    let of_ann = voice(3, 15.0);
    let target = format!("sip:{}@{}", Node::GROUP, node.domain());
    let bob = Phone::start(&host, &node, "bob", 19_030, &vec![0; 8000 * 15], Some(&target));
    let ann = Phone::start(&host, &node, "ann", 19_040, &of_ann, Some(&target));
    let at_bob = bob.heard();
    drop(ann.heard());
    let matched = matches(&of_ann, &at_bob);
    println!("match of what bob heard in the conference {matched:.3}");
    assert!(matched > MATCH_MIN);
}
