//! Where this machine keeps PostgreSQL's server binaries.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{ClusterError, while_doing};

/// A directory that holds both `initdb` and `postgres`.
#[derive(Clone, Debug)]
pub(super) struct Binaries(PathBuf);

impl Binaries {
    /// The given directory, or the first of the usual ones that has them.
    pub(super) fn find(given: Option<&Path>) -> Result<Self, ClusterError> {
        match given {
            Some(dir) => Self::of(dir),
            None => usual_dirs().iter().find_map(|dir| Self::of(dir)),
        }
        .ok_or(ClusterError::NotInstalled)
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.0.join("initdb")
    }

    pub(super) fn postgres(&self) -> PathBuf {
        self.0.join("postgres")
    }

    /// The number before the dot in `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
    pub(super) fn major_version(&self) -> Result<String, ClusterError> {
        let output = Command::new(self.postgres())
            .arg("--version")
            .output()
            .map_err(while_doing("asking postgres for its version"))?;
        Ok(major(&String::from_utf8_lossy(&output.stdout)).to_owned())
    }
}

impl Binaries {
    fn of(dir: &Path) -> Option<Self> {
        let has_both = ["initdb", "postgres"].iter().all(|name| dir.join(name).is_file());
        has_both.then(|| Self(dir.to_owned()))
    }
}

/// `PATH`, what `pg_config` says, and where Debian, Red Hat and Homebrew put each version.
fn usual_dirs() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    dirs.extend(pg_config_bindir());
    for (parent, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql"),
        ("/usr/local/opt", "postgresql"),
    ] {
        dirs.extend(newest_first(Path::new(parent), prefix).map(|dir| dir.join("bin")));
    }
    dirs
}

fn pg_config_bindir() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let dir = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(dir.trim()))
}

/// The directories in `parent` whose names begin with `prefix`, the highest version first.
fn newest_first(parent: &Path, prefix: &str) -> impl Iterator<Item = PathBuf> + use<> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| (version_in(&entry.file_name()), entry.path()))
        .collect();
    found.sort_unstable_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, dir)| dir)
}

/// The first number in a name such as `15`, `pgsql-16` or `postgresql@17`.
fn version_in(name: &OsStr) -> u32 {
    let name = name.to_string_lossy();
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0)
}

fn major(version: &str) -> &str {
    let number = version.split(' ').nth(2).unwrap_or_default();
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    &number[..end]
}

/// The command `program`, ended with SIGINT when the program that started it ends; see the
/// [module](super).
pub(super) fn ending_with_us(program: &Path) -> Command {
    if !setpriv_works() {
        tracing::warn!(
            "no setpriv with --pdeathsig here: if this program is killed, its PostgreSQL stays"
        );
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT", "--"]).arg(program);
    command
}

fn setpriv_works() -> bool {
    Command::new("setpriv")
        .args(["--pdeathsig", "keep", "true"])
        .output()
        .is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_releases_and_betas() {
        assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), "15");
        assert_eq!(major("postgres (PostgreSQL) 19beta1\n"), "19");
    }

    #[test]
    fn versions_in_directory_names_compare_as_numbers() {
        assert!(version_in(OsStr::new("postgresql@17")) > version_in(OsStr::new("pgsql-9.6")));
        assert_eq!(version_in(OsStr::new("postgresql")), 0);
    }
}
