//! Runs a network with tract. The only file that names tract.
//!
//! The batch is 1. There is one plan for each length of input, made at load and shared by all threads. Each run makes a
//! state of its own and drops it in the same thread, so a run that fails or panics leaves nothing behind.
//!
//! States are not kept for reuse, though it would save 5 %: tract keeps scratch memory for each state in each thread
//! that ever ran it, and frees only that of the thread which drops the state. A pool of states shared by 16 threads
//! left 650 kB behind at each reload of a model (measured). A state kept in a `thread_local!` is worse: when it is
//! dropped at the thread's end, the scratch it reaches for may be gone already, and that aborts the process.
//!
//! The executor is given to each plan, because tract's default one sits behind a process-wide lock that every matrix
//! product would take: slow with many threads, and a fork may leave it held.
//!
//! Tensors kept in files of their own (ONNX external data) are refused: the manifest's hashes would not cover them.

use super::Failure;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tract_onnx::prelude::multithread::Executor;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{DimFact, DimLike, Factoid};

/// The protobuf types of ONNX files, for [`super::onnx`].
pub(super) use tract_onnx::pb;

/// Largest tensor a network may take as input, in elements.
const MAX_INPUT: usize = 1 << 16;
/// The output that is the score, where a network has several.
const SCORE_OUTPUT: &str = "score";

/// The type of the numbers in an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputType {
    F32,
    I64,
}

