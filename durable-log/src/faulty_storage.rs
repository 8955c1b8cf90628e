//! A disk in memory that does everything a real one may do, decided by a seed (feature `test-util`).
//!
//! It keeps two states of everything: what the program sees and what a power cut would leave. [`FaultyStorage::crash`]
//! pulls the plug: each 512-byte sector written since the last sync is kept, lost or torn by itself; a size that
//! was not synced may be the old one, the new one or between; a name created, renamed or removed since the last
//! directory sync is old or new by itself. A sync that fails forgets some sectors for good, although reads still
//! show them, as Linux does.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::storage::{Entry, Storage, StorageFile};

const SECTOR_BYTES: usize = 512;

/// Which faults happen; a number is "one in so many calls", 0 is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// A write fails, some of its bytes may be there.
    pub write_error: u64,
    /// A sync of a file or directory fails.
    pub sync_error: u64,
    /// A read fails.
    pub read_error: u64,
    /// A read or write moves fewer bytes than asked.
    pub short: u64,
    /// Bytes that fit on the disk.
    pub capacity: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Faults { write_error: 0, sync_error: 0, read_error: 0, short: 0, capacity: u64::MAX }
    }
}

/// Pulls the plug of several disks at once, after so many calls of them all: the moment of a power cut. Clones are the
/// same fuse.
#[derive(Clone, Debug, Default)]
pub struct Fuse(Arc<FuseState>);

#[derive(Debug)]
struct FuseState {
    /// Calls until it blows; `u64::MAX` is never.
    left: AtomicU64,
    blown: AtomicBool,
}

impl Default for FuseState {
    fn default() -> Self {
        FuseState { left: AtomicU64::new(u64::MAX), blown: AtomicBool::new(false) }
    }
}

impl Fuse {
    /// Lets it blow at the call after so many more.
    pub fn blow_after(&self, calls: u64) {
        self.0.left.store(calls, Ordering::SeqCst);
    }

    /// Blows it now.
    pub fn blow(&self) {
        self.0.blown.store(true, Ordering::SeqCst);
    }

    /// Whether the power is off.
    #[must_use]
    pub fn is_blown(&self) -> bool {
        self.0.blown.load(Ordering::SeqCst)
    }

    fn burn(&self) -> bool {
        let left = self.0.left.load(Ordering::SeqCst);
        match left {
            u64::MAX => {}
            0 => self.blow(),
            _ => self.0.left.store(left - 1, Ordering::SeqCst),
        }
        self.is_blown()
    }
}

/// The disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct FaultyStorage {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug)]
struct Disk {
    random: Random,
    faults: Faults,
    fuse: Fuse,
    /// The plug was pulled: nothing works any more.
    dead: bool,
    locked: bool,
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors of `now` that the next sync will write.
    dirty: BTreeSet<usize>,
}

/// SplitMix64: small, seeded, good enough to choose faults.
#[derive(Clone, Copy, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { usize::try_from(self.next() % end as u64).unwrap_or(0) }
    }

    fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.next().is_multiple_of(n)
    }
}

impl FaultyStorage {
    /// An empty disk without faults.
    #[must_use]
    pub fn new(seed: u64) -> FaultyStorage {
        FaultyStorage::of(Disk {
            random: Random(seed),
            faults: Faults::default(),
            fuse: Fuse::default(),
            dead: false,
            locked: false,
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
        })
    }

    /// From now on these faults happen.
    pub fn set_faults(&self, faults: Faults) {
        self.disk().faults = faults;
    }

    /// From now on this fuse counts its calls and may cut its power.
    pub fn set_fuse(&self, fuse: &Fuse) {
        self.disk().fuse = fuse.clone();
    }

