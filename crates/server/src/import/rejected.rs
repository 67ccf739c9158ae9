//! The file of rejected rows: line and reason, never a value, so that it can be sent to whoever made
//! the file without sending people's data along.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

const HEADER: &str = "line,reason\n";

/// Rejected rows so far.
pub struct Rejected {
    path: PathBuf,
    out: BufWriter<File>,
    bytes: u64,
    flushed: u64,
}

/// Where they go unless somebody says otherwise.
pub fn beside(file: &Path) -> PathBuf {
    if file == Path::new("-") {
        return "import.rejected.csv".into();
    }
    let mut name = OsString::from(file);
    name.push(".rejected.csv");
    name.into()
}

impl Rejected {
    /// A new file, or the first `kept` bytes of one that an interrupted import began.
    pub fn open(path: PathBuf, kept: u64) -> anyhow::Result<Rejected> {
        let failed =
            || format!("cannot write rejected rows to {}; choose a place with --rejected", path.display());
        let mut file =
            File::options().create(true).truncate(false).write(true).open(&path).with_context(failed)?;
        let length = file.metadata().with_context(failed)?.len();
        // Shorter: it is gone, or somewhere else; what was rejected before is listed there.
        let kept = if length < kept { 0 } else { kept };
        file.set_len(kept).and_then(|()| file.seek(SeekFrom::Start(kept))).with_context(failed)?;
        let mut rejected = Rejected { path, out: BufWriter::new(file), bytes: kept, flushed: kept };
        if kept == 0 {
            rejected.write(HEADER)?;
        }
        Ok(rejected)
    }

    /// Adds a row.
    pub fn add(&mut self, line: u64, reason: &impl Display) -> anyhow::Result<()> {
        self.write(&format!("{line},\"{reason}\"\n"))
    }

    /// Makes sure of what was added; gives the length.
    pub fn flush(&mut self) -> anyhow::Result<u64> {
        if self.bytes > self.flushed {
            self.out.flush().and_then(|()| self.out.get_ref().sync_data()).with_context(|| self.failed())?;
            self.flushed = self.bytes;
        }
        Ok(self.bytes)
    }

    /// Where they are; nothing, and no file, if there are none.
    pub fn finish(mut self) -> anyhow::Result<Option<PathBuf>> {
        self.flush()?;
        if self.bytes > HEADER.len() as u64 {
            return Ok(Some(self.path));
        }
        std::fs::remove_file(&self.path).with_context(|| self.failed())?;
        Ok(None)
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        self.out.write_all(text.as_bytes()).with_context(|| self.failed())?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    fn failed(&self) -> String {
        format!("cannot write rejected rows to {}", self.path.display())
    }
}
