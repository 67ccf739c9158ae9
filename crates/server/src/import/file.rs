//! The file that is imported: what it is, by its first bytes, and its rows.
//!
//! A line is a row and a row is a line: quotes are taken off a value, but a value contains neither
//! comma nor line end. So a quote too many spoils one row and not the rest of the file, and a line
//! number is where it says.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use anyhow::{Context, bail, ensure};
use engine::vault::{Wiped, wipe};
use sha2::{Digest, Sha256};

use super::parquet_file::ParquetRows;
use super::{Encoding, Reason, Unusable};

/// The columns; the last two may be missing.
pub const COLUMNS: [&str; 8] =
    ["bank_card", "name", "id_type", "id_number", "phone", "status", "op", "id_validity"];
pub const CARD: usize = 0;
pub const NAME: usize = 1;
pub const KIND: usize = 2;
pub const ID: usize = 3;
pub const MOBILE: usize = 4;
pub const STATE: usize = 5;
pub const OP: usize = 6;
pub const VALIDITY: usize = 7;

/// So much of the file tells what it is, and which.
const HEAD_BYTES: u64 = 1 << 20;
/// A longer line is none of an accounts file.
const LINE_BYTES_MAX: usize = 64 << 10;
const TOO_LONG: &str = "a line is longer than 64 KiB; is this a CSV file?";
/// Read at once.
const BUFFER_BYTES: usize = 1 << 20;
/// Read at once into a block: as much as stays near until its lines are found.
const READ_BYTES: usize = 128 << 10;
/// Lines that a block is made for; it may have more.
const BLOCK_LINES: usize = 16_384;
/// A block ends with the line in which it becomes so long.
const BLOCK_BYTES_MAX: usize = 64 << 20;

/// A file that is being read.
pub struct Input {
    /// Tells it from other files; standard input cannot be told.
    pub identity: Option<[u8; 32]>,
    format: Format,
    size: Option<u64>,
    is_gzip: bool,
    done: Done,
}

enum Format {
    Csv(Box<CsvRows>),
    Parquet(Box<ParquetRows>),
}

/// How much of the file is read, in what [`Input::size`] counts.
#[derive(Clone, Default)]
pub struct Done(Arc<AtomicU64>);

impl Done {
    /// So much.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// So much more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}

impl Input {
    /// Opens a file, or standard input, and finds out what it is.
    pub fn open(path: &Path, encoding: Encoding) -> anyhow::Result<Input> {
        let done = Done::default();
        let (raw, head, size) = opened(path)?;
        let is_standard_input = path == Path::new("-");
        let identity = if is_standard_input { None } else { Some(identity(path, &head)?) };
        if is_parquet(path, &head)? {
            let rows = ParquetRows::open(File::open(path)?, done.clone())?;
            return Ok(Input {
                identity,
                size: Some(rows.count()),
                is_gzip: false,
                format: Format::Parquet(Box::new(rows)),
                done,
            });
        }
        let is_gzip = is_gzip(&head);
        let rows = CsvRows::open(unpacked(raw, head, &done)?, encoding)?;
        Ok(Input { identity, size, is_gzip, format: Format::Csv(Box::new(rows)), done })
    }

    /// How much there is, if that is known.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// How many rows there are about, as far as the size of the file tells; 0 where it has none.
    pub fn rows_about(&self) -> u64 {
        let size = self.size.unwrap_or(0);
        match &self.format {
            Format::Parquet(_) => size,
            Format::Csv(_) if self.is_gzip => size / 25,
            Format::Csv(_) => size / 80,
        }
    }

    /// How much of it is read.
    pub fn done(&self) -> Done {
        self.done.clone()
    }

    /// Leaves rows out that were imported before.
    pub fn skip(&mut self, mut rows: u64) -> anyhow::Result<()> {
        while rows > 0 {
            let mut left_out = Rows::default();
            self.read(&mut left_out, rows.min(4096) as usize)?;
            ensure!(
                !left_out.is_empty(),
                "the file has fewer rows than were imported from it; use --from-start"
            );
            rows -= left_out.len() as u64;
        }
        Ok(())
    }