    /// Pulls the plug: this disk is dead, the returned one is what a machine finds when power is back.
    #[must_use]
    pub fn crash(&self) -> FaultyStorage {
        let mut disk = self.disk();
        disk.dead = true;
        let mut random = Random(disk.random.next());
        let files = disk.files.iter().map(|file| file.crashed(&mut random)).collect();
        let all: BTreeSet<&String> = disk.names.keys().chain(disk.durable_names.keys()).collect();
        let mut names = BTreeMap::new();
        for name in all {
            let states = [disk.names.get(name), disk.durable_names.get(name)];
            if let Some(&file) = states[random.below(2)] {
                names.insert(name.clone(), file);
            }
        }
        FaultyStorage::of(Disk {
            random,
            faults: Faults::default(),
            fuse: Fuse::default(),
            dead: false,
            locked: false,
            files,
            durable_names: names.clone(),
            names,
        })
    }

    /// The bytes of a file as the program sees them.
    #[must_use]
    pub fn bytes_of(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.names.get(name).map(|&file| disk.files[file].now.clone())
    }

    /// Replaces a file, durably: for tests that damage one.
    pub fn replace(&self, name: &str, bytes: Vec<u8>) {
        let mut disk = self.disk();
        disk.files.push(Content { durable: bytes.clone(), now: bytes, dirty: BTreeSet::new() });
        let file = disk.files.len() - 1;
        disk.names.insert(name.to_owned(), file);
        disk.durable_names.insert(name.to_owned(), file);
    }

    /// An independent disk with what the program sees now, all of it durable.
    #[must_use]
    pub fn copy(&self) -> FaultyStorage {
        let disk = self.disk();
        let copy = FaultyStorage::new(disk.random.0);
        for (name, &file) in &disk.names {
            copy.replace(name, disk.files[file].now.clone());
        }
        copy
    }

    /// All names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.disk().names.keys().cloned().collect()
    }

    fn of(disk: Disk) -> FaultyStorage {
        FaultyStorage { disk: Arc::new(Mutex::new(disk)) }
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn living(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk();
        if disk.dead || disk.fuse.burn() { Err(io::Error::other("the power is off")) } else { Ok(disk) }
    }

    fn file(&self, file: usize) -> Arc<dyn StorageFile> {
        Arc::new(FaultyFile { storage: self.clone(), file })
    }
}

impl Disk {
    fn used(&self) -> u64 {
        self.names.values().map(|&file| self.files[file].now.len() as u64).sum()
    }

    fn named(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// How many of `bytes` are moved now.
    fn shortened(&mut self, bytes: usize) -> usize {
        if self.random.one_in(self.faults.short) { 1 + self.random.below(bytes.max(1)) } else { bytes }
            .min(bytes)
    }
}

impl Content {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.now.len() < end {
            self.now.resize(end, 0);
        }
        self.now[offset..end].copy_from_slice(bytes);
        self.dirty.extend(sectors(offset, end));
    }

    fn sector_now(&self, sector: usize) -> Vec<u8> {
        let mut bytes = vec![0; SECTOR_BYTES];
        let from = (sector * SECTOR_BYTES).min(self.now.len());
        let to = (from + SECTOR_BYTES).min(self.now.len());
        bytes[..to - from].copy_from_slice(&self.now[from..to]);
        bytes
    }

    fn sync(&mut self) {
        self.durable.resize(self.now.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let bytes = self.sector_now(sector);
            put_sector(&mut self.durable, sector, &bytes, SECTOR_BYTES);
        }
    }

    /// A failed sync: what was not written is forgotten, not kept for the next one.
    fn sync_fails(&mut self, random: &mut Random) {
        let kept: Vec<usize> = self.dirty.iter().copied().filter(|_| random.one_in(2)).collect();
        for sector in kept {
            let bytes = self.sector_now(sector);
            let reach = ((sector + 1) * SECTOR_BYTES).min(self.now.len());
            if self.durable.len() < reach {
                self.durable.resize(reach, 0);
            }
            put_sector(&mut self.durable, sector, &bytes, SECTOR_BYTES);
        }
        self.dirty.clear();
    }

