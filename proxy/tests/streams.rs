//! Honest streams at full speed, by HTTP/2 on both sides: many small messages are no flood, however fast they come and
//! whoever is the slower one.

#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Instant,
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, server};
use http::Response;
use support::{Proxy, http2_request};

/// A message of gRPC with one byte.
const MESSAGE: &[u8] = b"\0\0\0\0\x01x";
const MESSAGES: usize = 100_000;

/// What the upstream sends back.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// All that comes is counted, and the number is the answer.
    Client,
    /// So many messages.
    Server,
    /// Each message, as it comes.
    Both,
}

/// Sends a message in a frame of its own, as soon as there is room.
async fn send(stream: &mut SendStream<Bytes>, message: Bytes) {
    stream.reserve_capacity(message.len());
    while stream.capacity() < message.len() {
        std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
    }
    stream.send_data(message, false).unwrap();
}

/// The bytes of the next frame.
async fn next(stream: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let data = stream.data().await?;
    if let Ok(data) = &data {
        stream.flow_control().release_capacity(data.len()).unwrap();
    }
    Some(data)
}

async fn serve(way: Way, mut body: RecvStream, mut respond: server::SendResponse<Bytes>) {
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    let mut count = 0;
    if way == Way::Server {
        for _ in 0..MESSAGES {
            send(&mut stream, Bytes::from_static(MESSAGE)).await;
        }
    }
    while let Some(data) = next(&mut body).await {
        let data = data.unwrap();
        count += data.len();
        if way == Way::Both {
            send(&mut stream, data).await;
        }
    }
    if way == Way::Client {
        send(&mut stream, Bytes::from(count.to_string())).await;
    }
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
}

/// An upstream in a runtime of its own.
fn upstream(way: Way) -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                tokio::spawn(async move {
                    // What is tried is the proxy.
                    let mut connection = server::Builder::new()
                        .data_frame_budget(usize::MAX / 2)
                        .handshake::<_, Bytes>(socket)
                        .await
                        .unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(serve(way, request.into_body(), respond));
                    }
                });
            }
        });
    });
    address
}

#[test]
fn small_messages_are_no_flood() {
    for way in [Way::Client, Way::Server, Way::Both] {
        let proxy = Proxy::to_http2(upstream(way));
        let began = Instant::now();
        let (bytes, frames, status) = proxy.runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(proxy.address).await.unwrap();
            let mut client = h2::client::Builder::new();
            let (mut sender, connection) =
                client.data_frame_budget(usize::MAX / 2).handshake::<_, Bytes>(stream).await.unwrap();
            tokio::spawn(connection);
            let request = http2_request("POST", "/").header("te", "trailers").body(()).unwrap();
            let (response, mut upload) = sender.send_request(request, false).unwrap();
            let sending = tokio::spawn(async move {
                for _ in 0..if way == Way::Server { 0 } else { MESSAGES } {
                    send(&mut upload, Bytes::from_static(MESSAGE)).await;
                }
                upload.send_data(Bytes::new(), true).unwrap();
            });
            let mut body = response.await.unwrap().into_body();
            let (mut bytes, mut frames) = (vec![], 0);
            while let Some(data) = next(&mut body).await {
                bytes.extend(data.unwrap());
                frames += 1;
            }
            sending.await.unwrap();
            let trailers = body.trailers().await.unwrap().unwrap();
            (bytes, frames, trailers["grpc-status"].to_str().unwrap().to_owned())
        });
        let whole = MESSAGES * MESSAGE.len();
        match way {
            Way::Client => assert_eq!(String::from_utf8(bytes).unwrap(), whole.to_string()),
            _ => assert_eq!(bytes.len(), whole),
        }
        assert_eq!(status, "0");
        println!("{way:?}: {MESSAGES} messages in {:.1?}, {frames} frames came back", began.elapsed());
    }
}
