//! WebSocket clients: a message each 100 ms that must come back as it was sent.

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::{
    Context,
    net::{Io, Protocol},
};

const MESSAGE_EVERY: Duration = Duration::from_millis(100);
const OPEN_EVERY: Duration = Duration::from_millis(50);
/// Between a failure and the next try, so that a gateway that is down is not flooded.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// A client that holds one WebSocket, and opens another when the server closes it.
pub(super) async fn kept(mut context: Context, number: usize, end: Instant) {
    // Clients do not come all at once.
    let start = Instant::now() + OPEN_EVERY.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
    context.sleep_until(start.min(end)).await;
    while Instant::now() < end && !*context.stopped.borrow() {
        let opened = tokio::time::timeout(context.plan.timeout, open(&context)).await;
        let broken = match opened.unwrap_or_else(|_| Err("handshake timeout".to_owned())) {
            Ok(socket) => {
                context.stats.ws(|ws| ws.opened += 1);
                converse(&mut context, socket, end).await
            }
            Err(reason) => Err(reason),
        };
        if let Err(reason) = broken {
            context.stats.ws_failed(&reason, &context.plan.ws_path);
            context.sleep_until(Instant::now() + RETRY_AFTER).await;
        }
    }
}

async fn open(context: &Context) -> Result<WebSocketStream<Io>, String> {
    let plan = &context.plan;
    let url = format!("ws://{}{}", plan.host, plan.ws_path);
    let mut request = url.into_client_request().map_err(|error| error.to_string())?;
    for (name, value) in &plan.headers {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else { continue };
        request.headers_mut().insert(name, value);
    }
    let io = context.dialer.dial(Protocol::Http1).await.map_err(|error| super::h1::reason("connect", &error))?;
    let (socket, _) = client_async(request, io).await.map_err(|error| describe("handshake", &error))?;
    Ok(socket)
}

/// Exchanges messages until the server closes (`Ok`), the load ends (`Ok`), or something breaks.
async fn converse(context: &mut Context, mut socket: WebSocketStream<Io>, end: Instant) -> Result<(), String> {
    let mut stopped = context.stopped.clone();
    let mut waiting: Option<(String, Instant)> = None; // the message under way, and when it was sent
    let mut next = Instant::now();
    let mut number = 0_u64;
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => match waiting.take() {
                    Some((sent, _)) if sent == text.as_str() => context.stats.ws(|ws| ws.messages += 1),
                    _ => return Err("echo differs from what was sent".to_owned()),
                },
                Some(Ok(Message::Close(frame))) => {
                    let away = frame.is_some_and(|frame| frame.code == CloseCode::Away);
                    context.stats.ws(|ws| if away { ws.closed_1001 += 1 } else { ws.closed_other += 1 });
                    finish(&mut socket).await;
                    return Ok(());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(describe("read", &error)),
                None => return Err("ended without a Close".to_owned()),
            },
            () = tokio::time::sleep_until(next.min(end).into()) => {
                if Instant::now() >= end {
                    break;
                }
                next += MESSAGE_EVERY;
                match &waiting {
                    Some((_, since)) if since.elapsed() > context.plan.timeout => {
                        return Err("echo timeout".to_owned());
                    }
                    Some(_) => {}
                    None => {
                        number += 1;
                        let text = format!("message {number}");
                        // If this fails the server may have said why: the next read tells a Close from a break.
                        let _ = socket.send(Message::text(text.clone())).await;
                        waiting = Some((text, Instant::now()));
                    }
                }
            }
            () = super::stopped(&mut stopped) => break,
        }
    }
    let _ = socket.close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })).await;
    finish(&mut socket).await;
    Ok(())
}

/// Reads on until the closing handshake is through.
async fn finish(socket: &mut WebSocketStream<Io>) {
    let rest = async { while let Some(Ok(_)) = socket.next().await {} };
    let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
}

fn describe(what: &str, error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Io(error) => super::h1::reason(what, error),
        error => format!("{what}: {error}"),
    }
}
