//! skeleton
use crate::ListenOptions;
use bytes::{Bytes, BytesMut};
use std::{io, net::SocketAddr};
pub(crate) struct Listener {}
impl Listener {
    pub(crate) fn bind(_h: &super::Host, _options: ListenOptions) -> io::Result<Listener> {
        unimplemented!()
    }
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        unimplemented!()
    }
    pub(crate) fn local_addr(&self) -> SocketAddr {
        unimplemented!()
    }
}
pub(crate) struct Accepted {}
impl Accepted {
    pub(crate) fn peer_addr(&self) -> SocketAddr {
        unimplemented!()
    }
}
pub(crate) struct Stream {}
impl Stream {
    pub(crate) async fn connect(_s: &super::Host, _a: SocketAddr) -> io::Result<Stream> {
        unimplemented!()
    }
    pub(crate) fn adopt(_s: &super::Host, _a: Accepted) -> Stream {
        unimplemented!()
    }
    pub(crate) async fn read_into(&self, _b: &mut BytesMut) -> io::Result<usize> {
        unimplemented!()
    }
    pub(crate) async fn write_all(&self, _p: &mut Vec<Bytes>) -> io::Result<()> {
        unimplemented!()
    }
    pub(crate) fn shutdown(&self) {
        unimplemented!()
    }
    pub(crate) fn peer_addr(&self) -> SocketAddr {
        unimplemented!()
    }
    pub(crate) fn local_addr(&self) -> SocketAddr {
        unimplemented!()
    }
    pub(crate) async fn closed(&self) {
        unimplemented!()
    }
}
