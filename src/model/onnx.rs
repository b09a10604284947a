//! The ONNX form of the network behind `ngram-fields`: written by the trainer, read by the fused engine.
//!
//! The graph (operator set 13) takes, for each pool, a list of row numbers of fixed length, filled up with row 0, and the
//! reciprocals of their counts, then the dense numbers:
//! `core` int64[128], `sub` int64[128], `word` int64[32], `inverse` float[3], `dense` float[14];
//! it gives `logit` and `score`, float[1, 1]. [`read`] takes nothing but this graph, so what the fused engine computes
//! is what any other runtime computes from the same file. The protobuf types are those that come with tract.

use super::ngram::net::{HIDDEN, INPUTS, Net, POOLED, SECOND, WIDTH, Weights};
use super::ngram::{DENSE, MAX_ROWS, POOLS};
use super::tract::pb::tensor_proto::DataType;
use super::tract::pb::tensor_shape_proto::{Dimension, dimension};
use super::tract::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType, type_proto,
};
use prost::Message;

const TABLE: &str = "table";
const SCALE: &str = "scale";
/// The perceptron's parts, in the order of [`Net::parts`], with their shapes.
const PARTS: [(&str, &[usize]); super::ngram::net::PARTS] = [
    ("first", &[INPUTS, HIDDEN]),
    ("first_bias", &[HIDDEN]),
    ("second", &[HIDDEN, SECOND]),
    ("second_bias", &[SECOND]),
    ("out", &[SECOND, 1]),
    ("skip", &[POOLED, 1]),
    ("bias", &[1]),
];
const POOL_NAMES: [&str; POOLS] = ["core", "sub", "word"];

/// The bytes of `model.onnx`.
#[cfg(feature = "train")]
pub fn write(weights: &Weights) -> Vec<u8> {
    let rows: Vec<u8> =
        weights.table.as_flattened().iter().map(|&value| value.cast_unsigned()).collect();
    let mut initializer = vec![
        tensor(TABLE, DataType::Int8, &[weights.table.len(), WIDTH], rows),
        tensor(SCALE, DataType::Float, &[WIDTH], floats(&weights.scale)),
    ];
    for ((name, shape), part) in PARTS.into_iter().zip(weights.net.parts()) {
        initializer.push(tensor(name, DataType::Float, shape, floats(part)));
    }
    let graph = GraphProto { initializer, ..graph() };
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 13 }],
        producer_name: "mlbridge".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph),
        ..ModelProto::default()
    };
    model.encode_to_vec()
}

/// The weights in an ONNX file, if its graph is the one described above; else the reason why not.
pub(super) fn read(onnx: &[u8]) -> Result<Weights, String> {
    let model = ModelProto::decode(onnx).map_err(|reason| reason.to_string())?;
    let mut found = model.graph.ok_or("it has no graph")?;
    let tensors = std::mem::take(&mut found.initializer);
    if found != graph() {
        return Err("its graph is not that of ngram-fields".to_owned());
    }
    let bytes = |name: &str, kind: DataType, shape: &[usize]| {
        let tensor = tensors.iter().find(|tensor| tensor.name == name);
        let tensor = tensor.ok_or_else(|| format!("it has no tensor {name}"))?;
        let dims: Vec<usize> =
            tensor.dims.iter().map(|&dim| usize::try_from(dim).unwrap_or(0)).collect();
        let size = if kind == DataType::Float { size_of::<f32>() } else { 1 };
        // A first dimension of 0 stands for any.
        let fits = dims.len() == shape.len()
            && shape.iter().zip(&dims).all(|(&want, &dim)| want == 0 || want == dim);
        let length = dims.iter().try_fold(size, |product, &dim| product.checked_mul(dim));
        if !fits || tensor.data_type != kind as i32 || length != Some(tensor.raw_data.len()) {
            return Err(format!("its tensor {name} has another shape or type"));
        }
        Ok(tensor.raw_data.as_slice())
    };
    let table = bytes(TABLE, DataType::Int8, &[0, WIDTH])?;
    let table: Vec<[i8; WIDTH]> =
        table.as_chunks::<WIDTH>().0.iter().map(|row| row.map(u8::cast_signed)).collect();
    if table.first() != Some(&[0; WIDTH]) {
        return Err(format!("row 0 of its tensor {TABLE} is not zero"));
    }
    let mut scale = [0.0; WIDTH];
    copy_floats(bytes(SCALE, DataType::Float, &[WIDTH])?, &mut scale);
    let mut net = Net::zero();
    for ((name, shape), part) in PARTS.into_iter().zip(net.parts_mut()) {
        copy_floats(bytes(name, DataType::Float, shape)?, part);
    }
    let finite = net.parts().into_iter().flatten().chain(&scale).all(|value| value.is_finite());
    if !finite {
        return Err("a weight is no finite number".to_owned());
    }
    Ok(Weights { table, scale, net })
}

