//! A thread that delivers messages for code that must not do it itself, such as a destructor.

use std::sync::mpsc::{Receiver, SendError, Sender, channel};

use parking_lot::Mutex;

use crate::threads::guard::caught;

/// Delivers messages in order, on a thread that starts with the first one. If the thread could not be
/// started, or has ended, the next message starts it again.
///
/// The queue is unbounded: delivering does not block, and a dropped message could be the one that a
/// process waits for.
pub struct Notifier<T: Send + 'static> {
    name: &'static str,
    deliver: fn(T),
    queue: Mutex<Option<Sender<T>>>,
}

impl<T: Send + 'static> Notifier<T> {
    pub const fn new(name: &'static str, deliver: fn(T)) -> Self {
        Notifier {
            name,
            deliver,
            queue: Mutex::new(None),
        }
    }

    /// Queues a message. Returns whether it was queued.
    pub fn send(&self, message: T) -> bool {
        let mut queue = self.queue.lock();
        let message = match &*queue {
            Some(running) => match running.send(message) {
                Ok(()) => return true,
                // The thread has ended.
                Err(SendError(message)) => message,
            },
            None => message,
        };
        *queue = self.start();
        queue
            .as_ref()
            .is_some_and(|queue| queue.send(message).is_ok())
    }

    fn start(&self) -> Option<Sender<T>> {
        let (sender, messages) = channel::<T>();
        let deliver = self.deliver;
        let thread = std::thread::Builder::new().name(self.name.into());
        let started = thread.spawn(move || run(&messages, deliver));
        started.ok().map(|_| sender)
    }
}

/// Delivers messages until the queue is closed. A message whose delivery panics does not stop the thread.
fn run<T>(messages: &Receiver<T>, deliver: fn(T)) {
    for message in messages {
        let _ = caught(|| {
            deliver(message);
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A number for the receiver, or a panic.
    type Message = Option<(u64, mpsc::Sender<u64>)>;

    fn deliver(message: Message) {
        let (number, receiver) = message.expect("injected");
        receiver.send(number).unwrap();
    }

    #[test]
    fn a_message_that_panics_is_the_only_one_that_is_lost() {
        let notifier: Notifier<Message> = Notifier::new("test", deliver);
        let (sender, received) = mpsc::channel();
        for number in 0..10 {
            assert!(notifier.send(Some((number, sender.clone()))));
            assert!(notifier.send(None));
        }
        drop(sender);
        assert!(received.iter().eq(0..10));
    }

    #[test]
    fn a_thread_that_has_ended_is_started_again_by_the_next_message() {
        let notifier: Notifier<Message> = Notifier::new("test", deliver);
        let (sender, received) = mpsc::channel();
        for number in 0..3 {
            // A queue whose receiver is dropped, as after the thread has ended.
            *notifier.queue.lock() = Some(channel().0);
            assert!(notifier.send(Some((number, sender.clone()))));
        }
        drop(sender);
        let mut numbers: Vec<u64> = received.iter().collect();
        // Each number was delivered by a thread of its own, so their order is not defined.
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 2]);
    }
}
