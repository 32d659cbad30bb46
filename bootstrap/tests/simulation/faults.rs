//! What goes wrong in a world, one fault in each round of work.

use std::time::Duration;

use rt::sim::{CrashKind, DiskFaults};

use crate::history::{Rule, Violation};
use crate::scenario::{Faults, Stage, DISK_BYTES};

const EIO: i32 = 5;
const HOUR_MS: i64 = 3_600_000;
/// In which a node must have stopped that cannot write any more.
const STOP_MS: u64 = 3000;
/// One-way delay of the network, from and to.
const DELAY_NS: (u64, u64) = (20_000, 200_000);

impl Stage {
    /// Work, a fault in the middle of it, and what follows.
    pub fn round(&mut self) -> Result<(), Violation> {
        self.restart();
        let calm_ms = self.below(10, 500);
        self.run_for(calm_ms)?;
        if self.faults == Faults::Crashes {
            return self.crash();
        }
        match self.below(0, 15) {
            0..=5 => self.crash(),
            6..=7 => self.stop_in_order(),
            8 => self.cut_connections(),
            9 => self.cut_at_any_byte(),
            10 => self.slow_disk(),
            11 => self.failing_write(),
            12 => self.failing_sync(),
            13 => self.full_disk(),
            _ => self.jump_clock(),
        }
    }

    /// Takes back everything that was switched on or planned and has not come about.
    pub fn end_faults(&mut self) {
        self.world.crash_after_polls(self.node, u64::MAX / 2, CrashKind::Kill);
        self.world.crash_at_disk_operation(self.node, u64::MAX, CrashKind::Kill);
        self.world.disk(self.node).set_faults(DiskFaults::default());
        self.world.disk(self.node).set_capacity(DISK_BYTES);
        self.world.set_network(DELAY_NS, 0);
        self.stop.set(false);
    }

    pub fn kind(&self) -> CrashKind {
        match self.one_in(3) {
            true => CrashKind::Kill,
            false => CrashKind::PowerCut,
        }
    }

    /// A crash at any await point or step of the disk, and often more while it recovers or soon
    /// after: killed, back, at work again, and then the power goes.
    fn crash(&mut self) -> Result<(), Violation> {
        self.plan_crash(3000, 300);
        self.run_for(400)?;
        loop {
            let kind = self.kind();
            self.crash_with(kind);
            if self.one_in(4) {
                // Killed first, and then the power went.
                self.crash_with(CrashKind::PowerCut);
            }
            self.restart();
            if !self.one_in(3) {
                return Ok(());
            }
            let soon_ms = match self.one_in(2) {
                true => self.below(1, 60),
                false => self.below(60, 250),
            };
            self.plan_crash(400, 120);
            self.run_for(soon_ms)?;
        }
    }

    fn plan_crash(&mut self, polls: u64, operations: u64) {
        let kind = self.kind();
        if self.one_in(2) {
            let polls = self.below(0, polls);
            self.world.crash_after_polls(self.node, polls, kind);
        } else {
            let now = self.world.disk(self.node).operations();
            let at = now + self.below(1, operations);
            self.world.crash_at_disk_operation(self.node, at, kind);
        }
    }

    /// As by SIGTERM; now and then it crashes on its way.
    fn stop_in_order(&mut self) -> Result<(), Violation> {
        if self.one_in(4) {
            self.plan_crash(600, 60);
        }
        self.stop.set(true);
        self.report.stops += 1;
        let node = self.node;
        let limit = Duration::from_secs(20);
        let stopped = self.drive(limit, |world, _| !world.is_running(node))?;
        self.stop.set(false);
        if !stopped {
            return Err(Violation::new(Rule::Stuck, "the broker does not stop when it is told to"));
        }
        if self.one_in(3) {
            self.crash_with(CrashKind::PowerCut);
        }
        self.restart();
        Ok(())
    }

    fn cut_connections(&mut self) -> Result<(), Violation> {
        for _ in 0..self.below(1, 6) {
            let place = self.below(1, self.nodes.len() as u64 - 1) as usize;
            self.world.cut_connections(self.node, self.nodes[place]);
            self.report.cuts += 1;
            let pause_ms = self.below(1, 60);
            self.run_for(pause_ms)?;
        }
        Ok(())
    }

