//! A bounded queue between those who must never wait and one who may: when it is full, what matters least goes.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// See the module. One task takes from it.
#[derive(Debug)]
pub(super) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    changed: Notify,
    capacity: usize,
    expendable: fn(&T) -> bool,
}

#[derive(Debug)]
struct Inner<T> {
    waiting: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    /// With room for so many. When that is not enough the oldest that is expendable goes; if none is, the oldest.
    pub(super) fn new(capacity: usize, expendable: fn(&T) -> bool) -> Self {
        let inner = Mutex::new(Inner { waiting: VecDeque::new(), closed: false });
        Self { inner, changed: Notify::new(), capacity, expendable }
    }

    /// Adds one at the end, at once. Answers what had to go for it: perhaps that very one.
    pub(super) fn push(&self, item: T) -> Option<T> {
        let mut inner = self.lock();
        if inner.closed {
            return Some(item);
        }
        inner.waiting.push_back(item);
        let gone = if inner.waiting.len() > self.capacity {
            let oldest = inner.waiting.iter().position(self.expendable).unwrap_or(0);
            inner.waiting.remove(oldest)
        } else {
            None
        };
        drop(inner);
        self.changed.notify_one();
        gone
    }

    /// Waits for the first; none: closed, and empty.
    pub(super) async fn pop(&self) -> Option<T> {
        loop {
            {
                let mut inner = self.lock();
                if let Some(first) = inner.waiting.pop_front() {
                    return Some(first);
                }
                if inner.closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Nothing is added any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// A panic elsewhere leaves the queue as it was: there is nothing half done in it.
    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_expendable_goes_first_and_the_rest_keeps_its_order() {
        let queue = Queue::new(3, |number: &i32| number % 2 == 0);
        assert_eq!(
            [1, 2, 3, 4, 5, 6, 7].map(|number| queue.push(number)),
            [None, None, None, Some(2), Some(4), Some(6), Some(1)]
        );
        queue.close();
        assert_eq!(queue.push(8), Some(8));
        assert_eq!(
            [queue.pop().await, queue.pop().await, queue.pop().await, queue.pop().await],
            [Some(3), Some(5), Some(7), None]
        );
    }
}
