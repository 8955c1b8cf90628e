//! Addresses as lists write them, and every form of a value in every order.

use model::Timestamp;

use super::*;

const DIALECT: Dialect = Dialect { addressing: Addressing::ZeroBased, zone: Tz::UTC, registers_max: 125 };

fn address(text: &str, data_type: DataType) -> Address {
    Address::parse(text, data_type, DIALECT).unwrap()
}

fn written(address: &Address, value: &Value) -> Request {
    address.encode(value, address.span.start).unwrap().0
}

/// The registers of a write.
fn registers(request: Request) -> Vec<u16> {
    match request {
        Request::WriteRegister(_, word) => vec![word],
        Request::WriteRegisters(_, words) => words,
        other => panic!("{other:?}"),
    }
}

#[test]
fn orders_of_bytes_and_words() {
    let bytes = 0x0102_0304_u32;
    for (order, words) in [
        ("", [0x0102, 0x0304]),
        ("ABCD", [0x0102, 0x0304]),
        ("word=little", [0x0304, 0x0102]),
        ("CDAB", [0x0304, 0x0102]),
        ("byte=little", [0x0201, 0x0403]),
        ("BADC", [0x0201, 0x0403]),
        ("word=little byte=little", [0x0403, 0x0201]),
        ("DCBA", [0x0403, 0x0201]),
    ] {
        let address = address(&format!("hr:7 {order}"), DataType::UInt32);
        assert_eq!(address.span, Span { table: Table::HoldingRegisters, start: 7, count: 2 });
        assert_eq!(address.decode(&words), Decoded::Value(Value::UInt32(bytes)), "{order}");
        assert_eq!(written(&address, &Value::UInt32(bytes)), Request::WriteRegisters(7, words.to_vec()));
    }
}

#[test]
fn every_form_comes_back_as_it_was_written() {
    let time = |micros: i64| Value::DateTime(Timestamp(1_800_000_000_000_000 + micros));
    let forms = [
        ("", Value::UInt16(0xbeef)),
        ("", Value::Int16(-2)),
        ("", Value::UInt32(0xdead_beef)),
        ("", Value::Int32(i32::MIN)),
        ("", Value::UInt64(u64::MAX - 1)),
        ("", Value::Int64(-3)),
        ("", Value::Float(-1.5e-3)),
        ("", Value::Double(f64::NAN)),
        ("", Value::Boolean(true)),
        ("len=7", Value::String("Öl 12".into())),
        ("len=5 charset=latin1 pad=space", Value::String("Öl 12".into())),
        ("len=3", Value::Bytes(vec![0, 0xff, 1])),
        ("bcd", Value::UInt16(9876)),
        ("bcd", Value::UInt32(12_345_678)),
        ("bcd", Value::UInt64(9_999_999_999_999_999)),
        ("as=int16", Value::Double(-12.0)),
        ("time=epoch32", time(0)),
        ("time=epoch64", time(0)),
        ("time=epoch-ms", time(123_000)),
        ("time=ymdhms-6", time(0)),
        ("time=ymdhms-3", time(0)),
        ("time=ymdhms-3-bcd", time(0)),
        ("time=iec", time(456_000)),
    ];
    for order in ["ABCD", "CDAB", "BADC", "DCBA"] {
        for (options, value) in &forms {
            let address = address(&format!("hr:0 {order} {options}"), value.data_type());
            let words = registers(written(&address, value));
            assert_eq!(words.len(), usize::from(address.span.count), "{options}");
            assert_eq!(address.decode(&words), Decoded::Value(value.clone()), "{order} {options}");
            assert_eq!(address.decode(&words[1..]), Decoded::Undecodable, "{order} {options}");
        }
    }
}

#[test]
fn clocks_in_registers_have_the_device_s_zone() {
    let dialect = Dialect { zone: "Europe/Brussels".parse().unwrap(), ..DIALECT };
    let address = Address::parse("hr:0 time=ymdhms-6", DataType::DateTime, dialect).unwrap();
    // 2026-07-01 12:30:15 in summer is 10:30:15 UTC.
    let expected = Value::DateTime(Timestamp(1_782_901_815_000_000));
    assert_eq!(address.decode(&[2026, 7, 1, 12, 30, 15]), Decoded::Value(expected.clone()));
    assert_eq!(address.decode(&[26, 7, 1, 12, 30, 15]), Decoded::Value(expected.clone()));
    assert_eq!(registers(written(&address, &expected)), [2026, 7, 1, 12, 30, 15]);
    assert_eq!(address.decode(&[2026, 3, 29, 2, 30, 0]), Decoded::Undecodable, "a time that does not exist");
    assert_eq!(address.decode(&[2026, 13, 1, 0, 0, 0]), Decoded::Undecodable);
    let iec = Address::parse("hr:0 time=iec", DataType::DateTime, DIALECT).unwrap();
    assert_eq!(iec.decode(&[26, 0x0701, 0x0c9e, 0]), Decoded::Undecodable, "a clock that was never set");
}

