//! Files that may change while the daemon runs: read at the start, looked at every few seconds, and
//! taken over as a whole when they are good.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::Shutdown;
use crate::config_file::FileError;
use crate::digest::{Digest, sha256};
use crate::exit::causes;

/// A value that comes from files, as it was when they last were good.
///
/// The files are compared by what is in them, so that it does not matter how they were replaced: in
/// place, by a rename, or by the symbolic links that Kubernetes swaps.
pub struct Reloaded<T, E = FileError> {
    what: &'static str,
    load: Box<Load<T, E>>,
    current: RwLock<Arc<T>>,
    generation: AtomicU64,
    replaced: Notify,
    /// The files as they were at the last attempt, good or not.
    files: Mutex<Files>,
}

type Load<T, E> = dyn Fn(&mut Files, Option<&T>) -> Result<T, E> + Send + Sync;

/// Reads files and remembers which, and what was in them.
#[derive(Debug, Default)]
pub struct Files {
    read: Vec<(PathBuf, Option<Contents>)>,
}

/// What is in each of some files; nothing where one cannot be read.
type Look = Vec<Option<Contents>>;

/// A digest: the contents may be secret, and are not kept.
type Contents = Digest;

impl Files {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`FileError`] names the file and the system's reason.
    pub fn read(&mut self, path: &Path) -> Result<Vec<u8>, FileError> {
        let read = std::fs::read(path);
        let contents = read.as_ref().ok().map(|bytes| sha256(bytes));
        self.read.push((path.to_owned(), contents));
        read.map_err(|source| FileError::read(path, source))
    }

    fn have_changed(&self) -> bool {
        self.read.iter().any(|(path, then)| look(path) != *then)
    }

    /// The files as they are now.
    fn look(&self) -> Look {
        self.read.iter().map(|(path, _)| look(path)).collect()
    }
}

impl<T, E: Error + 'static> Reloaded<T, E> {
    /// Loads for the first time. `what` names it in the log.
    ///
    /// From then on `load` gets what is in force, and can refuse to let go of it.
    ///
    /// # Errors
    ///
    /// Those of `load`.
    pub fn load(
        what: &'static str,
        load: impl Fn(&mut Files, Option<&T>) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        let mut files = Files::default();
        let first = load(&mut files, None)?;
        Ok(Self {
            what,
            load: Box::new(load),
            current: RwLock::new(Arc::new(first)),
            generation: AtomicU64::new(0),
            replaced: Notify::new(),
            files: Mutex::new(files),
        })
    }

    /// A value that comes from no file.
    pub fn fixed(value: T) -> Self
    where
        T: Clone + Send + Sync + 'static,
    {
        let same = value.clone();
        Self {
            what: "",
            load: Box::new(move |_, _| Ok(same.clone())),
            current: RwLock::new(Arc::new(value)),
            generation: AtomicU64::new(0),
            replaced: Notify::new(),
            files: Mutex::default(),
        }
    }

    /// What is in force now.
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.read())
    }

    /// How often the value has been replaced.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Waits until the value is another one than that of `generation`. Cancel safe.
    pub async fn replaced(&self, generation: u64) {
        loop {
            // Begins to listen before it looks, so that nothing comes in between.
            let replaced = self.replaced.notified();
            if self.generation() != generation {
                return;
            }
            replaced.await;
        }
    }

    /// Loads again if a file has changed. Whether a new value is in force; the log tells.
    ///
    /// Files that are no good leave in force what was, and are tried again when they change again.
    pub fn refresh(&self) -> bool {
        let mut files = self.files.lock();
        if !files.have_changed() {
            return false;
        }
        let mut read = Files::default();
        let loaded = (self.load)(&mut read, Some(&self.current()));
        match loaded {
            Ok(value) => {
                *files = read;
                *self.current.write() = Arc::new(value);
                self.generation.fetch_add(1, Ordering::Release);
                self.replaced.notify_waiters();
                info!(what = self.what, "read again after a change");
                true
            }
            Err(error) => {
                // Of files that were not reached this time, a change still counts.
                for (path, then) in std::mem::take(&mut files.read) {
                    if !read.read.iter().any(|(other, _)| *other == path) {
                        let now = look(&path).or(then);
                        read.read.push((path, now));
                    }
                }
                *files = read;
                warn!(
                    what = self.what,
                    error = causes(&error),
                    "a change is not taken over: what was read before stays in force"
                );
                false
            }
        }
    }
}

