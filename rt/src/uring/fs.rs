//! skeleton
use crate::{local::oneshot, Buf, DirEntry, FileOptions, Shard, Space};
use bytes::Bytes;
use std::{any::Any, future::Future, io, path::Path, rc::Rc};

#[derive(Clone)]
pub(crate) struct Dir {}
impl Dir {
    pub(crate) async fn open(_shard: &Shard, _path: &Path) -> io::Result<Dir> {
        unimplemented!()
    }
    pub(crate) async fn create(_shard: &Shard, _path: &Path) -> io::Result<Dir> {
        unimplemented!()
    }
    pub(crate) async fn file(&self, _p: &Path, _o: FileOptions, _create: bool) -> io::Result<File> {
        unimplemented!()
    }
    pub(crate) async fn open_subdir(&self, _p: &Path) -> io::Result<Dir> {
        unimplemented!()
    }
    pub(crate) async fn create_subdir(&self, _p: &Path) -> io::Result<Dir> {
        unimplemented!()
    }
    pub(crate) async fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        unimplemented!()
    }
    pub(crate) async fn unlink(&self, _p: &Path) -> io::Result<()> {
        unimplemented!()
    }
    pub(crate) async fn remove_subdir_all(&self, _p: &Path) -> io::Result<()> {
        unimplemented!()
    }
    pub(crate) async fn list(&self) -> io::Result<Vec<DirEntry>> {
        unimplemented!()
    }
    pub(crate) async fn sync(&self) -> io::Result<()> {
        unimplemented!()
    }
    pub(crate) async fn read(&self, _p: &Path) -> io::Result<Bytes> {
        unimplemented!()
    }
    pub(crate) async fn write_new(&self, _p: &Path, _c: &[u8]) -> io::Result<()> {
        unimplemented!()
    }
    pub(crate) async fn exists(&self, _p: &Path) -> io::Result<bool> {
        unimplemented!()
    }
    pub(crate) async fn space(&self) -> io::Result<Space> {
        unimplemented!()
    }
    pub(crate) async fn lock(&self, _p: &Path, _o: &str) -> io::Result<Box<dyn Any>> {
        unimplemented!()
    }
    pub(crate) async fn map(&self, _p: &Path) -> io::Result<memmap2::Mmap> {
        unimplemented!()
    }
}
pub(crate) struct WriteAnswer(oneshot::Receiver<io::Result<Buf>>);
impl Future for WriteAnswer {
    type Output = io::Result<Buf>;
    fn poll(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        unimplemented!()
    }
}
#[derive(Clone)]
pub(crate) struct File(#[allow(dead_code)] Rc<()>);
impl File {
    pub(crate) fn write_at(&self, _b: Buf, _p: u64) -> oneshot::Receiver<io::Result<Buf>> {
        unimplemented!()
    }
    pub(crate) async fn read_at(&self, _p: u64, _len: usize) -> io::Result<Bytes> {
        unimplemented!()
    }
    pub(crate) async fn sync(&self) -> io::Result<()> {
        unimplemented!()
    }
    pub(crate) async fn size(&self) -> io::Result<u64> {
        unimplemented!()
    }
    pub(crate) async fn set_len(&self, _l: u64) -> io::Result<()> {
        unimplemented!()
    }
}