    /// Reads so many rows, or as many as there are; none at the end.
    pub fn read(&mut self, rows: &mut Rows, at_most: usize) -> anyhow::Result<()> {
        match &mut self.format {
            Format::Csv(csv) => csv.read(rows, at_most),
            Format::Parquet(parquet) => parquet.read(rows, at_most),
        }
    }
}

/// What is read, byte by byte.
pub type Raw = Box<dyn Read + Send>;

/// A file, or standard input, behind its first bytes, which are given too; and its size, if that is known.
pub fn opened(path: &Path) -> anyhow::Result<(Raw, Vec<u8>, Option<u64>)> {
    let (mut raw, size): (Raw, _) = if path == Path::new("-") {
        (Box::new(io::stdin()), None)
    } else {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let size = file.metadata()?.len();
        (Box::new(file), Some(size))
    };
    let mut head = Vec::new();
    raw.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok((raw, head, size))
}

/// Whether these are the first bytes of a Parquet file.
pub fn is_parquet(path: &Path, head: &[u8]) -> anyhow::Result<bool> {
    let is_parquet = head.starts_with(b"PAR1");
    let unseekable = "Parquet cannot be read from standard input, its index is at the end; name the file";
    ensure!(!is_parquet || path != Path::new("-"), unseekable);
    Ok(is_parquet)
}

/// The text of a CSV file, from its beginning, gzipped or not.
pub fn unpacked(raw: Raw, head: Vec<u8>, done: &Done) -> anyhow::Result<Raw> {
    let (is_gzip, is_zip) = (is_gzip(&head), head.starts_with(b"PK\x03\x04"));
    let raw = Counted { inner: Cursor::new(head).chain(raw), done: done.clone() };
    if is_zip {
        bail!(Unusable(
            "this is a ZIP archive or an Excel workbook; unpack it, or save it as CSV (UTF-8)".into()
        ));
    }
    Ok(match is_gzip {
        true => Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::with_capacity(1 << 18, raw))),
        false => Box::new(raw),
    })
}

/// Whether these are the first bytes of a gzipped file.
pub fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(&[0x1f, 0x8b])
}

/// Size, time of the last change and the first MiB; enough to know a file again, and quick.
fn identity(path: &Path, head: &[u8]) -> anyhow::Result<[u8; 32]> {
    let metadata = std::fs::metadata(path)?;
    let changed = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update(metadata.len().to_be_bytes());
    hash.update(changed.as_nanos().to_be_bytes());
    hash.update(head);
    Ok(hash.finalize().into())
}

struct Counted<R> {
    inner: R,
    done: Done,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.done.add(read as u64);
        Ok(read)
    }
}

/// Lines of a CSV file.
///
/// Read by hand, because a line is a row here: a CSV reader that honours quotes would let one stray
/// quote swallow the rest of the file, and without quotes there is nothing left but to split.
pub struct Lines {
    text: Raw,
    /// What was read last, wiped in the end.
    buffer: Vec<u8>,
    /// Of it, what no line was made of yet.
    rest: Range<usize>,
    /// Of it, the last line, without its end.
    line: Range<usize>,
    /// Its number, from 1.
    pub number: u64,
    /// How many bytes were read up to its end.
    pub bytes: u64,
    /// Room that the next block will need.
    block_bytes: usize,
}

impl Drop for Lines {
    fn drop(&mut self) {
        wipe(&mut self.buffer);
    }
}

