//! How much proxies may send at once. The first message of a stream is large, those after it are not: so few of the first are
//! read at one time, and the size of each is held to what it is before any of it is kept.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use snapshot::report::{MAX_HELLO, MAX_REPORT};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Status;

use super::counts::{Count, Counts};
use crate::identity::certificate::Peer;

/// Hellos that are read at one time; more wait. A usual one takes milliseconds.
const AT_ONCE: usize = 4;

/// Whose turn it is to say Hello.
#[derive(Debug)]
pub(super) struct Hellos {
    turns: Semaphore,
    proxies: Counts,
}

/// A turn, until it is dropped.
pub(super) struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
    _count: Option<Count>,
}

impl Default for Hellos {
    fn default() -> Self {
        Self { turns: Semaphore::new(AT_ONCE), proxies: Counts::default() }
    }
}

impl Hellos {
    /// Waits for a turn, of which each proxy that is known has one at a time.
    pub(super) async fn turn(&self, peer: Option<&Peer>) -> Result<Turn<'_>, Status> {
        let one = |peer: &Peer| {
            let count = self.proxies.one_more(peer.to_string(), 1);
            count.ok_or_else(|| Status::resource_exhausted("another stream of this proxy has not said Hello yet"))
        };
        let count = peer.map(one).transpose()?;
        let permit = self.turns.acquire().await.map_err(|_| Status::unavailable("the operator ends"))?;
        Ok(Turn { _permit: permit, _count: count })
    }
}

/// The body of a stream of a proxy, which fails at a message that is too large. Each message begins with a byte of flags and
/// four bytes of its size.
pub(super) struct Bounded<B> {
    inner: B,
    /// What is read of the beginning of a message.
    head: [u8; 5],
    read: usize,
    /// Bytes of the message that are still to come.
    left: usize,
    most: usize,
}

impl<B> Bounded<B> {
    /// The first message may be a `Hello`, the others may not.
    pub(super) fn new(inner: B) -> Self {
        Self { inner, head: [0; 5], read: 0, left: 0, most: MAX_HELLO }
    }

    fn check(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while let Some((first, rest)) = data.split_first() {
            if self.left > 0 {
                let (_, after) = data.split_at(self.left.min(data.len()));
                self.left -= data.len() - after.len();
                data = after;
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
                (self.read, self.most) = (0, MAX_REPORT);
            }
        }
        Ok(())
    }
}

impl<B: Body<Data = Bytes, Error = Status> + Unpin> Body for Bounded<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        if let Some(data) = data
            && let Err(status) = self.check(data)
        {
            return Poll::Ready(Some(Err(status)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    /// The number of the first message that is refused, when they come in pieces of this size.
    #[track_caller]
    fn check(sizes: &[usize], piece: usize, expect: Option<usize>) {
        let mut body = Bounded::new(Full::new(Bytes::new()));
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

    #[tokio::test]
    async fn one_proxy_has_one_turn() {
        let hellos = Hellos::default();
        let fleet = || planner::FleetRef { namespace: "ns".into(), name: "f".into() };
        let peer = |pod: &str| Peer { fleet: fleet(), pod: pod.into() };
        let first = hellos.turn(Some(&peer("f-0"))).await.unwrap();
        assert_eq!(hellos.turn(Some(&peer("f-0"))).await.err().unwrap().code(), tonic::Code::ResourceExhausted);
        let others = [hellos.turn(Some(&peer("f-1"))).await, hellos.turn(None).await, hellos.turn(None).await];
        assert!(others.iter().all(Result::is_ok));
        let peer = peer("f-2");
        let mut next = std::pin::pin!(hellos.turn(Some(&peer)));
        assert!(futures::poll!(&mut next).is_pending());
        drop(first);
        assert!(next.await.is_ok());
    }
}
