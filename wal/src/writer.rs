//! The task that writes frames: one in flight, no timer but the one that confirms.
//!
//! Whatever was gathered while a frame was in flight goes out when it is durable. A file is
//! written to only once it is prepared. Any error poisons the log; nothing is tried again.
//! One task per shard's log.

use bytes::Bytes;
use std::rc::Rc;

use rt::{Buf, Instant, Mutation};

use crate::core::{Core, DurableFrame, Stop, CONFIRM_AFTER};
use crate::error::{DiskError, WalError};
use crate::files::LogFile;
use crate::gather::Frame;
use crate::options::Flush;
use crate::types::{FileSequence, FrameNumber};

pub(crate) async fn run(core: Rc<Core>) {
    loop {
        match next(&core) {
            Next::Write(frame) => {
                if write(&core, *frame).await.is_err() {
                    return;
                }
            }
            Next::WaitUntil(deadline) => {
                rt::either(core.writer_bell.notified(), core.shard.sleep_until(deadline)).await;
            }
            Next::Wait => core.writer_bell.notified().await,
            Next::Done => {
                core.ring_all();
                return;
            }
        }
    }
}

enum Next {
    Write(Box<Frame>),
    WaitUntil(Instant),
    Wait,
    Done,
}

/// Decides from the state alone.
fn next(core: &Core) -> Next {
    let mut state = core.state_mut();
    if state.poisoned.is_some() {
        return Next::Done;
    }
    if state.gather.is_empty() {
        let now = core.shard.now();
        let confirm_at = core.last_written.get() + CONFIRM_AFTER;
        let room = state.has_room_for_empty(&core.options);
        let confirm = state.unconfirmed && room;
        if state.stop == Stop::Asked {
            state.stop = Stop::Sealed;
            if room {
                state.gather.push_empty(&core.shard, true);
            }
        } else if state.stop == Stop::Running {
            if state.declare.is_some() || (confirm && now >= confirm_at) {
                state.gather.push_empty(&core.shard, false);
            } else if confirm {
                return Next::WaitUntil(confirm_at);
            }
        }
    }
    match state.gather.take() {
        Some(frame) => {
            state.in_flight = Some((frame.number, core.shard.now()));
            Next::Write(Box::new(frame))
        }
        None if state.stop == Stop::Sealed => {
            state.stop = Stop::Done;
            Next::Done
        }
        None => Next::Wait,
    }
}

/// An error has already poisoned the log.
async fn write(core: &Rc<Core>, mut frame: Frame) -> Result<(), WalError> {
    let file = prepared(core, &frame).await?;
    if let Err(error) = payloads_durable(core, &mut frame).await {
        core.poison(error);
        return Err(WalError::Stopped);
    }
    let written = Written {
        number: frame.number,
        file: frame.file,
        position: frame.position,
        records: frame.records,
    };
    let buf = {
        let mut state = core.state_mut();
        state.current = frame.file;
        state.declare = state.declare.filter(|first| frame.number < *first);
        let salt = state.gather.salt(file.header.salt);
        frame.seal(state.durable, state.oldest_declared, salt)
    };
    match make_durable(core, &file, buf, written.position).await {
        Ok(buf) => {
            complete(core, &written, buf);
            Ok(())
        }
        Err(error) => {
            core.poison(error);
            Err(WalError::Stopped)
        }
    }
}

/// Waits for what the frame points to: whoever replays it must find it.
async fn payloads_durable(core: &Core, frame: &mut Frame) -> Result<(), DiskError> {
    let payloads = std::mem::take(&mut frame.payloads);
    if core.broken(Mutation::PointerBeforePayload) {
        return Ok(());
    }
    for payload in payloads {
        let abandoned = |_| std::io::Error::other("a payload was given up before it was durable");
        payload.await.map_err(abandoned)??;
    }
    Ok(())
}

async fn make_durable(
    core: &Core,
    file: &LogFile,
    buf: Buf,
    position: u64,
) -> std::io::Result<Buf> {
    let buf = file.file.write_at(buf, position).await?;
    let early = core.broken(Mutation::AcknowledgeBeforeSync);
    if core.options.flush == Flush::Fdatasync && !early {
        file.file.sync().await?;
    }
    Ok(buf)
}

/// The file that the frame goes to, once it is there.
async fn prepared(core: &Rc<Core>, frame: &Frame) -> Result<LogFile, WalError> {
    let sequence = frame.file;
    if !core.state().files.contains_key(&sequence) {
        core.preparer_bell.notify_one();
        core.wait_for(|state| state.files.contains_key(&sequence)).await?;
    }
    let state = core.state();
    let file = state.files.get(&sequence).cloned();
    Ok(file.expect("a file that is yet to be written is never recycled"))
}

/// What is remembered of a frame while its buffer is with the disk.
struct Written {
    number: FrameNumber,
    file: FileSequence,
    position: u64,
    records: u32,
}

fn complete(core: &Rc<Core>, written: &Written, buf: Buf) {
    let (number, records) = (written.number, written.records);
    let now = core.shard.now();
    let mut state = core.state_mut();
    assert_eq!(number, state.durable.next(), "frames become durable in order");
    let since = state.in_flight.take().map_or(now, |(_, since)| since);
    state.histograms.written(now.saturating_since(since), buf.len() as u64);
    state.durable = number;
    state.written_up_to = (written.file, written.position + buf.len() as u64);
    state.unconfirmed = records > 0;
    state.stats.frames += 1;
    state.stats.frame_bytes += buf.len() as u64;
    if records == 0 {
        state.stats.empty_frames += 1;
    } else {
        state.reached = number;
        state.outbox.push_back(DurableFrame { number, bytes: kept(buf) });
    }
    drop(state);
    core.last_written.set(now);
    core.frame_bell.notify_one();
    if records > 0 {
        core.mark_bell.notify_one();
    }
    core.change.notify_all();
    core.recycler_bell.notify_one();
}

/// The bytes of a durable frame, for whoever caches slices of them. A frame much shorter than the
/// buffer it was gathered in is copied: its slices would pin the whole buffer, and the next frame
/// can use that one again.
fn kept(buf: Buf) -> Bytes {
    match buf.len() * 2 <= buf.capacity() {
        true => Bytes::copy_from_slice(&buf),
        false => buf.freeze(),
    }
}