impl Lines {
    /// Leaves a byte order mark out, and looks whether the text can be in that encoding.
    pub fn open(mut text: Raw, encoding: Encoding) -> anyhow::Result<Lines> {
        let mut head = Vec::new();
        text.by_ref().take(HEAD_BYTES).read_to_end(&mut head)?;
        if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
            bail!(Unusable("the file is UTF-16; save it as \"CSV UTF-8\"".into()));
        }
        if encoding == Encoding::Utf8 && std::str::from_utf8(&head).is_err_and(|e| e.error_len().is_some()) {
            bail!(Unusable(
                "the file is not UTF-8; if it is GBK, as Excel in Chinese writes it, add --encoding gbk, \
                 or convert it: iconv -f GB18030 -t UTF-8"
                    .into()
            ));
        }
        let mark = if head.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let mut all = Cursor::new(head);
        all.set_position(mark);
        let text: Raw = Box::new(all.chain(text));
        let buffer = vec![0; BUFFER_BYTES];
        Ok(Lines { text, buffer, rest: 0..0, line: 0..0, number: 0, bytes: mark, block_bytes: BUFFER_BYTES })
    }

    /// The last line read, without its end.
    pub fn line(&self) -> &[u8] {
        &self.buffer[self.line.clone()]
    }

    /// The next line that is neither empty nor a comment; `false` at the end.
    pub fn next_line(&mut self) -> anyhow::Result<bool> {
        loop {
            let rest = &self.buffer[self.rest.clone()];
            let length = match memchr::memchr(b'\n', rest) {
                Some(end) => end + 1,
                None if rest.len() <= LINE_BYTES_MAX && self.read_on()? => continue,
                None if self.rest.is_empty() => return Ok(false),
                None => self.rest.len(),
            };
            ensure!(length <= LINE_BYTES_MAX, TOO_LONG);
            self.number += 1;
            self.bytes += length as u64;
            let start = self.rest.start;
            self.rest.start += length;
            self.line = without_end(&self.buffer, start..self.rest.start);
            if !self.line.is_empty() && self.buffer[start] != b'#' {
                return Ok(true);
            }
        }
    }

    /// The next lines that are neither empty nor comments, at most so many and 64 MiB, in memory of their own, so
    /// that another thread can make rows of them; none at the end.
    pub fn block(&mut self, at_most: usize) -> anyhow::Result<Block> {
        let mut text = Wiped(vec![0; self.block_bytes.max(self.rest.len())]);
        let mut lines = Vec::with_capacity(at_most.min(BLOCK_LINES));
        let before = self.number;
        let mut filled = self.rest.len();
        text.0[..filled].copy_from_slice(&self.buffer[self.rest.clone()]);
        self.rest = 0..0;
        // The line that is looked at begins at `start`, and has no end before `seen`.
        let (mut start, mut seen) = (0, 0);
        while lines.len() < at_most {
            if start >= BLOCK_BYTES_MAX {
                if !lines.is_empty() {
                    break;
                }
                // Only comments: they are not kept.
                text.0.copy_within(start..filled, 0);
                self.bytes += start as u64;
                (filled, start, seen) = (filled - start, 0, 0);
            }
            let end = match memchr::memchr(b'\n', &text.0[seen..filled]) {
                Some(end) => seen + end + 1,
                None => {
                    seen = filled;
                    ensure!(seen - start <= LINE_BYTES_MAX, TOO_LONG);
                    filled += read_behind(&mut self.text, &mut text, filled)?;
                    if filled > seen {
                        continue;
                    }
                    if start == filled {
                        break;
                    }
                    filled
                }
            };
            ensure!(end - start <= LINE_BYTES_MAX, TOO_LONG);
            self.number += 1;
            let line = start..without_end(&text.0, start..end).end;
            if !line.is_empty() && text.0[start] != b'#' {
                let number = (self.number - before) as u32;
                lines.push(Line { start: line.start as u32, end: line.end as u32, number });
            }
            (start, seen) = (end, end);
        }
        self.bytes += start as u64;
        self.keep_for_later(&text.0[start..filled]);
        // As much as these, and some more.
        self.block_bytes = filled + filled / 8 + READ_BYTES;
        Ok(Block { text: Arc::new(text), lines, before })
    }

    fn keep_for_later(&mut self, rest: &[u8]) {
        if self.buffer.len() < rest.len() {
            wipe(&mut std::mem::replace(&mut self.buffer, vec![0; rest.len()]));
        }
        self.buffer[..rest.len()].copy_from_slice(rest);
        (self.rest, self.line) = (0..rest.len(), 0..0);
    }

    /// Reads some more behind the rest; `false` at the end.
    fn read_on(&mut self) -> anyhow::Result<bool> {
        self.buffer.copy_within(self.rest.clone(), 0);
        self.rest = 0..self.rest.len();
        let read = read_some(&mut self.text, &mut self.buffer[self.rest.end..])?;
        self.rest.end += read;
        Ok(read > 0)
    }

    /// The values of the last line, which is the header.
    pub fn names(&self) -> Vec<String> {
        let fields = self.line().split(|byte| *byte == b',');
        fields.map(|name| String::from_utf8_lossy(unquoted(name)).trim().to_owned()).collect()
    }
}

