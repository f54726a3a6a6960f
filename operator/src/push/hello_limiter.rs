//! Bounds on what proxies send at once. The first message of a stream may be large, those after it may not: so few
//! large ones are read at one time, and the size of each is held to what it is before any of it is kept. A proxy that
//! is silent, or has little to send, takes no permit from others.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use hyper::body::{Body, Frame, SizeHint};
use snapshot::report::{MAX_HELLO, MAX_REPORT};
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};
use tonic::Status;
use transport::keyed_limiter::{KeyedLimiter, KeyedPermit};

use crate::identity::certificate::Peer;

/// Large Hellos that are read at one time; more wait. One takes milliseconds.
const MAX_CONCURRENT_LARGE: usize = 4;
/// A Hello that is no larger than this waits for nobody: as much may be under way in any connection.
const SMALL_BYTES: usize = 256 << 10;
/// The time in which a large Hello has to be sent whole.
const LARGE_TIMEOUT: Duration = Duration::from_secs(4);

/// The limits on Hellos under way. (On one machine proxies are the operator's own, and wait for nobody.)
#[derive(Debug)]
pub(super) struct HelloLimiter {
    permits: Arc<Semaphore>,
    proxies: KeyedLimiter,
}

impl Default for HelloLimiter {
    fn default() -> Self {
        Self { permits: Arc::new(Semaphore::new(MAX_CONCURRENT_LARGE)), proxies: KeyedLimiter::default() }
    }
}

impl HelloLimiter {
    /// A permit for one stream of a proxy, of which each has one at a time.
    pub(super) fn one(&self, peer: &Peer) -> Result<KeyedPermit, Status> {
        let count = self.proxies.try_acquire(peer.to_string(), 1);
        count.ok_or_else(|| Status::resource_exhausted("another stream of this proxy has not said Hello yet"))
    }

    /// A body that waits for a permit where it must.
    pub(super) fn bound<B>(&self, body: B) -> Bounded<B> {
        Bounded::new(body, Arc::clone(&self.permits))
    }
}

/// A frame of a body, or its end.
type BodyFrame = Option<Result<Frame<Bytes>, Status>>;

/// The body of a stream of a proxy, which fails at a message that is too large. Each message begins with a byte of flags and
/// four bytes of its size.
pub(super) struct Bounded<B> {
    inner: B,
    permits: Arc<Semaphore>,
    /// The wait for a permit, and the frame that came last.
    waiting: Option<(BoxFuture<'static, Result<OwnedSemaphorePermit, AcquireError>>, BodyFrame)>,
    /// The permit for a large Hello, and the time until which it is good.
    permit: Option<(OwnedSemaphorePermit, Pin<Box<Sleep>>)>,
    /// The header of a message, as far as it is read.
    head: [u8; 5],
    read: usize,
    /// Bytes of the message that are still to come.
    left: usize,
    most: usize,
}

impl<B> Bounded<B> {
    /// The first message may be a `Hello`, the others may not.
    fn new(inner: B, permits: Arc<Semaphore>) -> Self {
        Self { inner, permits, waiting: None, permit: None, head: [0; 5], read: 0, left: 0, most: MAX_HELLO }
    }

