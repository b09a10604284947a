//! The encoder `chars`: one number a character, up to a length.
//!
//! The bytes of the dotted name (lower case, no final dot), each replaced by its number: `first` plus its place in the
//! vocabulary, or `unknown`. Of a name longer than the last of `lengths` only one end is kept. The input is as long as
//! the first of `lengths` that holds what is kept, filled up with `padding` behind the name; its shape is (1, length).
//! The network's input type, f32 or i64, decides how the numbers are handed over. A network of fixed size is always
//! run at its size, the one entry of `lengths`.

use super::files::{Files, NETWORK};
use super::manifest::{CharsSpec, KeptEnd};
use super::tract::{Input, InputType, Network};
use super::{Failure, Result, Scorer, in_range};
use crate::name::{MAX_WIRE, Name};

/// Most characters the network can see, which is more than a name has.
const MAX_LENGTH: usize = 256;

/// Turns names into numbers.
struct Encoder {
    number_of: [u16; 256],
    padding: u16,
    keep: KeptEnd,
    lengths: Vec<usize>,
}

impl Encoder {
    fn new(spec: &CharsSpec) -> Encoder {
        let mut number_of = [spec.unknown; 256];
        for (number, byte) in (spec.first..).zip(spec.vocabulary.bytes()) {
            if let Some(slot) = number_of.get_mut(usize::from(byte)) {
                *slot = number;
            }
        }
        let CharsSpec { padding, keep, .. } = *spec;
        Encoder { number_of, padding, keep, lengths: spec.lengths.clone() }
    }

    /// Writes the numbers of a name to the front of `input`; returns which of the lengths they fill, and that length.
    fn encode(&self, name: &Name, input: &mut [u16; MAX_LENGTH]) -> (usize, usize) {
        let mut buffer = [0; MAX_WIRE];
        let dotted = name.dotted(&mut buffer);
        let longest = self.lengths.last().copied().unwrap_or(0);
        let cut = dotted.len().saturating_sub(longest);
        let kept = match self.keep {
            KeptEnd::Start => dotted.get(..dotted.len() - cut),
            KeptEnd::End => dotted.get(cut..),
        };
        let kept = kept.unwrap_or(&[]);
        let plan = self.lengths.partition_point(|&length| length < kept.len());
        let numbers = kept.iter().filter_map(|&byte| self.number_of.get(usize::from(byte)));
        let padding = std::iter::repeat(&self.padding);
        input.iter_mut().zip(numbers.chain(padding)).for_each(|(to, number)| *to = *number);
        (plan, self.lengths.get(plan).copied().unwrap_or(longest))
    }
}

/// `chars` on tract.
pub(super) struct TractScorer {
    encoder: Encoder,
    network: Network,
    input_type: InputType,
}

impl TractScorer {
    pub(super) fn load(spec: &CharsSpec, files: &Files) -> Result<TractScorer> {
        let onnx = files.get(NETWORK)?;
        TractScorer::build(spec, onnx).map_err(|reason| files.error(NETWORK, reason))
    }

    fn build(spec: &CharsSpec, onnx: &[u8]) -> Result<TractScorer, Failure> {
        let network = Network::load(onnx, &spec.lengths)?;
        let input_type = network.first_input_type().unwrap_or(InputType::F32);
        let scorer = TractScorer { encoder: Encoder::new(spec), network, input_type };
        for (plan, &length) in spec.lengths.iter().enumerate() {
            scorer.network.expect(plan, &[(input_type, length)])?;
            scorer.try_every_number(plan, length)?;
        }
        Ok(scorer)
    }

    /// Runs the network on every number that a name can hold: one for which it has no embedding should fail now, not
    /// when a query brings it.
    fn try_every_number(&self, plan: usize, length: usize) -> Result<(), Failure> {
        let mut numbers = self.encoder.number_of.to_vec();
        numbers.push(self.encoder.padding);
        numbers.sort_unstable();
        numbers.dedup();
        for some in numbers.chunks(length) {
            let mut input = some.to_vec();
            input.resize(length, self.encoder.padding);
            in_range(self.run(plan, &input)?)?;
        }
        Ok(())
    }

    fn run(&self, plan: usize, numbers: &[u16]) -> Result<f32, Failure> {
        match self.input_type {
            InputType::F32 => {
                let mut input = [0.0; MAX_LENGTH];
                input.iter_mut().zip(numbers).for_each(|(to, &from)| *to = f32::from(from));
                self.network.run(plan, &[Input::F32(input.get(..numbers.len()).unwrap_or(&[]))])
            }
            InputType::I64 => {
                let mut input = [0; MAX_LENGTH];
                input.iter_mut().zip(numbers).for_each(|(to, &from)| *to = i64::from(from));
                self.network.run(plan, &[Input::I64(input.get(..numbers.len()).unwrap_or(&[]))])
            }
        }
    }
}

impl Scorer for TractScorer {
    fn raw_score(&self, name: &Name, _suffix: usize) -> Result<f32, Failure> {
        let mut numbers = [0; MAX_LENGTH];
        let (plan, length) = self.encoder.encode(name, &mut numbers);
        self.run(plan, numbers.get(..length).unwrap_or(&[]))
    }

    fn engine(&self) -> &'static str {
        "tract"
    }
}