/// Lines that follow one another, in one piece of memory.
pub struct Block {
    /// What they stand in.
    pub text: Arc<Wiped>,
    lines: Vec<Line>,
    /// How many lines there are in the file before them.
    before: u64,
}

/// Where a line is, without its end, and which it is in its block, from 1.
struct Line {
    start: u32,
    end: u32,
    number: u32,
}

impl Block {
    /// How many lines it has.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// The lines: the number of each in its file, from 1, and where it is in the text.
    pub fn lines(&self) -> impl Iterator<Item = (u64, Range<usize>)> {
        self.lines
            .iter()
            .map(|line| (self.before + u64::from(line.number), line.start as usize..line.end as usize))
    }
}

fn read_some(from: &mut Raw, to: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(to) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Reads some more behind what is there, and makes room for it.
fn read_behind(from: &mut Raw, text: &mut Wiped, filled: usize) -> io::Result<usize> {
    if text.0.len() - filled < READ_BYTES {
        let mut more = vec![0; 2 * text.0.len() + READ_BYTES];
        more[..filled].copy_from_slice(&text.0[..filled]);
        wipe(&mut std::mem::replace(&mut text.0, more));
    }
    read_some(from, &mut text.0[filled..filled + READ_BYTES])
}

/// A line without its end.
fn without_end(text: &[u8], line: Range<usize>) -> Range<usize> {
    let mut end = line.end;
    while end > line.start && matches!(text[end - 1], b'\n' | b'\r') {
        end -= 1;
    }
    line.start..end
}

/// Puts where each value of a line ends into `ends`, as far as there is room; how many values there are.
///
/// Values are short: eight bytes at a time are looked at without asking, for each of them, how to look.
pub fn ends_of(line: &[u8], ends: &mut [usize]) -> usize {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let mut count = 0;
    let mut put = |end| {
        if let Some(place) = ends.get_mut(count) {
            *place = end;
        }
        count += 1;
    };
    let (words, rest) = line.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let differs = u64::from_le_bytes(*word) ^ u64::from_ne_bytes([b','; 8]);
        // The highest bit of each byte that does not differ.
        let mut commas = !(((differs & LOW) + LOW) | differs | LOW);
        while commas != 0 {
            put(8 * at + commas.trailing_zeros() as usize / 8);
            commas &= commas - 1;
        }
    }
    let behind = 8 * words.len();
    rest.iter().enumerate().filter(|(_, byte)| **byte == b',').for_each(|(at, _)| put(behind + at));
    put(line.len());
    count
}

/// Rows of a CSV file.
struct CsvRows {
    lines: Lines,
    /// For each of our columns, which of the file's it is.
    places: [Option<usize>; COLUMNS.len()],
    columns: usize,
    encoding: Encoding,
}

impl CsvRows {
    fn open(text: Raw, encoding: Encoding) -> anyhow::Result<CsvRows> {
        let mut lines = Lines::open(text, encoding)?;
        let names = if lines.next_line()? { lines.names() } else { Vec::new() };
        Ok(CsvRows { lines, places: places(&names)?, columns: names.len(), encoding })
    }

