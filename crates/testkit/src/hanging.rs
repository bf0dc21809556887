//! A file that is never read to its end, as on a file system that hangs.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::process::{command, run};
use crate::wait::{SOON, until};

/// A pipe that stands in a file's place. Nobody writes to it.
#[derive(Debug)]
pub struct Hanging(PathBuf);

impl Hanging {
    /// Puts it in the place of a file.
    ///
    /// # Panics
    /// When there is no such file.
    pub async fn replace(file: &Path) -> Self {
        fs::remove_file(file).unwrap();
        let mut pipe = command("mkfifo");
        pipe.arg(file);
        assert_eq!(run(pipe).await.code, Some(0));
        Self(file.to_owned())
    }

    /// Waits until somebody reads it, who goes on waiting until what this returns is dropped.
    pub async fn is_read(&self) -> File {
        let mut writing = OpenOptions::new();
        writing.write(true).custom_flags(O_NONBLOCK);
        until("a reader", SOON, async || writing.open(&self.0).ok()).await
    }
}

/// Of fcntl.h on Linux. With it, a pipe that nobody reads cannot be opened to write.
const O_NONBLOCK: i32 = 0o4000;