impl<T: Send + Sync + 'static, E: Error + 'static> Reloaded<T, E> {
    /// Looks at the files every few seconds, until the shutdown begins.
    pub async fn watch(self: Arc<Self>, shutdown: Shutdown) {
        if self.files.lock().read.is_empty() {
            return;
        }
        // What the files were at the last look, where that was a change that may go on.
        let mut changing = None;
        loop {
            let pause = match changing {
                Some(_) => SETTLING,
                None => INTERVAL,
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let this = Arc::clone(&self);
            let looked = tokio::task::spawn_blocking(move || this.settle(changing.as_ref())).await;
            changing = looked.unwrap_or_else(|error| {
                warn!(what = self.what, %error, "cannot look for changes");
                None
            });
        }
    }

    /// Takes over a change that has stood still since `before`. What is changing yet comes back.
    fn settle(&self, before: Option<&Look>) -> Option<Look> {
        let files = self.files.lock();
        if !files.have_changed() {
            return None;
        }
        let now = files.look();
        drop(files);
        if before != Some(&now) {
            return Some(now);
        }
        self.refresh();
        None
    }
}

impl<T, E> fmt::Debug for Reloaded<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded")
            .field("what", &self.what)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

fn look(path: &Path) -> Option<Contents> {
    std::fs::read(path).ok().map(|bytes| sha256(&bytes))
}

/// Often enough for an operator who waits for it, and for certificates that are about to expire.
const INTERVAL: Duration = Duration::from_secs(2);

/// A file that is written in place is whole when it has not changed for so long: what is cut off at
/// a bad place may be good, and mean something else.
const SETTLING: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A number out of one file, plus one out of another if the first says so.
    fn number(folder: &Path) -> Result<Reloaded<u32>, FileError> {
        let (first, second) = (folder.join("first"), folder.join("second"));
        Reloaded::load("test", move |files, _| {
            let read = |files: &mut Files, path: &Path| {
                let text = String::from_utf8(files.read(path)?).unwrap();
                text.trim()
                    .parse::<u32>()
                    .map_err(|_| FileError::content(path, "not a number"))
            };
            Ok(read(files, &first)? + read(files, &second)?)
        })
    }

    #[test]
    fn a_change_is_taken_over_when_it_is_good_and_not_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name| folder.path().join(name);
        fs::write(file("first"), "1").unwrap();
        fs::write(file("second"), "10").unwrap();
        let value = number(folder.path()).unwrap();
        assert_eq!((*value.current(), value.generation()), (11, 0));
        assert!(!value.refresh(), "nothing has changed");

        fs::write(file("first"), "x").unwrap();
        assert!(!value.refresh());
        assert_eq!(*value.current(), 11, "what was good stays");
        assert!(!value.refresh(), "and is not tried again and again");

        fs::write(file("first"), "2").unwrap();
        fs::remove_file(file("second")).unwrap();
        assert!(!value.refresh());
        assert_eq!(*value.current(), 11);
        fs::write(file("second"), "20").unwrap();
        assert!(value.refresh());
        assert_eq!((*value.current(), value.generation()), (22, 1));
    }

    #[test]
    fn links_may_be_swapped_as_kubernetes_does() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, first) in [("v1", "1"), ("v2", "2")] {
            fs::create_dir(path(name)).unwrap();
            fs::write(path(name).join("first"), first).unwrap();
            fs::write(path(name).join("second"), "0").unwrap();
        }
        symlink("v1", path("data")).unwrap();
        symlink("data/first", path("first")).unwrap();
        symlink("data/second", path("second")).unwrap();
        let value = number(folder.path()).unwrap();
        assert_eq!(*value.current(), 1);
        symlink("v2", path("next")).unwrap();
        fs::rename(path("next"), path("data")).unwrap();
        assert!(value.refresh());
        assert_eq!(*value.current(), 2);
    }

    #[test]
    fn a_file_that_is_still_being_written_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name| folder.path().join(name);
        fs::write(file("first"), "1").unwrap();
        fs::write(file("second"), "0").unwrap();
        let value = number(folder.path()).unwrap();
        assert_eq!(value.settle(None), None);
        let mut changing = None;
        for part in ["2", "23", "234"] {
            fs::write(file("first"), part).unwrap();
            changing = value.settle(changing.as_ref());
            assert!(changing.is_some());
            assert_eq!(*value.current(), 1, "{part}");
        }
        assert_eq!(value.settle(changing.as_ref()), None);
        assert_eq!(*value.current(), 234);
    }

    #[tokio::test(start_paused = true)]
    async fn the_watch_ends_with_the_shutdown() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("first"), "1").unwrap();
        fs::write(folder.path().join("second"), "1").unwrap();
        let value = Arc::new(number(folder.path()).unwrap());
        let shutdown = Shutdown::new();
        shutdown.spawn(Arc::clone(&value).watch(shutdown.clone()));
        fs::write(folder.path().join("first"), "5").unwrap();
        // Time is paused: it goes on when the watch waits, and stands still while it reads.
        let replaced = tokio::time::timeout(INTERVAL + 2 * SETTLING, value.replaced(0)).await;
        assert_eq!(replaced, Ok(()));
        assert_eq!(*value.current(), 6);
        assert!(shutdown.drain(Duration::from_secs(5)).await);
    }
}
