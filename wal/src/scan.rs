//! Replay's judgement: bytes in, frames and a verdict out.
//!
//! [`Scan`] is given the headers of all files, oldest first, then asks for bytes and hands out the
//! frames of the log in order. It decides where the log ends, and whether what it could not read
//! is a torn tail (normal: the write was never acknowledged) or corruption (a later frame or file
//! header declares it durable). After corruption it goes on with what can still be read, so that
//! an operator is not left with nothing; the verdict names what was lost. Pure; a read error is
//! the caller's to report, and never ends a scan as if the log ended there.

use bytes::Bytes;

use crate::format::{
    blocks, check_frame, BadFrame, FileHeader, FrameCheck, FrameHeader, Laxness, Records,
    BLOCK_BYTES,
};
use crate::record::Damage;
use crate::types::{FileSequence, FrameNumber};

/// Files are read in pieces of this size; a longer frame is read whole.
pub const WINDOW_BYTES: u64 = 1 << 20;

/// A frame of the log, checked.
#[derive(Debug, Clone)]
pub struct ScannedFrame {
    pub header: FrameHeader,
    /// Frame header and records, without padding.
    pub bytes: Bytes,
}

impl ScannedFrame {
    pub fn records(&self) -> Records<'_> {
        Records::new(&self.bytes)
    }
}

/// What the caller of [`Scan::step`] has to do next.
#[derive(Debug)]
pub enum Step {
    /// Read `length` bytes at `position` of the file with this place in the list, and
    /// [`Scan::supply`] them. Fewer are fine at the end of the file only.
    Read {
        file: usize,
        position: u64,
        length: u64,
    },
    /// The next frame of the log.
    Frame(ScannedFrame),
    Finished(Verdict),
}

/// How the log ends, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The last frame of the log; new frames are numbered from the next one.
    pub last: FrameNumber,
    /// Where the log ends: place of the file in the list, position.
    pub end: (usize, u64),
    /// Frames of each file, in the order of the list.
    pub frames: Vec<u64>,
    /// What was begun after the last frame and is no frame.
    pub torn: Option<BadFrame>,
    /// The last frame says that the log was stopped in order.
    pub stopped: bool,
    /// Lost frames that something declares durable.
    pub damage: Vec<Damage>,
    /// Places in the list of the files that damage was found in.
    pub damaged_files: Vec<usize>,
    /// The oldest file that the last frame needs.
    pub oldest_file: FileSequence,
}

/// See the module. Call [`Scan::step`] until it is finished, [`Scan::supply`] after each read.
pub struct Scan {
    files: Vec<FileHeader>,
    laxness: Laxness,
    window: Option<Window>,
    /// Length of the read that was asked for last.
    asked: u64,
    state: State,
    file: usize,
    position: u64,
    /// The number that the next frame must have; `None` before the first frame of all.
    expected: Option<FrameNumber>,
    last_header: Option<FrameHeader>,
    verdict: Verdict,
}

struct Window {
    file: usize,
    start: u64,
    bytes: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Replay,
    /// Nothing follows in this file that can be read: does the next one go on with `expected`?
    NextFile {
        bad: Option<BadPlace>,
    },
    /// Looking for any later frame, at every block boundary.
    Search {
        bad: BadPlace,
    },
    Finished,
}

/// Where replay met something that is not the expected frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BadPlace {
    file: usize,
    position: u64,
    reason: BadFrame,
}

enum Look {
    Read(Step),
    Check(FrameCheck),
    /// No frame fits before the end of the file.
    EndOfFile,
}

impl Scan {
    /// `files` are the headers of all files, by rising sequence.
    pub fn new(files: Vec<FileHeader>, laxness: Laxness) -> Scan {
        let ordered = files.windows(2).all(|pair| pair[0].sequence < pair[1].sequence);
        assert!(ordered, "files are scanned by rising sequence");
        let frames = vec![0; files.len()];
        let base = files.first().and_then(|file| file.base);
        Scan {
            state: if files.is_empty() { State::Finished } else { State::Replay },
            files,
            laxness,
            window: None,
            asked: 0,
            file: 0,
            position: BLOCK_BYTES,
            expected: base.map(FrameNumber::next),
            last_header: None,
            verdict: Verdict { frames, end: (0, BLOCK_BYTES), ..Verdict::default() },
        }
    }

