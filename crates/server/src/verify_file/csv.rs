//! CSV with answers: each line as it came, and behind it what was answered.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, ensure};
use engine::action::Element;
use engine::bulk::{BLOCK_ROWS, COLUMNS, Rows};
use engine::caller::Action;
use engine::outcome::Outcome;
use engine::vault::wipe;
use flate2::write::GzEncoder;

use super::{ADDED, AllAdded, Options, Range as Part};
use crate::import::file::{Done, Lines, Raw, fields_of, unpacked, unquoted};
use crate::import::{Encoding, Unusable};

/// Lines without their ends, in one piece of memory, which is wiped.
#[derive(Default)]
pub struct Text {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Drop for Text {
    fn drop(&mut self) {
        wipe(&mut self.text);
    }
}

/// Reads a CSV file, or a part of one.
pub struct Reader {
    lines: Lines,
    header: Vec<u8>,
    columns: usize,
    /// For each of our columns, which of the file's it is.
    places: [Option<usize>; COLUMNS.len()],
    encoding: Encoding,
    /// Length of the rows that were read last.
    last_bytes: usize,
}

impl Reader {
    /// Opens a file of which the first bytes are read.
    pub fn open(
        path: &Path,
        raw: Raw,
        head: Vec<u8>,
        range: Part,
        options: &Options,
        done: Done,
    ) -> anyhow::Result<Reader> {
        let mut lines = Lines::open(unpacked(raw, head, &done)?, options.encoding)?;
        ensure!(lines.next_line()?, Unusable("the file has no header".into()));
        let (header, names) = (lines.line().to_owned(), lines.names());
        let places = places(&names, options.action)?;
        if range != Part::WHOLE {
            // The beginning of the file was looked at above.
            lines = Lines::open(part(path, range, lines.bytes)?, Encoding::Gbk)?;
        }
        Ok(Reader { lines, header, columns: names.len(), places, encoding: options.encoding, last_bytes: 0 })
    }

    /// The header, as it is.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Reads so many rows, or as many as there are.
    pub fn read(&mut self, at_most: usize) -> anyhow::Result<(Rows, Text)> {
        // As much room as the rows before took, and some more.
        let bytes = self.last_bytes + self.last_bytes / 8;
        let mut rows = Rows::with_room_for(at_most.min(BLOCK_ROWS), bytes);
        let mut text =
            Text { text: Vec::with_capacity(bytes), ends: Vec::with_capacity(at_most.min(BLOCK_ROWS)) };
        let mut fields = Vec::with_capacity(self.columns);
        while rows.len() < at_most && self.lines.next_line()? {
            let line = self.lines.line();
            text.text.extend_from_slice(line);
            text.ends.push(text.text.len());
            fields.clear();
            fields.extend(fields_of(line));
            match fields.len() == self.columns {
                true => self.push(line, &fields, &mut rows),
                false => rows.push_unasked(),
            }
        }
        self.last_bytes = text.text.len();
        Ok((rows, text))
    }

    fn push(&self, line: &[u8], fields: &[Range<usize>], rows: &mut Rows) {
        // Nearly every line is sound as a whole.
        if let (Encoding::Utf8, Ok(line)) = (self.encoding, std::str::from_utf8(line)) {
            let value =
                |place: Option<usize>| place.map_or("", |place| unquoted_text(&line[fields[place].clone()]));
            let [card, name, kind, id, mobile] = self.places.map(value);
            return rows.push([card, name, kind, id, &national(mobile)]);
        }
        let value =
            |place: Option<usize>| place.map_or(&[][..], |place| unquoted(&line[fields[place].clone()]));
        let decoded = |value| match self.encoding {
            Encoding::Utf8 => std::str::from_utf8(value).ok().map(Cow::from),
            Encoding::Gbk => encoding_rs::GB18030.decode_without_bom_handling_and_without_replacement(value),
        };
        match self.places.map(value).map(decoded) {
            [Some(card), Some(name), Some(kind), Some(id), Some(mobile)] => {
                rows.push([&card, &name, &kind, &id, &national(&mobile)]);
            }
            _ => rows.push_unasked(),
        }
    }
}

fn unquoted_text(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// A mobile as people write it: with blanks, hyphens, or the code of the country.
pub fn national(mobile: &str) -> std::borrow::Cow<'_, str> {
    if mobile.bytes().all(|byte| byte.is_ascii_digit()) && mobile.len() == 11 {
        return mobile.into();
    }
    wire::native::national_mobile(mobile.trim())
}

/// Where our columns are among those of a file; it may have others, which are carried along.
pub fn places(names: &[String], action: Action) -> anyhow::Result<[Option<usize>; COLUMNS.len()]> {
    let place = |column: &str| names.iter().position(|name| name == column);
    let element = |element: Element| match element {
        Element::Card => COLUMNS[0],
        Element::Name => COLUMNS[1],
        Element::Id => COLUMNS[3],
        Element::Mobile => COLUMNS[4],
    };
    let needed = action.elements().iter().map(|one| element(*one));
    if let Some(missing) = needed.clone().find(|column| place(column).is_none()) {
        let needed: Vec<_> = needed.collect();
        let (needed, name) = (needed.join(","), action.name());
        let why = format!(
            "there is no column {missing}; {name} needs {needed}, and id_type where it is not resident_id"
        );
        anyhow::bail!(Unusable(why));
    }
    if let Some(there) = ADDED.iter().find(|column| place(column).is_some()) {
        anyhow::bail!(Unusable(format!("there is a column {there} already; is this a file of answers?")));
    }
    if let Some(twice) = COLUMNS.iter().find(|column| names.iter().filter(|name| name == *column).count() > 1)
    {
        anyhow::bail!(Unusable(format!("the column {twice} is there twice")));
    }
    Ok(COLUMNS.map(place))
}

/// The bytes of a part of what comes after the header: a line belongs to the part it begins in.
fn part(path: &Path, range: Part, header: u64) -> anyhow::Result<Raw> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (from, to) = range.within(file.metadata()?.len().saturating_sub(header));
    let from = line_start(&file, header, from)?;
    let to = line_start(&file, header, to)?;
    let mut file = file;
    file.seek(SeekFrom::Start(from))?;
    Ok(Box::new(file.take(to.saturating_sub(from))))
}

