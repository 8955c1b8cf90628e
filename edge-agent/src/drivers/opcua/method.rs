//! Points that are methods: a command to one calls it. Off unless the device says `methods = true`.
//!
//! ```text
//! call ns=2;s=Press method=ns=2;s=Press.Start                       type boolean: no argument; true calls it
//! call ns=2;s=Press method=ns=2;s=Press.SetSpeed                    any other type: the written value is its argument
//! call ns=2;s=Press method=ns=2;s=Press.Move inputs=double,int32    type string: a JSON list of them, [1.5, 7]
//! ```
//!
//! A call is a write like any other: ranges, expiry and ledger are the command's, it is sent once and never late. The point's
//! value is what it was called with last, so that the read-back of a call that the server confirmed is equal. Before
//! the first call there is none. Results of methods are not handed on.

use model::{DataType, Value};
use opcua::client::services::Call;
use opcua::types::{CallMethodRequest, NodeId, StatusCode, Variant};

use super::address::{Address, Place};
use super::link::Link;
use super::{fault, refused, value};
use crate::drivers::DriverError;

const PREFIX: &str = "call ";
const RULE: &str =
    "must be \"call OBJECT method=METHOD\" with two node ids, and inputs=TYPE,TYPE for several arguments";
/// Arguments of a method, and bytes of their list.
const INPUTS_MAX: usize = 32;
const LIST_BYTES_MAX: usize = 16 * 1024;

/// A method of a server; its object is the point's node.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Method {
    node: Place,
    inputs: Inputs,
}

#[derive(Clone, Debug, PartialEq)]
enum Inputs {
    None,
    One,
    List(Vec<DataType>),
}

/// Whether the address means a method.
pub(super) fn is_call(address: &str) -> bool {
    address.trim_start().starts_with(PREFIX)
}

/// Reads the address of a method for a point of this type: where its object is, and the method.
pub(super) fn parse(text: &str, data_type: DataType) -> Result<(Address, Method), String> {
    let rest = text.trim().strip_prefix(PREFIX).ok_or(RULE)?;
    let (rest, inputs) = match rest.rsplit_once(" inputs=") {
        Some((rest, types)) => (rest, Some(types)),
        None => (rest, None),
    };
    let (object, method) = rest.rsplit_once(" method=").ok_or(RULE)?;
    let (object, method) = (Address::parse(object.trim())?, Address::parse(method.trim())?);
    // An identifier may end in brackets; a method is a node, never a part of one.
    let whole = |address: &Address| address.readings.first().cloned().filter(|place| place.parts.is_empty());
    let (place, node) = (whole(&object).ok_or(RULE)?, whole(&method).ok_or(RULE)?);
    let inputs = match (inputs, data_type) {
        (None, DataType::Boolean) => Inputs::None,
        (None, _) => Inputs::One,
        (Some(types), _) => {
            let types: Vec<DataType> =
                types.split(',').map(|name| one_type(name.trim())).collect::<Result<_, _>>()?;
            match types.as_slice() {
                [one] if *one == data_type => Inputs::One,
                [one] => return Err(format!("takes {}: the point's type must be the same", one.name())),
                _ if types.len() > INPUTS_MAX => return Err(format!("has more than {INPUTS_MAX} arguments")),
                _ if data_type != DataType::String => {
                    return Err(
                        "several arguments are written as a JSON list: the point's type must be string"
                            .into(),
                    );
                }
                _ => Inputs::List(types),
            }
        }
    };
    Ok((Address { readings: vec![place], ..object }, Method { node, inputs }))
}

fn one_type(name: &str) -> Result<DataType, String> {
    let found = crate::points::parse_type(name);
    found
        .filter(|found| !matches!(found, DataType::Bytes | DataType::DateTime))
        .ok_or_else(|| format!("inputs={name}: must be numbers, boolean or string"))
}

impl Method {
    /// The arguments for a written value.
    fn arguments(&self, written: &Value) -> Result<Vec<Variant>, String> {
        match (&self.inputs, written) {
            (Inputs::None, Value::Boolean(true)) => Ok(Vec::new()),
            (Inputs::None, _) => Err("only true calls a method without arguments".into()),
            (Inputs::One, value) => Ok(vec![value::variant(value)]),
            (Inputs::List(types), Value::String(text)) => {
                let wrong = || format!("must be a JSON list of {} arguments", types.len());
                if text.len() > LIST_BYTES_MAX {
                    return Err(wrong());
                }
                let list: Vec<serde_json::Value> = serde_json::from_str(text).map_err(|_| wrong())?;
                if list.len() != types.len() {
                    return Err(wrong());
                }
                let argument = |(nth, (json, data_type)): (usize, (&serde_json::Value, &DataType))| {
                    let value = argument(json, *data_type);
                    let rule = || format!("argument {} is no {}", nth + 1, data_type.name());
                    value.map(|value| value::variant(&value)).ok_or_else(rule)
                };
                list.iter().zip(types).enumerate().map(argument).collect()
            }
            (Inputs::List(_), _) => Err("the point's type is string".into()),
        }
    }