    pub fn supply(&mut self, file: usize, position: u64, bytes: Bytes) {
        if (bytes.len() as u64) < self.asked {
            // The file ends here, whatever its header says.
            self.files[file].file_bytes = position + bytes.len() as u64;
        }
        self.window = Some(Window { file, start: position, bytes });
    }

    pub fn step(&mut self) -> Step {
        loop {
            let next = match self.state {
                State::Replay => self.replay(),
                State::NextFile { bad } => self.next_file(bad),
                State::Search { bad } => self.search(bad),
                State::Finished => Some(Step::Finished(self.verdict.clone())),
            };
            if let Some(step) = next {
                if let Step::Read { length, .. } = step {
                    self.asked = length;
                }
                return step;
            }
        }
    }

    fn replay(&mut self) -> Option<Step> {
        match self.look(self.file, self.position) {
            Look::Read(step) => Some(step),
            Look::EndOfFile => self.go(State::NextFile { bad: None }),
            Look::Check(FrameCheck::Valid(header)) if self.is_void(self.file, &header) => {
                self.go(State::NextFile { bad: None })
            }
            Look::Check(FrameCheck::Valid(header)) if self.follows(&header) => {
                Some(self.accept(header))
            }
            Look::Check(FrameCheck::Valid(header)) => self.jump(header),
            Look::Check(FrameCheck::Bad(reason)) => {
                let bad = BadPlace { file: self.file, position: self.position, reason };
                self.go(State::NextFile { bad: Some(bad) })
            }
            Look::Check(FrameCheck::Short(_)) => unreachable!("look reads until it can tell"),
        }
    }

    /// A valid frame, but not the next one: those between are lost.
    fn jump(&mut self, header: FrameHeader) -> Option<Step> {
        let bad = BadPlace { file: self.file, position: self.position, reason: BadFrame::Blank };
        if header.number < self.next_number() {
            let bad = BadPlace { reason: BadFrame::Stale, ..bad };
            return self.go(State::NextFile { bad: Some(bad) });
        }
        self.lost(bad);
        Some(self.accept(header))
    }

    /// The file has no further frame of the log, or a bad one at `bad`. The ordinary case is that
    /// the next file goes on; only if it does not, every block is looked at.
    fn next_file(&mut self, bad: Option<BadPlace>) -> Option<Step> {
        let next = self.file + 1;
        let end = BadPlace { file: self.file, position: self.position, reason: BadFrame::Blank };
        let place = bad.unwrap_or(end);
        if next == self.files.len() {
            return self.after_last_file(bad, place);
        }
        let Some(expected) = self.expected else {
            // Not one frame so far, and nothing says what number comes first.
            return self.begin_search(place);
        };
        if self.files[next].base == Some(expected.previous()) {
            return self.enter(next);
        }
        match self.look(next, BLOCK_BYTES) {
            Look::Read(step) => Some(step),
            Look::Check(FrameCheck::Valid(header)) if self.follows(&header) => self.enter(next),
            _ => self.begin_search(place),
        }
    }

    fn after_last_file(&mut self, bad: Option<BadPlace>, place: BadPlace) -> Option<Step> {
        match bad {
            Some(bad) => self.begin_search(bad),
            None => self.finish(Some(place)),
        }
    }

    fn enter(&mut self, file: usize) -> Option<Step> {
        self.file = file;
        self.position = BLOCK_BYTES;
        self.go(State::Replay)
    }

    fn begin_search(&mut self, bad: BadPlace) -> Option<Step> {
        self.verdict.end = (bad.file, bad.position);
        let stopped = self.last_header.is_some_and(|header| header.stop);
        if stopped && bad.file + 1 == self.files.len() {
            return self.finish(Some(bad));
        }
        self.file = bad.file;
        self.position = bad.position + BLOCK_BYTES;
        self.go(State::Search { bad })
    }

    fn search(&mut self, bad: BadPlace) -> Option<Step> {
        match self.look(self.file, self.position) {
            Look::Read(step) => Some(step),
            Look::EndOfFile => self.search_next_file(bad),
            Look::Check(FrameCheck::Valid(header)) if self.is_void(self.file, &header) => {
                self.search_next_file(bad)
            }
            Look::Check(FrameCheck::Valid(header)) if header.number >= self.next_number() => {
                if self.expected != Some(header.number) {
                    self.lost(bad);
                }
                self.state = State::Replay;
                Some(self.accept(header))
            }
            Look::Check(_) => {
                self.position += BLOCK_BYTES;
                None
            }
        }
    }

