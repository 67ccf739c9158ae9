//! Small files that must be whole or absent, and hex.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;

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
