//! Rows of a Parquet file: text columns, or whole numbers where a tool made numbers of them.

use std::fs::File;

use parquet::basic::Type as Physical;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::RowIter;
use zeroize::Zeroizing;

use super::file::{COLUMNS, Done, Rows, places};
use super::{Encoding, Unusable};

/// Reads a Parquet file.
pub struct ParquetRows {
    rows: RowIter<'static>,
    count: u64,
    read: u64,
    places: [Option<usize>; COLUMNS.len()],
    done: Done,
}

impl ParquetRows {
    /// Opens the file and checks its columns.
    pub fn open(file: File, done: Done) -> anyhow::Result<ParquetRows> {
        let reader = SerializedFileReader::new(file)
            .map_err(|wrong| Unusable(format!("the Parquet file cannot be read: {wrong}")))?;
        let metadata = reader.metadata().file_metadata();
        let count = metadata.num_rows() as u64;
        let fields = metadata.schema_descr().root_schema().get_fields();
        let names: Vec<_> = fields.iter().map(|field| field.name().to_owned()).collect();
        let places = places(&names)?;
        for field in fields {
            let is_text_or_whole = field.is_primitive()
                && matches!(
                    field.get_physical_type(),
                    Physical::BYTE_ARRAY | Physical::INT32 | Physical::INT64
                );
            if !is_text_or_whole {
                let name = field.name();
                return Err(Unusable(format!("the column {name} is not text; write it as a string")).into());
            }
        }
        Ok(ParquetRows { rows: RowIter::from_file_into(Box::new(reader)), count, read: 0, places, done })
    }

    /// How many rows there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Reads so many rows, or as many as there are.
    pub fn read(&mut self, rows: &mut Rows, at_most: usize) -> anyhow::Result<()> {
        for row in self.rows.by_ref().take(at_most) {
            let row = row?;
            self.read += 1;
            let fields: Vec<_> = row.get_column_iter().map(|(_, field)| text(field)).collect();
            let values = self.places.map(|place| place.map_or(&[][..], |place| &fields[place]));
            rows.push(self.read, values, None, Encoding::Utf8);
        }
        self.done.add(rows.len() as u64);
        Ok(())
    }
}

fn text(field: &Field) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(match field {
        Field::Null => Vec::new(),
        Field::Str(text) => text.as_bytes().to_vec(),
        Field::Bytes(bytes) => bytes.data().to_vec(),
        number => number.to_string().into_bytes(),
    })
}
