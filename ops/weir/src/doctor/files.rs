//! What the configuration names: folders and who may read them, certificates and until when they are good.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Finding;
use crate::config::Config;

/// A certificate that ends within these days is told.
const SOON_DAYS: i64 = 30;

/// Looks at the files.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    let mut folders = vec![config.control.folder.clone()];
    if config.dataplane.folder != config.control.folder {
        folders.push(config.dataplane.folder.clone());
    }
    let mut findings: Vec<Finding> = folders.iter().flat_map(|path| folder(path)).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    let tls = &config.control.sip.tls;
    let msrp = &config.dataplane.msrp;
    let contract = &config.dataplane.contract;
    let rtp = &config.dataplane.rtp;
    let pairs = [
        ("sip certificate", &tls.certificate, &tls.key),
        ("msrp certificate", &msrp.certificate, &msrp.key),
        ("dtls certificate", &rtp.certificate, &rtp.key),
        ("contract certificate", &contract.certificate, &contract.key),
    ];
    for (area, chain, key) in pairs {
        match (chain, key) {
            (Some(chain), key) => findings.push(certificate(area, chain, key.as_deref(), now)),
            (None, _) if area == "contract certificate" => {}
            (None, _) => findings.push(Finding::note(
                area,
                "none: a self-signed one is made at each start",
                "peers that check certificates need one of an authority's",
            )),
        }
    }
    findings
}

fn mode(path: &Path) -> Option<u32> {
    Some(fs::metadata(path).ok()?.permissions().mode() & 0o777)
}

fn folder(path: &Path) -> Vec<Finding> {
    let name = path.display();
    let Some(bits) = mode(path) else {
        return vec![Finding::note("folder", format!("{name} is not there yet"), "the first start makes it")];
    };
    let mut findings = Vec::new();
    if bits & 0o077 != 0 {
        findings.push(Finding::warning(
            "folder",
            format!("{name} has mode {bits:03o}: others may look at subscribers' messages and passwords"),
            format!("chmod 700 {name}"),
        ));
    }
    let files = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let secret = |path: &PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        [".sqlite", ".sqlite-wal", ".toml", ".sock"].iter().any(|end| name.ends_with(end))
    };
    let open: Vec<String> = files
        .filter(secret)
        .filter(|path| mode(path).is_some_and(|bits| bits & 0o007 != 0) && bits & 0o001 != 0)
        .map(|path| path.display().to_string())
        .collect();
    if !open.is_empty() {
        findings.push(Finding::warning(
            "folder",
            format!("anybody may read {}", open.join(", ")),
            "chmod 600 those files",
        ));
    }
    let probe = path.join(".weir-doctor");
    let written = fs::OpenOptions::new().write(true).create_new(true).open(&probe);
    match written.and_then(|_| fs::remove_file(&probe)) {
        Ok(()) if findings.is_empty() => {
            findings.push(Finding::good("folder", format!("{name} has mode {bits:03o} and can be written")));
        }
        Ok(()) => {}
        Err(error) => findings.push(Finding::fault(
            "folder",
            format!("{name} cannot be written: {error}"),
            "the node runs as another user, or the disk is full or read-only",
        )),
    }
    findings
}

fn certificate(area: &'static str, chain: &Path, key: Option<&Path>, now: i64) -> Finding {
    let name = chain.display();
    let broken =
        |what: String| Finding::fault(area, format!("{name}: {what}"), "give a PEM file of the chain");
    let first = match CertificateDer::pem_file_iter(chain).map(|mut all| all.next()) {
        Ok(Some(Ok(first))) => first,
        Ok(Some(Err(error))) | Err(error) => return broken(error.to_string()),
        Ok(None) => return broken("there is no certificate in it".to_owned()),
    };
    let Ok((_, read)) = x509_parser::parse_x509_certificate(&first) else {
        return broken("its first certificate cannot be read".to_owned());
    };
    if let Some(key) = key {
        let path = key.display();
        if let Err(error) = PrivateKeyDer::from_pem_file(key) {
            return Finding::fault(area, format!("{path}: {error}"), "give a PEM file of the key");
        }
        if mode(key).is_some_and(|bits| bits & 0o004 != 0) {
            return Finding::warning(
                area,
                format!("anybody may read the key {path}"),
                format!("chmod 600 {path}"),
            );
        }
    }
    let validity = read.validity();
    let days = (validity.not_after.timestamp() - now).div_euclid(86_400);
    if validity.not_before.timestamp() > now {
        return Finding::fault(area, format!("{name} is not good yet"), "is this host's clock right?");
    }
    if days < 0 {
        return Finding::fault(
            area,
            format!("{name} ended {} days ago", -days),
            "renew it, and restart the node",
        );
    }
    if days < SOON_DAYS {
        return Finding::warning(
            area,
            format!("{name} ends in {days} days"),
            "renew it, and restart the node",
        );
    }
    Finding::good(area, format!("{name} is good for {days} days"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    #[test]
    fn a_certificate_is_judged_by_its_time_and_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["weir.example".to_owned()]).unwrap();
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        fs::write(&chain, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let allow = |bits| fs::set_permissions(&key, fs::Permissions::from_mode(bits)).unwrap();
        let (_, read) = x509_parser::parse_x509_certificate(made.cert.der()).unwrap();
        let end = read.validity().not_after.timestamp();
        let at = |now| certificate("sip certificate", &chain, Some(&key), now).severity;
        allow(0o600);
        let days = 86_400;
        assert_eq!(at(end - 100 * days), Severity::Good);
        assert_eq!(at(end - 5 * days), Severity::Warning);
        assert_eq!(at(end + days), Severity::Fault);
        assert_eq!(at(0), Severity::Fault, "before it is good");
        allow(0o644);
        assert_eq!(at(end - 100 * days), Severity::Warning);
        assert_eq!(certificate("x", &key, None, 0).severity, Severity::Fault, "a key is no certificate");
        assert_eq!(certificate("x", &chain, Some(&chain), 0).severity, Severity::Fault);
        assert_eq!(certificate("x", Path::new("/nowhere"), None, 0).severity, Severity::Fault);
    }

    #[test]
    fn a_folder_that_others_may_look_into_is_told() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("node");
        assert_eq!(folder(&path)[0].severity, Severity::Note);
        fs::create_dir(&path).unwrap();
        let allow = |bits| fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
        allow(0o700);
        assert_eq!(folder(&path).iter().map(|f| f.severity).collect::<Vec<_>>(), [Severity::Good]);
        allow(0o755);
        fs::write(path.join("control.sqlite"), "").unwrap();
        fs::set_permissions(path.join("control.sqlite"), fs::Permissions::from_mode(0o644)).unwrap();
        let told = folder(&path);
        assert!(told.len() == 2 && told.iter().all(|f| f.severity == Severity::Warning), "{told:?}");
        assert!(told[1].found.contains("control.sqlite"));
        assert!(!path.join(".weir-doctor").exists());
    }
}
