//! The workspace as data: members, dependencies, source files.

use std::fs;
use std::path::{Path, PathBuf};

/// The workspace's root folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// One member crate.
pub struct Member {
    /// Folder, relative to the root, e.g. `shared/sip`.
    pub folder: String,
    /// The manifest.
    pub manifest: toml::Table,
}

impl Member {
    /// The crate's name.
    pub fn name(&self) -> &str {
        self.manifest["package"]["name"].as_str().expect("package.name")
    }

    /// Names in a dependency section, e.g. `dependencies`.
    pub fn names(&self, section: &str) -> Vec<String> {
        self.manifest
            .get(section)
            .and_then(|t| t.as_table())
            .map(|t| t.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// Every Rust file below `src`, with its path relative to the root and its text.
    pub fn sources(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        collect(&root().join(&self.folder).join("src"), &mut found);
        found.sort();
        found
    }
}

/// Every member of the workspace.
pub fn members() -> Vec<Member> {
    let manifest: toml::Table = read(&root().join("Cargo.toml")).parse().expect("the root manifest");
    manifest["workspace"]["members"]
        .as_array()
        .expect("workspace.members")
        .iter()
        .map(|folder| {
            let folder = folder.as_str().expect("a folder").to_owned();
            let manifest = read(&root().join(&folder).join("Cargo.toml")).parse().expect("a manifest");
            Member { folder, manifest }
        })
        .collect()
}

/// A file's text.
pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn collect(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            found.push((name, read(&path)));
        }
    }
}