    /// Whether a large one began, of which more is to come.
    fn check(&mut self, mut data: &[u8]) -> Result<bool, Status> {
        let mut is_large = false;
        while let Some((first, rest)) = data.split_first() {
            if self.left > 0 {
                let (_, after) = data.split_at(self.left.min(data.len()));
                self.left -= data.len() - after.len();
                data = after;
                if self.left == 0 {
                    (self.permit, is_large) = (None, false);
                }
                continue;
            }
            self.head[self.read] = *first;
            self.read += 1;
            data = rest;
            if self.read == self.head.len() {
                let [_, size @ ..] = self.head;
                self.left = u32::from_be_bytes(size) as usize;
                if self.left > self.most {
                    let message = format!("a message of {} bytes; at most {} are taken here", self.left, self.most);
                    return Err(Status::out_of_range(message));
                }
                is_large = self.most == MAX_HELLO && self.left > SMALL_BYTES;
                (self.read, self.most) = (0, MAX_REPORT);
            }
        }
        Ok(is_large)
    }
}

impl<B: Body<Data = Bytes, Error = Status> + Unpin> Body for Bounded<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some((permit, _)) = &mut self.waiting {
            let permit = ready!(permit.as_mut().poll(cx)).map_err(|_| Status::unavailable("the operator ends"))?;
            self.permit = Some((permit, Box::pin(tokio::time::sleep(LARGE_TIMEOUT))));
            return Poll::Ready(self.waiting.take().and_then(|(_, frame)| frame));
        }
        if let Some((_, until)) = &mut self.permit
            && until.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(Status::deadline_exceeded("a large Hello that does not come"))));
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        match data.map(|data| self.check(data)).transpose() {
            Err(status) => Poll::Ready(Some(Err(status))),
            Ok(Some(true)) => {
                self.waiting = Some((Box::pin(Arc::clone(&self.permits).acquire_owned()), frame));
                self.poll_frame(cx)
            }
            Ok(_) => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.inner.is_end_stream()
    }

    /// The size of a stream, which is never known.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;

    /// The number of the first message that is refused, when they come in pieces of this size.
    #[track_caller]
    fn check(sizes: &[usize], piece: usize, expect: Option<usize>) {
        let mut body = HelloLimiter::default().bound(Full::new(Bytes::new()));
        let refused = sizes.iter().position(|size| {
            let head = [&[0][..], &u32::try_from(*size).unwrap().to_be_bytes()].concat();
            // Of one that is too large not a byte has to come.
            if *size > MAX_HELLO {
                return body.check(&head).is_err();
            }
            let message = [head, vec![0xff; *size]].concat();
            message.chunks(piece).any(|piece| body.check(piece).is_err())
        });
        assert_eq!(refused, expect, "{sizes:?} by {piece}");
    }

    #[test]
    fn the_first_message_alone_is_large() {
        for piece in [1, 3, 5, 7, 4096] {
            check(&[20, 0, 300, 1], piece, None);
        }
        check(&[MAX_HELLO, MAX_REPORT, MAX_REPORT], 16_384, None);
        check(&[MAX_HELLO + 1], 16_384, Some(0));
        check(&[u32::MAX as usize], 16_384, Some(0));
        check(&[10, MAX_REPORT + 1], 16_384, Some(1));
        check(&[MAX_HELLO, 10, MAX_HELLO], 16_384, Some(2));
    }

    fn peer(pod: &str) -> Peer {
        Peer { fleet: planner::FleetRef { namespace: "ns".into(), name: "f".into() }, pod: pod.into(), uid: "1".into() }
    }

    #[test]
    fn one_proxy_says_one_hello_at_a_time() {
        let hello_limiter = HelloLimiter::default();
        let first = hello_limiter.one(&peer("f-0"));
        assert_eq!(hello_limiter.one(&peer("f-0")).err().unwrap().code(), tonic::Code::ResourceExhausted);
        assert!(hello_limiter.one(&peer("f-1")).is_ok());
        drop(first);
        assert!(hello_limiter.one(&peer("f-0")).is_ok());
    }

    type Sent = Result<Frame<Bytes>, Status>;

    /// What a proxy sends, and the body that it arrives in.
    struct Stream {
        sender: mpsc::UnboundedSender<Sent>,
        body: Bounded<StreamBody<UnboundedReceiverStream<Sent>>>,
    }

    impl Stream {
        fn new(hello_limiter: &HelloLimiter) -> Self {
            let (sender, receiver) = mpsc::unbounded_channel();
            Self { sender, body: hello_limiter.bound(StreamBody::new(UnboundedReceiverStream::new(receiver))) }
        }

        fn send(&self, bytes: Vec<u8>) {
            self.sender.send(Ok(Frame::data(bytes.into()))).unwrap();
        }

        /// The beginning of a message of this size.
        fn begin(&self, size: usize) {
            self.send([&[0][..], &u32::try_from(size).unwrap().to_be_bytes()].concat());
        }

        /// Whether something arrives at once.
        async fn arrives(&mut self) -> bool {
            matches!(futures::poll!(self.body.frame()), Poll::Ready(Some(Ok(_))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_sends_much_takes_a_turn() {
        let hello_limiter = HelloLimiter::default();
        let mut all: Vec<Stream> = (0..=MAX_CONCURRENT_LARGE).map(|_| Stream::new(&hello_limiter)).collect();
        let mut last = all.pop().unwrap();
        for large in &mut all {
            assert!(!large.arrives().await, "silent, it has no turn");
            large.begin(SMALL_BYTES + 1);
            assert!(large.arrives().await);
        }
        // There is no permit left, which matters to large ones alone.
        let mut small = Stream::new(&hello_limiter);
        small.begin(SMALL_BYTES);
        assert!(small.arrives().await);
        last.begin(MAX_HELLO);
        assert!(!last.arrives().await);
        // All of one came; what follows on its stream needs no permit.
        all[0].send(vec![0; SMALL_BYTES + 1]);
        assert!(all[0].arrives().await && last.arrives().await);
        all[0].begin(MAX_REPORT);
        assert!(all[0].arrives().await);
        // Who does not go on loses it.
        let error = last.body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
    }
}