/// The graph without its weights, except those that are part of its form.
fn graph() -> GraphProto {
    let mut node = Vec::new();
    let mut add = |op: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>| {
        node.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.to_owned()],
            name: format!("node_{output}"),
            op_type: op.to_owned(),
            attribute: attributes,
            ..NodeProto::default()
        });
    };
    let ints = |name: &str, values: &[i64]| constant_tensor(name, values);
    add("Constant", &[], "axis0", vec![ints("value", &[0])]);
    add("Constant", &[], "one_row", vec![ints("value", &[1, -1])]);
    for (place, pool) in POOL_NAMES.into_iter().enumerate() {
        let of = |what: &str| format!("{pool}_{what}");
        add("Gather", &[TABLE, pool], &of("rows"), vec![number("axis", 0)]);
        add("Cast", &[&of("rows")], &of("floats"), vec![number("to", DataType::Float as i64)]);
        add("ReduceSum", &[&of("floats"), "axis0"], &of("sum"), vec![number("keepdims", 0)]);
        add("Mul", &[&of("sum"), SCALE], &of("scaled"), vec![]);
        add("Constant", &[], &of("place"), vec![ints("value", &[place as i64])]);
        add("Gather", &["inverse", &of("place")], &of("inverse"), vec![number("axis", 0)]);
        add("Mul", &[&of("scaled"), &of("inverse")], &of("mean"), vec![]);
    }
    let means = POOL_NAMES.map(|pool| format!("{pool}_mean"));
    let means = means.each_ref().map(String::as_str);
    add("Concat", &means, "pools", vec![number("axis", 0)]);
    add("Concat", &["pools", "dense"], "inputs", vec![number("axis", 0)]);
    add("Reshape", &["inputs", "one_row"], "x", vec![]);
    add("Gemm", &["x", "first", "first_bias"], "first_sum", vec![]);
    add("Relu", &["first_sum"], "first_out", vec![]);
    add("Gemm", &["first_out", "second", "second_bias"], "second_sum", vec![]);
    add("Relu", &["second_sum"], "second_out", vec![]);
    add("Gemm", &["second_out", "out", "bias"], "deep", vec![]);
    add("Reshape", &["pools", "one_row"], "pools_row", vec![]);
    add("MatMul", &["pools_row", "skip"], "direct", vec![]);
    add("Add", &["deep", "direct"], "logit", vec![]);
    add("Sigmoid", &["logit"], "score", vec![]);
    let [core, sub, word] = MAX_ROWS;
    let input = vec![
        value("core", DataType::Int64, &[core]),
        value("sub", DataType::Int64, &[sub]),
        value("word", DataType::Int64, &[word]),
        value("inverse", DataType::Float, &[POOLS]),
        value("dense", DataType::Float, &[DENSE]),
    ];
    let output =
        vec![value("logit", DataType::Float, &[1, 1]), value("score", DataType::Float, &[1, 1])];
    GraphProto { node, name: "ngram-fields".to_owned(), input, output, ..GraphProto::default() }
}

fn number(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Int as i32,
        i: value,
        ..AttributeProto::default()
    }
}

fn constant_tensor(name: &str, values: &[i64]) -> AttributeProto {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    AttributeProto {
        name: name.to_owned(),
        r#type: AttributeType::Tensor as i32,
        t: Some(tensor("", DataType::Int64, &[values.len()], bytes)),
        ..AttributeProto::default()
    }
}

fn tensor(name: &str, kind: DataType, shape: &[usize], raw_data: Vec<u8>) -> TensorProto {
    TensorProto {
        name: name.to_owned(),
        data_type: kind as i32,
        dims: shape.iter().map(|&dim| dim as i64).collect(),
        raw_data,
        ..TensorProto::default()
    }
}

fn value(name: &str, kind: DataType, shape: &[usize]) -> ValueInfoProto {
    let dim = shape.iter().map(|&dim| Dimension {
        value: Some(dimension::Value::DimValue(dim as i64)),
        ..Dimension::default()
    });
    let tensor = type_proto::Tensor {
        elem_type: kind as i32,
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

#[cfg(feature = "train")]
fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn copy_floats(bytes: &[u8], to: &mut [f32]) {
    for (slot, &four) in to.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *slot = f32::from_le_bytes(four);
    }
}