/// The numbers of one input, in the order of the tensor (row-major).
#[derive(Debug, Clone, Copy)]
pub(super) enum Input<'a> {
    F32(&'a [f32]),
    I64(&'a [i64]),
}

/// What an input must be given.
#[derive(Debug, Clone, PartialEq, Eq)]
struct InputForm {
    kind: InputType,
    shape: TVec<usize>,
}

/// A network ready to run, at one or several lengths of input.
pub(super) struct Network {
    plans: Vec<Plan>,
}

struct Plan {
    runnable: Arc<TypedRunnableModel>,
    inputs: Vec<InputForm>,
}

impl From<TractError> for Failure {
    fn from(error: TractError) -> Failure {
        Failure(format!("{error:#}"))
    }
}

impl Network {
    /// Reads an ONNX file. A first dimension that is not fixed becomes 1; any other one takes each of `lengths` in
    /// turn, with a plan for each. A network that is fixed everywhere has one plan, and at most one length.
    pub(super) fn load(onnx: &[u8], lengths: &[usize]) -> Result<Network, Failure> {
        guarded(|| {
            let framework = tract_onnx::onnx().with_ignore_value_info(true);
            let mut network = framework.model_for_read(&mut &*onnx)?;
            select_score(&mut network)?;
            if inputs_are_fixed(&network)? {
                if lengths.len() > 1 {
                    let reason =
                        format!("is of fixed size, but the manifest lists lengths {lengths:?}");
                    return Err(Failure(reason));
                }
                return Ok(Network { plans: vec![Plan::new(network, 1)?] });
            }
            if lengths.is_empty() {
                return Err(Failure("an input has no fixed size".to_string()));
            }
            let plans = lengths.iter().map(|&length| Plan::new(network.clone(), length));
            Ok(Network { plans: plans.collect::<Result<_, _>>()? })
        })
    }

    /// Checks that a plan takes what an encoder makes: the type and the size, in numbers, of each input.
    pub(super) fn expect(&self, plan: usize, made: &[(InputType, usize)]) -> Result<(), Failure> {
        let forms = self.plan(plan)?.inputs.iter();
        let taken: Vec<_> = forms.map(|form| (form.kind, form.size())).collect();
        if taken == made {
            return Ok(());
        }
        Err(Failure(format!("takes as inputs {taken:?}, but the encoder makes {made:?}")))
    }

    /// The type of the first input.
    pub(super) fn first_input_type(&self) -> Option<InputType> {
        self.plans.first()?.inputs.first().map(|form| form.kind)
    }

    /// The network's output for these inputs, given in the order of the graph's inputs.
    pub(super) fn run(&self, plan: usize, inputs: &[Input]) -> Result<f32, Failure> {
        guarded(|| self.plan(plan)?.run(inputs))
    }

    fn plan(&self, index: usize) -> Result<&Plan, Failure> {
        self.plans.get(index).ok_or_else(|| Failure(format!("has no plan {index}")))
    }
}

impl Plan {
    fn new(mut network: InferenceModel, length: usize) -> Result<Plan, Failure> {
        let mut inputs = Vec::new();
        for index in 0..network.input_outlets()?.len() {
            let input = InputForm::of(network.input_fact(index)?, length)?;
            let kind = match input.kind {
                InputType::F32 => f32::datum_type(),
                InputType::I64 => i64::datum_type(),
            };
            network.set_input_fact(index, kind.fact(&input.shape).into())?;
            inputs.push(input);
        }
        let network = network.into_optimized()?;
        let output = network.output_fact(0)?;
        let size = output.shape.as_concrete().map(|shape| shape.iter().product::<usize>());
        if output.datum_type != f32::datum_type() || size != Some(1) {
            return Err(Failure(format!("its output is {output:?}, not a single f32")));
        }
        let options =
            RunOptions { executor: Some(Executor::SingleThread), ..RunOptions::default() };
        let runnable = network.into_runnable_with_options(&options)?;
        Ok(Plan { runnable, inputs })
    }

    fn run(&self, inputs: &[Input]) -> Result<f32, Failure> {
        let tensors = self.inputs.iter().zip(inputs).map(|(form, input)| form.tensor(*input));
        let tensors = tensors.collect::<Result<TVec<TValue>, Failure>>()?;
        let outputs = self.runnable.run(tensors)?;
        let first = outputs.first().ok_or_else(|| Failure("gave no output".to_string()))?;
        let score = *first
            .try_as_plain_ram()?
            .as_slice::<f32>()?
            .first()
            .ok_or_else(|| Failure("gave an empty output".to_string()))?;
        Ok(score)
    }
}

impl InputForm {
    fn of(fact: &InferenceFact, length: usize) -> Result<InputForm, Failure> {
        let kind = match fact.datum_type.concretize() {
            Some(kind) if kind == f32::datum_type() => InputType::F32,
            Some(kind) if kind == i64::datum_type() => InputType::I64,
            other => return Err(Failure(format!("an input holds {other:?}, not f32 or i64"))),
        };
        if fact.shape.is_open() {
            return Err(Failure("an input has no shape".to_string()));
        }
        let shape: TVec<usize> = fact
            .shape
            .dims()
            .enumerate()
            .map(|(axis, dim)| match fixed(dim) {
                Some(size) => size,
                None if axis == 0 => 1,
                None => length,
            })
            .collect();
        let form = InputForm { kind, shape };
        let possible = form.shape.iter().try_fold(1_usize, |size, &dim| size.checked_mul(dim));
        match possible {
            Some(1..=MAX_INPUT) => Ok(form),
            _ => {
                Err(Failure(format!("an input has the shape {:?}, too large or empty", form.shape)))
            }
        }
    }

    fn size(&self) -> usize {
        self.shape.iter().product()
    }

    fn tensor(&self, input: Input) -> Result<TValue, Failure> {
        let tensor = match input {
            Input::F32(numbers) => Tensor::from_shape(&self.shape, numbers)?,
            Input::I64(numbers) => Tensor::from_shape(&self.shape, numbers)?,
        };
        Ok(tensor.into_tvalue())
    }
}

/// The size of a dimension, if it is a fixed number.
fn fixed(dim: &DimFact) -> Option<usize> {
    dim.concretize().and_then(|size| size.to_usize().ok())
}

fn inputs_are_fixed(network: &InferenceModel) -> Result<bool, Failure> {
    for index in 0..network.input_outlets()?.len() {
        // The first dimension is the batch, which is fixed to 1 in any case.
        if network.input_fact(index)?.shape.dims().skip(1).any(|dim| fixed(dim).is_none()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Keeps the one output that is the score.
fn select_score(network: &mut InferenceModel) -> Result<(), Failure> {
    let outputs = network.output_outlets()?.to_vec();
    let score = match outputs.as_slice() {
        [only] => *only,
        several => several
            .iter()
            .copied()
            .find(|outlet| network.outlet_label(*outlet) == Some(SCORE_OUTPUT))
            .ok_or_else(|| {
                Failure(format!("has {} outputs, none named {SCORE_OUTPUT}", several.len()))
            })?,
    };
    network.select_output_outlets(&[score])?;
    Ok(())
}

thread_local! {
    /// Dropped at the thread's end, as tract's own thread-local memory is.
    static LIFE: Life = const { Life };
}

struct Life;

impl Drop for Life {
    fn drop(&mut self) {}
}

/// Runs tract code; a panic in it becomes a failure. So does a call from a thread whose thread-local memory is gone (a
/// destructor of the host's own, at the thread's end): tract would panic there, and again while that unwinds, which
/// aborts the process.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    if LIFE.try_with(|_| ()).is_err() {
        return Err(Failure("called by a thread that has ended".to_owned()));
    }
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            Err(Failure(format!("tract panicked: {}", text.unwrap_or("for no reason given"))))
        }
    }
}
