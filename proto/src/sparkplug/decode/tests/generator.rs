//! Payloads of every shape for the agreement tests.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use crate::generated::sparkplug::*;
use crate::varint;

fn text() -> BoxedStrategy<String> {
    prop_oneof!["[a-zä/+#]{0,8}", Just("Quality".to_owned()), ".{0,80}"].boxed()
}

fn raw() -> BoxedStrategy<Vec<u8>> {
    vec(any::<u8>(), 0..20).boxed()
}

fn scalar_property() -> BoxedStrategy<property_value::Value> {
    use property_value::Value;
    prop_oneof![
        any::<u32>().prop_map(Value::IntValue),
        any::<u64>().prop_map(Value::LongValue),
        any::<f32>().prop_map(Value::FloatValue),
        any::<f64>().prop_map(Value::DoubleValue),
        any::<bool>().prop_map(Value::BooleanValue),
        text().prop_map(Value::StringValue),
        Just(Value::ExtensionValue(PropertyValueExtension {})),
    ]
    .boxed()
}

fn property_value(value: BoxedStrategy<property_value::Value>) -> BoxedStrategy<PropertyValue> {
    (of(any::<u32>()), of(any::<bool>()), of(value))
        .prop_map(|(r#type, is_null, value)| PropertyValue { r#type, is_null, value })
        .boxed()
}

fn set_of(value: BoxedStrategy<PropertyValue>) -> BoxedStrategy<PropertySet> {
    (vec(text(), 0..4), vec(value, 0..4)).prop_map(|(keys, values)| PropertySet { keys, values }).boxed()
}

fn property_set() -> BoxedStrategy<PropertySet> {
    use property_value::Value;
    let inner = set_of(property_value(scalar_property()));
    let list = vec(set_of(property_value(scalar_property())), 0..3)
        .prop_map(|propertyset| Value::PropertysetsValue(PropertySetList { propertyset }));
    set_of(property_value(
        prop_oneof![
            6 => scalar_property(),
            1 => inner.prop_map(Value::PropertysetValue),
            1 => list,
        ]
        .boxed(),
    ))
    .boxed()
}

fn data_set() -> BoxedStrategy<DataSet> {
    use data_set::data_set_value::Value;
    let value = prop_oneof![
        any::<u32>().prop_map(Value::IntValue),
        any::<u64>().prop_map(Value::LongValue),
        any::<f32>().prop_map(Value::FloatValue),
        any::<f64>().prop_map(Value::DoubleValue),
        any::<bool>().prop_map(Value::BooleanValue),
        text().prop_map(Value::StringValue),
        Just(Value::ExtensionValue(data_set::DataSetValueExtension {})),
    ];
    let element = of(value).prop_map(|value| data_set::DataSetValue { value });
    let row = vec(element, 0..3).prop_map(|elements| data_set::Row { elements });
    (of(any::<u64>()), vec(text(), 0..3), vec(any::<u32>(), 0..4), vec(row, 0..3))
        .prop_map(|(num_of_columns, columns, types, rows)| DataSet { num_of_columns, columns, types, rows })
        .boxed()
}

fn template(metric: BoxedStrategy<Metric>) -> BoxedStrategy<Template> {
    use template::parameter::Value;
    let value = prop_oneof![
        any::<u32>().prop_map(Value::IntValue),
        any::<f64>().prop_map(Value::DoubleValue),
        text().prop_map(Value::StringValue),
        Just(Value::ExtensionValue(template::ParameterValueExtension {})),
    ];
    let parameter = (of(text()), of(any::<u32>()), of(value))
        .prop_map(|(name, r#type, value)| template::Parameter { name, r#type, value });
    (of(text()), vec(metric, 0..3), vec(parameter, 0..3), of(text()), of(any::<bool>()))
        .prop_map(|(version, metrics, parameters, template_ref, is_definition)| Template {
            version,
            metrics,
            parameters,
            template_ref,
            is_definition,
        })
        .boxed()
}

fn meta_data() -> BoxedStrategy<MetaData> {
    (of(any::<bool>()), of(text()), of(any::<u64>()), of(text()))
        .prop_map(|(is_multi_part, content_type, size, description)| MetaData {
            is_multi_part,
            content_type,
            size,
            description,
            ..MetaData::default()
        })
        .boxed()
}

fn scalar() -> BoxedStrategy<metric::Value> {
    use metric::Value;
    prop_oneof![
        any::<u32>().prop_map(Value::IntValue),
        any::<u64>().prop_map(Value::LongValue),
        any::<f32>().prop_map(Value::FloatValue),
        any::<f64>().prop_map(Value::DoubleValue),
        any::<bool>().prop_map(Value::BooleanValue),
        text().prop_map(Value::StringValue),
        raw().prop_map(Value::BytesValue),
        Just(Value::ExtensionValue(MetricValueExtension {})),
    ]
    .boxed()
}

fn metric_of(value: BoxedStrategy<metric::Value>) -> BoxedStrategy<Metric> {
    let head = (of(text()), of(any::<u64>()), of(any::<u64>()), of(any::<u32>()));
    let flags = (of(any::<bool>()), of(any::<bool>()), of(any::<bool>()));
    let extra = (of(meta_data()), of(property_set()), of(value));
    (head, flags, extra)
        .prop_map(|(head, flags, extra)| {
            let (name, alias, timestamp, datatype) = head;
            let (is_historical, is_transient, is_null) = flags;
            let (metadata, properties, value) = extra;
            Metric {
                name,
                alias,
                timestamp,
                datatype,
                is_historical,
                is_transient,
                is_null,
                metadata,
                properties,
                value,
            }
        })
        .boxed()
}

/// A metric, sometimes with a data set or a template of two levels.
pub(super) fn metric() -> BoxedStrategy<Metric> {
    use metric::Value;
    let inner = template(metric_of(scalar())).prop_map(Value::TemplateValue);
    metric_of(
        prop_oneof![
            6 => scalar(),
            1 => data_set().prop_map(Value::DatasetValue),
            1 => template(metric_of(prop_oneof![scalar(), inner].boxed())).prop_map(Value::TemplateValue),
        ]
        .boxed(),
    )
    .boxed()
}

fn account() -> BoxedStrategy<Account> {
    (of(any::<u64>()), of(any::<u64>())).prop_map(|(count, checksum)| Account { count, checksum }).boxed()
}

fn epoch() -> BoxedStrategy<Option<u64>> {
    prop_oneof![8 => (1..=i64::MAX as u64).prop_map(Some), 1 => Just(Some(0)), 1 => Just(None)].boxed()
}

fn counts() -> BoxedStrategy<DeviceCounts> {
    let one = || of(any::<u64>());
    (one(), one(), one(), one())
        .prop_map(|(read, dead_band, quarantined, made)| DeviceCounts { read, dead_band, quarantined, made })
        .boxed()
}

fn record() -> BoxedStrategy<RecordExtension> {
    let ids = (epoch(), of(0..1000u64), of(0..10u64), of(0..10u64), of(any::<i64>()), of(account()));
    let columns = (vec(0..1002u32, 0..4), vec(0..0x0404_0000u32, 0..4), vec(0..1002u32, 0..4));
    (ids, columns, of(counts()))
        .prop_map(|(ids, columns, counts)| {
            let (epoch, offset, held, ahead, accepted_at, account) = ids;
            let (time_micros, quality, value_micros) = columns;
            RecordExtension {
                epoch,
                offset,
                held,
                ahead,
                accepted_at,
                time_micros,
                quality,
                value_micros,
                account,
                counts,
            }
        })
        .boxed()
}

fn birth() -> BoxedStrategy<BirthExtension> {
    let one = (epoch(), of(0..5u64), of(3..10u64), of(account()), of(account())).prop_map(
        |(epoch, first_held, end, before, total)| EpochAccount { epoch, first_held, end, before, total },
    );
    (vec(one, 0..4), of(any::<i64>()), of(text()), of(any::<u32>()))
        .prop_map(|(epochs, agent_time, version, outbox_used)| BirthExtension {
            epochs,
            agent_time,
            version,
            outbox_used,
        })
        .boxed()
}

fn command() -> BoxedStrategy<CommandExtension> {
    (of(vec(any::<u8>(), 15..18)), of(any::<i64>()), of(text()), of(text()))
        .prop_map(|(id, expires_at, author, reason)| CommandExtension { id, expires_at, author, reason })
        .boxed()
}

/// A payload of the standard, sometimes with the extension, which sometimes breaks its rules.
pub(super) fn payload() -> BoxedStrategy<Payload> {
    let head = (of(any::<u64>()), vec(metric(), 0..5), of(any::<u64>()), of(text()), of(raw()));
    let extension = prop_oneof![
        2 => Just((None, None, None, None)),
        1 => (of(record()), of(birth()), of(command()), of(raw())),
    ];
    (head, extension)
        .prop_map(|(head, extension)| {
            let (timestamp, metrics, seq, uuid, body) = head;
            let (forebay_record, forebay_birth, forebay_command, forebay_health) = extension;
            Payload {
                timestamp,
                metrics,
                seq,
                uuid,
                body,
                forebay_record,
                forebay_birth,
                forebay_command,
                forebay_seal: None,
                forebay_health,
            }
        })
        .boxed()
}

/// Fields of any number and wire type, nested in each other at random: mostly well-formed, rarely meaningful.
pub(super) fn fields() -> BoxedStrategy<Vec<u8>> {
    let tag = prop_oneof![
        8 => 1..20u64,
        4 => Just(2u64),
        2 => prop_oneof![4 => 1180..1183u64, 1 => Just(1184u64)],
        1 => any::<u32>().prop_map(u64::from),
    ];
    let number = prop_oneof![3 => 0..200u64, 1 => any::<u64>()];
    let leaf = vec((tag.clone(), 0..8u64, number, raw()), 0..6).prop_map(|fields| {
        let mut out = Vec::new();
        for (tag, wire_type, number, raw) in fields {
            field(tag, wire_type, number, &raw, &mut out);
        }
        out
    });
    leaf.prop_recursive(5, 60, 5, move |inner| {
        let mostly_messages = prop_oneof![4 => Just(2u64), 1 => 0..8u64];
        vec((tag.clone(), mostly_messages, 0..300u64, inner), 0..5).prop_map(|fields| {
            let mut out = Vec::new();
            for (tag, wire_type, number, content) in fields {
                field(tag, wire_type, number, &content, &mut out);
            }
            out
        })
    })
    .boxed()
}

fn field(tag: u64, wire_type: u64, number: u64, content: &[u8], out: &mut Vec<u8>) {
    varint::put(tag << 3 | wire_type, out);
    match wire_type {
        0 => varint::put(number, out),
        1 => out.extend_from_slice(&number.to_le_bytes()),
        2 => {
            varint::put(content.len() as u64, out);
            out.extend_from_slice(content);
        }
        3 => {
            out.extend_from_slice(content);
            varint::put(tag << 3 | 4, out);
        }
        5 => out.extend_from_slice(&7u32.to_le_bytes()),
        _ => {}
    }
}
