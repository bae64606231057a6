//! Connections through a balancer that names the client in a PROXY header: it is read before anything else.

use std::io::{self, ErrorKind, Read as _};
use std::net::TcpStream;
use std::task::Poll;

use crate::wire::proxy_header::{HEADER_MAX, Proxied, ProxyHeaderReader};

/// Reads what has arrived of the header, and no byte more. Pending if the rest is yet to come.
///
/// # Errors
/// `InvalidData` if there is no valid header; others if the connection broke.
pub(super) fn try_read(
    stream: &TcpStream,
    reader: &mut ProxyHeaderReader,
) -> Poll<io::Result<Proxied>> {
    let mut buffer = [0; HEADER_MAX];
    loop {
        let peeked = match stream.peek(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            peeked => peeked,
        };
        let read = peeked.and_then(|length| match length {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            length => take(reader, &buffer[..length]),
        });
        let (taken, proxied) = match read {
            Ok(read) => read,
            Err(error) => return Poll::Ready(Err(error)),
        };
        if let Err(error) = (&*stream).read_exact(&mut buffer[..taken]) {
            return Poll::Ready(Err(error));
        }
        if let Some(proxied) = proxied {
            return Poll::Ready(Ok(proxied));
        }
    }
}

/// Reads the rest of the header.
///
/// # Errors
/// Those of [`try_read`].
pub(super) async fn read(
    stream: &tokio::net::TcpStream,
    mut reader: ProxyHeaderReader,
) -> io::Result<Proxied> {
    let mut buffer = vec![0; HEADER_MAX];
    loop {
        let length = stream.peek(&mut buffer).await?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let (taken, proxied) = take(&mut reader, &buffer[..length])?;
        // They are there, so that this reads all of them.
        stream.try_read(&mut buffer[..taken])?;
        if let Some(proxied) = proxied {
            return Ok(proxied);
        }
    }
}

fn take(reader: &mut ProxyHeaderReader, bytes: &[u8]) -> io::Result<(usize, Option<Proxied>)> {
    let taken = reader.take(bytes);
    taken.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::TcpListener;

    const HEADER: &[u8] = b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n";

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nodelay(true).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (stream, client)
    }

    fn proxied() -> Proxied {
        Proxied::Client("192.0.2.1".parse().unwrap())
    }

    #[tokio::test]
    async fn no_byte_after_the_header_is_read() {
        let (stream, mut client) = pair();
        client.write_all(HEADER).unwrap();
        client.write_all(b"GET").unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        let found = read(&stream, ProxyHeaderReader::default()).await.unwrap();
        assert_eq!(found, proxied());
        stream.readable().await.unwrap();
        let mut rest = [0; 10];
        assert_eq!(stream.try_read(&mut rest).unwrap(), 3);
    }

    #[tokio::test]
    async fn a_header_in_two_pieces_is_read_in_two_ways() {
        let (stream, mut client) = pair();
        let mut reader = ProxyHeaderReader::default();
        assert!(try_read(&stream, &mut reader).is_pending());
        client.write_all(&HEADER[..20]).unwrap();
        while stream.peek(&mut [0; 20]).is_err() {}
        assert!(try_read(&stream, &mut reader).is_pending());
        assert!(stream.peek(&mut [0; 1]).is_err(), "its beginning was taken");
        client.write_all(&HEADER[20..]).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        assert_eq!(read(&stream, reader).await.unwrap(), proxied());
    }

    #[test]
    fn the_end_of_the_connection_and_other_bytes_are_errors() {
        let (stream, client) = pair();
        drop(client);
        let error = loop {
            match try_read(&stream, &mut ProxyHeaderReader::default()) {
                Poll::Ready(read) => break read.unwrap_err(),
                Poll::Pending => {}
            }
        };
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        let (stream, mut client) = pair();
        client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        let error = loop {
            match try_read(&stream, &mut ProxyHeaderReader::default()) {
                Poll::Ready(read) => break read.unwrap_err(),
                Poll::Pending => {}
            }
        };
        assert_eq!(error.kind(), ErrorKind::InvalidData);
    }
}
