//! Signals reach the callback on a plain thread, not the thread that runs. Alone in its process,
//! since the mask is inherited.

use std::sync::mpsc;
use std::time::Duration;

use chronik_rt::signals::{block, deliver, Signal};

#[test]
fn signals_are_delivered_to_the_callback() {
    block().expect("mask");
    let (sender, receiver) = mpsc::channel();
    deliver(move |signal| sender.send(signal).expect("receiver")).expect("thread");
    for (number, signal) in [(libc::SIGHUP, Signal::Hangup), (libc::SIGTERM, Signal::Terminate)] {
        // To this thread, which has blocked it, through the process: another thread of the test
        // harness may not have.
        // SAFETY: plain system calls with valid numbers.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), signal_thread(), number) };
        assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Ok(signal));
    }
}

/// The thread that waits for signals.
fn signal_thread() -> i32 {
    for _ in 0..1000 {
        let tasks = std::fs::read_dir("/proc/self/task").expect("proc");
        for task in tasks.flatten() {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if name.trim() == "signals" {
                let number = task.file_name().to_string_lossy().parse();
                return number.expect("a thread's number");
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("the thread has not started");
}
