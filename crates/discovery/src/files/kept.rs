//! None of the files that discovery owns is one of the operator's, whatever path leads there: a
//! replacement by rename changes an entry of a folder.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::Files;
use crate::writer::{self, FileError};

impl Files {
    /// The first of the operator's files that would be written or removed, with its flag.
    #[must_use]
    pub fn endangered(&self) -> Option<&(&'static str, PathBuf)> {
        let (target, good) = (&self.target, &self.good());
        let temporary = [target, good].map(|path| writer::temporary(path));
        let written: Vec<_> = [target, good]
            .into_iter()
            .chain(&temporary)
            .map(|path| Entry::at(path))
            .collect();
        let sd_folder = Folder::at(&self.sd.folder);
        self.kept.iter().find(|(_, path)| {
            Entry::on_the_way_to(path).into_iter().any(|entry| {
                let is_own = self.is_own(Path::new(&entry.name));
                is_own && sd_folder.as_ref() == Some(&entry.folder)
                    || written.contains(&Some(entry))
            })
        })
    }

    /// Folders and links may change their meaning: looks again before anything is written.
    pub(super) fn check(&self) -> Result<(), FileError> {
        match self.endangered() {
            Some((flag, path)) => Err(writer::endangered(flag, path)),
            None => Ok(()),
        }
    }
}

/// An entry of a folder that is there. It may be a file, a link, or nothing yet.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    folder: Folder,
    name: OsString,
}

/// A folder, whatever its path.
#[derive(Debug, PartialEq, Eq)]
struct Folder {
    device: u64,
    inode: u64,
}

impl Folder {
    fn at(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

impl Entry {
    fn at(path: &Path) -> Option<Self> {
        Some(Self {
            folder: Folder::at(&folder_of(path))?,
            name: path.file_name()?.to_owned(),
        })
    }

    /// What is passed by whoever reads `path`: its own entry and, while that is a link, the next.
    fn on_the_way_to(path: &Path) -> Vec<Self> {
        let mut path = path.to_owned();
        let mut entries = Vec::new();
        for _ in 0..LINKS {
            entries.extend(Self::at(&path));
            let Ok(link) = fs::read_link(&path) else {
                break;
            };
            path = folder_of(&path).join(link);
        }
        entries
    }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// How many links in a row Linux follows.
const LINKS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::{names, snapshot};
    use std::os::unix::fs::symlink;

    #[test]
    fn the_operators_files_are_known_whatever_leads_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("base"), "mine").unwrap();
        symlink(folder.path(), at("way")).unwrap();
        symlink("way/base", at("near")).unwrap();
        symlink("near", at("far")).unwrap();
        fs::hard_link(at("base"), at("twin")).unwrap();
        for (target, kept, is_endangered) in [
            ("base", "base", true),
            ("sub/../base", "base", true),
            ("way/base", "sub/../base", true),
            // Whoever reads the one reads the other.
            ("base", "far", true),
            ("near", "far", true),
            ("new", "new", true),
            ("a", "way/a.good", true),
            ("a", ".a.tmp", true),
            ("a", "way/.a.good.tmp", true),
            ("a", "way/pushprox-a-10.0.0.1_80.json", true),
            ("a", ".pushprox-a-10.0.0.1_80.json.tmp", true),
            ("a", "sub/pushprox-a-10.0.0.1_80.json", false),
            ("a", "pushprox-b-10.0.0.1_80.json", false),
            ("sub/base", "base", false),
            // A rename puts another file in the place of these, and the base stays.
            ("far", "base", false),
            ("near", "base", false),
            ("twin", "base", false),
            ("missing/base", "base", false),
        ] {
            let mut files = Files::new(at(target), folder.path().into());
            files.kept = vec![("--job-template", at("none")), ("--source", at(kept))];
            let flag = files.endangered().map(|(flag, _)| *flag);
            let wanted = is_endangered.then_some("--source");
            assert_eq!(flag, wanted, "{target} {kept}");
            if !is_endangered && target != "missing/base" {
                files.write_target(b"generated").unwrap();
                assert_eq!(fs::read(at("base")).unwrap(), b"mine", "{target}");
            }
        }
    }

    #[test]
    fn a_link_that_comes_to_lead_to_an_operators_file_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        symlink("sub", at("way")).unwrap();
        let mut files = Files::new(at("way/a"), at("way"));
        files.kept = vec![("--source", at("a.good"))];
        fs::write(at("a.good"), "mine").unwrap();
        let one = snapshot(&[("10.0.0.1:80", "[]")]);
        assert!(files.write_target(b"x").unwrap() && files.write_good(b"x").unwrap());
        assert_eq!(files.write_sd(&one).unwrap(), 1);

        fs::remove_file(at("way")).unwrap();
        symlink(".", at("way")).unwrap();
        let before = names(folder.path());
        let error = files.write_target(b"y").unwrap_err().to_string();
        assert!(
            error.ends_with("a.good: discovery writes this file itself; name another by --source"),
            "{error}"
        );
        assert!(files.write_good(b"y").is_err());
        assert!(files.write_sd(&one).is_err());
        assert!(files.remove_stale(&one).is_err());
        assert_eq!(names(folder.path()), before);
        assert_eq!(fs::read(at("a.good")).unwrap(), b"mine");
    }
}
