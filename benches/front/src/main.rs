//! What HTTP itself costs: one thread, one constant answer, read by hyper as card4e has it, or by a loop
//! over httparse that hands to hyper whatever is unusual.
//!
//! `front hyper 127.0.0.1:4481`, `front httparse 127.0.0.1:4481`; asked by `card4e bench`.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalOptions;

/// What `BankCard4EVerification` answers when everything fits.
const REPLY: &str =
    r#"{"Response":{"Result":"0","Description":"认证通过","RequestId":"6f1c1f0a-2d3b-4f6e-8a54-1c8a4f2f8a11"}}"#;

const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> io::Result<()> {
    let [_, front, at] = std::env::args().collect::<Vec<_>>().try_into().expect("front hyper|httparse ADDR");
    let by_hyper = front == "hyper";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let listener = TcpListener::bind(at).await?;
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            if by_hyper {
                tokio::task::spawn_local(serve_hyper(Rewound { read: Bytes::new(), socket }));
            } else {
                tokio::task::spawn_local(serve_httparse(socket));
            }
        }
    })
}

/// As `crates/server/src/http.rs` does it: deadlines, a body that is read whole within one, a boxed future.
async fn serve_hyper(socket: Rewound) {
    let answer = |request: Request<Incoming>| {
        Box::pin(async move {
            let body = tokio::time::timeout(PATIENCE, request.into_body().collect()).await;
            drop(body);
            let mut response = Response::new(Full::new(Bytes::from_static(REPLY.as_bytes())));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Ok::<_, Infallible>(response)
        })
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(256 << 10)
        .serve_connection(TokioIo::new(socket), service_fn(answer));
    let _ = served.await;
}

/// The same with httparse: head and body from one buffer, all headers in a map as the fronts want them.
async fn serve_httparse(mut socket: TcpStream) {
    let mut read = BytesMut::with_capacity(4096);
    let mut reply = Vec::with_capacity(512);
    loop {
        match request(&read) {
            Asked::Whole(length) => {
                read.advance(length);
                reply.clear();
                let length = REPLY.len();
                reply.extend_from_slice(
                    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
                             date: Sun, 22 Nov 2026 07:00:00 GMT\r\n\r\n{REPLY}").as_bytes(),
                );
                if socket.write_all(&reply).await.is_err() {
                    return;
                }
            }
            Asked::Incomplete => {
                read.reserve(2048);
                match tokio::time::timeout(PATIENCE, socket.read_buf(&mut read)).await {
                    Ok(Ok(more)) if more > 0 => {}
                    _ => return,
                }
            }
            Asked::Unusual => return serve_hyper(Rewound { read: read.freeze(), socket }).await,
        }
    }
}

enum Asked {
    Incomplete,
    Whole(usize),
    Unusual,
}

fn request(read: &[u8]) -> Asked {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(read) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if read.len() < 64 << 10 => return Asked::Incomplete,
        _ => return Asked::Unusual,
    };
    let mut map = HeaderMap::with_capacity(16);
    for field in head.headers.iter() {
        let (name, value) = (HeaderName::from_bytes(field.name.as_bytes()), HeaderValue::from_bytes(field.value));
        let (Ok(name), Ok(value)) = (name, value) else { return Asked::Unusual };
        map.append(name, value);
    }
    let unusual = ["transfer-encoding", "expect", "upgrade", "connection"];
    if head.method != Some("POST") || head.version != Some(1) || unusual.iter().any(|name| map.contains_key(*name)) {
        return Asked::Unusual;
    }
    let body = map.get("content-length").and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    match std::hint::black_box(body) {
        None => Asked::Unusual,
        Some(body) if read.len() < length + body => Asked::Incomplete,
        Some(body) => Asked::Whole(length + body),
    }
}

/// A socket of which some bytes were read already.
struct Rewound {
    read: Bytes,
    socket: TcpStream,
}

impl AsyncRead for Rewound {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.socket).poll_read(context, into);
        }
        let most = self.read.len().min(into.remaining());
        into.put_slice(&self.read.split_to(most));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
