//! The user that runs PostgreSQL when the program is root, and files that belong to it.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Uid, User};

use super::{ClusterError, while_doing};

/// An unprivileged user.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Owner {
    /// Who runs PostgreSQL instead of root; `None` when the program is not root.
    pub(super) fn needed() -> Result<Option<Self>, ClusterError> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        // initdb wants a user with an entry in the password file, so not any number will do.
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| User::from_name(name).ok().flatten())
            .map(|user| Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
            .ok_or(ClusterError::NobodyToRunAs)
    }

    fn may_enter(&self, dir: &Path) -> bool {
        let Ok(found) = fs::metadata(dir) else {
            // Not made yet: it will be the owner's.
            return true;
        };
        let needed = match (found.uid() == self.uid, found.gid() == self.gid) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        found.mode() & needed != 0
    }
}

/// `dir`, or a directory in `/var/tmp` named after it when the owner could not get into `dir`.
pub(super) fn reachable(dir: PathBuf, owner: Option<&Owner>) -> PathBuf {
    let Some(owner) = owner else { return dir };
    // The directory itself will be handed to the owner, so only those above it count.
    if dir.ancestors().skip(1).all(|above| owner.may_enter(above)) {
        return dir;
    }
    let name: Vec<_> = dir
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .map(|part| part.as_os_str().to_string_lossy())
        .collect();
    let instead = Path::new("/var/tmp").join(format!("tidewire-{}", name.join("-")));
    tracing::info!(
        wanted = %dir.display(),
        used = %instead.display(),
        "the user that runs PostgreSQL cannot reach the wanted directory"
    );
    instead
}

/// Makes `dir` unless it is there, and lets nobody but its owner in.
pub(super) fn make_dir(dir: &Path, owner: Option<&Owner>) -> Result<(), ClusterError> {
    let doing = || while_doing(format!("making the directory {}", dir.display()));
    if let Some(above) = dir.parent() {
        fs::create_dir_all(above).map_err(doing())?;
    }
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(doing()(error)),
        _ => {}
    }
    refuse_strangers(dir, owner).map_err(doing())?;
    give(dir, owner).map_err(doing())
}

/// In a directory that all may write to, such as `/var/tmp`, somebody else may have made ours.
fn refuse_strangers(dir: &Path, owner: Option<&Owner>) -> io::Result<()> {
    let found = fs::symlink_metadata(dir)?;
    let me = Uid::effective().as_raw();
    let known = found.uid() == me || owner.is_some_and(|owner| found.uid() == owner.uid);
    if found.is_dir() && known {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "it is there already and belongs to somebody else, or is no directory",
    ))
}

/// Writes a file that only its owner may read; one that is there keeps its place and owner.
pub(super) fn write_file(
    path: &Path,
    contents: &[u8],
    owner: Option<&Owner>,
) -> Result<(), ClusterError> {
    let doing = || while_doing(format!("writing {}", path.display()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(doing())?;
    file.write_all(contents).map_err(doing())?;
    give(path, owner).map_err(doing())
}

fn give(path: &Path, owner: Option<&Owner>) -> io::Result<()> {
    match owner {
        Some(owner) => chown(path, Some(owner.uid), Some(owner.gid)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_below_one_that_only_root_may_enter_is_moved() {
        let made = std::env::temp_dir().join(format!("tidewire-owner-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&made).unwrap();
        let stranger = Owner { uid: 54_321, gid: 54_321 };
        let moved = reachable(made.join("pg"), Some(&stranger));
        assert!(moved.starts_with("/var/tmp"), "{moved:?}");
        assert_eq!(reachable(made.clone(), Some(&stranger)), made);
        assert_eq!(reachable(made.join("pg"), None), made.join("pg"));
        fs::remove_dir(&made).unwrap();
    }
}
