//! Replies: values to bytes (rules R1, R2).

/// What a reply says of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    UriTooLong,
    HeadersTooLarge,
}

/// What becomes of the connection after a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It stays, as is usual with HTTP/1.1.
    Stays,
    /// It stays, which has to be told to HTTP/1.0.
    StaysAsAsked,
    Closes,
}

/// What all replies begin with. There is no `Date`: nothing of a reply is to be stored, and it
/// would be a tenth of many.
macro_rules! head {
    ($status:literal) => {
        concat!(
            "HTTP/1.1 ",
            $status,
            "\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\n"
        )
    };
}

// === impl Status ===

impl Status {
    fn head(self) -> &'static str {
        match self {
            Self::Ok => head!("200 OK"),
            Self::BadRequest => head!("400 Bad Request"),
            Self::NotFound => head!("404 Not Found"),
            Self::MethodNotAllowed => concat!(head!("405 Method Not Allowed"), "Allow: GET\r\n"),
            Self::UriTooLong => head!("414 URI Too Long"),
            Self::HeadersTooLarge => head!("431 Request Header Fields Too Large"),
        }
    }
}

// === impl After ===

impl After {
    fn header(self) -> &'static str {
        match self {
            Self::Stays => "",
            Self::StaysAsAsked => "Connection: keep-alive\r\n",
            Self::Closes => "Connection: close\r\n",
        }
    }
}

/// Appends the head of a reply whose body has that length.
pub fn write_head(out: &mut Vec<u8>, status: Status, after: After, length: usize) {
    out.extend_from_slice(status.head().as_bytes());
    out.extend_from_slice(after.header().as_bytes());
    out.extend_from_slice(b"Content-Length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
}

/// Appends a whole reply.
pub fn write(out: &mut Vec<u8>, status: Status, after: After, body: &[u8]) {
    write_head(out, status, after, body.len());
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(status: Status, after: After, body: &[u8]) -> String {
        let mut out = Vec::new();
        write(&mut out, status, after, body);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn replies_are_written_byte_for_byte() {
        assert_eq!(
            written(Status::Ok, After::Stays, b"de"),
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nCache-Control: no-store\r\n\
             Content-Length: 2\r\n\r\nde"
        );
        assert_eq!(
            written(Status::MethodNotAllowed, After::Closes, b""),
            "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain\r\n\
             Cache-Control: no-store\r\nAllow: GET\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        let kept = written(Status::NotFound, After::StaysAsAsked, b"x\n");
        assert!(kept.starts_with("HTTP/1.1 404 Not Found\r\n"), "{kept}");
        assert!(kept.contains("\r\nConnection: keep-alive\r\n"), "{kept}");
    }
}
