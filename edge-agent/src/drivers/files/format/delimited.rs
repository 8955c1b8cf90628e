//! CSV, TSV and their relatives: cells between separators, which may be quoted; with a header line or without.

use std::borrow::Cow;

use super::super::mapping::{Cell, Cells, Layout, Mapping, name_and_unit, ucum};

/// How cells are written.
#[derive(Clone, Debug)]
pub(in super::super) struct Delimited {
    /// Between cells.
    pub(in super::super) separator: u8,
    /// Around cells that hold separators; doubled inside.
    pub(in super::super) quote: Option<u8>,
    /// `Some`: header cells such as `Temp [°C]` have units. UCUM of each point, by address; empty where none is given.
    pub(in super::super) units: Option<Vec<(String, String)>>,
}

impl Delimited {
    /// Where the columns are.
    pub(in super::super) fn layout(&self, mapping: &Mapping, header: Option<&str>) -> Result<Layout, String> {
        let header = header.map(|header| self.split(header)).transpose()?;
        let mut layout = self.layout_of(mapping, header.as_deref())?;
        layout.width = header.map(|header| header.len());
        Ok(layout)
    }

    /// The same with the cells of the header.
    pub(in super::super) fn layout_of(
        &self,
        mapping: &Mapping,
        header: Option<&[Cow<'_, str>]>,
    ) -> Result<Layout, String> {
        let Some(cells) = header else {
            // Columns have numbers then. Checked by `settings`: these are numbers from 1.
            return mapping
                .layout(|name| Ok(name.trim().parse::<usize>().ok().and_then(|nth| nth.checked_sub(1))));
        };
        let named = |nth: usize| cells.get(nth).map_or("", |cell| cell.trim());
        let find = |name: &str| {
            let whole = (0..cells.len()).filter(|nth| named(*nth) == name);
            let without_unit =
                (0..cells.len()).filter(|nth| self.units.is_some() && name_and_unit(named(*nth)).0 == name);
            let whole: Vec<usize> = whole.collect();
            let found = if whole.is_empty() { without_unit.collect() } else { whole };
            if found.len() > 1 {
                return Err(format!("column {name:?} is in the header twice"));
            }
            Ok(found.first().copied())
        };
        let layout = mapping.layout(find)?;
        for (address, expected) in self.units.iter().flatten().filter(|(_, unit)| !unit.is_empty()) {
            let unit = find(address)?.and_then(|nth| name_and_unit(named(nth)).1);
            if let Some(unit) = unit.filter(|unit| ucum(unit) != expected) {
                return Err(format!(
                    "column {address:?} is in {unit:?} ({}), but the point list says {expected:?}",
                    ucum(unit)
                ));
            }
        }
        Ok(layout)
    }

    /// The cells of a line.
    pub(in super::super) fn cells<'r>(&self, line: &'r str) -> Result<Cells<'r>, String> {
        Ok(self.split(line)?.into_iter().map(|cell| Some(Cell::Text(cell))).collect())
    }

    /// The texts of a line.
    pub(in super::super) fn split<'r>(&self, line: &'r str) -> Result<Vec<Cow<'r, str>>, String> {
        let quote = match self.quote {
            Some(quote) if line.as_bytes().contains(&quote) => quote,
            _ => return Ok(line.split(char::from(self.separator)).map(Cow::Borrowed).collect()),
        };
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(self.separator)
            .quote(quote)
            .has_headers(false)
            .flexible(true)
            .from_reader(line.as_bytes());
        let mut record = csv::StringRecord::new();
        reader.read_record(&mut record).map_err(|error| error.to_string())?;
        if reader.read_record(&mut csv::StringRecord::new()).unwrap_or(true) {
            return Err("its quotes cannot be understood".into());
        }
        Ok(record.iter().map(|cell| Cow::Owned(cell.to_owned())).collect())
    }
}

/// Cells as the texts of a header.
pub(in super::super) fn texts(cells: &Cells<'_>) -> Vec<Cow<'static, str>> {
    let text = |cell: &Option<Cell<'_>>| match cell {
        Some(Cell::Text(text) | Cell::Number(text)) => Cow::Owned(text.to_string()),
        None => Cow::Borrowed(""),
    };
    cells.iter().map(text).collect()
}