    fn crashed(&self, random: &mut Random) -> Content {
        let (old, new) = (self.durable.len(), self.now.len());
        let between = old.min(new) + random.below(old.abs_diff(new) + 1);
        let length = [old, new, between][random.below(3)];
        let mut left = self.durable.clone();
        left.resize(old.max(new), 0);
        for &sector in &self.dirty {
            let bytes = self.sector_now(sector);
            match random.below(5) {
                0 | 1 => put_sector(&mut left, sector, &bytes, SECTOR_BYTES),
                2 => put_sector(&mut left, sector, &bytes, random.below(SECTOR_BYTES)),
                _ => {}
            }
        }
        left.truncate(length);
        Content { now: left.clone(), durable: left, dirty: BTreeSet::new() }
    }
}

fn sectors(from: usize, to: usize) -> std::ops::Range<usize> {
    from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES)
}

/// Puts the first `bytes_max` bytes of a sector in place, as far as `image` reaches.
fn put_sector(image: &mut [u8], sector: usize, bytes: &[u8], bytes_max: usize) {
    let from = (sector * SECTOR_BYTES).min(image.len());
    let to = (from + bytes_max).min(image.len());
    image[from..to].copy_from_slice(&bytes[..to - from]);
}

impl Storage for FaultyStorage {
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/faulty").join(name)
    }

    fn list(&self) -> io::Result<Vec<Entry>> {
        let disk = self.living()?;
        let entry = |(name, &file): (&String, &usize)| Entry {
            name: name.clone(),
            bytes: disk.files[file].now.len() as u64,
        };
        Ok(disk.names.iter().map(entry).collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let mut disk = self.living()?;
        disk.files.push(Content::default());
        let file = disk.files.len() - 1;
        disk.names.insert(name.to_owned(), file);
        Ok(self.file(file))
    }

    fn open(&self, name: &str, _writable: bool) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.living()?.named(name)?;
        Ok(self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.living()?;
        let file = disk.named(from)?;
        disk.names.remove(from);
        disk.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.living()?;
        disk.named(name)?;
        disk.names.remove(name);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = self.living()?;
        let fault = disk.faults.sync_error;
        if disk.random.one_in(fault) {
            return Err(eio());
        }
        disk.durable_names = disk.names.clone();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let disk = self.living()?;
        Ok(disk.faults.capacity.saturating_sub(disk.used()))
    }

    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut disk = self.living()?;
        if std::mem::replace(&mut disk.locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Guard(self.clone())))
    }

    fn lock_owner(&self) -> Option<u32> {
        None
    }
}

struct Guard(FaultyStorage);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.disk().locked = false;
    }
}

#[derive(Debug)]
struct FaultyFile {
    storage: FaultyStorage,
    file: usize,
}

impl StorageFile for FaultyFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.storage.living()?;
        let fault = disk.faults.read_error;
        if disk.random.one_in(fault) {
            return Err(eio());
        }
        let wanted = disk.shortened(into.len());
        let bytes = &disk.files[self.file].now;
        let from = usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
        let to = (from + wanted).min(bytes.len());
        into[..to - from].copy_from_slice(&bytes[from..to]);
        Ok(to - from)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.storage.living()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let fault = disk.faults.write_error;
        if disk.random.one_in(fault) {
            let some = disk.random.below(bytes.len());
            disk.files[self.file].write(&bytes[..some], offset);
            return Err(eio());
        }
        let grows = (offset + bytes.len()).saturating_sub(disk.files[self.file].now.len());
        let free = usize::try_from(disk.faults.capacity.saturating_sub(disk.used())).unwrap_or(usize::MAX);
        let fits = bytes.len() - grows.saturating_sub(free).min(bytes.len());
        if fits == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let some = disk.shortened(fits);
        disk.files[self.file].write(&bytes[..some], offset);
        Ok(some)
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.storage.living()?;
        let disk = &mut *disk;
        if disk.random.one_in(disk.faults.sync_error) {
            disk.files[self.file].sync_fails(&mut disk.random);
            return Err(eio());
        }
        disk.files[self.file].sync();
        Ok(())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.storage.living()?;
        let file = &mut disk.files[self.file];
        let length = usize::try_from(bytes).map_err(io::Error::other)?;
        let touched = sectors(length.min(file.now.len()), length.max(file.now.len()));
        file.now.resize(length, 0);
        file.dirty.extend(touched);
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.storage.living()?.files[self.file].now.len() as u64)
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}
