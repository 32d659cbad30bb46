//! Signals of the process, taken off the shards' threads.
//!
//! [`block`] runs in main before any thread starts, so that every thread inherits the mask;
//! [`deliver`] starts one plain thread that waits for them and calls back.

use std::io;

/// A signal the process reacts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Interrupt,
    Terminate,
    Hangup,
    User1,
}

const HANDLED: [(i32, Signal); 4] = [
    (libc::SIGINT, Signal::Interrupt),
    (libc::SIGTERM, Signal::Terminate),
    (libc::SIGHUP, Signal::Hangup),
    (libc::SIGUSR1, Signal::User1),
];

/// Blocks the handled signals in this thread and all that it starts later; ignores SIGPIPE.
pub fn block() -> io::Result<()> {
    let set = set();
    // SAFETY: `set` is initialised; a null old set is allowed.
    let code = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    // SAFETY: SIG_IGN is a valid disposition for SIGPIPE.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    Ok(())
}

/// Calls back on a thread of its own for every handled signal, for the life of the process.
pub fn deliver(callback: impl Fn(Signal) + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("signals".to_owned());
    thread.spawn(move || loop {
        let set = set();
        let mut number = 0;
        // SAFETY: both pointers are valid for the call.
        if unsafe { libc::sigwait(&set, &mut number) } != 0 {
            continue;
        }
        if let Some((_, signal)) = HANDLED.iter().find(|(handled, _)| *handled == number) {
            callback(*signal);
        }
    })?;
    Ok(())
}

fn set() -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set before anything reads it.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid set, and the numbers are valid signals.
    unsafe {
        libc::sigemptyset(&mut set);
        for (number, _) in HANDLED {
            libc::sigaddset(&mut set, number);
        }
    }
    set
}
