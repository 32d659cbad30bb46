//! The task that keeps the next file prepared and fills spare files up to the budget.
//!
//! A full disk is not an error of the log: the files that exist are its budget then, and making
//! more is tried again. Any other error poisons the log. One task per shard's log.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::core::{Core, Stop};
use crate::error::DiskError;
use crate::files;
use crate::format::FileHeader;
use crate::types::FileSequence;

/// Filling spare files begins so long after the start: first answers go first.
const FILL_DELAY: Duration = Duration::from_secs(2);
/// A full disk is looked at again after this time.
const FULL_DISK_RETRY: Duration = Duration::from_secs(1);

pub(crate) async fn run(core: Rc<Core>) {
    let mut fill_from = core.shard.now() + FILL_DELAY;
    while core.preparing() {
        let next = next(&core);
        let filling = matches!(next, Next::Fill);
        let done = match next {
            Next::Prepare(sequence) => prepare(&core, sequence).await,
            Next::Fill if core.shard.now() < fill_from => {
                rt::either(core.preparer_bell.notified(), core.shard.sleep_until(fill_from)).await;
                continue;
            }
            Next::Fill => fill(&core).await,
            Next::Wait => {
                core.preparer_bell.notified().await;
                continue;
            }
        };
        let Err(error) = done else { continue };
        if !error.is_no_space() {
            core.poison(error);
            return;
        }
        note_full_disk(&core, &error);
        if filling {
            // Spare files may be there, and may be wanted before it is time to try again.
            fill_from = core.shard.now() + FULL_DISK_RETRY;
        } else {
            wait_for_space(&core, error).await;
        }
    }
}

enum Next {
    Prepare(FileSequence),
    Fill,
    Wait,
}

fn next(core: &Core) -> Next {
    let state = core.state();
    let newest = state.files.last_key_value().map_or(state.current, |(sequence, _)| *sequence);
    if newest < state.gather.file() {
        // Frames stand there already, within the budget or not.
        return Next::Prepare(newest.next());
    }
    if state.stop != Stop::Running {
        return Next::Wait;
    }
    let total = state.total_bytes(&core.options);
    let room = total + core.options.file_bytes <= state.budget_bytes(&core.options);
    if newest == state.gather.file() && (!state.spares.is_empty() || room) {
        return Next::Prepare(newest.next());
    }
    // After a full disk it must be found out when there is space again: by a file beyond the budget
    // if need be, since nothing that goes beyond it is begun until then.
    if (room && core.options.fill_ahead) || state.disk_full {
        return Next::Fill;
    }
    Next::Wait
}

async fn prepare(core: &Rc<Core>, sequence: FileSequence) -> Result<(), DiskError> {
    let spare = core.state_mut().spares.pop_front();
    let spare = match spare {
        Some(spare) => spare,
        None => match make_spare(core, true, || !core.preparing()).await? {
            Some(spare) => spare,
            None => return Ok(()),
        },
    };
    let header = FileHeader {
        identity: core.identity,
        sequence,
        salt: salt(core),
        file_bytes: core.options.file_bytes,
        base: None,
        damage_found: false,
    };
    let flush = core.options.flush;
    let file = match files::put_in_line(&core.shard, &core.dir, &spare, header, flush).await {
        Ok(file) => file,
        Err(error) => {
            core.state_mut().spares.push_front(spare);
            return Err(error.into());
        }
    };
    sync_names(core).await?;
    core.state_mut().files.insert(sequence, file);
    core.change.notify_all();
    core.writer_bell.notify_one();
    Ok(())
}

async fn fill(core: &Rc<Core>) -> Result<(), DiskError> {
    if let Some(spare) = make_spare(core, false, || !core.running()).await? {
        // On a disk that has filled up since, a start may depend on this file.
        sync_names(core).await?;
        core.state_mut().spares.push_back(spare);
    }
    Ok(())
}

/// A sync that failed is never tried again, whatever its error.
async fn sync_names(core: &Core) -> io::Result<()> {
    core.dir.sync().await.map_err(|error| io::Error::other(format!("sync of the log: {error}")))
}

async fn make_spare(
    core: &Rc<Core>,
    urgent: bool,
    stop: impl Fn() -> bool,
) -> Result<Option<String>, DiskError> {
    let bytes = core.options.file_bytes;
    let made = files::make_spare(&core.shard, &core.dir, bytes, urgent, stop).await?;
    if made.is_some() && std::mem::take(&mut core.state_mut().disk_full) {
        tracing::info!(shard = core.shard.id().0, "there is room for further log files again");
        core.has_gained_room();
    }
    Ok(made)
}

fn note_full_disk(core: &Core, error: &DiskError) {
    let first = !std::mem::replace(&mut core.state_mut().disk_full, true);
    if first {
        tracing::warn!(shard = core.shard.id().0, %error, "no room for further log files");
    }
}

async fn wait_for_space(core: &Rc<Core>, error: DiskError) {
    if !core.running() {
        // Frames wait for a file that will not come: they were never acknowledged.
        core.poison(error);
        return;
    }
    let deadline = core.shard.now() + FULL_DISK_RETRY;
    rt::either(core.gains_spare_or_stops(), core.shard.sleep_until(deadline)).await;
}

/// A file's salt is random, so that no frame of its former life passes for one of its own.
pub(crate) fn salt(core: &Core) -> u64 {
    new_salt(&core.shard)
}

pub(crate) fn new_salt(shard: &rt::Shard) -> u64 {
    let entropy = shard.entropy();
    let mut salt = [0; 8];
    salt.copy_from_slice(&entropy[..8]);
    u64::from_le_bytes(salt)
}

impl Core {
    /// Waits until a file was recycled, or background tasks have to end. Spares that are there may
    /// be what found no room.
    async fn gains_spare_or_stops(&self) {
        let there = self.state().spares.len();
        loop {
            let changed = self.change.notified();
            if !self.preparing() || self.state().spares.len() > there {
                return;
            }
            changed.await;
        }
    }
}