#[test]
fn bcd_that_is_none_is_undecodable() {
    let bcd = address("hr:0 bcd", DataType::UInt16);
    assert_eq!(bcd.decode(&[0x1234]), Decoded::Value(Value::UInt16(1234)));
    assert_eq!(bcd.decode(&[0x12a4]), Decoded::Undecodable);
    assert!(bcd.encode(&Value::UInt16(10_000), 0).unwrap_err().contains("more than 4 digits"));
}

#[test]
fn a_scale_factor_register_gives_the_exponent() {
    let power = address("hr:10 as=int16 sf=12", DataType::Double);
    assert_eq!((power.span.start, power.span.count), (10, 3));
    let minus_one = (-1_i16).cast_unsigned();
    assert_eq!(power.decode(&[235, 9, minus_one]), Decoded::Value(Value::Double(23.5)));
    assert_eq!(power.decode(&[235, 9, 3]), Decoded::Value(Value::Double(235_000.0)));
    assert_eq!(power.decode(&[235, 9, 0x8000]), Decoded::NoValue);
    assert_eq!(power.decode(&[235, 9, 400]), Decoded::Undecodable);
    let before = address("hr:10 as=uint32 sf=8 CDAB", DataType::Float);
    assert_eq!((before.span.start, before.span.count), (8, 4));
    assert_eq!(before.decode(&[minus_one, 0, 5, 1]), Decoded::Value(Value::Float(6554.1)));
    assert!(power.encode(&Value::Double(1.0), 10).unwrap_err().contains("scale factor"));
    let sunspec = address("sunspec:101|102|103:14 as=int16 sf=15", DataType::Double);
    assert_eq!(sunspec.models, [101, 102, 103]);
    assert_eq!(sunspec.decode(&[0x8000, 0]), Decoded::NoValue);
}

#[test]
fn numbers_that_mean_none() {
    for (data_type, cells) in [
        (DataType::UInt16, vec![0xffff]),
        (DataType::Int16, vec![0x8000]),
        (DataType::UInt32, vec![0xffff, 0xffff]),
        (DataType::Float, vec![0x7fc0, 0]),
    ] {
        assert_eq!(address("hr:0 na", data_type).decode(&cells), Decoded::NoValue);
        assert!(matches!(address("hr:0", data_type).decode(&cells), Decoded::Value(_)));
    }
}

#[test]
fn parts_of_a_register_are_written_by_mask() {
    let bit = address("hr:100.3", DataType::Boolean);
    assert_eq!(bit.decode(&[0b1000]), Decoded::Value(Value::Boolean(true)));
    assert_eq!(written(&bit, &Value::Boolean(true)), Request::MaskWrite(100, 0xfff7, 0x0008));
    assert_eq!(written(&bit, &Value::Boolean(false)), Request::MaskWrite(100, 0xfff7, 0));
    let swapped = address("hr:100.3 BADC", DataType::Boolean);
    assert_eq!(swapped.decode(&[0x0800]), Decoded::Value(Value::Boolean(true)));
    assert_eq!(written(&swapped, &Value::Boolean(true)), Request::MaskWrite(100, 0xf7ff, 0x0800));
    let byte = address("hr:1", DataType::Int8);
    assert_eq!(byte.decode(&[0x12ff]), Decoded::Value(Value::Int8(-1)));
    assert_eq!(written(&byte, &Value::Int8(-1)), Request::MaskWrite(1, 0xff00, 0x00ff));
}

#[test]
fn the_function_of_a_write_is_the_list_s_choice() {
    let write = |text: &str, value: &Value| address(text, value.data_type()).encode(value, 5).unwrap();
    let (on, word) = (Value::Boolean(true), Value::UInt16(7));
    assert_eq!(write("co:5", &on), (Request::WriteCoil(5, true), Some(Request::WriteCoils(5, vec![true]))));
    assert_eq!(write("co:5 fc=15", &on), (Request::WriteCoils(5, vec![true]), None));
    assert_eq!(
        write("hr:5", &word),
        (Request::WriteRegister(5, 7), Some(Request::WriteRegisters(5, vec![7])))
    );
    assert_eq!(write("hr:5 fc=16", &word), (Request::WriteRegisters(5, vec![7]), None));
    assert_eq!(write("hr:5 fc=6", &word), (Request::WriteRegister(5, 7), None));
    assert_eq!(write("hr:5 fc=23", &word), (Request::ReadWrite(5, vec![7]), None));
    for (text, data_type) in [
        ("hr:5 fc=6", DataType::Float),
        ("hr:5.1 fc=6", DataType::Boolean),
        ("ir:5 fc=6", DataType::UInt16),
        ("co:5 fc=6", DataType::Boolean),
    ] {
        assert!(
            Address::parse(text, data_type, DIALECT).unwrap_err().contains("does not write this"),
            "{text}"
        );
    }
}

