//! HTTP on a connection that turned out to speak it: metrics, health, admin.
//!
//! Owns the adapter between `rt` streams and hyper, and the limits: body size, and a time within
//! which each request must be complete. Requests are handed to the [`Service`] whole. Not for
//! speed: everything is copied once. Runs in the task of its connection.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::rt::ReadBufCursor;
use hyper::service::service_fn;

use crate::limits::Network;
use crate::service::{HttpAnswer, HttpRequest, LocalFuture, Service};
use crate::stats::add;

/// Largest request head.
const HEAD_MAX_BYTES: usize = 64 * 1024;
const READ_BYTES: usize = 8 * 1024;
/// How long a refused client may take to read the answer and close.
const REFUSAL_LINGER: Duration = Duration::from_millis(500);

/// Serves HTTP/1.1 until the client closes or is idle for too long, then shuts the stream down.
/// `first` is what was already read from it: nothing on a listener that speaks HTTP only.
pub async fn serve(
    shard: &rt::Shard,
    stream: &rt::Stream,
    first: Bytes,
    network: &Network,
    service: Rc<dyn Service>,
) {
    let activity = Rc::new(Activity::default());
    let writing = Rc::new(RefCell::new(None));
    let io = Adapter {
        stream: stream.clone(),
        unread: first,
        reading: None,
        writing: Rc::clone(&writing),
    };
    let peer = stream.peer_addr();
    let answering = service_fn(|request| {
        let (service, network) = (Rc::clone(&service), network.clone());
        let activity = Rc::clone(&activity);
        async move {
            let answer = answer(request, peer, service, &network, &activity).await;
            Ok::<_, Infallible>(into_response(answer))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(io, answering);
    let in_time = rt::either(connection, watch(shard, network, &activity)).await;
    match &in_time {
        rt::Either::Left(Err(error)) => tracing::debug!(%peer, "HTTP connection ended: {error}"),
        rt::Either::Left(Ok(())) => {}
        rt::Either::Right(()) => tracing::debug!(%peer, "HTTP connection idle for too long"),
    }
    if activity.refused.get() || matches!(in_time, rt::Either::Left(Err(_))) {
        let writing = writing.borrow_mut().take();
        let _ = shard.timeout(REFUSAL_LINGER, deliver_refusal(stream, writing)).await;
    }
    stream.shutdown();
}

/// Ends a write under way, then reads on until the client closes: closing with bytes unread would
/// reset the connection, and the client might never see why it was refused.
async fn deliver_refusal(stream: &rt::Stream, writing: Option<LocalFuture<io::Result<()>>>) {
    if let Some(writing) = writing {
        let _ = writing.await;
    }
    let mut ignored = BytesMut::new();
    while stream.read_into(&mut ignored).await.is_ok_and(|bytes| bytes > 0) {
        ignored.clear();
    }
}

/// What the watch over a connection's time looks at.
#[derive(Default)]
struct Activity {
    completed: Cell<u64>,
    running: Cell<u64>,
    /// A request was answered before all of it was read.
    refused: Cell<bool>,
}

/// Ends when no request was completed, and none is being answered, for the idle time.
async fn watch(shard: &rt::Shard, network: &Network, activity: &Activity) {
    loop {
        let before = activity.completed.get();
        shard.sleep(network.limits.http_idle).await;
        if activity.completed.get() == before && activity.running.get() == 0 {
            return;
        }
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    peer: std::net::SocketAddr,
    service: Rc<dyn Service>,
    network: &Network,
    activity: &Activity,
) -> HttpAnswer {
    add(&network.stats.http_requests, 1);
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, network.limits.http_body_max_bytes).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            activity.refused.set(true);
            return HttpAnswer::text(413, "the body is too large\n");
        }
        Err(_) => return HttpAnswer::text(400, "the body could not be read\n"),
    };
    let request = HttpRequest {
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        body,
        peer,
    };
    activity.running.set(activity.running.get() + 1);
    let answer = service.http(request).await;
    activity.running.set(activity.running.get() - 1);
    activity.completed.set(activity.completed.get() + 1);
    answer
}

fn into_response(answer: HttpAnswer) -> hyper::Response<Full<Bytes>> {
    let HttpAnswer { status, content_type, body } = answer;
    let mut response = hyper::Response::new(Full::new(body));
    *response.status_mut() =
        hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = hyper::header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, content_type);
    response
}

/// An `rt` stream as hyper wants it. One read and one write are under way at most.
struct Adapter {
    stream: rt::Stream,
    /// Read from the stream and not yet by hyper.
    unread: Bytes,
    reading: Option<LocalFuture<io::Result<Bytes>>>,
    /// Outlives hyper, which may end with an answer half written.
    writing: Rc<RefCell<Option<LocalFuture<io::Result<()>>>>>,
}

impl hyper::rt::Read for Adapter {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            let stream = &self.stream.clone();
            let reading = self.reading.get_or_insert_with(|| {
                let stream = stream.clone();
                Box::pin(async move {
                    let mut read = BytesMut::with_capacity(READ_BYTES);
                    stream.read_into(&mut read).await?;
                    Ok(read.freeze())
                })
            });
            let read = std::task::ready!(reading.as_mut().poll(context));
            self.reading = None;
            self.unread = read?;
        }
        let taken = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..taken]);
        self.unread.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl Adapter {
    fn poll_written(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(mut writing) = self.writing.borrow_mut().take() else {
            return Poll::Ready(Ok(()));
        };
        let written = writing.as_mut().poll(context);
        if written.is_pending() {
            self.writing.replace(Some(writing));
        }
        written
    }
}

impl hyper::rt::Write for Adapter {
    /// Takes all bytes once the write before is done; the new one ends in a later poll or flush.
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_written(context))?;
        let stream = self.stream.clone();
        let mut parts = vec![Bytes::copy_from_slice(bytes)];
        let writing: LocalFuture<_> = Box::pin(async move { stream.write_all(&mut parts).await });
        self.writing.replace(Some(writing));
        match self.poll_written(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(bytes.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_written(context)
    }

    /// `serve` shuts the stream down, once hyper is done with it.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_written(context)
    }
}
