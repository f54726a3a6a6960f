//! Messages of the protocol, decoded under a bound on what they take in memory.
//!
//! The size on the wire alone bounds little: an empty `Nack` has two bytes there and 128 decoded, so that 16 MiB would make
//! a gigabyte. What a message would take is added up first, by its tags and lengths, without decoding anything.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder},
};
use tonic_prost::ProstEncoder;

use crate::{
    proto::{
        Ack, EnrollRequest, EnrollResponse, Held, Hello, LatencyCount, LoadWindow, Nack, OperatorMessage, PolicyCount,
        ProxyMessage,
    },
    report::{MAX_HELLO, MAX_REPORT},
};

/// Times as much as its largest size on the wire a message may take, beyond the content of its texts. Of a `Hello` with
/// 20,000 resources, and five minutes of 500 policies, that is 7 of 32 MiB.
const TIMES: usize = 2;

/// The codec of the service `Control`.
#[derive(Debug)]
pub struct Bounded<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Bounded<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Send + 'static, U: Weighed> Codec for Bounded<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// Decodes what is not too heavy.
#[derive(Debug)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Weighed> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let bytes = buf.copy_to_bytes(buf.remaining());
        U::check_weight(&bytes).map_err(|heavy| Status::out_of_range(heavy.to_string()))?;
        let message = U::decode(bytes).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some(message))
    }
}

/// A message that may be too heavy to be decoded.
pub trait Weighed: Message + Default + Send + 'static {
    /// Whether its encoding may be decoded. What is malformed may: decoding it fails.
    fn check_weight(bytes: &[u8]) -> Result<(), TooHeavy> {
        let _ = bytes;
        Ok(())
    }
}

/// A message is too large, or would take too much memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooHeavy {
    /// Too many bytes on the wire.
    #[error("a message of {size} bytes; at most {most} are taken here")]
    Size {
        /// The message's size.
        size: usize,
        /// The most that there may be.
        most: usize,
    },
    /// Too much in memory.
    #[error("a message that would take more than {0} bytes of memory: it has too many parts for its size")]
    Parts(usize),
}

impl Weighed for ProxyMessage {
    fn check_weight(bytes: &[u8]) -> Result<(), TooHeavy> {
        // The last one counts of several messages in one.
        let mut is_hello = true;
        fields(bytes, &mut |field, _| is_hello &= field == 1);
        let most = if is_hello { MAX_HELLO } else { MAX_REPORT };
        if bytes.len() > most {
            return Err(TooHeavy::Size { size: bytes.len(), most });
        }
        let most = TIMES * most;
        if weight(bytes, Part::Message) > most { Err(TooHeavy::Parts(most)) } else { Ok(()) }
    }
}

// A token and a key, of which there may be 64 KiB.
impl Weighed for EnrollRequest {}
// From operators, whom proxies trust.
impl Weighed for EnrollResponse {}
impl Weighed for OperatorMessage {}

/// A message whose parts are counted.
#[derive(Clone, Copy)]
enum Part {
    Message,
    Hello,
    Ack,
    Load,
    /// Without repeated parts.
    Leaf,
}

impl Part {
    /// The part that a field of it holds, and what one more of that takes; `None`: nothing but its content.
    fn child(self, field: u64) -> Option<(Part, usize)> {
        let child = match (self, field) {
            (Self::Message, 1) => (Self::Hello, size_of::<Hello>()),
            (Self::Message, 2) => (Self::Ack, size_of::<Ack>()),
            (Self::Message, 3) => (Self::Load, size_of::<LoadWindow>()),
            // Names of features.
            (Self::Hello, 6) => (Self::Leaf, size_of::<String>()),
            (Self::Hello, 7) => (Self::Leaf, size_of::<Held>()),
            (Self::Hello, 8) | (Self::Ack, 3) => (Self::Leaf, size_of::<Nack>()),
            (Self::Hello, 9) => (Self::Load, size_of::<LoadWindow>()),
            (Self::Load, 12) => (Self::Leaf, size_of::<LatencyCount>()),
            (Self::Load, 13) => (Self::Leaf, size_of::<PolicyCount>()),
            _ => return None,
        };
        Some(child)
    }
}

/// The memory that the parts of a message take, beyond the content of its texts.
fn weight(bytes: &[u8], part: Part) -> usize {
    let mut sum = 0usize;
    fields(bytes, &mut |field, content| {
        if let Some((child, size)) = part.child(field) {
            sum = sum.saturating_add(size).saturating_add(weight(content, child));
        }
    });
    sum
}

