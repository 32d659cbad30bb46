//! Waiting for several futures at once, without an executor's help.
//!
//! Deterministic: [`either`] always polls its left side first, [`join_all`] in order. The loser
//! of `either` is dropped, so give it only futures that may be cancelled.

use std::future::Future;
use std::pin::{pin, Pin};
use std::task::{Context, Poll};

/// Which of two futures finished first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Either<A, B> {
    Left(A),
    Right(B),
}

/// Waits for the first of two futures; the left one wins a draw, the loser is dropped.
pub async fn either<A: Future, B: Future>(a: A, b: B) -> Either<A::Output, B::Output> {
    let mut a = pin!(a);
    let mut b = pin!(b);
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = a.as_mut().poll(context) {
            return Poll::Ready(Either::Left(output));
        }
        b.as_mut().poll(context).map(Either::Right)
    })
    .await
}

/// Waits for all futures; outputs stand in the order of the futures. All are polled whenever one
/// wakes, so give it tens of futures, not thousands.
pub async fn join_all<I>(futures: I) -> Vec<<I::Item as Future>::Output>
where
    I: IntoIterator,
    I::Item: Future,
{
    let slots = futures.into_iter().map(|future| Slot::Running(Box::pin(future))).collect();
    JoinAll { slots }.await
}

enum Slot<F: Future> {
    Running(Pin<Box<F>>),
    Done(Option<F::Output>),
}

struct JoinAll<F: Future> {
    slots: Vec<Slot<F>>,
}

// The futures are boxed, so moving the list moves no future.
impl<F: Future> Unpin for JoinAll<F> {}

impl<F: Future> Future for JoinAll<F> {
    type Output = Vec<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut pending = false;
        for slot in &mut self.slots {
            if let Slot::Running(future) = slot {
                match future.as_mut().poll(context) {
                    Poll::Ready(output) => *slot = Slot::Done(Some(output)),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            return Poll::Pending;
        }
        let outputs = self.slots.iter_mut().filter_map(|slot| match slot {
            Slot::Done(output) => output.take(),
            Slot::Running(_) => None,
        });
        Poll::Ready(outputs.collect())
    }
}

/// Waits for the first of several futures and gives its output; the one that stands first wins a
/// draw, the others are dropped. Never ready for an empty list. All are polled whenever one wakes.
pub async fn first<I>(futures: I) -> <I::Item as Future>::Output
where
    I: IntoIterator,
    I::Item: Future,
{
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(move |context| {
        let mut outputs = futures.iter_mut().map(|future| future.as_mut().poll(context));
        outputs.find(|output| output.is_ready()).unwrap_or(Poll::Pending)
    })
    .await
}
