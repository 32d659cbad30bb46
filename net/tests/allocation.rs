//! Nothing is allocated from a number a client sent: hostile frames under a counting allocator.
//!
//! The only test binary with a global allocator of its own; one test, so that nothing else runs
//! beside it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use chronik_net::{
    registry, schema, serve_connection, Answer, HttpAnswer, HttpRequest, Limits, LocalFuture,
    Network, Request, RequestKind, Service,
};

/// Remembers the largest single allocation.
struct Watching;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system allocator with its own arguments.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `alloc` above with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: the pointer came from `alloc` above with this layout.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Far above what a connection needs for small frames, far below any lie.
const ALLOCATION_MAX_BYTES: usize = 1 << 20;

/// Bodies whose counts and lengths lie, in all widths and at every early position.
fn lies() -> Vec<Vec<u8>> {
    let mut lies = Vec::new();
    for prefix in 0..24 {
        for lie in [
            &[0x7f, 0xff, 0xff, 0xff][..],
            &[0x00, 0x7f, 0xff, 0xff],
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0xff, 0xff, 0xff, 0x07],
        ] {
            for filler in [0u8, 1] {
                let mut body = vec![filler; prefix];
                body.extend_from_slice(lie);
                body.extend([filler; 40]);
                lies.push(body);
            }
        }
    }
    lies
}

struct Refusing;

impl Service for Refusing {
    fn call(&self, _request: Request) -> LocalFuture<Answer> {
        Box::pin(async { Answer::Close { reason: "the test answers nothing" } })
    }

    fn http(&self, _request: HttpRequest) -> LocalFuture<HttpAnswer> {
        Box::pin(async { HttpAnswer::text(404, "") })
    }
}

/// Sends bytes to a connection and waits for its end.
async fn send(shard: &rt::Shard, bytes: &'static [u8]) {
    let address = "127.0.0.1:9092".parse().expect("an address");
    let listener = shard.listen(rt::ListenOptions::new(address)).expect("listens");
    let client = shard.connect(listener.local_addr()).await.expect("connects");
    let stream = shard.adopt(listener.accept().await.expect("accepts"));
    let network = Network::new(Limits::default(), 1 << 30);
    let serving = shard.spawn(serve_connection(shard.clone(), stream, network, Rc::new(Refusing)));
    client.write_all(&mut vec![Bytes::from_static(bytes)]).await.expect("sends");
    shard.sleep(std::time::Duration::from_secs(1)).await;
    client.shutdown();
    serving.await;
    let mut rest = BytesMut::new();
    assert_eq!(client.read_into(&mut rest).await.unwrap_or(0), 0);
}

#[test]
fn lying_counts_allocate_nothing() {
    for api in registry::advertised() {
        for body in lies() {
            let mut bytes = Bytes::from(body);
            if schema::check(api, api.max, &bytes).is_ok() {
                let _ = RequestKind::decode(api.key, &mut bytes, api.max);
            }
        }
    }
    rt::sim::run(7, |shard| async move {
        // A length that promises 100 MiB of Produce, and counts of billions.
        send(&shard, b"\x06\x3f\xff\xff\0\0\0\x09\0\0\0\x01\xff\xff").await;
        send(&shard, b"\0\0\0\x10\0\x03\0\x09\0\0\0\x01\xff\xff\0\xff\xff\xff\xff\x0f").await;
        send(&shard, b"\0\0\0\x0e\0\x03\0\x01\0\0\0\x01\xff\xff\x7f\xff\xff\xff").await;
    });
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest < ALLOCATION_MAX_BYTES, "one allocation of {largest} bytes");
}
