//! The hand-over of listening sockets between processes on one machine (`SCM_RIGHTS` over a Unix socket).
//!
//! A socket stays open as long as any process holds it, and what waits in its accept queue with it: so the operator
//! opens each port once, every proxy takes the same sockets, and a new operator takes them back from a living proxy.
//!
//! The one who asks sends a port (`u16`, big-endian; 0 asks for all). The one who holds answers with one frame a port,
//! `port, count` (two `u16`) carrying `count` descriptors, and ends with the frame `0, 0`. Calls block, for at most
//! [`TIMEOUT`]. What passes between a proxy and its keeper are the same frames, by [`send`] and [`receive`].

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Longest wait for the other side.
pub const TIMEOUT: Duration = Duration::from_secs(5);
/// Most sockets of one port (one for each worker); the kernel passes at most 253 descriptors in a message.
pub const MAX_SOCKETS: usize = 128;

/// The sockets of one port, one `SO_REUSEPORT` group; worker `i` accepts from socket `i`.
#[derive(Debug)]
pub struct Port {
    /// The port they listen on.
    pub port: u16,
    /// The sockets in the order of the workers.
    pub sockets: Vec<OwnedFd>,
}

/// Asks the holder at `path` for one port, or for all with `None`. A port that it does not hold is absent.
pub fn request(path: &Path, port: Option<u16>) -> io::Result<Vec<Port>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(&port.unwrap_or(0).to_be_bytes())?;
    let mut ports = vec![];
    loop {
        let port = receive(&stream)?;
        if port.port == 0 {
            return Ok(ports);
        }
        ports.push(port);
    }
}

/// Answers one request on an accepted connection. `held` gives the sockets by port.
pub fn answer<'a, F: AsFd + 'a>(
    mut stream: UnixStream,
    held: impl IntoIterator<Item = (u16, &'a [F])>,
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut wanted = [0; 2];
    stream.read_exact(&mut wanted)?;
    let wanted = u16::from_be_bytes(wanted);
    for (port, sockets) in held {
        if wanted == 0 || wanted == port {
            send(&stream, port, sockets)?;
        }
    }
    send::<OwnedFd>(&stream, 0, &[])
}

/// Sends one frame: the sockets of a port.
pub fn send<F: AsFd>(stream: &UnixStream, port: u16, sockets: &[F]) -> io::Result<()> {
    let fds: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    let count = u16::try_from(fds.len()).ok().filter(|n| usize::from(*n) <= MAX_SOCKETS);
    let count = count.ok_or_else(|| io::Error::other(format!("{} sockets for one port", fds.len())))?;
    let mut frame = [0; 4];
    frame[..2].copy_from_slice(&port.to_be_bytes());
    frame[2..].copy_from_slice(&count.to_be_bytes());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("no room for the descriptors"));
    }
    let sent = sendmsg(stream, &[IoSlice::new(&frame)], &mut control, SendFlags::NOSIGNAL)?;
    if sent == frame.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives one frame. One whose descriptors did not all come, because this process has too many, is
/// [`io::ErrorKind::InvalidData`], and the next can be received.
pub fn receive(stream: &UnixStream) -> io::Result<Port> {
    let mut frame = [0; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(stream, &mut [IoSliceMut::new(&mut frame)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes != frame.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut sockets = vec![];
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            sockets.extend(fds);
        }
    }
    let port = u16::from_be_bytes([frame[0], frame[1]]);
    let count = u16::from_be_bytes([frame[2], frame[3]]);
    if sockets.len() != usize::from(count) {
        let message = format!("port {port}: {count} sockets announced, {} came", sockets.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(Port { port, sockets })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_socket_taken_over_accepts_what_waited() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let dir = std::env::temp_dir().join(format!("sluice-handover-{}", std::process::id()));
        let server = std::os::unix::net::UnixListener::bind(&dir).unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let holder = std::thread::spawn(move || {
            for _ in 0..2 {
                let (stream, _) = server.accept().unwrap();
                answer(stream, [(port, &[&listener][..])]).unwrap();
            }
        });
        assert!(request(&dir, Some(1)).unwrap().is_empty());
        let mut ports = request(&dir, None).unwrap();
        holder.join().unwrap();
        std::fs::remove_file(&dir).unwrap();
        assert_eq!(ports.len(), 1);
        assert_eq!(ports[0].port, port);
        // The first holder is gone; the connection that waited is not.
        let taken = TcpListener::from(ports.remove(0).sockets.remove(0));
        let (mut server, _) = taken.accept().unwrap();
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }
}
