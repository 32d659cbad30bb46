//! The kernel's TCP congestion control, which decides loopback throughput more than one would like.
//!
//! bbr paces its sockets with timers, which on two cores costs half of the throughput. Where this
//! process may, it switches to cubic while it measures and back at the end; where it may not, the
//! table says what was in force.

use std::fs;
use std::io;

const FILE: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
const WANTED: &str = "cubic";

/// Puts the old setting back when dropped.
pub struct Congestion {
    restore: Option<String>,
    in_force: String,
}

impl Congestion {
    pub fn steady() -> io::Result<Congestion> {
        let found = fs::read_to_string(FILE)?.trim().to_owned();
        if found == WANTED || fs::write(FILE, WANTED).is_err() {
            return Ok(Congestion { restore: None, in_force: found });
        }
        Ok(Congestion { restore: Some(found), in_force: WANTED.to_owned() })
    }

    /// What sockets that are opened now get.
    pub fn in_force(&self) -> &str {
        &self.in_force
    }
}

impl Drop for Congestion {
    fn drop(&mut self) {
        if let Some(found) = &self.restore {
            if let Err(error) = fs::write(FILE, found) {
                eprintln!("warning: {FILE} stays at {WANTED} and was {found}: {error}");
            }
        }
    }
}
