//! A replica that ends with the process that started it: for `larder dev`, which may be killed in any way.
//!
//! Two means, as each has a hole. The parent holds the other end of this process's standard input, so the end of that is
//! the end of the parent, on every system; but a stopped process reads nothing. On Linux the kernel kills with the
//! parent also what is stopped; but not if the parent was gone before it was asked to.

use std::io::{self, Read as _};

use rustix::process::{Pid, getpid, getppid, kill_process};

/// Bytes of standard input that are read at once, and ignored.
const CHUNK: usize = 64;

/// From now on this process ends when `parent` does.
///
/// # Errors
/// When it has ended already, or the system gives no thread.
pub fn follow(parent: i32) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    if getppid() != Pid::from_raw(parent) {
        return Err(io::Error::other(format!("process {parent}, which started this one, has ended")));
    }
    std::thread::Builder::new().name("parent".to_owned()).spawn(|| {
        let mut chunk = [0; CHUNK];
        let mut input = io::stdin().lock();
        loop {
            match input.read(&mut chunk) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nobody is left to answer or to hand anything over to.
                Ok(0) | Err(_) => return kill_process(getpid(), rustix::process::Signal::KILL),
            }
        }
    })?;
    Ok(())
}
