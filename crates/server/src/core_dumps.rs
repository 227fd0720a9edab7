//! No picture of the process's memory on a disk: it holds passwords, keys and what clients say.
//!
//! The program switches dumps off for itself before it reads its configuration; a server inside
//! another program leaves that to it.

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};

/// Has the system write no core dump of this process, nor hand one to a program.
///
/// # Errors
/// When the system refuses.
pub fn switch_off() -> Result<(), Errno> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    // A system that pipes dumps to a program asks this, and not the limit.
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_dumpable(false)?;
    Ok(())
}
