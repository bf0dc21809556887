//! Files that are whole at every moment: a temporary file, fsync, rename; and only when their bytes
//! differ.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use pushprox_daemon::exit::io_reason;

/// A file that could not be written, read or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {}{}", path.display(), io_reason(source), hint(source))]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What has been done of a replacement, for tests that stop it there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Created,
    HalfWritten,
    Written,
    Synced,
    Renamed,
}

/// The bytes of a file. None where there is no such file.
///
/// # Errors
///
/// When it is there and cannot be read.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failure("read", path)(error)),
    }
}

/// Gives the file these bytes, at once or not at all. Whether it had others.
///
/// # Errors
///
/// The file is then as it was, and so is its folder.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<bool, FileError> {
    replace_in_steps(path, bytes, path, |_| {})
}

/// The same for a copy of `original`: whoever may not read that may not read this.
///
/// # Errors
///
/// The file is then as it was, and so is its folder.
pub fn copy(path: &Path, bytes: &[u8], original: &Path) -> Result<bool, FileError> {
    replace_in_steps(path, bytes, original, |_| {})
}

/// Removes a file, if it is there. Whether it was.
///
/// # Errors
///
/// As the system has it.
pub fn remove(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failure("remove", path)(error)),
    }
}

/// The file that a temporary one was to become.
#[must_use]
pub fn original(temporary: &Path) -> Option<PathBuf> {
    let name = temporary.file_name()?.to_str()?;
    let name = name.strip_prefix('.')?.strip_suffix(".tmp")?;
    Some(temporary.with_file_name(name))
}

/// The failure to write anything, lest a file of the operator's be changed.
#[must_use]
pub fn endangered(flag: &str, path: &Path) -> FileError {
    let text = format!("discovery writes this file itself; name another by {flag}");
    failure("keep", path)(io::Error::other(text))
}

/// Has the permissions of `like`, if that is there.
fn replace_in_steps(
    path: &Path,
    bytes: &[u8],
    like: &Path,
    mut done: impl FnMut(Step),
) -> Result<bool, FileError> {
    let before = fs::metadata(path).ok();
    let permissions = fs::metadata(like).ok().map(|file| file.permissions());
    let may_be_same = before
        .as_ref()
        .is_some_and(|file| file.len() == bytes.len() as u64);
    if may_be_same && read(path)?.as_deref() == Some(bytes) {
        return Ok(false);
    }
    // Always the same name: what a killed run has left is overwritten by the next.
    let temporary = temporary(path);
    let write = |done: &mut dyn FnMut(Step)| {
        // Made anew, so that nobody's link in its place is followed.
        fs::remove_file(&temporary).ok();
        let mut options = File::options();
        options.write(true).create_new(true);
        // Nobody reads it meanwhile who may not read it in the end: there may be a password in it.
        if let Some(permissions) = &permissions {
            options.mode(permissions.mode() & 0o777);
        }
        let mut file = options.open(&temporary)?;
        done(Step::Created);
        let (first, second) = bytes.split_at(bytes.len() / 2);
        file.write_all(first)?;
        done(Step::HalfWritten);
        file.write_all(second)?;
        done(Step::Written);
        if let Some(permissions) = &permissions {
            file.set_permissions(permissions.clone())?;
        }
        file.sync_all()?;
        done(Step::Synced);
        fs::rename(&temporary, path)
    };
    if let Err(error) = write(&mut done) {
        // The reason for the failure matters more than what is left of it.
        fs::remove_file(&temporary).ok();
        return Err(failure("write", path)(error));
    }
    done(Step::Renamed);
    if let Some(folder) = path.parent() {
        // Not every file system has folders that can be synced; the file itself is whole anyway.
        File::open(folder).and_then(|folder| folder.sync_all()).ok();
    }
    Ok(true)
}

/// The file that becomes another one when it is whole.
#[must_use]
pub fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

fn failure(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError {
        action,
        path: path.to_owned(),
        source,
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ResourceBusy => {
            "; it is mounted as a single file: share its folder between the containers instead"
        }
        io::ErrorKind::NotFound => "; its folder must exist",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_only_when_its_bytes_differ() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        assert!(replace(&path, b"one").unwrap());
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        assert!(!replace(&path, b"one").unwrap());
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), modified);
        assert!(replace(&path, b"two").unwrap(), "as long, and different");
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
        assert_eq!(names(folder.path()), ["a.json"]);
    }

    #[test]
    fn a_link_in_the_place_of_the_temporary_file_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("a.json"), folder.path().join("other"));
        fs::write(&other, "mine").unwrap();
        std::os::unix::fs::symlink(&other, temporary(&path)).unwrap();
        replace(&path, b"x").unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"mine");
        assert_eq!(read(&path).unwrap().unwrap(), b"x");
    }

    #[test]
    fn whoever_may_read_the_file_may_still_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        fs::write(&path, "one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o604
        );
    }

    #[test]
    fn at_no_step_may_others_read_what_they_could_not_read_before() {
        let folder = tempfile::tempdir().unwrap();
        let (path, good) = (folder.path().join("a"), folder.path().join("a.good"));
        fs::write(&path, "one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for written in [&path, &good] {
            let may_read = |step| match step {
                Step::Renamed => assert_eq!(mode(written), 0o600),
                _ => assert_eq!(mode(&temporary(written)), 0o600, "{step:?}"),
            };
            replace_in_steps(written, b"two", &path, may_read).unwrap();
        }
    }

    #[test]
    fn killed_at_any_step_the_file_is_whole_and_the_next_run_cleans_up() {
        for last in [
            Step::Created,
            Step::HalfWritten,
            Step::Written,
            Step::Synced,
            Step::Renamed,
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.json");
            replace(&path, b"old").unwrap();
            // A panic skips the rest of the function, as SIGKILL does.
            let killed = catch_unwind(AssertUnwindSafe(|| {
                replace_in_steps(&path, b"newer", &path, |step| {
                    assert_ne!(step, last, "killed");
                })
            }));
            assert!(killed.is_err());
            let wanted: &[u8] = if last == Step::Renamed {
                b"newer"
            } else {
                b"old"
            };
            assert_eq!(read(&path).unwrap().unwrap(), wanted, "{last:?}");
            replace(&path, b"newest").unwrap();
            assert_eq!(read(&path).unwrap().unwrap(), b"newest", "{last:?}");
            assert_eq!(names(folder.path()), ["a.json"], "{last:?}");
        }
    }

    #[test]
    fn a_failure_leaves_everything_as_it_was_and_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/a.json");
        let error = replace(&path, b"x").unwrap_err().to_string();
        assert!(
            error.ends_with("a.json: no such file or directory; its folder must exist"),
            "{error}"
        );
        let path = folder.path().join("folder");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"x").is_err());
        assert_eq!(names(folder.path()), ["folder"]);
        assert!(!remove(&folder.path().join("nothing")).unwrap());
    }
}
