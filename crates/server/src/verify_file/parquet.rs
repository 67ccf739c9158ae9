//! Parquet with answers: every column as it came, and five more.

use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;

use anyhow::bail;
use engine::bulk::{COLUMNS, Rows};
use engine::caller::Action;
use engine::outcome::Outcome;
use parquet::basic::{Compression, ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::column::reader::ColumnReader;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

use super::csv::{national, places};
use super::{ADDED, AllAdded, Range};
use crate::import::Unusable;
use crate::import::file::Done;

/// Rows of a group in a file of answers.
const GROUP_ROWS: usize = 131_072;

/// Some values of one column, and where there are none.
#[derive(Default)]
struct Column {
    levels: Vec<i16>,
    values: Values,
}

#[derive(Default)]
enum Values {
    #[default]
    None,
    Bool(Vec<bool>),
    Int(Vec<i32>),
    Long(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Bytes(Vec<ByteArray>),
}

/// Rows as columns.
pub struct Columns(Vec<Column>, usize);

/// Reads a Parquet file, or a part of one.
pub struct Reader {
    file: SerializedFileReader<File>,
    schema: Arc<Type>,
    places: [Option<usize>; COLUMNS.len()],
    /// Rows that are still to be read.
    left: u64,
    /// Rows of the part.
    rows: u64,
    group: usize,
    columns: Vec<ColumnReader>,
    /// Rows left in the group.
    left_in_group: u64,
    done: Done,
}

impl Reader {
    /// Opens the file and checks its columns.
    pub fn open(file: File, action: Action, range: Range, done: Done) -> anyhow::Result<Reader> {
        let wrong = |wrong| Unusable(format!("the Parquet file cannot be read: {wrong}"));
        let file = SerializedFileReader::new(file).map_err(wrong)?;
        let metadata = file.metadata().file_metadata();
        let schema = metadata.schema_descr().root_schema_ptr();
        let names: Vec<_> = schema.get_fields().iter().map(|field| field.name().to_owned()).collect();
        let places = places(&names, action)?;
        for (at, field) in schema.get_fields().iter().enumerate() {
            let is_flat = field.is_primitive() && field.get_basic_info().repetition() != Repetition::REPEATED;
            let is_known = is_flat
                && !matches!(field.get_physical_type(), Physical::INT96 | Physical::FIXED_LEN_BYTE_ARRAY);
            let is_text = is_known
                && matches!(
                    field.get_physical_type(),
                    Physical::BYTE_ARRAY | Physical::INT32 | Physical::INT64
                );
            if !is_known || places.contains(&Some(at)) && !is_text {
                let name = field.name();
                bail!(Unusable(format!(
                    "the column {name} is neither text nor a number; leave it out, or make it text"
                )));
            }
        }
        let (from, to) = range.within(metadata.num_rows() as u64);
        let mut reader = Reader {
            file,
            schema,
            places,
            left: to - from,
            rows: to - from,
            group: 0,
            columns: Vec::new(),
            left_in_group: 0,
            done,
        };
        reader.skip(from)?;
        Ok(reader)
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn skip(&mut self, mut rows: u64) -> anyhow::Result<()> {
        while rows > 0 && self.next_group()? {
            let here = rows.min(self.left_in_group);
            for column in &mut self.columns {
                skip_in(column, here as usize)?;
            }
            self.left_in_group -= here;
            rows -= here;
        }
        Ok(())
    }

    /// Opens the next group when the last one is read; `false` at the end.
    fn next_group(&mut self) -> anyhow::Result<bool> {
        while self.left_in_group == 0 {
            if self.group == self.file.num_row_groups() {
                return Ok(false);
            }
            let group = self.file.get_row_group(self.group)?;
            self.columns = (0..group.num_columns())
                .map(|column| group.get_column_reader(column))
                .collect::<Result<_, _>>()?;
            self.left_in_group = group.metadata().num_rows() as u64;
            self.group += 1;
        }
        Ok(true)
    }

    /// Reads so many rows, or as many as there are; fewer at the end of a group are made up for.
    pub fn read(&mut self, at_most: usize) -> anyhow::Result<(Rows, Columns)> {
        let mut all: Vec<Column> = self.schema.get_fields().iter().map(|_| Column::default()).collect();
        let mut count = 0;
        while count < at_most && self.left > 0 && self.next_group()? {
            let here = self.left_in_group.min(self.left).min((at_most - count) as u64) as usize;
            for (reader, column) in self.columns.iter_mut().zip(&mut all) {
                read_in(reader, column, here)?;
            }
            self.left_in_group -= here as u64;
            self.left -= here as u64;
            count += here;
        }
        self.done.add(count as u64);
        let mut rows = Rows::default();
        let texts = self.places.map(|place| place.map(|place| all[place].texts(count)));
        for row in 0..count {
            let value = |column: &Option<Vec<Option<String>>>| match column {
                None => Some(String::new()),
                Some(texts) => texts[row].clone(),
            };
            match texts.each_ref().map(value) {
                [Some(card), Some(name), Some(kind), Some(id), Some(mobile)] => {
                    rows.push([&card, &name, &kind, &id, &national(&mobile)]);
                }
                _ => rows.push_unasked(),
            }
        }
        Ok((rows, Columns(all, count)))
    }
}

/// Runs something on the reader of whatever type a column has.
macro_rules! on_reader {
    ($reader:expr, $known:ident => $do:expr) => {
        match $reader {
            ColumnReader::BoolColumnReader($known) => $do,
            ColumnReader::Int32ColumnReader($known) => $do,
            ColumnReader::Int64ColumnReader($known) => $do,
            ColumnReader::FloatColumnReader($known) => $do,
            ColumnReader::DoubleColumnReader($known) => $do,
            ColumnReader::ByteArrayColumnReader($known) => $do,
            _ => bail!("a column is neither text nor a number"),
        }
    };
}

fn skip_in(reader: &mut ColumnReader, rows: usize) -> anyhow::Result<()> {
    on_reader!(reader, known => { known.skip_records(rows)?; });
    Ok(())
}

fn read_in(reader: &mut ColumnReader, column: &mut Column, rows: usize) -> anyhow::Result<()> {
    /// Reads until so many rows are there: a page may end before.
    macro_rules! all {
        ($reader:expr, $kind:ident) => {{
            let mut values = match std::mem::take(&mut column.values) {
                Values::$kind(values) => values,
                _ => Vec::new(),
            };
            let mut left = rows;
            while left > 0 {
                let (read, ..) = $reader.read_records(left, Some(&mut column.levels), None, &mut values)?;
                if read == 0 {
                    bail!("a column is shorter than its group");
                }
                left -= read;
            }
            column.values = Values::$kind(values);
        }};
    }
    match reader {
        ColumnReader::BoolColumnReader(reader) => all!(reader, Bool),
        ColumnReader::Int32ColumnReader(reader) => all!(reader, Int),
        ColumnReader::Int64ColumnReader(reader) => all!(reader, Long),
        ColumnReader::FloatColumnReader(reader) => all!(reader, Float),
        ColumnReader::DoubleColumnReader(reader) => all!(reader, Double),
        ColumnReader::ByteArrayColumnReader(reader) => all!(reader, Bytes),
        _ => bail!("a column is neither text nor a number"),
    }
    Ok(())
}

impl Column {
    /// The text of each row; empty where there is no value, `None` where it is not text.
    fn texts(&self, rows: usize) -> Vec<Option<String>> {
        let mut values = 0;
        let mut text = |row: usize| {
            if self.levels.get(row).is_some_and(|level| *level == 0) {
                return Some(String::new());
            }
            values += 1;
            match &self.values {
                Values::Bytes(all) => std::str::from_utf8(all[values - 1].data()).ok().map(str::to_owned),
                Values::Int(all) => Some(all[values - 1].to_string()),
                Values::Long(all) => Some(all[values - 1].to_string()),
                _ => None,
            }
        };
        (0..rows).map(&mut text).collect()
    }
}

/// Writes columns with answers.
pub struct Writer {
    to: SerializedFileWriter<BufWriter<File>>,
    /// Columns of the file that was read, with those that may be empty.
    columns: usize,
    waiting: Vec<(Columns, Vec<[ByteArray; ADDED.len()]>)>,
    rows: usize,
}

impl Writer {
    /// The columns of the file that is read, and those of the answers.
    pub fn open(file: File, reader: &Reader) -> anyhow::Result<Writer> {
        let mut fields = reader.schema.get_fields().to_vec();
        let columns = fields.len();
        for name in ADDED {
            let field = Type::primitive_type_builder(name, Physical::BYTE_ARRAY)
                .with_repetition(Repetition::REQUIRED)
                .with_converted_type(ConvertedType::UTF8)
                .with_logical_type(Some(LogicalType::String))
                .build()?;
            fields.push(Arc::new(field));
        }
        let schema = Type::group_type_builder(reader.schema.name()).with_fields(fields).build()?;
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let to = SerializedFileWriter::new(BufWriter::new(file), Arc::new(schema), Arc::new(properties))?;
        Ok(Writer { to, columns, waiting: Vec::new(), rows: 0 })
    }

    /// Writes rows with their answers, a group at a time.
    pub fn write(
        &mut self,
        columns: Columns,
        answers: &[Option<Outcome>],
        added: &AllAdded,
    ) -> anyhow::Result<()> {
        // Cheap to copy: the bytes are shared.
        let of = |outcome| added.of(outcome).values().map(ByteArray::from);
        let made: Vec<_> = std::iter::once(None).chain(Outcome::ALL.map(Some)).map(of).collect();
        let values =
            answers.iter().map(|answer| made[answer.map_or(0, |outcome| outcome as usize + 1)].clone());
        self.rows += columns.1;
        self.waiting.push((columns, values.collect()));
        if self.rows >= GROUP_ROWS { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> anyhow::Result<()> {
        let mut group = self.to.next_row_group()?;
        for column in 0..self.columns {
            let Some(mut writer) = group.next_column()? else {
                bail!("there are fewer columns than were read")
            };
            for (columns, _) in &self.waiting {
                write_in(writer.untyped(), &columns.0[column])?;
            }
            writer.close()?;
        }
        for column in 0..ADDED.len() {
            let Some(mut writer) = group.next_column()? else { bail!("there is no column for the answers") };
            for (_, answers) in &self.waiting {
                let values: Vec<ByteArray> = answers.iter().map(|answer| answer[column].clone()).collect();
                let ColumnWriter::ByteArrayColumnWriter(to) = writer.untyped() else { bail!("not text") };
                to.write_batch(&values, None, None)?;
            }
            writer.close()?;
        }
        group.close()?;
        self.waiting.clear();
        self.rows = 0;
        Ok(())
    }

    /// Makes sure that all is written.
    pub fn finish(mut self) -> anyhow::Result<()> {
        if self.rows > 0 {
            self.write_group()?;
        }
        self.to.close()?;
        Ok(())
    }
}

fn write_in(writer: &mut ColumnWriter<'_>, column: &Column) -> anyhow::Result<()> {
    let levels = (!column.levels.is_empty()).then_some(&column.levels[..]);
    match (writer, &column.values) {
        (ColumnWriter::BoolColumnWriter(to), Values::Bool(values)) => to.write_batch(values, levels, None)?,
        (ColumnWriter::Int32ColumnWriter(to), Values::Int(values)) => to.write_batch(values, levels, None)?,
        (ColumnWriter::Int64ColumnWriter(to), Values::Long(values)) => {
            to.write_batch(values, levels, None)?
        }
        (ColumnWriter::FloatColumnWriter(to), Values::Float(values)) => {
            to.write_batch(values, levels, None)?
        }
        (ColumnWriter::DoubleColumnWriter(to), Values::Double(values)) => {
            to.write_batch(values, levels, None)?
        }
        (ColumnWriter::ByteArrayColumnWriter(to), Values::Bytes(values)) => {
            to.write_batch(values, levels, None)?
        }
        _ => bail!("a column changed its type"),
    };
    Ok(())
}