    /// Calls it once. An error means that it was certainly not executed, but for those after which nobody can say.
    pub(super) async fn call(
        &self,
        link: &mut Link,
        namespaces: &[String],
        object: NodeId,
        written: &Value,
    ) -> Result<(), DriverError> {
        let arguments = self.arguments(written).map_err(|why| refused(&why, 0))?;
        let method =
            self.node.node(namespaces).ok_or_else(|| refused("the server has not that namespace", 0))?;
        let (number, timeout, token, handle) = link.header();
        let request = Call::new_manual(number, timeout, token, handle).method(CallMethodRequest {
            object_id: object,
            method_id: method,
            input_arguments: Some(arguments),
        });
        let results = link.ask(request).await?.results.unwrap_or_default();
        let result = results.first().ok_or_else(|| DriverError::Malformed("no answer to a call".into()))?;
        let status = result.status_code;
        if !status.is_bad() {
            return Ok(());
        }
        let wrong = result.input_argument_results.iter().flatten().position(StatusCode::is_bad);
        let reason = match wrong {
            Some(nth) => format!("{status}: argument {}", nth + 1),
            None => status.to_string(),
        };
        if is_before_execution(status) {
            Err(refused(&reason, fault::code(status)))
        } else {
            // The method itself says so, maybe in the middle of its work.
            Err(DriverError::InDoubt { reason, code: fault::code(status) })
        }
    }
}

/// What a server says before it runs a method (OPC UA Part 4, 5.12.2, and the services' common codes).
fn is_before_execution(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BadNodeIdInvalid
            | StatusCode::BadNodeIdUnknown
            | StatusCode::BadMethodInvalid
            | StatusCode::BadNotExecutable
            | StatusCode::BadUserAccessDenied
            | StatusCode::BadSecurityModeInsufficient
            | StatusCode::BadArgumentsMissing
            | StatusCode::BadTooManyArguments
            | StatusCode::BadInvalidArgument
            | StatusCode::BadTypeMismatch
            | StatusCode::BadOutOfRange
            | StatusCode::BadNotSupported
            | StatusCode::BadNotImplemented
            | StatusCode::BadInvalidState
            | StatusCode::BadTooManyOperations
    )
}

/// A JSON value as an argument of the type, exactly.
fn argument(json: &serde_json::Value, data_type: DataType) -> Option<Value> {
    match data_type {
        DataType::Boolean => json.as_bool().map(Value::Boolean),
        DataType::String => json.as_str().map(|text| Value::String(text.to_owned())),
        DataType::Int64 => json.as_i64().map(Value::Int64),
        DataType::UInt64 => json.as_u64().map(Value::UInt64),
        DataType::Float | DataType::Double => {
            json.as_f64().and_then(|number| Value::from_f64(number, data_type))
        }
        other => {
            // Of 32 bits at most: exact in a double, and 1.5 is no whole number.
            let number = json.as_i64().map(|whole| whole as f64)?;
            Value::from_f64(number, other)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method(text: &str, data_type: DataType) -> Method {
        parse(text, data_type).unwrap().1
    }

    #[test]
    fn addresses_say_object_method_and_arguments() {
        let (object, found) =
            parse("call ns=2;s=My press method=nsu=urn:a;s=Start", DataType::Boolean).unwrap();
        let namespaces = ["http://opcfoundation.org/UA/".to_owned(), "urn:a".to_owned()];
        assert_eq!(object.readings[0].node(&namespaces).unwrap().to_string(), "ns=2;s=My press");
        assert_eq!(found.node.node(&namespaces).unwrap().to_string(), "ns=1;s=Start");
        assert_eq!(found.inputs, Inputs::None);
        let text = "call i=85 method=ns=2;i=7 inputs=double, int32 ";
        assert_eq!(
            method(text, DataType::String).inputs,
            Inputs::List(vec![DataType::Double, DataType::Int32])
        );
        assert_eq!(method("call i=85 method=i=7 inputs=boolean", DataType::Boolean).inputs, Inputs::One);
        for (text, data_type, expected) in [
            ("call ns=2;s=Press", DataType::Boolean, "must be \"call OBJECT"),
            ("call x method=i=7", DataType::Boolean, "must be a node id"),
            ("call i=85 method=i=7#part", DataType::Boolean, "must be \"call OBJECT"),
            ("call i=85 method=i=7 inputs=double", DataType::Float, "must be the same"),
            ("call i=85 method=i=7 inputs=double,double", DataType::Double, "must be string"),
            ("call i=85 method=i=7 inputs=double,bytes", DataType::String, "must be numbers"),
        ] {
            let error = parse(text, data_type).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn arguments_are_exact_or_refused() {
        let none = method("call i=85 method=i=7", DataType::Boolean);
        assert_eq!(none.arguments(&Value::Boolean(true)), Ok(Vec::new()));
        assert!(none.arguments(&Value::Boolean(false)).is_err());
        let one = method("call i=85 method=i=7", DataType::Int16);
        assert_eq!(one.arguments(&Value::Int16(-3)), Ok(vec![Variant::Int16(-3)]));
        let list = method("call i=85 method=i=7 inputs=double,int8,string,uint64,boolean", DataType::String);
        let written = |text: &str| list.arguments(&Value::String(text.into()));
        assert_eq!(
            written("[1.5, -128, \"ä\", 18446744073709551615, false]").unwrap(),
            [
                Variant::Double(1.5),
                Variant::SByte(-128),
                Variant::from("ä"),
                Variant::UInt64(u64::MAX),
                Variant::Boolean(false)
            ]
        );
        for text in [
            "",
            "{}",
            "[1.5, 0, \"ä\", 1]",
            "[1.5, 128, \"ä\", 1, false]",
            "[1.5, 0.5, \"ä\", 1, false]",
            "[\"1.5\", 0, \"ä\", 1, false]",
            "[1.5, 0, \"ä\", -1, false]",
            "[1.5, 0, \"ä\", 1, 0]",
        ] {
            assert!(written(text).is_err(), "{text}");
        }
    }
}
