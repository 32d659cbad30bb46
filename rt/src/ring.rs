//! A bounded single-producer single-consumer ring.
//!
//! Both ends keep a copy of the other's position and look at the real one only when the copy says
//! full or empty, so a busy ring touches one shared cache line per many messages. The ends are
//! separate types without `Clone`: one producer, one consumer, by construction.

use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Keeps the two positions on cache lines of their own (two: the prefetcher fetches pairs).
#[repr(align(128))]
struct Padded(AtomicUsize);

struct Ring<T> {
    /// Next slot to take. `head <= tail <= head + capacity`, both count for ever and wrap.
    head: Padded,
    /// Next slot to fill.
    tail: Padded,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is touched by the producer while free and by the consumer while filled; the
// positions hand it over with release and acquire.
unsafe impl<T: Send> Sync for Ring<T> {}
// SAFETY: owns its values, which are Send.
unsafe impl<T: Send> Send for Ring<T> {}

/// Makes a ring for at least `capacity` values.
pub(crate) fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(2).next_power_of_two();
    let slots = (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let padded = || Padded(AtomicUsize::new(0));
    let ring = Arc::new(Ring { head: padded(), tail: padded(), slots });
    let producer =
        Producer { ring: Arc::clone(&ring), tail: Cell::new(0), head_seen: Cell::new(0) };
    (producer, Consumer { ring, head: Cell::new(0), tail_seen: Cell::new(0) })
}

/// The end that pushes.
pub(crate) struct Producer<T> {
    ring: Arc<Ring<T>>,
    tail: Cell<usize>,
    head_seen: Cell<usize>,
}

impl<T> Producer<T> {
    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        if !self.has_room() {
            return Err(value);
        }
        let tail = self.tail.get();
        let slot = &self.ring.slots[tail & (self.ring.slots.len() - 1)];
        // SAFETY: the slot is free (checked against head with acquire), and only we fill slots.
        unsafe { (*slot.get()).write(value) };
        self.tail.set(tail.wrapping_add(1));
        self.ring.tail.0.store(tail.wrapping_add(1), Ordering::Release);
        Ok(())
    }

    pub(crate) fn has_room(&self) -> bool {
        let tail = self.tail.get();
        if tail.wrapping_sub(self.head_seen.get()) < self.ring.slots.len() {
            return true;
        }
        self.head_seen.set(self.ring.head.0.load(Ordering::Acquire));
        tail.wrapping_sub(self.head_seen.get()) < self.ring.slots.len()
    }
}

/// The end that pops.
pub(crate) struct Consumer<T> {
    ring: Arc<Ring<T>>,
    head: Cell<usize>,
    tail_seen: Cell<usize>,
}

impl<T> Consumer<T> {
    pub(crate) fn pop(&self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let head = self.head.get();
        let slot = &self.ring.slots[head & (self.ring.slots.len() - 1)];
        // SAFETY: the slot is filled (checked against tail with acquire), and only we take.
        let value = unsafe { (*slot.get()).assume_init_read() };
        self.head.set(head.wrapping_add(1));
        self.ring.head.0.store(head.wrapping_add(1), Ordering::Release);
        Some(value)
    }

    pub(crate) fn is_empty(&self) -> bool {
        let head = self.head.get();
        if head != self.tail_seen.get() {
            return false;
        }
        self.tail_seen.set(self.ring.tail.0.load(Ordering::Acquire));
        head == self.tail_seen.get()
    }
}

impl<T> Drop for Ring<T> {
    fn drop(&mut self) {
        let tail = self.tail.0.load(Ordering::Acquire);
        let mut head = self.head.0.load(Ordering::Acquire);
        while head != tail {
            let slot = self.slots[head & (self.slots.len() - 1)].get_mut();
            // SAFETY: both ends are gone, and slots from head to tail are filled.
            unsafe { slot.assume_init_drop() };
            head = head.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_capacity_over_many_laps() {
        let (producer, consumer) = ring(4);
        for lap in 0..100 {
            for i in 0..4 {
                producer.push(lap * 4 + i).expect("room");
            }
            assert_eq!(producer.push(0), Err(0));
            for i in 0..4 {
                assert_eq!(consumer.pop(), Some(lap * 4 + i));
            }
            assert_eq!(consumer.pop(), None);
        }
    }

    #[test]
    fn drops_what_was_never_taken() {
        let value = Arc::new(());
        let (producer, consumer) = ring(8);
        for _ in 0..5 {
            assert!(producer.push(Arc::clone(&value)).is_ok());
        }
        drop(consumer.pop());
        drop((producer, consumer));
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn hands_over_between_threads() {
        let (producer, consumer) = ring(16);
        let thread = std::thread::spawn(move || {
            for i in 0..100_000_u64 {
                let mut value = i;
                while let Err(back) = producer.push(value) {
                    value = back;
                    std::thread::yield_now();
                }
            }
        });
        let mut expected = 0;
        while expected < 100_000 {
            match consumer.pop() {
                Some(value) => {
                    assert_eq!(value, expected);
                    expected += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        thread.join().expect("producer");
    }
}
