//! CSV with answers: each line as it came, and behind it what was answered.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use engine::action::Element;
use engine::bulk::{COLUMNS, Rows};
use engine::caller::Action;
use engine::outcome::Outcome;
use engine::vault::{Wiped, wipe};
use flate2::write::GzEncoder;

use super::{ADDED, AllAdded, Options, Range as Part};
use crate::import::file::{Block, Done, Lines, Raw, ends_of, unpacked, unquoted};
use crate::import::{Encoding, Unusable};

/// Reads a CSV file, or a part of one.
pub struct Reader {
    lines: Lines,
    header: Vec<u8>,
    form: Arc<Form>,
}

/// What the lines of a file look like.
pub struct Form {
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
        let form = Arc::new(Form { columns: names.len(), places, encoding: options.encoding });
        Ok(Reader { lines, header, form })
    }

    /// The header, as it is.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Reads so many lines, or as many as there are.
    pub fn read(&mut self, at_most: usize) -> anyhow::Result<Text> {
        Ok(Text { block: Arc::new(self.lines.block(at_most)?), form: Arc::clone(&self.form) })
    }
}

/// Some lines of a file, which are rows.
#[derive(Clone)]
pub struct Text {
    block: Arc<Block>,
    form: Arc<Form>,
}

impl Text {
    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.block.len()
    }

    /// The rows, which stand where the lines stand.
    pub fn rows(&self) -> Rows {
        let Form { columns, places, encoding } = &*self.form;
        let text = &self.block.text;
        let mut rows = Rows::of_file(Arc::clone(text), self.len());
        let mut ends = vec![0; *columns];
        for (_, line) in self.block.lines() {
            if ends_of(&text.0[line.clone()], &mut ends) != *columns {
                rows.push_unasked();
                continue;
            }
            let value = |place: usize| {
                let start = place.checked_sub(1).map_or(0, |before| ends[before] + 1);
                without_quotes(&text.0, line.start + start..line.start + ends[place])
            };
            let values = places.map(|place| place.map_or(0..0, value));
            match encoding {
                Encoding::Utf8 => push(&mut rows, &text.0, values),
                Encoding::Gbk => push_gbk(&mut rows, values.map(|value| &text.0[value])),
            }
        }
        rows
    }
}

fn push(rows: &mut Rows, text: &[u8], mut values: [Range<usize>; COLUMNS.len()]) {
    let [.., mobile] = &mut values;
    let written = &text[mobile.clone()];
    if !is_national(written) {
        let Ok(written) = std::str::from_utf8(written) else { return rows.push_unasked() };
        *mobile = rows.keep(&national(written));
    }
    rows.push_at(values);
}

fn push_gbk(rows: &mut Rows, values: [&[u8]; COLUMNS.len()]) {
    let decoded = |value| encoding_rs::GB18030.decode_without_bom_handling_and_without_replacement(value);
    match values.map(decoded) {
        [Some(card), Some(name), Some(kind), Some(id), Some(mobile)] => {
            rows.push([&card, &name, &kind, &id, &national(&mobile)]);
        }
        _ => rows.push_unasked(),
    }
}

/// [`unquoted`], where it is.
fn without_quotes(text: &[u8], value: Range<usize>) -> Range<usize> {
    let quotes = (value.len() - unquoted(&text[value.clone()]).len()) / 2;
    value.start + quotes..value.end - quotes
}

fn is_national(mobile: &[u8]) -> bool {
    mobile.len() == 11 && mobile.iter().all(u8::is_ascii_digit)
}

/// A mobile as people write it: with blanks, hyphens, or the code of the country.
pub fn national(mobile: &str) -> std::borrow::Cow<'_, str> {
    if is_national(mobile.as_bytes()) {
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
    /// What is written at once; that of before is overwritten by it.
    lines: Wiped,
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
        Ok(Writer { to, lines: Wiped::default() })
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
        self.lines.0.clear();
        let longest = endings.iter().map(|(_, ending)| ending.len()).max().unwrap_or(0);
        let block = &text.block;
        self.lines.reserve(block.text.0.len() + longest * answers.len());
        for ((_, line), answer) in block.lines().zip(answers) {
            self.lines.0.extend_from_slice(&block.text.0[line]);
            let at = answer.map_or(0, |outcome| outcome as usize + 1);
            self.lines.0.extend_from_slice(&endings[at].1);
        }
        Ok(self.to.write_all(&self.lines.0)?)
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
