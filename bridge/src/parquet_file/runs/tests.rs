//! What is written is read back by parquet's own reader, run by run.

use std::sync::Arc;

use parquet::basic::Repetition;
use parquet::data_type::{ByteArrayType, DataType, DoubleType};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type as SchemaType;
use proptest::prelude::*;

use super::*;

fn schema(physical: Type) -> Arc<SchemaType> {
    let column = SchemaType::primitive_type_builder("c", physical).with_repetition(Repetition::OPTIONAL);
    let column = Arc::new(column.build().unwrap());
    Arc::new(SchemaType::group_type_builder("rows").with_fields(vec![column]).build().unwrap())
}

/// A file of this one chunk, read back; and its bounds.
fn read<T: DataType>(
    physical: Type,
    make: impl Fn(ColumnDescPtr) -> Chunk,
    rows: usize,
) -> (Vec<Option<T::T>>, Option<Statistics>) {
    let mut file =
        SerializedFileWriter::new(Vec::new(), schema(physical), Arc::new(WriterProperties::default()))
            .unwrap();
    let made = make(file.schema_descr().column(0));
    let mut group = file.next_row_group().unwrap();
    group.append_column(&made.bytes, made.close).unwrap();
    group.close().unwrap();
    let file = SerializedFileReader::new(Bytes::from(file.into_inner().unwrap())).unwrap();
    let group = file.get_row_group(0).unwrap();
    let statistics = group.metadata().column(0).statistics().cloned();
    let mut reader =
        parquet::column::reader::get_typed_column_reader::<T>(group.get_column_reader(0).unwrap());
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    while levels.len() < rows {
        let (records, _, _) = reader.read_records(rows, Some(&mut levels), None, &mut values).unwrap();
        assert!(records > 0);
    }
    let mut values = values.into_iter();
    (levels.into_iter().map(|level| (level == 1).then(|| values.next().unwrap())).collect(), statistics)
}

proptest! {
    #[test]
    fn texts_come_back_row_by_row(
        runs in prop::collection::vec((prop::option::weighted(0.8, 0_u32..300), 1_u32..40), 1..200),
        long in prop::option::of(1_u32..100_000),
    ) {
        let names: Vec<String> = (0..300).map(|key| format!("press-{key}")).collect();
        let (mut written, mut expected) = (Runs::default(), Vec::new());
        for (key, count) in runs.into_iter().chain(long.map(|count| (Some(7), count))) {
            written.push_many(key, count);
            expected.extend(std::iter::repeat_n(key.map(|key| names[key as usize].as_str()), count as usize));
        }
        let make = |column| texts(column, &written, |key| &names[key as usize], true).unwrap();
        let (found, statistics) = read::<ByteArrayType>(Type::BYTE_ARRAY, make, expected.len());
        let found: Vec<Option<&str>> =
            found.iter().map(|text| text.as_ref().map(|text| text.as_utf8().unwrap())).collect();
        prop_assert_eq!(&found, &expected);
        let statistics = statistics.unwrap();
        let bound = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
        let (low, high) = (expected.iter().flatten().min(), expected.iter().flatten().max());
        let owned = |text: Option<&&str>| text.map(|text| (*text).to_owned());
        prop_assert_eq!(bound(statistics.min_bytes_opt()), owned(low));
        prop_assert_eq!(bound(statistics.max_bytes_opt()), owned(high));
        let nulls = expected.iter().filter(|text| text.is_none()).count() as u64;
        prop_assert_eq!(statistics.null_count_opt(), Some(nulls));
    }
}

#[test]
fn a_column_without_values_has_none() {
    let (found, statistics) =
        read::<DoubleType>(Type::DOUBLE, |column| nothing(column, 70_000).unwrap(), 70_000);
    assert!(found.iter().all(Option::is_none));
    assert_eq!(statistics.unwrap().null_count_opt(), Some(70_000));
}
