//! CSV with answers: each line as it came, and behind it what was answered.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, ensure};
use engine::action::Element;
use engine::bulk::{COLUMNS, Rows};
use engine::caller::Action;
use engine::outcome::Outcome;
use flate2::write::GzEncoder;
use zeroize::Zeroize;

use super::{ADDED, AllAdded, Options, Range};
use crate::import::file::{Done, Lines, Raw, unpacked, unquoted};
use crate::import::{Encoding, Unusable};

/// Lines without their ends, in one piece of memory, which is wiped.
#[derive(Default)]
pub struct Text {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Drop for Text {
    fn drop(&mut self) {
        self.text.zeroize();
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
}

impl Reader {
    /// Opens a file of which the first bytes are read.
    pub fn open(
        path: &Path,
        raw: Raw,
        head: Vec<u8>,
        range: Range,
        options: &Options,
        done: Done,
    ) -> anyhow::Result<Reader> {
        let mut lines = Lines::open(unpacked(raw, head, &done)?, options.encoding)?;
        ensure!(lines.next_line()?, Unusable("the file has no header".into()));
        let (header, names) = (lines.line.clone(), lines.names());
        let places = places(&names, options.action)?;
        if range != Range::WHOLE {
            // The beginning of the file was looked at above.
            lines = Lines::open(part(path, range, lines.bytes)?, Encoding::Gbk)?;
        }
        Ok(Reader { lines, header, columns: names.len(), places, encoding: options.encoding })
    }

    /// The header, as it is.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Reads so many rows, or as many as there are.
    pub fn read(&mut self, at_most: usize) -> anyhow::Result<(Rows, Text)> {
        let (mut rows, mut text) = (Rows::default(), Text::default());
        let mut fields: Vec<std::ops::Range<usize>> = Vec::with_capacity(self.columns);
        while rows.len() < at_most && self.lines.next_line()? {
            let line = &self.lines.line;
            text.text.extend_from_slice(line);
            text.ends.push(text.text.len());
            fields.clear();
            let mut start = 0;
            for (at, _) in line.iter().enumerate().filter(|(_, byte)| **byte == b',') {
                fields.push(start..at);
                start = at + 1;
            }
            fields.push(start..line.len());
            self.push(&fields, &mut rows);
        }
        Ok((rows, text))
    }

    fn push(&self, fields: &[std::ops::Range<usize>], rows: &mut Rows) {
        if fields.len() != self.columns {
            return rows.push_unasked();
        }
        let line = &self.lines.line;
        let value =
            |place: Option<usize>| place.map_or(&[][..], |place| unquoted(&line[fields[place].clone()]));
        let values = self.places.map(value);
        match self.encoding {
            Encoding::Utf8 => {
                let texts = values.map(|value| std::str::from_utf8(value).ok());
                match texts {
                    [Some(card), Some(name), Some(kind), Some(id), Some(mobile)] => {
                        rows.push([card, name, kind, id, &national(mobile)]);
                    }
                    _ => rows.push_unasked(),
                }
            }
            Encoding::Gbk => {
                let gbk = encoding_rs::GB18030;
                let texts =
                    values.map(|value| gbk.decode_without_bom_handling_and_without_replacement(value));
                match texts {
                    [Some(card), Some(name), Some(kind), Some(id), Some(mobile)] => {
                        rows.push([&card, &name, &kind, &id, &national(&mobile)]);
                    }
                    _ => rows.push_unasked(),
                }
            }
        }
    }
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
fn part(path: &Path, range: Range, header: u64) -> anyhow::Result<Raw> {
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
    skipped.zeroize();
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
        self.line.clear();
        for (end, answer) in text.ends.iter().zip(answers) {
            self.line.extend_from_slice(&text.text[start..*end]);
            let at = answer.map_or(0, |outcome| outcome as usize + 1);
            self.line.extend_from_slice(&endings[at].1);
            start = *end;
        }
        let written = self.to.write_all(&self.line);
        self.line.zeroize();
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
