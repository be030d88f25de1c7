//! Many calls at once, and their results in order.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// Calls of one batch that are under way at once.
pub(super) const AT_ONCE: usize = 256;

/// Runs all of them, some at a time.
pub(super) async fn all<T, F: Future<Output = T>>(mut calls: impl Iterator<Item = F>) -> Vec<T> {
    let mut results = Vec::with_capacity(calls.size_hint().0);
    loop {
        let mut under_way: Vec<Calling<F>> =
            calls.by_ref().take(AT_ONCE).map(|call| Calling::Waits(Box::pin(call))).collect();
        if under_way.is_empty() {
            return results;
        }
        poll_fn(|cx| {
            let mut left = false;
            for call in &mut under_way {
                if let Calling::Waits(future) = call {
                    match future.as_mut().poll(cx) {
                        Poll::Ready(result) => *call = Calling::Done(result),
                        Poll::Pending => left = true,
                    }
                }
            }
            if left { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        results.extend(under_way.into_iter().filter_map(|call| match call {
            Calling::Done(result) => Some(result),
            Calling::Waits(_) => None,
        }));
    }
}

enum Calling<F: Future> {
    Waits(Pin<Box<F>>),
    Done(F::Output),
}
