//! The encoder `codepoints-16x16`: the 2020 network's.
//!
//! The bytes of the dotted name (lower case, no final dot) as numbers, one a position, not scaled, filled up with
//! zeros to 256 and read as 16 rows of 16 with one channel. As there is one channel, the orders NHWC (1, 16, 16, 1) and
//! NCHW (1, 1, 16, 16) are the same in memory. A canonical name has at most 253 bytes, so nothing is ever cut.

use super::files::{Files, NETWORK};
use super::tract::{Input, InputType, Network};
use super::{Failure, Result, Scorer, in_range};
use crate::name::{MAX_WIRE, Name};

/// Numbers in the input.
const SIZE: usize = 256;

fn encode(name: &Name) -> [f32; SIZE] {
    let mut buffer = [0; MAX_WIRE];
    let mut input = [0.0; SIZE];
    input.iter_mut().zip(name.dotted(&mut buffer)).for_each(|(to, &from)| *to = f32::from(from));
    input
}

/// `codepoints-16x16` on tract.
pub(super) struct TractScorer {
    network: Network,
}

impl TractScorer {
    pub(super) fn load(files: &Files) -> Result<TractScorer> {
        let onnx = files.get(NETWORK)?;
        TractScorer::build(onnx).map_err(|reason| files.error(NETWORK, reason))
    }

    fn build(onnx: &[u8]) -> Result<TractScorer, Failure> {
        let network = Network::load(onnx, &[])?;
        network.expect(0, &[(InputType::F32, SIZE)])?;
        // A network that cannot run should fail now, not at each query.
        in_range(network.run(0, &[Input::F32(&[b'a'.into(); SIZE])])?)?;
        Ok(TractScorer { network })
    }
}

impl Scorer for TractScorer {
    fn raw_score(&self, name: &Name, _suffix: usize) -> Result<f32, Failure> {
        self.network.run(0, &[Input::F32(&encode(name))])
    }

    fn engine(&self) -> &'static str {
        "tract"
    }
}