    fn read(&mut self, rows: &mut Rows, at_most: usize) -> anyhow::Result<()> {
        let mut fields = Vec::with_capacity(self.columns);
        while rows.len() < at_most && self.lines.next_line()? {
            let line = self.lines.line();
            fields.clear();
            fields.extend(fields_of(line));
            let wrong = (fields.len() != self.columns).then_some((fields.len(), self.columns));
            let values = self.places.map(|place| place.and_then(|place| fields.get(place)));
            rows.push(
                self.lines.number,
                values.map(|value| value.map_or(&[][..], |value| unquoted(&line[value.clone()]))),
                wrong,
                self.encoding,
            );
        }
        Ok(())
    }
}

/// Where the values of a line are.
pub fn fields_of(line: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    memchr::memchr_iter(b',', line).chain([line.len()]).map(move |end| {
        let field = start..end;
        start = end + 1;
        field
    })
}

/// A value without the quotes around it.
pub fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// Where our columns are among those of a file.
pub fn places(names: &[String]) -> Result<[Option<usize>; COLUMNS.len()], Unusable> {
    let wanted =
        "the columns are bank_card,name,id_type,id_number,phone,status and, if wanted, op and id_validity";
    if let [all] = names
        && let Some(other) = [';', '\t', '|'].into_iter().find(|other| all.contains(*other))
    {
        return Err(Unusable(format!("the columns are separated by {other:?}; write commas ({wanted})")));
    }
    if let Some(unknown) = names.iter().find(|name| !COLUMNS.contains(&name.as_str())) {
        // A first line without header would show somebody's card.
        let named = if unknown.chars().all(|c| c.is_ascii_alphabetic() || c == '_') && !unknown.is_empty() {
            format!("the column `{unknown}` is not known")
        } else {
            "the first line is not a header".to_owned()
        };
        return Err(Unusable(format!("{named}; {wanted}")));
    }
    let place = |column: &str| names.iter().position(|name| name == column);
    if let Some(missing) = COLUMNS[..OP].iter().find(|column| place(column).is_none()) {
        return Err(Unusable(format!("there is no column {missing}; {wanted}")));
    }
    if let Some(twice) = COLUMNS.iter().find(|column| names.iter().filter(|name| name == *column).count() > 1)
    {
        return Err(Unusable(format!("the column {twice} is there twice; {wanted}")));
    }
    Ok(COLUMNS.map(place))
}

/// Rows in one piece of memory, which is wiped: they are people's data.
#[derive(Default)]
pub struct Rows {
    text: Vec<u8>,
    rows: Vec<At>,
}

struct At {
    line: u64,
    start: usize,
    ends: [usize; COLUMNS.len()],
    wrong_columns: Option<(usize, usize)>,
    encoding: Encoding,
}

impl Drop for Rows {
    fn drop(&mut self) {
        wipe(&mut self.text);
    }
}

impl Rows {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn push(
        &mut self,
        line: u64,
        values: [&[u8]; COLUMNS.len()],
        wrong_columns: Option<(usize, usize)>,
        encoding: Encoding,
    ) {
        let start = self.text.len();
        let ends = values.map(|value| {
            self.text.extend_from_slice(value);
            self.text.len()
        });
        self.rows.push(At { line, start, ends, wrong_columns, encoding });
    }

    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|at| Row {
            line: at.line,
            wrong_columns: at.wrong_columns,
            encoding: at.encoding,
            values: std::array::from_fn(|column| {
                let start = if column == 0 { at.start } else { at.ends[column - 1] };
                &self.text[start..at.ends[column]]
            }),
        })
    }
}

/// One row: a line of CSV, a row of Parquet counted from 1.
pub struct Row<'a> {
    pub line: u64,
    /// So many columns, and so many there should be.
    pub wrong_columns: Option<(usize, usize)>,
    values: [&'a [u8]; COLUMNS.len()],
    encoding: Encoding,
}

