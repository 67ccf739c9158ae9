//! Many futures at once, on this thread.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

/// All of them, each to its end.
pub async fn all<T>(work: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut work: Vec<Pin<Box<_>>> = work.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<T>> = work.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (work, done) in work.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            if let Poll::Ready(is) = work.as_mut().poll(context) {
                *done = Some(is);
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}
