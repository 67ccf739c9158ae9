//! Small files that must be whole or absent, large ones that go to the disk as they are written, and hex.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Replaces a file so that after a crash the old or the new content is there, never a part.
///
/// Readable by its owner only: what is kept this way are keys.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = path.with_extension("next");
    let mut file = private(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&next, path)?;
    sync_folder_of(path)
}

/// Makes durable what was made, renamed or removed in the folder of a file.
pub fn sync_folder_of(path: &Path) -> io::Result<()> {
    // A relative path of one part has an empty parent.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Makes a file that its owner alone may open; one that is there is emptied.
pub fn private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// The same, locked for as long as it is open; `None` when another process or thread has it: nobody writes into what
/// somebody else is about to rename.
pub fn private_alone(path: &Path) -> io::Result<Option<File>> {
    use std::os::unix::fs::MetadataExt;
    loop {
        let file = private_to_go_on(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(cause)) => return Err(cause),
        }
        // Whoever had it may have renamed or removed it before it was locked here.
        let is_there = std::fs::metadata(path).is_ok_and(|there| {
            file.metadata().is_ok_and(|held| (held.dev(), held.ino()) == (there.dev(), there.ino()))
        });
        if is_there {
            file.set_len(0)?;
            return Ok(Some(file));
        }
    }
}

/// The same, to be gone on with: what is there stays.
pub fn private_to_go_on(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// So much of a large file goes to the disk at once.
const PIECE_BYTES: usize = 1 << 20;

/// A large file that is written from its beginning, or a place in it, to its end, and goes to the disk meanwhile: who makes
/// another file durable on the same disk then waits for a piece of it, not for all. Buffers what is written.
pub struct Paced {
    file: File,
    buffer: Vec<u8>,
    /// Nothing once they have ended.
    pieces: Option<SyncSender<()>>,
    syncing: Option<JoinHandle<io::Result<()>>>,
}

impl Paced {
    /// Goes on where the file is.
    pub fn new(file: File) -> io::Result<Paced> {
        let (pieces, written) = sync_channel(1);
        let synced = file.try_clone()?;
        let sync = move || written.iter().try_for_each(|()| synced.sync_data());
        let syncing = std::thread::Builder::new().name("sync".into()).spawn(sync)?;
        let buffer = Vec::with_capacity(PIECE_BYTES);
        Ok(Paced { file, buffer, pieces: Some(pieces), syncing: Some(syncing) })
    }

    /// Makes sure of all of it.
    pub fn finish(&mut self) -> io::Result<&mut File> {
        self.flush()?;
        self.end()?;
        self.file.sync_data()?;
        Ok(&mut self.file)
    }

    /// Waits for the pieces that are on their way.
    fn end(&mut self) -> io::Result<()> {
        self.pieces = None;
        let synced = self.syncing.take().map(|syncing| syncing.join());
        synced
            .unwrap_or(Ok(Ok(())))
            .unwrap_or_else(|_| Err(io::Error::other("the thread that syncs has ended")))
    }
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > PIECE_BYTES {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        // Waits where the disk does not come along.
        match self.pieces.as_ref().is_some_and(|pieces| pieces.send(()).is_err()) {
            true => self.end(),
            false => Ok(()),
        }
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        // The file stays locked for as long as it is open anywhere.
        let _ = self.end();
    }
}

/// Makes a folder that only its owner may look into; one that is there is left as it is.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    bytes.iter().for_each(|byte| text.extend(hex_digits(*byte).map(char::from)));
    text
}

/// The two digits of a byte, in lower case.
pub fn hex_digits(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// Bytes of lower- or upper-case hex; `None` for anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let nibble = |digit: u8| (digit as char).to_digit(16).map(|value| value as u8);
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}

/// Overwrites a file with zeros, so that what it held is not left in free blocks.
///
/// As far as the file system writes in place; copy-on-write file systems keep the old blocks.
pub fn overwrite(path: &Path) -> io::Result<()> {
    let length = std::fs::metadata(path)?.len();
    let mut file = File::options().write(true).open(path)?;
    io::copy(&mut io::repeat(0).take(length), &mut file)?;
    file.sync_all()
}