    fn search_next_file(&mut self, bad: BadPlace) -> Option<Step> {
        let next = self.file + 1;
        if next == self.files.len() {
            return self.finish(Some(bad));
        }
        self.file = next;
        self.position = BLOCK_BYTES;
        if let Some(base) = self.files[next].base {
            // Frames up to the base were durable when this header was written.
            if base >= self.next_number() {
                self.lost(bad);
            }
            self.expected = Some(base.next().max(self.next_number()));
            return self.go(State::Replay);
        }
        None
    }

    fn finish(&mut self, end: Option<BadPlace>) -> Option<Step> {
        if let Some(end) = end {
            self.verdict.end = (end.file, end.position);
            let torn = end.reason != BadFrame::Blank && end.reason != BadFrame::Stale;
            self.verdict.torn = torn.then_some(end.reason);
        }
        self.verdict.last = self.next_number().previous();
        self.verdict.stopped = self.last_header.is_some_and(|header| header.stop);
        self.verdict.oldest_file = self.oldest_file();
        let first = self.files[0].sequence;
        if self.verdict.oldest_file < first {
            self.verdict.damage.push(Damage::MissingFile { file: first.previous() });
        }
        self.go(State::Finished)
    }

    /// What the last frame says; without any frame nothing can have been recycled yet.
    fn oldest_file(&self) -> FileSequence {
        self.last_header.map_or(FileSequence(1), |header| header.oldest_file)
    }

    fn go(&mut self, state: State) -> Option<Step> {
        self.state = state;
        None
    }

    /// Frames from the expected one on are lost, found out at `bad`.
    fn lost(&mut self, bad: BadPlace) {
        let frame = self.next_number();
        let file = self.files[bad.file].sequence;
        let gap = self.files.get(bad.file + 1).filter(|next| next.sequence != file.next());
        let damage = match gap {
            Some(_) => Damage::MissingFile { file: file.next() },
            None => Damage::CorruptFrame { frame, file, position: bad.position },
        };
        self.verdict.damage.push(damage);
        self.verdict.damaged_files.push(bad.file);
    }

    fn accept(&mut self, header: FrameHeader) -> Step {
        self.verdict.frames[self.file] += 1;
        self.expected = Some(header.number.next());
        self.last_header = Some(header);
        let bytes = self.slice(self.position, u64::from(header.length));
        self.position += blocks(u64::from(header.length));
        self.verdict.end = (self.file, self.position);
        Step::Frame(ScannedFrame { header, bytes })
    }

    fn next_number(&self) -> FrameNumber {
        self.expected.unwrap_or(FrameNumber(1))
    }

    fn follows(&self, header: &FrameHeader) -> bool {
        self.laxness.accept_stale || self.expected.is_none_or(|number| header.number == number)
    }

    /// Whether a recovery decided that the log had ended before this frame.
    fn is_void(&self, file: usize, header: &FrameHeader) -> bool {
        let ceiling = self.files[file + 1..].iter().find_map(|later| later.base);
        ceiling.is_some_and(|base| header.number > base) && !self.laxness.accept_stale
    }

    /// What stands at a block boundary; asks for bytes until it can tell.
    fn look(&self, file: usize, position: u64) -> Look {
        let header = &self.files[file];
        if position + BLOCK_BYTES > header.file_bytes {
            return Look::EndOfFile;
        }
        let available: &[u8] = match &self.window {
            Some(window) if window.file == file && window.start <= position => {
                let from = (position - window.start) as usize;
                window.bytes.get(from..).unwrap_or_default()
            }
            _ => &[],
        };
        match check_frame(header, position, available, self.laxness) {
            FrameCheck::Short(length) => {
                let length = blocks(length.max(WINDOW_BYTES));
                let length = length.min(header.file_bytes - position);
                Look::Read(Step::Read { file, position, length })
            }
            check => Look::Check(check),
        }
    }

    fn slice(&self, position: u64, length: u64) -> Bytes {
        let window = self.window.as_ref().expect("the frame was checked in this window");
        let from = (position - window.start) as usize;
        window.bytes.slice(from..from + length as usize)
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
