//! The files that discovery owns: the target, the copy of the last good one, the SD files.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{info, warn};

use crate::listing::Listing;
use crate::render::SdFiles;
use crate::tracker::Snapshot;
use crate::writer::{self, FileError};

mod kept;

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Files {
    /// What Prometheus reads.
    pub target: PathBuf,
    /// SD files, of this mode or of one before.
    pub sd: SdFiles,
    /// The operator's files, each with its flag: none is changed.
    pub kept: Vec<(&'static str, PathBuf)>,
}

impl Files {
    /// The files that belong to a target.
    #[must_use]
    pub fn new(target: PathBuf, sd_folder: PathBuf) -> Self {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!("pushprox-{name}-");
        Self {
            sd: SdFiles {
                folder: sd_folder,
                prefix,
            },
            target,
            kept: Vec::new(),
        }
    }

    /// The copy of the last configuration that Prometheus has taken.
    #[must_use]
    pub fn good(&self) -> PathBuf {
        let name = self
            .target
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        self.target.with_file_name(format!("{name}.good"))
    }

    /// Gives the target this content. Whether it had another.
    ///
    /// # Errors
    ///
    /// The target is then as it was.
    pub fn write_target(&self, config: &[u8]) -> Result<bool, FileError> {
        self.check()?;
        writer::replace(&self.target, config)
    }

    /// Writes that copy.
    ///
    /// # Errors
    ///
    /// The copy is then as it was.
    pub fn write_good(&self, config: &[u8]) -> Result<bool, FileError> {
        self.check()?;
        writer::copy(&self.good(), config, &self.target)
    }

    /// The clients of each proxy, as the SD files have them.
    #[must_use]
    pub fn listings(&self) -> Vec<(std::net::SocketAddr, Listing)> {
        let mut listings = Vec::new();
        for path in self.own_sd_files() {
            let Some(proxy) = self.sd.proxy(&path) else {
                continue;
            };
            match writer::read(&path).map(|bytes| Listing::parse(&bytes.unwrap_or_default())) {
                Ok(Ok(mut listing)) => {
                    // The labels that were added here are left out again.
                    listing.unusable = 0;
                    listings.push((proxy, listing));
                }
                Ok(Err(error)) => warn!(path = %path.display(), %error, "cannot use an SD file"),
                Err(error) => warn!(%error, "cannot use an SD file"),
            }
        }
        listings
    }

    /// Writes the SD files that have changed.
    ///
    /// # Errors
    ///
    /// The first failure; the other files are written nevertheless.
    pub fn write_sd(&self, snapshot: &Arc<Snapshot>) -> Result<usize, FileError> {
        self.check()?;
        let mut written = 0;
        let mut result = Ok(());
        for (proxy, content) in &snapshot.proxies {
            let Some(content) = content else { continue };
            match writer::replace(&self.sd.path(proxy.address), content) {
                Ok(has_changed) => written += usize::from(has_changed),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result.map(|()| written)
    }

    /// Removes the SD files of proxies that are not in `snapshot`, and what killed runs have left.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub fn remove_stale(&self, snapshot: &Snapshot) -> Result<(), FileError> {
        self.check()?;
        let mut current = BTreeSet::new();
        for (proxy, content) in &snapshot.proxies {
            if content.is_some() {
                current.insert(self.sd.path(proxy.address));
            }
        }
        for path in self.own_sd_files() {
            if !current.contains(&path) && writer::remove(&path)? {
                info!(path = %path.display(), "SD file removed");
            }
        }
        Ok(())
    }

    /// Paths of SD files and of their temporary files.
    fn own_sd_files(&self) -> Vec<PathBuf> {
        let entries = match std::fs::read_dir(&self.sd.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                warn!(folder = %self.sd.folder.display(), %error, "cannot list SD files");
                return Vec::new();
            }
        };
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| self.is_own(path))
            .collect();
        paths.sort();
        paths
    }

    fn is_own(&self, path: &Path) -> bool {
        self.sd.proxy(path).is_some()
            || writer::original(path).is_some_and(|original| self.sd.proxy(&original).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Proxy;
    use std::fs;

    pub(super) fn snapshot(contents: &[(&str, &str)]) -> Arc<Snapshot> {
        let proxies = contents.iter().map(|(address, content)| {
            let proxy = Proxy {
                address: address.parse().unwrap(),
                namespace: "demo".to_owned(),
                service: "proxy".to_owned(),
            };
            (proxy, Some(content.as_bytes().to_vec()))
        });
        Arc::new(Snapshot {
            proxies: proxies.collect(),
        })
    }

    pub(super) fn names(folder: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn only_own_files_of_proxies_that_have_gone_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(
            "/etc/prometheus/prometheus.yaml".into(),
            folder.path().into(),
        );
        let two = snapshot(&[("10.0.0.1:80", "[]"), ("10.0.0.2:80", "[]")]);
        assert_eq!(files.write_sd(&two).unwrap(), 2);
        let left = ".pushprox-prometheus.yaml-10.0.0.9_80.json.tmp";
        let foreign = [
            "10.0.0.1.json",
            "pushprox-other.yaml-10.0.0.3_80.json",
            "pushprox-prometheus.yaml-notes.json",
            ".x.tmp",
            "wal",
        ];
        for name in foreign.iter().chain([&left]) {
            fs::write(folder.path().join(name), "[]").unwrap();
        }
        let one = snapshot(&[("10.0.0.2:80", "[]")]);
        assert_eq!(files.write_sd(&one).unwrap(), 0);
        files.remove_stale(&one).unwrap();
        let mut wanted: BTreeSet<String> = foreign.iter().map(|name| (*name).to_owned()).collect();
        wanted.insert("pushprox-prometheus.yaml-10.0.0.2_80.json".to_owned());
        assert_eq!(names(folder.path()), wanted);
    }

    #[test]
    fn another_run_reads_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new("/x/prometheus.yaml".into(), folder.path().into());
        let content = r#"[{"targets":["a:1"],"labels":{"__meta_pushprox_proxy":"x","room":"1"}}]"#;
        files
            .write_sd(&snapshot(&[
                ("[fd00::1]:80", content),
                ("10.0.0.2:80", "broken"),
            ]))
            .unwrap();
        let listings = files.listings();
        assert_eq!(listings.len(), 1);
        assert_eq!(listings[0].0, "[fd00::1]:80".parse().unwrap());
        assert_eq!((listings[0].1.len(), listings[0].1.unusable), (1, 0));
        let elsewhere = Files::new("/x/y".into(), folder.path().join("missing"));
        assert!(elsewhere.listings().is_empty());
    }

    #[test]
    fn a_failure_does_not_keep_the_other_files_from_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new("/x/p".into(), folder.path().into());
        let two = snapshot(&[("10.0.0.1:80", "[1]"), ("10.0.0.2:80", "[2]")]);
        fs::create_dir(files.sd.path("10.0.0.1:80".parse().unwrap())).unwrap();
        assert!(files.write_sd(&two).is_err());
        assert!(files.sd.path("10.0.0.2:80".parse().unwrap()).is_file());
    }
}