/// The first line that begins at a place behind the header or after it.
fn line_start(mut file: &File, header: u64, at: u64) -> anyhow::Result<u64> {
    let Some(before) = at.checked_sub(1).map(|before| header + before) else { return Ok(header) };
    file.seek(SeekFrom::Start(before))?;
    let mut rest = BufReader::new(file);
    let mut skipped = Vec::new();
    let read = rest.read_until(b'\n', &mut skipped)?;
    wipe(&mut skipped);
    Ok(before + read as u64)
}

/// Writes lines with answers.
pub struct Writer {
    to: To,
    /// What is added, by row.
    line: Vec<u8>,
}

enum To {
    Plain(BufWriter<Box<dyn Write>>),
    Gzip(GzEncoder<BufWriter<Box<dyn Write>>>),
}

impl Write for To {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            To::Plain(to) => to.write(bytes),
            To::Gzip(to) => to.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            To::Plain(to) => to.flush(),
            To::Gzip(to) => to.flush(),
        }
    }
}

impl Writer {
    /// With a header, unless this is a later part.
    pub fn open(file: Box<dyn Write>, gzip: bool, header: Option<&[u8]>) -> anyhow::Result<Writer> {
        let file = BufWriter::with_capacity(1 << 20, file);
        let mut to = match gzip {
            true => To::Gzip(GzEncoder::new(file, flate2::Compression::fast())),
            false => To::Plain(file),
        };
        if let Some(header) = header {
            to.write_all(header)?;
            writeln!(to, ",{}", ADDED.join(","))?;
        }
        Ok(Writer { to, line: Vec::new() })
    }

    /// Writes as many lines as there are answers.
    pub fn write(
        &mut self,
        text: &Text,
        answers: &[Option<Outcome>],
        added: &AllAdded,
    ) -> anyhow::Result<()> {
        let endings: Vec<(Option<Outcome>, Vec<u8>)> = std::iter::once(None)
            .chain(Outcome::ALL.map(Some))
            .map(|outcome| (outcome, ending(added.of(outcome).values())))
            .collect();
        let mut start = 0;
        let longest = endings.iter().map(|(_, ending)| ending.len()).max().unwrap_or(0);
        self.line.reserve(text.text.len() + longest * answers.len());
        for (end, answer) in text.ends.iter().zip(answers) {
            self.line.extend_from_slice(&text.text[start..*end]);
            let at = answer.map_or(0, |outcome| outcome as usize + 1);
            self.line.extend_from_slice(&endings[at].1);
            start = *end;
        }
        let written = self.to.write_all(&self.line);
        wipe(&mut self.line);
        Ok(written?)
    }

    /// Makes sure that all is written.
    pub fn finish(self) -> anyhow::Result<()> {
        let mut to = match self.to {
            To::Plain(to) => to,
            To::Gzip(to) => to.finish()?,
        };
        Ok(to.flush()?)
    }
}

fn ending(values: [&str; ADDED.len()]) -> Vec<u8> {
    let quoted =
        values.map(|value| if value.contains(',') { format!("\"{value}\"") } else { value.to_owned() });
    format!(",{}\n", quoted.join(",")).into_bytes()
}
