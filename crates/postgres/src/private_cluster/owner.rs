//! The user that runs PostgreSQL when the program is root, and files that belong to it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
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
    open_dir(dir).and_then(|made| take_over(&made, owner)).map_err(doing())
}

/// The same for a directory inside one that is the owner's already.
pub(super) fn make_dir_in(
    dir: &Path,
    name: &str,
    owner: Option<&Owner>,
) -> Result<(), ClusterError> {
    let doing = || while_doing(format!("making the directory {}", dir.join(name).display()));
    let made = || {
        let above = open_dir(dir)?;
        match mkdirat(&above, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        take_over(&step(&above, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?, owner)
    };
    made().map_err(doing())
}

/// Gives a directory to its owner, unless somebody else made it: in one that all may write to, such
/// as `/var/tmp`, that may be.
fn take_over(dir: &File, owner: Option<&Owner>) -> io::Result<()> {
    let found = dir.metadata()?;
    let me = Uid::effective().as_raw();
    let known = found.uid() == me || owner.is_some_and(|owner| found.uid() == owner.uid);
    if !known {
        let words = "it is there already and belongs to somebody else";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, words));
    }
    give(dir, owner)
}

/// Opens a directory that is one, and no link to one.
fn open_dir(dir: &Path) -> io::Result<File> {
    let flags = (OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits();
    fs::OpenOptions::new().read(true).custom_flags(flags).open(dir)
}

/// Opens what is called so in a directory, and follows no link there.
fn step(dir: &File, name: &str, flags: OFlag) -> io::Result<File> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(dir, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?.into())
}

/// Opens a file by the names that lead to it from `dir`.
///
/// What is below `dir` belongs to the owner, who may put a link there at any time. Root, who works
/// here, follows none: it would write to, give away or read what the owner may not.
fn open_below(dir: &Path, names: &[&str], flags: OFlag) -> io::Result<File> {
    let (last, above) = names.split_last().expect("a file has a name");
    let mut at = open_dir(dir)?;
    for name in above {
        at = step(&at, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    }
    step(&at, last, flags)
}

/// An empty file that only root or the owner may read.
pub(super) fn create_file(
    dir: &Path,
    names: &[&str],
    owner: Option<&Owner>,
) -> Result<File, ClusterError> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
    let made = open_below(dir, names, flags).and_then(|file| give(&file, owner).map(|()| file));
    made.map_err(while_doing(format!("writing {}", path(dir, names).display())))
}

/// Writes a file that only its owner may read; one that is there keeps its place.
pub(super) fn write_file(
    dir: &Path,
    names: &[&str],
    contents: &[u8],
    owner: Option<&Owner>,
) -> Result<(), ClusterError> {
    let mut file = create_file(dir, names, owner)?;
    let doing = while_doing(format!("writing {}", path(dir, names).display()));
    file.write_all(contents).map_err(doing)
}

/// Reads a file of the owner's.
pub(super) fn read_file(dir: &Path, names: &[&str]) -> Result<String, ClusterError> {
    let mut text = String::new();
    let read =
        open_below(dir, names, OFlag::O_RDONLY).and_then(|mut file| file.read_to_string(&mut text));
    read.map_err(while_doing(format!("reading {}", path(dir, names).display())))?;
    Ok(text)
}

fn path(dir: &Path, names: &[&str]) -> PathBuf {
    names.iter().fold(dir.to_owned(), |path, name| path.join(name))
}

fn give(file: &File, owner: Option<&Owner>) -> io::Result<()> {
    match owner {
        Some(owner) => fchown(file, Some(owner.uid), Some(owner.gid)),
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

    #[test]
    fn no_link_that_the_owner_made_is_followed() {
        let made = tempfile::tempdir().unwrap();
        let (dir, secret) = (made.path().join("cluster"), made.path().join("secret"));
        fs::write(&secret, "root's own").unwrap();
        make_dir(&dir, None).unwrap();
        make_dir_in(&dir, "run", None).unwrap();
        fs::create_dir(made.path().join("elsewhere")).unwrap();
        for (name, target) in
            [("password", "secret"), ("postgres.log", "secret"), ("data", "elsewhere")]
        {
            std::os::unix::fs::symlink(made.path().join(target), dir.join(name)).unwrap();
        }
        assert!(write_file(&dir, &["password"], b"mine", None).is_err());
        assert!(create_file(&dir, &["postgres.log"], None).is_err());
        assert!(read_file(&dir, &["password"]).is_err());
        assert!(write_file(&dir, &["data", "pg_hba.conf"], b"mine", None).is_err());
        assert!(make_dir_in(&dir, "data", None).is_err());
        assert_eq!(fs::read_to_string(&secret).unwrap(), "root's own");
        assert_eq!(fs::read_dir(made.path().join("elsewhere")).unwrap().count(), 0);

        let linked = made.path().join("linked");
        std::os::unix::fs::symlink(&dir, &linked).unwrap();
        assert!(make_dir(&linked, None).is_err());
        assert!(write_file(&linked, &["new"], b"mine", None).is_err());
        assert!(!dir.join("new").exists());
    }
}