    fn cut_at_any_byte(&mut self) -> Result<(), Violation> {
        self.world.set_network(DELAY_NS, 2_000);
        let outcome = self.run_for(300);
        self.world.set_network(DELAY_NS, 0);
        outcome
    }

    /// Slow throughout, or as good as dead for a while.
    fn slow_disk(&mut self) -> Result<(), Violation> {
        let slow_by_ns = match self.below(0, 2) {
            0 => 2_500_000_000,
            1 => 200_000_000,
            _ => 20_000_000,
        };
        self.world.disk(self.node).set_faults(DiskFaults { slow_by_ns, ..DiskFaults::default() });
        let ms = 400 + slow_by_ns / 1_000_000;
        self.run_for(ms)?;
        self.world.disk(self.node).set_faults(DiskFaults::default());
        Ok(())
    }

    fn failing_write(&mut self) -> Result<(), Violation> {
        let fault = DiskFaults { fail_next_write: Some(EIO), ..DiskFaults::default() };
        let met = |faults: &DiskFaults| faults.fail_next_write.is_none();
        if self.failing_disk(fault, met)? {
            self.report.failed_writes += 1;
            if self.one_in(2) {
                self.crash_with(CrashKind::PowerCut);
            }
        }
        self.restart();
        Ok(())
    }

    /// What the operating system shows after a failed sync is not what the disk holds: a broker that
    /// starts on the same machine must make it so, for the next power cut may come at any time.
    fn failing_sync(&mut self) -> Result<(), Violation> {
        let fault = DiskFaults { fail_next_sync: Some(EIO), ..DiskFaults::default() };
        let met = |faults: &DiskFaults| faults.fail_next_sync.is_none();
        if self.failing_disk(fault, met)? {
            self.report.failed_syncs += 1;
            if self.one_in(2) {
                self.crash_with(CrashKind::PowerCut);
            }
        }
        self.restart();
        Ok(())
    }

    /// The node must stop at a write or sync that fails. True if the fault was met.
    fn failing_disk(
        &mut self,
        fault: DiskFaults,
        met: impl Fn(&DiskFaults) -> bool,
    ) -> Result<bool, Violation> {
        self.may_fail_stop = Some(EIO);
        self.may_not_start = true;
        self.world.disk(self.node).set_faults(fault);
        self.run_for(400)?;
        let met = met(&self.world.disk(self.node).faults());
        self.world.disk(self.node).set_faults(DiskFaults::default());
        let node = self.node;
        let limit = Duration::from_millis(STOP_MS);
        if met && !self.drive(limit, |world, _| !world.is_running(node))? {
            return Err(Violation::new(Rule::WentOn, "a write or a sync failed, the node goes on"));
        }
        self.may_fail_stop = None;
        self.may_not_start = false;
        self.history.borrow_mut().failed_starts.clear();
        Ok(met)
    }

    /// No space for a while: nothing is lost, nobody stops, and it heals by itself. A node that
    /// is started meanwhile, or was just being started, may refuse, or find that its log has no room
    /// to go on.
    fn full_disk(&mut self) -> Result<(), Violation> {
        let space = self.world.disk(self.node).space();
        let used = space.total_bytes - space.available_bytes;
        let left = self.below(0, 300_000);
        self.world.disk(self.node).set_capacity(used + left);
        self.report.full_disks += 1;
        self.may_not_start = true;
        let full_ms = self.below(50, 2000);
        self.run_for(full_ms)?;
        if self.one_in(3) {
            let kind = self.kind();
            self.crash_with(kind);
            self.restart();
            self.run_for(300)?;
        }
        self.world.disk(self.node).set_capacity(DISK_BYTES);
        // What was begun while there was no space comes to its end.
        self.run_for(100)?;
        self.may_not_start = false;
        self.history.borrow_mut().failed_starts.clear();
        self.restart();
        Ok(())
    }

    /// The broker's clock is off by an hour at most: nothing expires early.
    fn jump_clock(&mut self) -> Result<(), Violation> {
        let offset_ms = self.below(0, 2 * HOUR_MS as u64) as i64 - HOUR_MS;
        self.world.set_wall_clock(self.node, offset_ms);
        self.report.clock_jumps += 1;
        Ok(())
    }
}