impl<'a> Row<'a> {
    /// The text of a column.
    pub(super) fn text(&self, column: usize) -> Result<Cow<'a, str>, Reason> {
        let value = self.values[column];
        match std::str::from_utf8(value) {
            Ok(text) if self.encoding == Encoding::Utf8 || value.is_ascii() => Ok(text.into()),
            _ if self.encoding == Encoding::Utf8 => Err(Reason::Encoding(COLUMNS[column])),
            _ => encoding_rs::GB18030
                .decode_without_bom_handling_and_without_replacement(value)
                .ok_or(Reason::Encoding(COLUMNS[column])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: &str = "bank_card,name,id_type,id_number,phone,status\n";

    fn rows(text: impl Into<Vec<u8>>, encoding: Encoding) -> anyhow::Result<Vec<(u64, Vec<String>)>> {
        let mut csv = CsvRows::open(Box::new(Cursor::new(text.into())), encoding)?;
        let mut rows = Rows::default();
        csv.read(&mut rows, usize::MAX)?;
        let text = |row: &Row<'_>, column| row.text(column).unwrap_or("?".into()).into_owned();
        Ok(rows.iter().map(|row| (row.line, (0..7).map(|at| text(&row, at)).collect())).collect())
    }

    fn refused(text: &[u8]) -> String {
        rows(text, Encoding::Utf8).unwrap_err().downcast::<Unusable>().unwrap().0
    }

    #[test]
    fn marks_line_ends_quotes_and_the_order_of_columns_do_not_matter() {
        let text = "\u{feff}name,\"phone\",bank_card, id_number ,status,id_type\r\n\
                    # a comment\r\n\r\n\"韦小宝\",,6225768888888888,1,normal,\r\n";
        let row = ["6225768888888888", "韦小宝", "", "1", "", "normal", ""].map(str::to_owned).to_vec();
        assert_eq!(rows(text, Encoding::Utf8).unwrap(), [(4, row)]);
    }

    #[test]
    fn a_quote_too_many_spoils_one_row() {
        let text = format!("{HEADER}1,\"x,,,,\n2,y,,,,\n");
        let read = rows(text, Encoding::Utf8).unwrap();
        assert_eq!(
            read.iter().map(|(line, row)| (*line, row[1].as_str())).collect::<Vec<_>>(),
            [(2, "\"x"), (3, "y")]
        );
    }

    #[test]
    fn gbk_is_read_when_it_is_said_and_recognised_when_not() {
        let gbk = encoding_rs::GB18030.encode("韦小宝,𠅤").0.into_owned();
        let text = [HEADER.as_bytes(), b"1,", &gbk, b",,,\n"].concat();
        assert_eq!(rows(&text[..], Encoding::Gbk).unwrap()[0].1[1..3], ["韦小宝", "𠅤"]);
        assert!(refused(&text).contains("--encoding gbk"));
        assert!(refused(b"\xff\xfeb\0a\0").contains("UTF-16"));
    }

    #[test]
    fn a_wrong_header_is_explained_without_showing_a_row() {
        assert!(refused(b"").contains("there is no column bank_card"));
        assert!(refused(b"bank_card,name\n").contains("there is no column id_type"));
        assert!(refused(b"bank_card,nmae\n").contains("`nmae`"));
        assert!(refused(b"bank_card;name\n").contains("separated by ';'"));
        assert!(
            refused(b"bank_card,name,id_type,id_number,phone,status,name\n").contains("name is there twice")
        );
        let shown = refused("6225768888888888,韦小宝\n".as_bytes());
        assert!(shown.starts_with("the first line is not a header") && !shown.contains("6225"), "{shown}");
    }

    #[test]
    fn an_endless_line_is_refused() {
        let text = [HEADER.as_bytes(), &vec![b'x'; 1 << 20]].concat();
        assert!(rows(text, Encoding::Utf8).unwrap_err().to_string().contains("64 KiB"));
    }

    /// Gives a few bytes at a time.
    struct Slow(Cursor<Vec<u8>>, usize);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(self.1);
            self.0.read(&mut buffer[..most])
        }
    }