/// Calls with the number and content of each field that has a length, up to where the encoding is malformed. The fields
/// of a group, which none of ours is, are taken for those around it.
fn fields(mut bytes: &[u8], each: &mut dyn FnMut(u64, &[u8])) {
    while let Some((tag, rest)) = varint(bytes) {
        let skipped = match tag & 7 {
            0 => varint(rest).map(|(_, rest)| rest),
            1 => rest.get(8..),
            2 => varint(rest).and_then(|(length, rest)| {
                let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
                each(tag >> 3, content);
                Some(rest)
            }),
            5 => rest.get(4..),
            3 | 4 => Some(rest),
            _ => None,
        };
        let Some(rest) = skipped else { return };
        bytes = rest;
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[i + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::proto::proxy_message;

    fn message(message: proxy_message::Message) -> Vec<u8> {
        ProxyMessage { message: Some(message) }.encode_to_vec()
    }

    /// A field that holds this.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![(number << 3) | 2];
        prost::encoding::encode_varint(content.len() as u64, &mut bytes);
        [&bytes, content].concat()
    }

    /// What has two bytes on the wire takes up to 128 in memory.
    #[test]
    fn what_is_little_on_the_wire_and_much_in_memory_is_refused() {
        // As many empty parts of each kind as 4 MB have room for: of a `Hello`, of an `Ack`, of a window.
        for (message, part) in [(1, 6), (1, 7), (1, 8), (1, 9), (2, 3), (3, 12), (3, 13)] {
            let bytes = field(message, &field(part, &[]).repeat(2_000_000));
            assert!(bytes.len() <= MAX_REPORT);
            let weighed = ProxyMessage::check_weight(&bytes);
            assert!(matches!(weighed, Err(TooHeavy::Parts(_))), "{message}.{part}: {weighed:?}");
        }
        let windows = field(9, &field(13, &[]).repeat(1_000)).repeat(1_000);
        assert!(matches!(ProxyMessage::check_weight(&field(1, &windows)), Err(TooHeavy::Parts(_))));
    }

    #[test]
    fn what_proxies_say_is_taken() {
        let policy = PolicyCount { policy: format!("RatePolicy/ns/{:030}", 1), checked: 1 << 20, limited: 3 };
        let latency = vec![LatencyCount { bucket: 7, count: 1000 }; crate::latency::BUCKETS];
        let window =
            LoadWindow { policies: vec![policy; 500], added_latency: latency, admitted: 9, ..LoadWindow::default() };
        let held = Held { key: format!("Route/ns/{:030}", 1), hash: Bytes::from_static(&[7; 32]) };
        let hello = Hello { held: vec![held; 20_000], windows: vec![window.clone(); 300], ..Hello::default() };
        let bytes = message(proxy_message::Message::Hello(hello));
        assert_eq!(ProxyMessage::check_weight(&bytes), Ok(()), "{} bytes", bytes.len());
        let nack = Nack { key: "Route/ns/r".into(), message: "m".repeat(300), ..Nack::default() };
        let ack = Ack { nacks: vec![nack; 10_000], ..Ack::default() };
        assert_eq!(ProxyMessage::check_weight(&message(proxy_message::Message::Ack(ack))), Ok(()));
        assert_eq!(ProxyMessage::check_weight(&message(proxy_message::Message::Load(window))), Ok(()));
    }

    #[test]
    fn only_a_hello_is_large() {
        let nack = |size: usize| vec![Nack { message: "m".repeat(size), ..Nack::default() }];
        let ack = message(proxy_message::Message::Ack(Ack { nacks: nack(MAX_REPORT), ..Ack::default() }));
        assert!(matches!(ProxyMessage::check_weight(&ack), Err(TooHeavy::Size { most: MAX_REPORT, .. })));
        let hello = |size| message(proxy_message::Message::Hello(Hello { nacks: nack(size), ..Hello::default() }));
        assert_eq!(ProxyMessage::check_weight(&hello(MAX_REPORT)), Ok(()));
        assert!(matches!(ProxyMessage::check_weight(&hello(MAX_HELLO)), Err(TooHeavy::Size { most: MAX_HELLO, .. })));
    }

    proptest! {
        /// Any bytes, and any that are cut or changed from a message, are weighed and decoded without a panic.
        #[test]
        fn any_bytes_are_weighed(garbage: Vec<u8>, cut: usize, at: usize, byte: u8) {
            let _ = ProxyMessage::check_weight(&garbage);
            let _ = ProxyMessage::decode(garbage.as_slice());
            let policies = vec![PolicyCount { policy: "p".into(), checked: 1, limited: u64::MAX }; 3];
            let windows = vec![LoadWindow { policies, duration_ms: 7, ..LoadWindow::default() }; 2];
            let mut bytes = message(proxy_message::Message::Hello(Hello { windows, ..Hello::default() }));
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(cut % (bytes.len() + 1));
            let _ = ProxyMessage::check_weight(&bytes);
            let _ = ProxyMessage::decode(bytes.as_slice());
        }

        /// What is decoded has no more parts than were counted, however the encoding is put together.
        #[test]
        fn no_part_is_missed(parts in proptest::collection::vec(0..7u8, 0..60)) {
            let mut hello = Hello::default();
            for part in parts {
                match part {
                    0 => hello.features.push("f".into()),
                    1 => hello.held.push(Held::default()),
                    2 => hello.nacks.push(Nack::default()),
                    3 => hello.windows.push(LoadWindow::default()),
                    4 => if let Some(window) = hello.windows.last_mut() { window.policies.push(PolicyCount::default()) },
                    5 => if let Some(window) = hello.windows.last_mut() { window.added_latency.push(LatencyCount::default()) },
                    _ => hello.ready = true,
                }
            }
            let windows = hello.windows.iter().map(|window| {
                size_of::<LoadWindow>() + window.policies.len() * size_of::<PolicyCount>()
                    + window.added_latency.len() * size_of::<LatencyCount>()
            });
            let expect = size_of::<Hello>() + hello.features.len() * size_of::<String>()
                + hello.held.len() * size_of::<Held>() + hello.nacks.len() * size_of::<Nack>() + windows.sum::<usize>();
            prop_assert_eq!(weight(&message(proxy_message::Message::Hello(hello)), Part::Message), expect);
        }
    }
}
