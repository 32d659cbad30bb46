//! The timers of one coordinator: one queue ordered by time, then by order of setting. An alarm
//! that is only ever put off, as a session's is by each heartbeat, stays where it is in the queue
//! and moves when its old time comes; so a heartbeat costs no more than a store. Pure.

use std::collections::BTreeMap;
use std::rc::Rc;

use rt::Instant;

/// What to do when an alarm goes off. Ids are shared with the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AlarmKey {
    /// A member, or a member id given out and not yet used, has been silent.
    Session(Rc<str>, Rc<str>),
    /// The group has waited long enough for members to join.
    Join(Rc<str>),
    /// The group has waited long enough for members to sync.
    Sync(Rc<str>),
}

type Place = (Instant, u64);

/// One timer. `queued <= due` whenever both are set.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    due: Option<Instant>,
    queued: Option<Place>,
}

#[derive(Debug, Default)]
pub(super) struct Alarms {
    queue: BTreeMap<Place, AlarmKey>,
    next: u64,
}

impl Alarms {
    pub(super) fn set(&mut self, alarm: &mut Alarm, due: Instant, key: impl FnOnce() -> AlarmKey) {
        alarm.due = Some(due);
        if alarm.queued.is_some_and(|(at, _)| at <= due) {
            return;
        }
        self.withdraw(alarm);
        self.queue_up(alarm, due, key());
    }

    pub(super) fn cancel(&mut self, alarm: &mut Alarm) {
        alarm.due = None;
        self.withdraw(alarm);
    }

    /// The first alarm in the queue at or before `now`; ask [`Alarms::rings`] whether it is due.
    pub(super) fn pop(&mut self, now: Instant) -> Option<AlarmKey> {
        let first = self.queue.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }

    /// After `pop` gave `key` for this alarm: true if it is due, and then it is over.
    pub(super) fn rings(&mut self, alarm: &mut Alarm, now: Instant, key: AlarmKey) -> bool {
        alarm.queued = None;
        match alarm.due {
            Some(due) if due > now => {
                self.queue_up(alarm, due, key);
                false
            }
            Some(_) => {
                alarm.due = None;
                true
            }
            None => false,
        }
    }

    /// No alarm goes off before this.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    fn queue_up(&mut self, alarm: &mut Alarm, due: Instant, key: AlarmKey) {
        let place = (due, self.next);
        self.next += 1;
        alarm.queued = Some(place);
        self.queue.insert(place, key);
    }

    fn withdraw(&mut self, alarm: &mut Alarm) {
        if let Some(place) = alarm.queued.take() {
            self.queue.remove(&place);
        }
    }
}