    fn lines_of(block: &Block) -> impl Iterator<Item = (u64, Vec<u8>)> {
        block.lines().map(|(number, line)| (number, block.text.0[line].to_vec()))
    }

    #[test]
    fn a_block_is_as_long_as_its_lines() {
        let line = |number: usize| format!("{number},{}\n", "x".repeat(number % 50_000));
        let text: String = (0..600).map(|number| line(97 * number)).collect();
        let mut lines = Lines::open(Box::new(Cursor::new(text.clone())), Encoding::Utf8).unwrap();
        let blocks = [lines.block(7).unwrap(), lines.block(500).unwrap(), lines.block(500).unwrap()];
        assert_eq!(blocks.each_ref().map(Block::len), [7, 500, 93]);
        assert_eq!((lines.block(500).unwrap().len(), lines.bytes), (0, text.len() as u64));
        let read = blocks.iter().flat_map(lines_of).map(|(_, line)| [&line[..], b"\n"].concat());
        assert!(read.flatten().eq(text.into_bytes()));
        let comments = format!("#{}\n", "x".repeat(60_000)).repeat(1200) + "1\n#\n2";
        let length = comments.len() as u64;
        let mut lines = Lines::open(Box::new(Cursor::new(comments)), Encoding::Utf8).unwrap();
        let block = lines.block(9).unwrap();
        assert!(lines_of(&block).eq([(1201, b"1".to_vec()), (1203, b"2".to_vec())]));
        assert_eq!((lines.block(9).unwrap().len(), lines.bytes), (0, length));
        let endless = Lines::open(Box::new(io::repeat(b'x')), Encoding::Utf8).unwrap().block(1);
        assert!(endless.err().unwrap().to_string().contains("64 KiB"));
    }

    fn without_returns(mut line: &[u8]) -> &[u8] {
        while let Some(rest) = line.strip_suffix(b"\r") {
            line = rest;
        }
        line
    }

    proptest! {
        #[test]
        fn blocks_have_the_lines_there_are(
            bytes in "[a,#\r\n]{0,40}", at_a_time in 1usize..9, at_most in 1usize..9, is_marked: bool,
        ) {
            let mark = if is_marked { "\u{feff}" } else { "" };
            let bytes = format!("{mark}{bytes}").into_bytes();
            let open = || {
                let text = Slow(Cursor::new(bytes.clone()), at_a_time);
                Lines::open(Box::new(text), Encoding::Utf8).unwrap()
            };
            let (mut lines, mut one_by_one) = (open(), Vec::new());
            while lines.next_line().unwrap() {
                one_by_one.push((lines.number, lines.line().to_vec()));
            }
            let (mut lines, mut in_blocks) = (open(), Vec::new());
            // As a header is read.
            if lines.next_line().unwrap() {
                in_blocks.push((lines.number, lines.line().to_vec()));
            }
            loop {
                let block = lines.block(at_most).unwrap();
                if block.len() == 0 {
                    break;
                }
                prop_assert!(block.len() <= at_most);
                in_blocks.extend(lines_of(&block));
            }
            prop_assert_eq!(in_blocks, one_by_one);
        }

        #[test]
        fn values_end_where_they_end(line in "[a,é]{0,40}", room in 0usize..50) {
            let mut ends = vec![0; room];
            let all: Vec<usize> = fields_of(line.as_bytes()).map(|field| field.end).collect();
            prop_assert_eq!(ends_of(line.as_bytes(), &mut ends), all.len());
            let told = room.min(all.len());
            prop_assert_eq!(&ends[..told], &all[..told]);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, gbk: bool) {
            let encoding = if gbk { Encoding::Gbk } else { Encoding::Utf8 };
            let _ = rows(bytes.clone(), encoding);
            let lines = bytes.split(|byte| *byte == b'\n').map(without_returns);
            let expected = lines.filter(|line| !line.is_empty() && line[0] != b'#').count();
            if let Ok(read) = rows([HEADER.as_bytes(), &bytes].concat(), Encoding::Gbk) {
                prop_assert_eq!(read.len(), expected);
            }
        }
    }
}
