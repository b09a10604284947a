//! The encoder `chars`: one number a character, up to a length.
//!
//! The bytes of the dotted name (lower case, no final dot), each replaced by its number: `first` plus its place in the
//! vocabulary, or `unknown`. Of a name longer than the last of `lengths` only one end is kept. The input is as long as
//! the first of `lengths` that holds what is kept, filled up with `padding` behind the name; its shape is (1, length).
//! The network's input type, f32 or i64, decides how the numbers are handed over. A network of fixed size is always
//! run at its size, the one entry of `lengths`.

use super::Scorer;
use super::files::{Files, NETWORK};
use super::manifest::{CharsSpec, KeptEnd};
use super::tract::{Failure, Input, InputType, Network};
use crate::error::Result;
use crate::name::{MAX_WIRE, Name};

/// Most characters the network can see, which is more than a name has.
const MAX_LENGTH: usize = 256;

/// A name turned into numbers, in the type the network takes, and the length chosen.
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
        Encoder { number_of, padding: spec.padding, keep: spec.keep, lengths: spec.lengths.clone() }
    }

    /// Fills the front of `input` and returns which length was chosen (its index) and that length.
    fn encode<T: Copy + From<u16>>(
        &self,
        name: &Name,
        input: &mut [T; MAX_LENGTH],
    ) -> (usize, usize) {
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
        let numbers = kept.iter().map(|&byte| self.number_of.get(usize::from(byte)).copied());
        let padding = std::iter::repeat(Some(self.padding));
        for (to, number) in input.iter_mut().zip(numbers.chain(padding)) {
            *to = T::from(number.unwrap_or(self.padding));
        }
        (plan, self.lengths.get(plan).copied().unwrap_or(longest))
    }
}

/// `chars` on tract.
pub(super) struct TractScorer {
    encoder: Encoder,
    network: Network,
    kind: InputType,
}

impl TractScorer {
    pub(super) fn load(spec: &CharsSpec, files: &Files) -> Result<TractScorer> {
        let onnx = files.get(NETWORK)?;
        TractScorer::build(spec, onnx).map_err(|reason| files.error(NETWORK, reason))
    }

    fn build(spec: &CharsSpec, onnx: &[u8]) -> std::result::Result<TractScorer, Failure> {
        let network = Network::load(onnx, &spec.lengths)?;
        let kind = network.first_input_type().unwrap_or(InputType::F32);
        for (plan, &length) in spec.lengths.iter().enumerate() {
            network.expect(plan, &[(kind, length)])?;
        }
        Ok(TractScorer { encoder: Encoder::new(spec), network, kind })
    }
}

impl Scorer for TractScorer {
    fn raw_score(&self, name: &Name) -> Result<f32> {
        let score = match self.kind {
            InputType::F32 => {
                let mut input = [0.0_f32; MAX_LENGTH];
                let (plan, length) = self.encoder.encode(name, &mut input);
                self.network.run(plan, &[Input::F32(input.get(..length).unwrap_or(&[]))])
            }
            InputType::I64 => {
                let mut input = [0_i64; MAX_LENGTH];
                let (plan, length) = self.encoder.encode(name, &mut input);
                self.network.run(plan, &[Input::I64(input.get(..length).unwrap_or(&[]))])
            }
        };
        Ok(score?)
    }

    fn engine(&self) -> &'static str {
        "tract"
    }
}
