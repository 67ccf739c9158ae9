//! Tables for people: columns as wide as what is in them, wide characters counted as two.

use std::io::Write;

use unicode_width::UnicodeWidthStr;

/// A heading; those of numbers begin with `>` and are aligned to the right.
pub type Heading = &'static str;

/// Prints headings, unless all are empty, and rows in columns.
pub fn print(out: &mut dyn Write, headings: &[Heading], rows: &[Vec<String>]) -> std::io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width());
        cells.max().unwrap_or(0).max(name(headings[column]).width())
    };
    let widths: Vec<_> = (0..headings.len()).map(width).collect();
    let head: Vec<_> = headings.iter().map(|heading| name(heading).to_owned()).collect();
    let head = head.iter().any(|name| !name.is_empty()).then_some(&head);
    head.into_iter().chain(rows).try_for_each(|row| line(out, headings, &widths, row))
}

/// Prints one row, for tables too long to be held; a cell that is too wide shifts the rest.
pub fn line(
    out: &mut dyn Write,
    headings: &[Heading],
    widths: &[usize],
    row: &[String],
) -> std::io::Result<()> {
    let cells = row.iter().zip(headings).zip(widths).map(|((cell, heading), width)| {
        let blanks = " ".repeat(width.saturating_sub(cell.width()));
        if heading.starts_with('>') { format!("{blanks}{cell}") } else { format!("{cell}{blanks}") }
    });
    writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())
}

/// A heading without its sign.
pub fn name(heading: Heading) -> &'static str {
    heading.trim_start_matches('>')
}

/// `1 answer`, `2 answers`, `1,000 answers`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", indicatif::HumanCount(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_take_two_columns() {
        let mut out = Vec::new();
        let rows = [["商店一", "7"], ["shop", "1000"]].map(|row| row.map(str::to_owned).to_vec());
        print(&mut out, &["caller", ">balance"], &rows).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "caller  balance\n商店一        7\nshop       1000\n");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(count(1, "entry", "entries"), "1 entry");
        assert_eq!(count(1000, "entry", "entries"), "1,000 entries");
    }
}
