//! The file and its folder: made private, used by one process at a time, and still where they were.
//!
//! Promises that nothing that exists is overwritten. The lock is the operating system's on a file of
//! its own, so that it ends with the process however that ends, and so that SQLite's own locks stay
//! free for readers such as the sqlite3 shell.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::trouble::refused;
use crate::store::StoreError;

/// A store's file, claimed by this process.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
    /// Held as long as this lives.
    _lock: File,
}

impl Place {
    /// Makes folder and file where they are missing, and locks them.
    pub(super) fn claim(path: &Path) -> Result<Self, StoreError> {
        let path = settled(path).map_err(|error| cannot("be placed", &error))?;
        let lock = lock(&beside(&path, ".lock"))?;
        let wal = beside(&path, "-wal");
        let unwritten = fs::metadata(&wal).is_ok_and(|wal| wal.len() > 0);
        let length = match fs::metadata(&path) {
            Ok(found) if !found.is_file() => return Err(refused("it is not a file")),
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(cannot("be opened", &error)),
        };
        if length == 0 && unwritten {
            // SQLite would take the log for a leftover and delete it, with everything in it.
            return Err(refused(&format!("it is missing or empty but {} is not: restore both", wal.display())));
        }
        let file = open_private(&path).map_err(|error| cannot("be opened", &error))?;
        if length > 0 {
            check_magic(&file)?;
        } else {
            // The name itself must survive a power failure.
            let kept = file.sync_all().and_then(|()| File::open(folder_of(&path))?.sync_all());
            kept.map_err(|error| cannot("be written", &error))?;
        }
        let identity = file.metadata().map(|found| (found.dev(), found.ino()));
        let identity = identity.map_err(|error| cannot("be opened", &error))?;
        Ok(Self { path, identity, _lock: lock })
    }

    /// The file's path, free of links.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Says so where the path no longer leads to the file that is being written: what is written then
    /// is gone with the process.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        match fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == self.identity => Ok(()),
            Ok(_) => Err(StoreError("the file was replaced while in use: restart ayova".to_owned())),
            Err(error) => Err(StoreError(format!("the file is gone: put it back, or restart ayova ({error})"))),
        }
    }
}

/// The path with its folder made and links followed, so that one file has one lock.
fn settled(path: &Path) -> io::Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no file"));
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder_of(path))?;
    match path.canonicalize() {
        Ok(found) => Ok(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(folder_of(path).canonicalize()?.join(name)),
        Err(error) => Err(error),
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let mut file = open_private(path).map_err(|error| cannot("be locked", &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let named = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let holder = if named { format!(" (process {})", holder.trim()) } else { String::new() };
            return Err(refused(&format!(
                "another ayova{holder} is using it; a file serves one process: stop that one, or give each its own store.path"
            )));
        }
        Err(TryLockError::Error(error)) => return Err(cannot("be locked", &error)),
    }
    // Only told to whoever comes second, so a full disk is no reason to stop here.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn check_magic(mut file: &File) -> Result<(), StoreError> {
    let mut magic = [0; MAGIC.len()];
    match file.read_exact(&mut magic) {
        Ok(()) if magic == *MAGIC => Ok(()),
        Ok(()) | Err(_) => Err(refused("it is not an SQLite database; name another file in store.path")),
    }
}

/// How every SQLite file begins.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

fn cannot(what: &str, error: &io::Error) -> StoreError {
    StoreError(format!("it cannot {what}: {error}"))
}
