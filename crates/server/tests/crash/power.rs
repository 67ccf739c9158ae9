//! A power cut: the server runs with `powercut.c` preloaded, which keeps what unsynced writes replaced;
//! after the kill some of them are taken back.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::load::Dice;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

pub struct PowerCut {
    data: PathBuf,
    kept: PathBuf,
}

/// What a write replaced, and how long the file was before it.
struct Undo {
    offset: u64,
    before: Vec<u8>,
    length: u64,
}

impl PowerCut {
    /// Whether there is a C compiler; if not, that is said.
    pub fn is_possible() -> bool {
        let found = Command::new("cc").arg("--version").output().is_ok_and(|output| output.status.success());
        if !found {
            assert!(std::env::var_os("CARD4E_REQUIRE_ALL").is_none(), "cc is missing: install gcc");
            eprintln!("\nSKIPPED: POWER CUTS NEED A C COMPILER: install gcc\n");
        }
        found
    }

    pub fn new(data: &Path, kept: &Path) -> PowerCut {
        std::fs::create_dir(kept).unwrap();
        PowerCut { data: data.to_owned(), kept: kept.to_owned() }
    }

    /// What goes in front of the server's command.
    pub fn command(&self) -> Vec<String> {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        vec![
            "env".into(),
            format!("LD_PRELOAD={}", path(library())),
            format!("CARD4E_POWERCUT_DATA={}", path(&self.data)),
            format!("CARD4E_POWERCUT_KEPT={}", path(&self.kept)),
        ]
    }

    /// From now on nothing is synced, although the disk says so.
    pub fn lie(&self) {
        File::create(self.kept.join("lie")).unwrap();
    }

    /// Takes back some of what was never synced. To be called when the server is dead.
    pub fn lose_unsynced(&self, dice: &mut Dice) {
        let mut names: Vec<PathBuf> =
            std::fs::read_dir(&self.kept).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for undo in names.iter().filter(|path| path.extension().is_some_and(|is| is == "undo")) {
            let file = File::options().read(true).write(true).open(undo.with_extension("file")).unwrap();
            let writes = read_undo(&std::fs::read(undo).unwrap());
            if dice.next().is_multiple_of(2) {
                lose_last(&file, &writes, dice);
            } else {
                lose_any(&file, &writes, dice);
            }
        }
        self.lose_names(dice);
        for path in names.iter().filter(|path| !path.ends_with("lie")) {
            std::fs::remove_file(path).unwrap();
        }
        // It is never synced and never needed: a start builds it anew.
        for entry in std::fs::read_dir(&self.data).unwrap() {
            let path = entry.unwrap().path();
            if path.to_str().unwrap().ends_with("-shm") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }

    /// Names are made, moved and removed in the order of the file system's journal: the last of them are lost.
    fn lose_names(&self, dice: &mut Dice) {
        let notes = std::fs::read_to_string(self.kept.join("names")).unwrap_or_default();
        let notes: Vec<&str> = notes.lines().collect();
        let kept = dice.next() as usize % (notes.len() + 1);
        for note in notes[kept..].iter().rev() {
            // A note of what was then not done leaves nothing to undo.
            let words: Vec<&str> = note.split(' ').collect();
            let _ = match words[..] {
                ["made", path] => std::fs::remove_file(path),
                ["moved", from, to, saved] => {
                    std::fs::rename(to, from).and_then(|()| std::fs::hard_link(self.kept.join(saved), to))
                }
                ["gone", path, saved] => std::fs::hard_link(self.kept.join(saved), path),
                _ => panic!("a note of names: {note}"),
            };
        }
    }
}

/// The library, made once a run.
fn library() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("powercut.so");
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/powercut.c");
        let cc = Command::new("cc")
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
            .args([&to, &from])
            .args(["-ldl", "-lpthread"])
            .status();
        assert!(cc.unwrap().success(), "powercut.c does not compile");
        to
    })
}

/// Records as `powercut.c` writes them; the last may be cut short, and its write was then not done.
fn read_undo(mut bytes: &[u8]) -> Vec<Undo> {
    let mut writes = Vec::new();
    let number = |bytes: &[u8], at: usize| u64::from_ne_bytes(bytes[at * 8..][..8].try_into().unwrap());
    while bytes.len() >= 24 {
        let (offset, before, length) = (number(bytes, 0), number(bytes, 1) as usize, number(bytes, 2));
        let Some(old) = bytes.get(24..24 + before) else { break };
        writes.push(Undo { offset, before: old.to_vec(), length });
        bytes = &bytes[24 + before..];
    }
    writes
}

/// The disk did what it was told in its order, up to some point; the first write lost is there in part.
fn lose_last(file: &File, writes: &[Undo], dice: &mut Dice) {
    let kept = dice.next() as usize % (writes.len() + 1);
    for (at, write) in writes.iter().enumerate().skip(kept).rev() {
        let sectors = write.before.len() / SECTOR + 1;
        let torn = if at == kept { dice.next() as usize % sectors * SECTOR } else { 0 };
        file.write_all_at(&write.before[torn..], write.offset + torn as u64).unwrap();
        if torn == 0 {
            file.set_len(write.length).unwrap();
        }
    }
}

/// The disk did what it was told in any order: each sector is as it is now or as it was last synced.
fn lose_any(file: &File, writes: &[Undo], dice: &mut Dice) {
    if writes.is_empty() {
        return;
    }
    let mut now = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut now, 0).unwrap();
    let mut synced = now.clone();
    for write in writes.iter().rev() {
        let end = write.offset as usize + write.before.len();
        synced.resize(synced.len().max(end), 0);
        synced[write.offset as usize..end].copy_from_slice(&write.before);
        synced.resize(write.length as usize, 0);
    }
    let length = if dice.next().is_multiple_of(2) { now.len() } else { synced.len() };
    now.resize(length, 0);
    synced.resize(length, 0);
    for (at, (sector, before)) in now.chunks(SECTOR).zip(synced.chunks(SECTOR)).enumerate() {
        if sector != before && dice.next().is_multiple_of(2) {
            file.write_all_at(before, (at * SECTOR) as u64).unwrap();
        }
    }
    file.set_len(length as u64).unwrap();
}