#[test]
fn numbers_count_as_the_device_says() {
    let parse = |text: &str, addressing| {
        let found = Address::parse(text, DataType::UInt16, Dialect { addressing, ..DIALECT });
        found.map(|address| (address.span.table, address.span.start))
    };
    let holding = |start| Ok((Table::HoldingRegisters, start));
    assert_eq!(parse("hr:1", Addressing::ZeroBased), holding(1));
    assert_eq!(parse("hr:1", Addressing::OneBased), holding(0));
    assert_eq!(parse("hr:65536", Addressing::OneBased), holding(65_535));
    assert_eq!(parse("40001", Addressing::Modicon), holding(0));
    assert_eq!(parse("400001", Addressing::Modicon), holding(0));
    assert_eq!(parse("465536", Addressing::Modicon), holding(65_535));
    assert_eq!(parse("30011", Addressing::Modicon), Ok((Table::InputRegisters, 10)));
    let coil =
        Address::parse("00017", DataType::Boolean, Dialect { addressing: Addressing::Modicon, ..DIALECT });
    assert_eq!(coil.unwrap().span, Span { table: Table::Coils, start: 16, count: 1 });
    let bit =
        Address::parse("40005.3", DataType::Boolean, Dialect { addressing: Addressing::Modicon, ..DIALECT });
    assert_eq!((bit.clone().unwrap().span.start, bit.unwrap().bit), (4, Some(3)));
    let scaled = Address::parse(
        "40005 as=int16 sf=40007",
        DataType::Double,
        Dialect { addressing: Addressing::Modicon, ..DIALECT },
    );
    assert_eq!(scaled.unwrap().span.count, 3);
    for (text, addressing, expected) in [
        ("hr:0", Addressing::OneBased, "from 1 to 65536"),
        ("40001", Addressing::OneBased, "write hr:1"),
        ("40001", Addressing::ZeroBased, "write hr:0"),
        ("hr:7", Addressing::Modicon, "write 40008"),
        ("40000", Addressing::Modicon, "counted from 1"),
        ("20001", Addressing::Modicon, "five or six digits"),
        ("4001", Addressing::Modicon, "five or six digits"),
        ("465537", Addressing::Modicon, "five or six digits"),
    ] {
        let error = parse(text, addressing).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn refusals_say_what_to_write() {
    for (text, data_type, expected) in [
        ("40001", DataType::UInt16, "write hr:0"),
        ("300011", DataType::UInt16, "write ir:10"),
        ("4x0001", DataType::UInt16, "write hr:0"),
        ("00017", DataType::Boolean, "write co:16"),
        ("", DataType::UInt16, "write co:N"),
        ("%MW100", DataType::UInt16, "write co:N"),
        ("xx:1", DataType::UInt16, "unknown table"),
        ("hr:+1", DataType::UInt16, "no address"),
        ("hr:65536", DataType::UInt16, "no address"),
        ("hr:65535", DataType::Float, "needs 2 registers"),
        ("hr:1.16", DataType::Boolean, "no bit"),
        ("hr:1.1", DataType::UInt16, "a bit is a boolean"),
        ("co:1.1", DataType::Boolean, "bits already"),
        ("co:1", DataType::Float, "holds booleans"),
        ("hr:1 CABD", DataType::Float, "unknown option"),
        ("hr:1", DataType::String, "len=16"),
        ("hr:1 len=251", DataType::String, "from 1 to 250"),
        ("hr:1 len=4", DataType::UInt16, "for string and bytes"),
        ("hr:1", DataType::DateTime, "time=epoch32"),
        ("hr:1 time=sometimes", DataType::DateTime, "known: epoch32"),
        ("hr:1 time=iec", DataType::UInt32, "makes a datetime"),
        ("hr:1 sf=2", DataType::Double, "as=int16"),
        ("hr:1 as=int16 sf=2", DataType::Int16, "double or float"),
        ("hr:1 as=int16 sf=500", DataType::Double, "registers away"),
        ("hr:1 bcd", DataType::Float, "bcd is for"),
        ("sunspec:x:1", DataType::UInt16, "sunspec:MODEL:REGISTER"),
    ] {
        let error = Address::parse(text, data_type, DIALECT).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
